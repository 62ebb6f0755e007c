"""``init``: a new project with an inventory, a sample task, a task type and a batch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from .options import common
from .output import say
from .session import Session

PACKAGED = Path(__file__).parents[1] / "samples"
IN_CHECKOUT = Path(__file__).parents[2] / "samples"
INVENTORY = Path("inventory", "hosts.yaml")
_OF_PACKAGES = ("__init__.py", "__pycache__")


@click.command()
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
@common
@click.pass_obj
def init_command(session: Session, folder: Path) -> int:
    """Begin a project in DIR: an example inventory, a sample task, a task type, a batch.

    Nothing that is there is overwritten; what was there already is told.

    \b
      cloudai init lab && cd lab
    """
    from cloudai.core.errors import Conflict

    files = dict(_samples())
    if blocked := _in_the_way(folder, files):
        raise Conflict(
            f"{blocked} is no folder, and one has to be there; nothing was made",
            hint="`cloudai init OTHER_DIR` begins elsewhere",
        )
    made: list[str] = []
    kept: list[str] = []
    for path, source in files.items():
        mine = made if _make(folder / path, source) else kept
        mine.append(str(path))
    answer = {"folder": str(folder.absolute()), "created": made, "kept": kept}
    session.show(answer, lambda answer: _tell(folder, answer), quiet=made)
    return 0


def _samples() -> Iterator[tuple[Path, Path]]:
    """Where each file goes within a project, and where it comes from."""
    root = PACKAGED if PACKAGED.is_dir() else IN_CHECKOUT
    shipped = root / INVENTORY
    # In a checkout the example stands at the top, where people look for it.
    yield INVENTORY, shipped if shipped.exists() else root.parent / INVENTORY
    for path in sorted(root.rglob("*")):
        within = path.relative_to(root)
        hidden = any(part in _OF_PACKAGES for part in within.parts)
        if path.is_file() and not hidden and within != INVENTORY:
            yield within, path


def _in_the_way(folder: Path, files: dict[Path, Path]) -> Path | None:
    """What stands where a folder is needed."""
    needed = {folder, *folder.absolute().parents}
    needed |= {folder / above for path in files for above in path.parents}
    return next((path for path in sorted(needed) if path.exists() and not path.is_dir()), None)


def _make(target: Path, source: Path) -> bool:
    """Copies it whole, unless something is there. Raises ``OSError``."""
    if os.path.lexists(target):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    begun = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        begun.write_bytes(source.read_bytes())
        begun.chmod(0o755 if target.suffix == ".sh" else 0o644)
        _put(begun, target)
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            begun.unlink()
    return True


def _put(begun: Path, target: Path) -> None:
    """Gives a whole file its name. Raises ``FileExistsError`` where something has it."""
    try:
        # Unlike a renamed file, a linked one never takes the place of another.
        os.link(begun, target)
    except FileExistsError:
        raise
    except OSError:
        # A disk without hard links.
        with target.open("xb") as file:
            file.write(begun.read_bytes())
        target.chmod(begun.stat().st_mode & 0o777)


def _tell(folder: Path, answer: dict[str, Any]) -> None:
    made, kept = answer["created"], answer["kept"]
    files = "1 file" if len(made) == 1 else f"{len(made)} files"
    say(f"✅ {folder}: {files} made" if made else f"✅ {folder}: everything was there")
    if made and kept:
        say(f"  left as it was: {', '.join(kept)}")
    say()
    say("Now:")
    if folder.absolute() != Path.cwd():
        say(f"  cd {folder}")
    for line, does in _NEXT:
        say(f"  {line.ljust(44)}{does}")


_NEXT = (
    ("cloudai register worker-1 ann@10.0.0.11", "adds a worker; local is there"),
    ("cloudai doctor", "checks both sides"),
    ("SAMPLE_TASKS/task1/test_local.sh", "tries the task here"),
    ("SAMPLE_TASKS/task1/build.sh", "pushes its image for workers"),
    ("cloudai task --type sample --follow", "runs it here, on local"),
    ("cloudai batch nightly.yaml --dry-run", "shows what a batch would be"),
    ("cloudai templates list", "models that run as they are"),
)
