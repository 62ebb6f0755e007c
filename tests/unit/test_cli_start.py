"""What starts fast: help and completion import click and the standard library only."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cloudai.cli.entry import COMMANDS
from tests.unit.cli_case import command, environment
from tests.unit.stub_controller import (
    TASK_ID,
    Asked,
    Reply,
    StubController,
    make_task,
    make_worker,
)

NAMES = [name for section in COMMANDS.values() for name in section]
REPORT = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
from cloudai.cli import main
many = sys.argv[1:2] == ["EACH"]
sys.exit(max(main([one, "--help"]) for one in sys.argv[2:]) if many else main())
"""


def imported(home: Path, *args: str, **env: str) -> tuple[subprocess.CompletedProcess[str], set]:
    """The run, and the modules it had loaded at its end."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT, *args],
        env=environment(home, **env),
        capture_output=True,
        text=True,
        check=False,
    )
    return done, set(json.loads(done.stderr.splitlines()[-1]))


def foreign(modules: set[str]) -> set[str]:
    """Roots of modules that are neither ours, click's nor the standard library's; what an
    installation of Python, or an editable install, loads for every program does not count."""
    roots = {name.partition(".")[0] for name in modules}
    known = {"click", "cloudai", "__main__", "sitecustomize", "_distutils_hack"}
    everywhere = {name for name in roots if name.startswith("__editable__")}
    return roots - sys.stdlib_module_names - known - everywhere


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["EACH", *NAMES]])
def test_help_imports_click_and_the_standard_library_only(args: list[str], home: Path) -> None:
    done, modules = imported(home, *args)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage:") == {"--help": 1, "--version": 0}.get(args[0], len(NAMES))
    assert not foreign(modules)
    assert not any(name.startswith(("cloudai.client", "cloudai.core")) for name in modules)


def test_the_list_of_commands_imports_none_of_them(home: Path) -> None:
    _, modules = imported(home, "--help")
    assert "cloudai.cli.submit" not in modules
    assert "http.client" not in modules


def complete(home: Path, *words: str) -> tuple[list[str], set[str]]:
    """What bash is offered for the last word, and what was imported for it."""
    env = {
        "_CLOUDAI_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["cloudai", *words]),
        "COMP_CWORD": str(len(words)),
    }
    done, modules = imported(home, **env)
    assert done.returncode == 0, done.stderr
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line], modules


def test_commands_and_flags_are_completed(home: Path) -> None:
    offered, modules = complete(home, "wor")
    assert offered == ["workers"]
    assert not foreign(modules)
    offered, _ = complete(home, "task", "--m")
    assert offered == ["--memory", "--mount"]


def test_tasks_and_workers_are_completed_while_a_controller_runs(
    home: Path, stub: StubController
) -> None:
    odd = make_task(task_id="task-9", name="$(touch evil)")
    tasks = [make_task(name="train"), odd]
    stub.on("GET /tasks/", {"tasks": tasks, "total": 2})
    workers = [make_worker(worker_id="gpu1"), make_worker(worker_id="gpu2")]
    stub.on("GET /workers/", {"workers": workers})

    offered, modules = complete(home, "monitor", "t")
    assert offered == [TASK_ID, "train", "task-9"]
    assert not foreign(modules)
    assert complete(home, "stats", "gpu")[0] == ["gpu1", "gpu2"]
    assert complete(home, "dispatch", "")[0] == ["gpu1", "gpu2"]


def test_completion_starts_no_controller_and_waits_for_none(home: Path) -> None:
    assert complete(home, "monitor", "")[0] == []
    assert not home.exists()
    over = threading.Event()

    def silent(_: Asked) -> Reply:
        over.wait(20)
        return Reply({"tasks": [], "total": 0})

    with StubController(home) as stub:
        stub.on("GET /tasks/", silent)
        before = time.monotonic()
        assert complete(home, "monitor", "")[0] == []
        # It gives up after 0.2 s; the rest is for a slow machine to start Python.
        assert time.monotonic() - before < 10
        over.set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_the_shells(shell: str, home: Path) -> None:
    done = subprocess.run(
        command("completion", shell), env=environment(home), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"_CLOUDAI_COMPLETE" in done.stdout
    if shell == "bash":
        checked = subprocess.run(
            ["bash", "-n"], input=done.stdout, capture_output=True, check=False
        )
        assert checked.returncode == 0, checked.stderr
