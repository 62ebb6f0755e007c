"""The checker itself: a good history passes, and each kind of bad one is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from .checker import CHECKS, check, difference
from .history import Answer, Container, Deed, History, Operation, Room, Sample, Told

TASK = "task-1-aaaaaaaa"
NAME = f"{TASK}.1"
ID, OTHER = "a" * 64, "b" * 64
AT = "2026-01-01T00:00:00.5Z"
LOG = b"line 1\nline 2\n"


def container(**changes: object) -> Container:
    plain = Container(
        name=NAME, id=ID, task_id=TASK, store_id="s", state="running", started_at=AT, pid=7,
        cpu_milli=1000, memory=100,
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def told(state: str, **changes: object) -> Told:
    plain = Told(at=1.0, home="h", task_id=TASK, state=state, container_id=ID, assignment=NAME)
    return replace(plain, **changes)  # type: ignore[arg-type]


def good() -> History:
    """One task's whole and honest life."""
    ended = container(state="exited", pid=0)
    return History(
        operations=[Operation(verb="submit", began=0.0, ended=0.1, answer=Answer.OK, task_id=TASK)],
        samples=[
            Sample(at=1.0, worker="w", containers=(container(state="created", started_at=""),)),
            Sample(at=2.0, worker="w", containers=(container(),)),
            Sample(at=3.0, worker="w", containers=(ended,)),
        ],
        deeds=[
            Deed(worker="w", action="create", name=NAME, id=ID),
            Deed(worker="w", action="start", name=NAME, id=ID),
            Deed(worker="w", action="die", name=NAME, id=ID, exit_code=0),
        ],
        told=[told("queued", container_id=None, assignment=""), told("running")],
        at_the_end={TASK: told("completed", exit_code=0)},
        rooms={"w": Room(cpu_milli=2000, memory=200, gpus=1)},
        began={TASK: 1},
        ended_well={TASK},
        archived={TASK: LOG},
        expected={TASK: LOG},
        left={"w": ()},
    )


def test_a_good_history_passes():
    assert check(good()) == []


def a_second_container(history: History) -> None:
    history.samples.append(Sample(at=4.0, worker="v", containers=(container(id=OTHER),)))


def a_second_container_by_the_engines_word(history: History) -> None:
    history.deeds.append(Deed(worker="v", action="start", name=NAME, id=OTHER))


def a_second_start(history: History) -> None:
    again = container(started_at="2026-01-01T00:00:09Z", pid=7)
    history.samples.append(Sample(at=4.0, worker="w", containers=(again,)))


def a_second_start_by_the_engines_word(history: History) -> None:
    history.deeds.append(Deed(worker="w", action="start", name=NAME, id=ID))


def a_second_start_by_the_jobs_word(history: History) -> None:
    history.began[TASK] = 2


def another_process(history: History) -> None:
    history.samples.append(Sample(at=4.0, worker="w", containers=(container(pid=8),)))


def another_id_told(history: History) -> None:
    history.told.append(told("running", container_id=OTHER))


def success_with_another_code(history: History) -> None:
    history.at_the_end[TASK] = told("completed", exit_code=1)


def success_nobody_saw(history: History) -> None:
    history.deeds.pop()
    history.samples.pop()


def success_of_a_container_never_started(history: History) -> None:
    history.deeds = [deed for deed in history.deeds if deed.action != "start"]
    history.samples = [
        Sample(at=3.0, worker="w", containers=(container(state="exited", started_at=""),))
    ]


def success_against_the_engines_word(history: History) -> None:
    history.deeds[-1] = Deed(worker="w", action="die", name=NAME, id=ID, exit_code=137)


def success_with_an_error_in_the_engines_record(history: History) -> None:
    history.samples.append(
        Sample(at=4.0, worker="w", containers=(container(state="exited", error="oops"),))
    )


def success_of_a_job_that_never_ended(history: History) -> None:
    history.ended_well.clear()


def a_failure_that_was_a_success(history: History) -> None:
    history.at_the_end[TASK] = told("failed", exit_code=255)


def more_cores_than_there_are(history: History) -> None:
    others = tuple(container(name=f"{n}.1", task_id=n, id=n * 64) for n in "cd")
    history.samples.append(Sample(at=2.0, worker="w", containers=(container(), *others)))


def more_memory_than_there_is(history: History) -> None:
    history.samples.append(Sample(at=2.0, worker="w", containers=(container(memory=201),)))


def a_gpu_held_twice(history: History) -> None:
    both = [
        container(name=f"{n}.1", task_id=n, id=n * 64, gpu_milli=600, gpus=("GPU-1",), cpu_milli=1)
        for n in "cd"
    ]
    history.samples.append(Sample(at=2.0, worker="w", containers=tuple(both)))


def a_reservation_without_its_gpus(history: History) -> None:
    history.samples.append(Sample(at=2.0, worker="w", containers=(container(gpu_milli=1000),)))


def a_log_with_a_hole(history: History) -> None:
    history.archived[TASK] = b"line 1\n"


def a_log_with_a_line_twice(history: History) -> None:
    history.archived[TASK] = b"line 1\n" + LOG


def a_stopped_tasks_log_that_is_no_beginning(history: History) -> None:
    history.at_the_end[TASK] = told("cancelled")
    history.archived[TASK] = b"line 2\n"


def an_earlier_try_without_its_log(history: History) -> None:
    history.earlier_expected[NAME] = LOG


def a_worker_given_up_unasked(history: History) -> None:
    history.told.append(told("running", lost=True))


def a_final_state_that_was_left(history: History) -> None:
    history.told.append(told("failed", exit_code=1))


def a_final_code_that_changed(history: History) -> None:
    history.told.append(told("completed", exit_code=0, reason="other words"))


def a_task_that_is_not_there(history: History) -> None:
    history.told.clear()
    history.at_the_end.clear()
    history.expected.clear()


def a_task_told_once_and_gone(history: History) -> None:
    history.operations.clear()
    history.at_the_end.clear()
    history.expected.clear()


def a_task_that_never_ends(history: History) -> None:
    history.at_the_end[TASK] = told("running")
    history.expected.clear()


def a_container_left_behind(history: History) -> None:
    history.left = {"w": (NAME,)}


BAD = {
    "started_at_most_once": (
        a_second_container,
        a_second_container_by_the_engines_word,
        a_second_start,
        a_second_start_by_the_engines_word,
        a_second_start_by_the_jobs_word,
    ),
    "container_ids_never_change": (another_process, another_id_told),
    "no_false_success": (
        success_with_another_code,
        success_nobody_saw,
        success_of_a_container_never_started,
        success_against_the_engines_word,
        success_with_an_error_in_the_engines_record,
        success_of_a_job_that_never_ended,
    ),
    "no_false_failure": (a_failure_that_was_a_success,),
    "nothing_is_given_up_unasked": (a_worker_given_up_unasked,),
    "never_more_than_there_is": (
        more_cores_than_there_are,
        more_memory_than_there_is,
        a_gpu_held_twice,
        a_reservation_without_its_gpus,
    ),
    "logs_are_whole": (
        a_log_with_a_hole,
        a_log_with_a_line_twice,
        a_stopped_tasks_log_that_is_no_beginning,
    ),
    "earlier_tries_keep_their_logs": (an_earlier_try_without_its_log,),
    "final_is_final": (a_final_state_that_was_left, a_final_code_that_changed),
    "nothing_is_lost": (
        a_task_that_is_not_there,
        a_task_told_once_and_gone,
        a_task_that_never_ends,
    ),
    "nothing_is_left": (a_container_left_behind,),
}


def test_every_check_is_held_to_something():
    assert set(BAD) == {one.__name__ for one in CHECKS}


@pytest.mark.parametrize(
    ("name", "spoil"),
    [(name, spoil) for name, spoils in BAD.items() for spoil in spoils],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_a_bad_history_is_caught_by_its_check(name: str, spoil: Callable[[History], None]):
    history = good()
    spoil(history)
    [one] = [one for one in CHECKS if one.__name__ == name]
    assert list(one(history)), "not noticed"


def test_a_start_by_hand_is_not_ours_and_is_no_success():
    history = good()
    a_second_start_by_the_engines_word(history)
    history.touched.add(TASK)
    history.deeds.append(Deed(worker="w", action="die", name=NAME, id=ID, exit_code=3))
    assert [v.kind for v in check(history)] == ["false"]
    history.at_the_end[TASK] = told("failed", reason="started again by someone")
    assert check(history) == []


def test_an_unanswered_submit_may_or_may_not_be_there():
    history = good()
    history.operations.append(Operation(verb="submit", began=0.0, ended=1.0, answer=Answer.UNKNOWN))
    assert check(history) == []


def test_the_place_where_logs_part_is_named():
    assert "from byte 3 on" in difference(b"abcX", b"abcd")
