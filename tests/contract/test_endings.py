"""How a real worker ends containers by itself: silence, and the signal that gives time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from cloudai.core.endings import Ending
from cloudai.engines.docker import DockerEngine
from cloudai.engines.docker.api_watch import Way
from tests.fleet_lab import Fleet, Worker
from tests.fleet_lab.fleet import reserved_root

from .shells import opened_shell
from .test_engine_start import There, inspect, order, output, running, said, spec_of, until
from .test_engine_start import watchers as limit_watchers

SERIES = """trap 'echo checkpoint; exit 0' USR1
trap 'echo term; exit 0' TERM
echo ready
while :; do sleep 0.1; done"""
"""A job that writes a checkpoint when it is told to."""
DEAF = "trap 'echo caught' USR1; trap '' TERM; echo ready; while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with reserved_root() as root, Fleet(root, workers=1) as fleet:
        yield fleet.workers[0]


@contextlib.asynccontextmanager
async def an_engine(
    worker: Worker, folder: Path, kind: str, way: Way = "api"
) -> AsyncIterator[DockerEngine]:
    async with opened_shell(kind, worker, folder) as shell:
        there = There(shell, f"PATH={worker.search_path}; export PATH")
        engine = DockerEngine(spec_of(worker), there, watch_via=way)
        yield engine
        await engine.close()


@pytest.fixture
async def engine(worker: Worker, tmp_path: Path) -> AsyncIterator[DockerEngine]:
    async with an_engine(worker, tmp_path, "local") as engine:
        yield engine
    worker.remove_containers()


def ran(worker: Worker, name: str) -> float:
    """Seconds between its start and its end, by its engine."""
    state = inspect(worker, name)["State"]
    began, over = (
        datetime.fromisoformat(state[key][:26] + "+00:00") for key in ("StartedAt", "FinishedAt")
    )
    return (over - began).total_seconds()


def log(worker: Worker, name: str) -> str:
    return worker.docker("logs", name).stdout


async def ended(worker: Worker, name: str) -> None:
    await until(lambda: not inspect(worker, name)["State"]["Running"], within=40)
    await until(lambda: not limit_watchers(name), within=10)


@pytest.mark.parametrize(("kind", "way"), [("local", "api"), ("ssh", "cli")])
async def test_silence_is_ended_with_nobody_connected_and_noted(
    kind: str, way: Way, worker: Worker, tmp_path: Path
) -> None:
    silent = order("sleep", "600", first_output=2, idle_output=600)
    slower = order(
        shell="for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done; sleep 600",
        first_output=2,
        idle_output=3,
    )
    async with an_engine(worker, tmp_path, kind, way) as engine:
        for placed in (silent, slower):
            await running(engine, placed)
    for placed in (silent, slower):
        await ended(worker, placed.assignment_id)
    assert 2 <= ran(worker, silent.assignment_id) <= 2 + 6
    assert 5.5 <= ran(worker, slower.assignment_id) <= 6 + 7
    async with an_engine(worker, tmp_path, kind, way) as engine:
        assert await engine.ending(silent.assignment_id) is Ending.FIRST
        assert await engine.ending(slower.assignment_id) is Ending.IDLE
        assert await engine.ending(order().assignment_id) is None
        for placed in (silent, slower):
            await engine.remove(placed.assignment_id)
    assert worker.docker("volume", "ls", "-q").stdout == "", "nothing is left"


async def test_a_limit_gives_time_for_a_checkpoint_and_is_a_limit_all_the_same(
    engine: DockerEngine, worker: Worker
) -> None:
    placed = order(shell=SERIES, time_limit=12, signal="USR1", signal_before=10)
    await running(engine, placed)
    await ended(worker, placed.assignment_id)
    assert log(worker, placed.assignment_id) == "ready\ncheckpoint\n"
    assert inspect(worker, placed.assignment_id)["State"]["ExitCode"] == 0
    assert 2 <= ran(worker, placed.assignment_id) <= 2 + 8
    assert await engine.ending(placed.assignment_id) is Ending.LIMIT
    worker.docker("rm", "-f", placed.assignment_id)
    await engine.remove(placed.assignment_id)
    assert worker.docker("volume", "ls", "-q").stdout == "", "its container went by hand"


async def test_a_signal_is_sent_once_by_whomever(engine: DockerEngine, worker: Worker) -> None:
    placed = order(shell=DEAF)
    await running(engine, placed)
    await said(worker, placed, "ready")
    first = asyncio.create_task(
        engine.stop(placed.assignment_id, grace=0, signal="USR1", before=600)
    )
    await said(worker, placed, "caught")
    first.cancel()  # its controller was killed
    await asyncio.gather(first, return_exceptions=True)
    await engine.stop(placed.assignment_id, grace=0, signal="USR1", before=1)
    assert log(worker, placed.assignment_id) == "ready\ncaught\n"
    assert not inspect(worker, placed.assignment_id)["State"]["Running"]
    await engine.stop(placed.assignment_id, grace=0, signal="USR1", before=1)
    await engine.remove(placed.assignment_id)


async def test_a_stop_waits_no_longer_than_the_checkpoint(
    engine: DockerEngine, worker: Worker
) -> None:
    placed = order(shell=SERIES)
    await running(engine, placed)
    await said(worker, placed, "ready")
    worker.docker("pause", placed.assignment_id)
    async with asyncio.timeout(20):
        await engine.stop(placed.assignment_id, grace=10, signal="USR1", before=600)
    assert log(worker, placed.assignment_id) == "ready\ncheckpoint\n"
    await engine.remove(placed.assignment_id)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ('#!/bin/sh -e\necho "$# $1 $2"\nfalse\necho never', "2 a b $HOME 'c'\n"),
        ("#!\nset -- \"$@\" 'it''s'; echo $3", "its\n"),
        ("#!/bin/awk -f\nBEGIN { print ARGC }", "3\n"),
        ("#!/nosuch/bash\necho never", ""),
    ],
)
async def test_a_script_is_its_interpreters(
    script: str, said: str, engine: DockerEngine, worker: Worker
) -> None:
    placed = order("a", "b $HOME 'c'", shell=script)
    assert await output(engine, worker, placed) == said
    if "nosuch" in script:
        words = worker.docker("logs", placed.assignment_id).stderr
        assert "the image has no /nosuch/bash" in words
        assert inspect(worker, placed.assignment_id)["State"]["ExitCode"] == 127


async def test_a_signal_reaches_the_scripts_own_shell(engine: DockerEngine, worker: Worker) -> None:
    placed = order(shell=f"#!/bin/sh\n{SERIES}\n")
    await running(engine, placed)
    await said(worker, placed, "ready")
    await engine.stop(placed.assignment_id, grace=10, signal="USR1", before=600)
    assert log(worker, placed.assignment_id) == "ready\ncheckpoint\n"
    await engine.remove(placed.assignment_id)
