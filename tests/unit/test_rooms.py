"""The rooms of ``docs/architecture.md``: imports point one way, each library has one home."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cloudai"

MAY_IMPORT = {
    "core": set(),
    "scripts": set(),
    "expressions": {"core"},
    "crontimes": {"core"},
    "crash": set(),
    "disk": {"core"},
    "inventory": {"core", "disk"},
    "shells": {"core", "disk"},
    "engines": {"core", "scripts", "shells"},
    "store": {"crash", "core", "disk"},
    "vault": {"core", "disk"},
    "secrets": {"core", "disk"},
    "registries": {"core", "disk"},
    "archive": {"crash", "core", "disk"},
    "batches": {"core", "expressions"},
    "tasktypes": {"core", "batches", "expressions"},
    "files": {"crash", "core", "disk"},
    "service": {
        "crash",
        "core",
        "store",
        "vault",
        "secrets",
        "registries",
        "archive",
        "batches",
        "expressions",
        "tasktypes",
        "files",
    },
    "controller": {
        "crash",
        "core",
        "engines",
        "shells",
        "inventory",
        "service",
        "store",
        "archive",
        "files",
        "disk",
        "crontimes",
    },
    "api": {
        "core",
        "crontimes",
        "engines",
        "shells",
        "inventory",
        "registries",
        "secrets",
        "service",
        "controller",
        "tasktypes",
    },
    "daemon": {"core", "engines", "shells", "inventory", "service", "controller", "api"},
    "client": {"core"},
    "simulate": {"core", "inventory"},
    "plain": set(),
    "markup": {"plain"},
    "records": {"core", "markup"},
    "graph": {"markup"},
    "cli": {"core", "client", "daemon", "simulate", "plain", "records", "graph", "files"},
    "__main__": {"cli"},
    "__init__": set(),
}
"""Room -> the rooms it may know. An engine receives a shell: it knows the protocol, never an
implementation (checked below)."""

HOMES = {
    "asyncssh": {"shells"},
    "tenacity": {"shells"},
    "pathspec": {"files"},
    "jinja2": {"scripts", "expressions"},
    "sqlmodel": {"store"},
    "sqlalchemy": {"store"},
    "alembic": {"store"},
    "fastapi": {"api"},
    "starlette": {"api"},
    "pydantic": {"api"},
    "uvicorn": {"daemon"},
    "click": {"cli"},
    "rich": {"cli"},
    "setproctitle": {"cli"},
    "websockets": {"cli", "client"},
    "docker": {"controller/embedded.py", "controller/local_images.py"},
    "keyring": {"secrets/ask_keyring.py"},
    "prompt_toolkit": {"cli/prompting.py"},
    "ruamel": {"inventory", "batches"},
    "aiohttp": {"engines"},
    "numpy": {"core", "simulate"},
    "cronsim": {"crontimes"},
    "tzlocal": {"crontimes"},
}

FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Dotted names of everything a file imports, wherever in it, relative ones made absolute."""
    parts = ("cloudai", *path.relative_to(PACKAGE).with_suffix("").parts)
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(parts[: -node.level]) if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            names |= {f"{module}.{alias.name}" for alias in node.names} | {module}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way_and_libraries_stay_at_home(path):
    room = room_of(path)
    for name in imported(path):
        top, *rest = name.split(".")
        if top == "cloudai" and rest and rest[0] != "__version__":
            assert rest[0] == room or rest[0] in MAY_IMPORT[room], f"{room} imports {name}"
            if room == "engines" and rest[0] == "shells":
                assert rest[1:2] not in (["ssh"], ["local"]), f"{path.name} imports a shell"
        if top in HOMES:
            where = str(path.relative_to(PACKAGE))
            assert any(where.startswith(home) for home in HOMES[top]), f"{where} imports {top}"


def test_nothing_outside_the_engines_knows_the_first_engine():
    """``engines.docker`` is named where the process is put together, and nowhere else."""
    for path in FILES:
        if room_of(path) not in ("engines", "daemon"):
            assert not any(name.startswith("cloudai.engines.docker") for name in imported(path))


def test_the_core_knows_no_clock_disk_or_network():
    banned = {"os", "time", "pathlib", "socket", "asyncio", "subprocess", "random", "logging"}
    for path in (PACKAGE / "core").glob("*.py"):
        assert not {name.split(".")[0] for name in imported(path)} & banned, path.name
