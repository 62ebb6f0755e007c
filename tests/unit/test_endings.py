"""Signals that give time, silence that ends a task, and scripts: the rules, without a worker."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cloudai.core.endings import Ending, as_noted, keeps_note
from cloudai.core.errors import InvalidInput
from cloudai.core.lifecycle import Exited, StopAsked, advance
from cloudai.core.model import State, TaskSpec
from cloudai.core.reconcile import Record, Wait, reconcile
from cloudai.core.request import read_request
from cloudai.core.script import as_script, check_script, script_of
from cloudai.core.signals import parse_signal
from cloudai.engines.docker import command
from tests.unit.test_lifecycle import ALIVE, NOW, RUNNING

ALL = TaskSpec(
    image="i", time_limit=3600, signal="USR1", signal_before=60, first_output=600, idle_output=90
)
GONE = Exited(at=datetime(2026, 1, 31, tzinfo=UTC), number=1, container_id="c1", exit_code=0)


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("USR1", ("USR1", 60)),
        ("SIGUSR1@120", ("USR1", 120)),
        ("b:10@5", ("USR1", 5)),
        (12, ("USR2", 60)),
        ("sigint@0", ("INT", 0)),
        ("CLD", ("CHLD", 60)),
    ],
)
def test_signals_as_people_write_them(value: object, meant: tuple[str, float]) -> None:
    assert parse_signal(value) == meant


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("KILL", "no program can catch KILL"),
        ("19", "no program can catch STOP"),
        ("R:USR1", "only B: may stand"),
        ("USR3", "did you mean 'usr"),
        ("64", "from 1 to 31"),
        ("USR1@", "USR1@60"),
        ("USR1@1e9", "USR1@60"),
        ("USR1@1.2.3", "USR1@60"),
        ("USR1@9999", "at most 3600"),
        (True, "USR1@60"),
        ("", "USR1@60"),
    ],
)
def test_no_signals(value: object, words: str) -> None:
    with pytest.raises(InvalidInput, match=words.replace("(", r"\(")):
        parse_signal(value)


def read(**body: Any) -> TaskSpec:
    return read_request({"docker_image": "alpine", **body}, default_user="ann")[0]


def test_the_fields_of_a_request() -> None:
    spec = read(signal="USR1@60", time_limit="1h", first_output="10m", idle_output=1800)
    assert (spec.signal, spec.signal_before) == ("USR1", 60)
    assert (spec.first_output, spec.idle_output) == (600, 1800)
    assert (read().signal, read().first_output) == (None, None)
    for field in ("first_output", "idle_output"):
        with pytest.raises(InvalidInput, match=f"{field}: '0s'; give more than nothing"):
            read(**{field: "0s"})
    with pytest.raises(InvalidInput, match="before a time limit of 60 s"):
        read(signal="USR1", time_limit=60)


@pytest.mark.parametrize(
    ("ending", "reason", "hung"),
    [
        (None, "", False),
        (Ending.ASKED, "", False),
        (Ending.LIMIT, "time limit of 3600 s reached; USR1 was sent 60 s before", False),
        (Ending.FIRST, "no output in its first 10m", True),
        (Ending.IDLE, "no output for 1m30s", True),
    ],
)
def test_what_a_note_makes_of_an_end(ending: Ending | None, reason: str, hung: bool) -> None:
    assert keeps_note(ALL)
    noted = as_noted(GONE, ALL, ending)
    assert (noted.over, noted.hung) == (reason, hung)
    assert as_noted(replace(GONE, oom_killed=True), ALL, ending).over == ""
    assert as_noted(GONE, TaskSpec(image="i"), ending).over == "", "a note that is not ours"


def test_a_hung_task_may_be_tried_again_and_one_over_its_limit_is_not() -> None:
    exited = replace(GONE, container_id=RUNNING.assignment.container_id, exit_code=143)
    hung = as_noted(exited, ALL, Ending.IDLE)
    over = as_noted(exited, ALL, Ending.LIMIT)
    for retry_on, hangs in (((), "queued"), (("hung",), "queued"), (("oom",), "failed")):
        task = replace(RUNNING, spec=replace(ALL, retries=1, retry_on=retry_on))
        assert advance(task, hung).state == hangs
        assert advance(task, over).state is State.FAILED
    assert advance(replace(RUNNING, spec=ALL), hung).reason == "no output for 1m30s"
    stopping = advance(replace(RUNNING, spec=ALL), StopAsked(at=NOW))
    assert advance(stopping, hung).state is State.CANCELLED, "its user was first"


def test_a_limit_is_told_so_much_before() -> None:
    task = replace(RUNNING, spec=replace(ALL, first_output=None, idle_output=None))
    early, due = (NOW + timedelta(seconds=seconds) for seconds in (3539, 3540))
    assert reconcile(task, replace(ALIVE, clock=early), early) == Wait()
    action = reconcile(task, replace(ALIVE, clock=due), due)
    assert isinstance(action, Record)
    assert isinstance(action.event, StopAsked)
    assert action.event.reason.startswith("time limit of 3600 s reached")


# --- scripts


def test_a_script_says_who_reads_it() -> None:
    script = as_script("#!/usr/bin/env  python3 -u \nprint()\n")
    assert script is not None
    assert (script.interpreter, script.option) == ("/usr/bin/env", "python3 -u")
    assert script.summary == "script of 2 lines for /usr/bin/env python3 -u"
    assert as_script("echo hi") is None


def test_one_that_does_not_say_is_the_shells_and_its_lines_stay_where_they_are() -> None:
    spec = read(script="echo $1\nfalse", argv=["a b"])
    script = script_of(spec)
    assert script is not None
    assert (script.text, script.interpreter) == ("echo $1\nfalse", "/bin/sh")
    assert script.arguments == ("a b",)
    assert script.summary == "script of 2 lines for /bin/sh"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" \n", "it is empty"),
        ("#!/bin/sh\r\ntrue\r\n", "end as on DOS"),
        ("#!python3\n", "give the whole path"),
    ],
)
def test_no_scripts(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        check_script(text)


def test_a_script_and_a_command_are_not_both_meant() -> None:
    with pytest.raises(InvalidInput, match="not both"):
        read(script="true", command="true")
    with pytest.raises(InvalidInput, match="docker takes them as arguments"):
        read(script="x" * 200_000)


def test_what_a_script_becomes() -> None:
    spec = read(script="#!/bin/bash -e\necho 'hi'\n", argv=["a"])
    dash, wrapper, name, *rest = command.arguments(spec)
    assert (dash, name) == ("-c", "cloudai-script")
    assert 'exec "$program"' in wrapper
    assert rest == ["#!/bin/bash -e\necho 'hi'\n", "/bin/bash", "-e", "a"]
    shown = command.preview(spec)
    assert shown.endswith("--entrypoint /bin/bash -- alpine -e cloudai-script a")
