"""``.gitignore`` and ``.dockerignore``: what of a folder is left out. The only home of pathspec.

A path is left out where either file says so. ``.gitignore`` files count in every folder, for
what is below it, the nearer one last, as git reads them; ``.dockerignore`` counts in the
uploaded folder alone, and its patterns are all rooted there, as docker reads them. ``.git`` is
left out always.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from cloudai.core.errors import InvalidInput

LARGEST = 1024**2
"""Bytes of one such file."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is left out below one folder."""

    git: tuple[tuple[str, GitIgnoreSpec], ...] = ()
    """(folder with its slash, rules), from the top down."""
    docker: GitIgnoreSpec | None = None
    brings_back: bool = False
    """``.dockerignore`` has exceptions: what it leaves out may hold what it does not."""

    def below(self, folder: Path, prefix: str) -> Rules:
        """The rules within a folder whose path in the tree is ``prefix`` (``""`` or ``a/b/``).
        Raises ``InvalidInput`` for a file that cannot be read as rules."""
        found = self
        if (spec := _read(folder / ".gitignore")) is not None:
            found = Rules((*self.git, (prefix, spec)), self.docker, self.brings_back)
        if prefix:
            return found
        lines = _lines(folder / ".dockerignore")
        if not lines:
            return found
        rooted = [_rooted(line) for line in lines]
        spec = _spec(rooted, folder / ".dockerignore")
        return Rules(found.git, spec, any(line.startswith("!") for line in rooted))

    def leaves_out(self, path: str, *, folder: bool) -> bool:
        """Whether that path of the tree is left out; of a folder, with all that is in it."""
        name = path.rpartition("/")[2]
        if name == ".git":
            return True
        asked = f"{path}/" if folder else path
        docker = None if folder and self.brings_back else self.docker
        if docker is not None and docker.match_file(asked):
            return True
        out: bool | None = None
        for prefix, spec in self.git:
            said = spec.check_file(asked[len(prefix) :]).include
            out = out if said is None else said
        return bool(out)


def _rooted(line: str) -> str:
    """A pattern of docker's as git would write it."""
    mark = "!" if line.startswith("!") else ""
    return f"{mark}/{line.removeprefix('!').strip().removeprefix('./').lstrip('/')}"


def _lines(path: Path) -> list[str]:
    """Without comments and empty lines."""
    try:
        if path.stat().st_size > LARGEST:
            raise InvalidInput(f"{path} is larger than {LARGEST} bytes", field="uploads")
        text = path.read_text("utf-8", errors="surrogateescape")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return []
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", field="uploads") from None
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _read(path: Path) -> GitIgnoreSpec | None:
    lines = _lines(path)
    return _spec(lines, path) if lines else None


def _spec(lines: list[str], path: Path) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise InvalidInput(f"{path}: {error}", field="uploads") from None
