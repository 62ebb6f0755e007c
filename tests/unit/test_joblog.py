"""The job log is what GNU parallel writes, to the byte, and what ``--resume`` can trust."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai.core.fingerprint import fingerprint
from cloudai.core.model import Resources, TaskSpec
from cloudai.records.joblog import HEADER, Appending, completed_in, line_of, whole_lines

GOLDEN = Path(__file__).parents[1] / "data" / "joblog" / "parallel-20221122.tsv"
"""Written by GNU parallel 20221122, of jobs it ran on another machine (``-S gpu1``)."""
BEGAN = datetime(2026, 1, 31, 12, tzinfo=UTC)


def task(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "task_id": f"task-1-{number}",
        "status": "completed",
        "skipped": False,
        "worker_id": "gpu1",
        "exit_code": 0,
        "command": "true",
        "docker_image": "alpine",
        "started_at": "2026-01-31T12:00:00.000000Z",
        "completed_at": "2026-01-31T12:00:02.500000Z",
        "fingerprint": f"{number:016x}",
        **changes,
    }


def failed(number: int, code: int | None = 3, **changes: Any) -> dict[str, Any]:
    return task(number, status="failed", exit_code=code, **changes)


def lines_of(log: str) -> list[str]:
    assert log.endswith("\n")
    return log.removesuffix("\n").split("\n")


def test_the_lines_are_those_of_gnu_parallel() -> None:
    head, *golden = lines_of(GOLDEN.read_text("utf-8"))
    assert head + "\n" == HEADER
    assert len(golden) == 9
    for told in golden:
        seq, host, start, runtime, send, _received, code, signal, command = told.split("\t")
        began = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=round(float(start) * 1000))
        lasted = timedelta(milliseconds=round(float(runtime) * 1000))
        one = task(
            status="completed" if code == "0" else "failed",
            exit_code=int(code),
            worker_id=host,
            command=command.replace("\0", "\n"),
            started_at=began.isoformat(),
            completed_at=(began + lasted).isoformat(),
        )
        # Of what a job wrote only parallel counts the bytes.
        wanted = [seq, host, start, runtime, send, "0", code, signal, command]
        expected = "\t".join(wanted) + " # cloudai:0000000000000001\n"
        assert line_of(one, int(seq)) == expected


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (task(), "0"),
        (failed(1, 137), "137"),
        (failed(1, None), "125"),
        (failed(1, 0, reason="time limit of 5 s reached"), "125"),
        (task(status="cancelled", exit_code=143), "125"),
        (failed(1, None, started_at=None, worker_id=None), "125"),
    ],
)
def test_what_did_not_complete_never_looks_as_if_it_had(ended: Any, code: str) -> None:
    told = line_of(ended, 1)
    assert told is not None
    assert told.split("\t")[6:8] == [code, "0"]
    assert bool(completed_in(told.encode())) == (code == "0")


@pytest.mark.parametrize(
    "ended",
    [
        task(status="queued", completed_at=None),
        task(status="running", completed_at=None),
        task(status="cancelled", skipped=True, started_at=None, exit_code=None),
        task(status="cancelled", started_at=None, exit_code=None),
    ],
)
def test_what_never_ran_has_no_line(ended: Any) -> None:
    assert line_of(ended, 1) is None


@settings(max_examples=60)
@given(st.text(max_size=40), st.text(max_size=20))
def test_nine_columns_whatever_a_command_or_a_worker_is_called(command: str, prefix: str) -> None:
    one = task(command=f"{prefix} # cloudai:feed\t0\t0\n{command}")
    told = line_of(one, 7)
    assert told is not None
    assert told.count("\n") == 1
    assert len(told.split("\t")) == 9
    assert told.splitlines(keepends=True) == [told]
    assert completed_in(told.encode()) == Counter({"0000000000000001": 1})


def test_a_worker_set_back_in_time_gives_no_negative_time() -> None:
    told = line_of(task(completed_at="2026-01-31T11:59:00Z"), 1)
    assert told is not None
    assert told.split("\t")[3] == "     0.000"


# ------------------------------------------------------------------ resuming


def log_of(tasks: list[Any], log: bytes = b"", ended: list[Any] | None = None) -> bytes:
    lines = Appending(log, tasks)
    return log + "".join(lines.add(one) for one in ended or tasks).encode()


def test_resume_goes_by_what_a_task_is_and_how_often_it_completed() -> None:
    twins = [task(1, fingerprint="aa"), task(2, fingerprint="aa"), failed(3, fingerprint="bb")]
    assert completed_in(log_of(twins)) == {"aa": 2}
    assert completed_in(log_of(twins, ended=twins[1:])) == {"aa": 1}
    # Parallel's trap: another order, or another file, would skip the wrong ones.
    assert completed_in(log_of(twins[::-1])) == {"aa": 2}


@settings(max_examples=60)
@given(st.integers(0, 10_000))
def test_wherever_a_writer_is_killed_no_task_counts_that_did_not_complete(at: int) -> None:
    tasks = [task(1), failed(2), task(3, command="a\tb\nc"), task(4)]
    whole = log_of(tasks)
    cut = whole[: at % (len(whole) + 1)]
    done = completed_in(cut)
    assert done <= completed_in(whole)
    # Whoever goes on writes what is missing, each line once, and whole ones only.
    again = log_of(tasks, cut)
    assert again.startswith(cut)
    assert completed_in(again) >= completed_in(whole)
    kept = [one.rest for one in whole_lines(again)]
    assert set(kept) >= {one.rest for one in whole_lines(whole)}
    assert log_of(tasks, again) == again


def test_a_half_line_is_ended_and_foreign_lines_are_kept() -> None:
    before = HEADER.encode() + b"7\thost\t1.000\t     0.1\t0\t0\t0\t0\tmine\nno line at all\n8\thos"
    log = log_of([task(1)], before)
    assert log.startswith(before + b"\n")
    assert completed_in(log) == {"0000000000000001": 1}
    assert log.count(b"Seq") == 1


def test_numbers_are_places_in_the_batch_and_never_stand_twice() -> None:
    first = [failed(1), task(2), task(3)]
    log = log_of(first, ended=[first[2], first[0]])
    assert [one.seq for one in whole_lines(log)] == [3, 1]
    # The same batch, after its client was killed.
    log = log_of(first, log)
    assert [one.seq for one in whole_lines(log)] == [3, 1, 2]
    # Another batch, as --resume submits it.
    log = log_of([task(9, fingerprint="0000000000000001")], log)
    assert [one.seq for one in whole_lines(log)] == [3, 1, 2, 4]


def test_the_order_in_which_tasks_end_does_not_matter() -> None:
    tasks = [task(n) if n % 3 else failed(n) for n in range(1, 30)]
    shuffled = tasks[:]
    random.Random(4).shuffle(shuffled)
    assert completed_in(log_of(tasks, ended=shuffled)) == completed_in(log_of(tasks))


def test_a_fingerprint_is_the_same_in_every_version():
    # Job logs of earlier ones are resumed by it.
    spec = TaskSpec(
        image="busybox:1.36",
        argv=("python", "train.py", "--lr=1"),
        mounts=("type=bind,src=/d,dst=/d",),
        array="task-1",
        array_index=3,
        resources=Resources(cpu_milli=500, memory=5, storage=6, gpu_milli=1000),
        gpu_model="a100",
    )
    assert fingerprint(spec, {"B": "2", "A": "ü"}, "abc") == "a70c20cea1ac9639"
