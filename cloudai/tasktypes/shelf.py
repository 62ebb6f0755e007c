"""Where templates lie: the project's folder, the home's, the shipped one; the first that has a
name counts.

The project is the folder in which the inventory in use stands (``inventory/hosts.yaml`` and
``templates/tasks/`` side by side), so that the command line, curl, cron and schedules all mean
the same by a name. Any other file is meant by its whole path.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cloudai.core.errors import CloudaiError, InvalidInput, NotFound
from cloudai.core.request import OF_THE_QUEUE
from cloudai.core.wording import did_you_mean, shown

from .reading import TaskType, read_type
from .rendering import body_of, merged

PACKAGED = Path(__file__).parents[1] / "templates" / "tasks"
IN_CHECKOUT = Path(__file__).parents[2] / "templates" / "tasks"
WITHIN = Path("templates", "tasks")
"""Where they lie in a project, and in the home."""
ENDING = ".yaml.j2"
LARGEST = 1024 * 1024
"""Bytes of one."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Listed:
    """A template that a name finds."""

    name: str
    file: str
    origin: str
    """``project``, ``home``, ``shipped`` or ``file``."""
    kind: TaskType | None
    """``None``: it cannot be read."""
    problem: str = ""
    """Why not."""


def shipped() -> Path:
    """The folder that comes with cloudai: inside the installed package, or in the checkout."""
    return PACKAGED if PACKAGED.is_dir() else IN_CHECKOUT


def project_of(inventory: Path) -> Path:
    """The folder of the project whose inventory that is."""
    return inventory.parent.parent if inventory.parent.name == "inventory" else inventory.parent


class TaskTypes:
    """All templates that can be meant by name now. Files are read when they are asked for."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.inventory: Callable[[], Path | None] = lambda: None
        """The path of the inventory in use; set by who knows."""

    def folders(self) -> list[tuple[str, Path]]:
        """Each with whose it is, the first one first."""
        found = [("home", self._home / WITHIN), ("shipped", shipped())]
        if (inventory := self.inventory()) is not None:
            project = project_of(inventory) / WITHIN
            if project not in (folder for _, folder in found):
                found.insert(0, ("project", project))
        return found

    def find(self, name: str) -> tuple[TaskType, str]:
        """By name, or by the whole path of a file, and where it was found. Raises ``NotFound``,
        and ``FileInvalid`` for one that cannot be read."""
        if name.startswith("/"):
            return self._read(Path(name), missing=True), "file"
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                f"task_type: {shown(name)}; give the name of a template, or the whole path of its"
                f" file, which ends in {ENDING}",
                field="task_type",
            )
        for origin, folder in self.folders():
            path = folder / f"{name}{ENDING}"
            if path.exists():
                return self._read(path), origin
        raise self._unknown(name)

    def _unknown(self, name: str) -> NotFound:
        names = sorted({name for name, _, _ in self._all()})
        return NotFound(
            f"no task type {shown(name)}; {did_you_mean(name, names)}",
            hint="`cloudai templates list` shows each with its place",
            task_type=name,
        )

    def listed(self) -> list[Listed]:
        """What each name finds, in the order of names; those that cannot be read with the
        reason."""
        found: dict[str, Listed] = {}
        for name, origin, path in self._all():
            if name not in found:
                found[name] = self._listed(name, origin, path)
        return [found[name] for name in sorted(found)]

    def one(self, name: str) -> Listed:
        """As ``find`` and with its raises."""
        kind, origin = self.find(name)
        return Listed(kind.name, kind.file, origin, kind)

    def expand(self, body: Mapping[str, object], *, direct: bool = False) -> dict[str, object]:
        """A body that names a ``task_type`` as one that says it all, without ``parameters``.
        ``direct``: it will pass the queue by, so what the template asks of that is left out.
        Raises ``InvalidInput`` and ``NotFound``."""
        asked = dict(body)
        name, parameters = asked.pop("task_type"), asked.pop("parameters", None)
        if not isinstance(name, str):
            raise InvalidInput(
                f"task_type: {shown(name)}; give the name of a template", field="task_type"
            )
        kind, _ = self.find(name)
        own = body_of(kind, parameters)
        if direct:
            own = {field: value for field, value in own.items() if field not in OF_THE_QUEUE}
        return {**merged(own, asked), "task_type": kind.name}

    def _all(self) -> Iterator[tuple[str, str, Path]]:
        for origin, folder in self.folders():
            try:
                names = sorted(os.listdir(folder))
            except OSError:
                continue
            for file in names:
                name = file.removesuffix(ENDING)
                if file.endswith(ENDING) and _NAME.fullmatch(name):
                    yield name, origin, folder / file

    def _listed(self, name: str, origin: str, path: Path) -> Listed:
        try:
            return Listed(name, str(path), origin, self._read(path))
        except CloudaiError as wrong:
            return Listed(name, str(path), origin, None, wrong.message)

    def _read(self, path: Path, *, missing: bool = False) -> TaskType:
        name = path.name.removesuffix(ENDING)
        if not path.name.endswith(ENDING) or not _NAME.fullmatch(name):
            raise InvalidInput(
                f"{path}: a template's name ends in {ENDING}, such as mine{ENDING}",
                field="task_type",
            )
        try:
            text = _text_of(path)
        except FileNotFoundError:
            if missing:
                raise NotFound(f"there is no file {path}", task_type=str(path)) from None
            raise self._unknown(name) from None
        except OSError as wrong:
            raise InvalidInput(f"{path}: {wrong.strerror}", field="task_type") from None
        return read_type(name, str(path), text)


def _text_of(path: Path) -> str:
    """Its text. Raises ``OSError``, and ``InvalidInput`` for what is no text file."""
    # Never waits for a writer, should it be a pipe.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InvalidInput(f"{path}: it is no file", field="task_type")
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise InvalidInput(f"{path}: it is larger than 1 MiB", field="task_type")
    try:
        return data.decode()
    except UnicodeDecodeError as wrong:
        line = data.count(b"\n", 0, wrong.start) + 1
        raise InvalidInput(f"{path}:{line}: it is not UTF-8 text", field="task_type") from None
