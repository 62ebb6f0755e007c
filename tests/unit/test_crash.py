"""Crash points: the registry and the code name the same places, and a visit really ends it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from cloudai.crash import CRASH_POINTS

CHECKOUT = Path(__file__).parents[2]
VISITS = """
from cloudai.crash import point
for visit in range(1, 6):
    point("exit.seen")
    print(visit, flush=True)
"""


def named_in_the_code() -> list[str]:
    names = []
    for path in (CHECKOUT / "cloudai").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "point":
                [name] = node.args
                assert isinstance(name, ast.Constant), f"{path}: a name that cannot be listed"
                names.append(str(name.value))
    return names


def test_every_place_has_one_name_and_every_name_one_place():
    assert sorted(named_in_the_code()) == sorted(CRASH_POINTS)


def run(*words: str, at: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env={"PYTHONPATH": str(CHECKOUT), "CLOUDAI_CRASH_AT": at},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("at", "code", "visits"),
    [
        ("", 0, 5),
        ("exit.recorded", 0, 5),
        ("exit.seen", 137, 0),
        ("exit.seen:1", 137, 0),
        ("exit.seen:3", 137, 2),
        ("exit.seen:9", 0, 5),
        ("exit.seen:x", 137, 0),
    ],
)
def test_it_dies_there_and_then_and_nowhere_else(at, code, visits):
    done = run("-c", VISITS, at=at)
    assert (done.returncode, len(done.stdout.splitlines())) == (code, visits), done.stderr


def test_the_names_can_be_listed():
    listed = run("-m", "cloudai.crash").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(CRASH_POINTS)
