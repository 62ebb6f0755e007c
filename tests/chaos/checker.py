"""Whether a history keeps the promises. Pure functions, after Jepsen's way: each goes over the
evidence and answers every violation it finds, in words.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from .history import WHOLE_GPU, Answer, History, Sample


class Kind(StrEnum):
    """Under which column of the table a violation counts."""

    LOST = "lost"
    DOUBLED = "doubled"
    FALSE = "false"
    OVER = "over"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise."""

    kind: Kind
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


Check = Callable[[History], Iterator[Violation]]


def check(history: History) -> list[Violation]:
    """All violations of all promises; an empty list is a good run."""
    return [violation for one in CHECKS for violation in one(history)]


# ------------------------------------------------------------------ promise 1


def started_at_most_once(history: History) -> Iterator[Violation]:
    """One assignment, one container that ever started, one start: by the engines' word and by
    the jobs' own. (One that could not start is removed, and may be tried again where the answer
    was lost: nothing ran in it.)"""
    by_hand = history.touched | history.unrecorded
    ids: defaultdict[str, set[str]] = defaultdict(set)
    starts: defaultdict[str, set[str]] = defaultdict(set)
    for container in history.containers():
        if container.started_at:
            ids[container.name].add(container.id)
            if container.task_id not in by_hand:
                starts[container.name].add(container.started_at)
    deeds: Counter[str] = Counter()
    for deed in history.deeds:
        if deed.action == "start":
            ids[deed.name].add(deed.id)
            if task_of(deed.name) not in by_hand:
                deeds[deed.name] += 1
    for name, found in sorted(ids.items()):
        if len(found) > 1 and task_of(name) not in history.unrecorded:
            yield Violation(Kind.DOUBLED, f"{name} had {len(found)} containers: {sorted(found)}")
    for name, times in sorted(starts.items()):
        if len(times) > 1:
            yield Violation(Kind.DOUBLED, f"{name} started {len(times)} times: {sorted(times)}")
    for name, count in sorted(deeds.items()):
        if count > 1:
            yield Violation(Kind.DOUBLED, f"{name}: its engine tells of {count} starts")
    for task_id, count in sorted(history.began.items()):
        if count > 1 and task_id not in by_hand:
            yield Violation(Kind.DOUBLED, f"{task_id}: its process began {count} times")


def container_ids_never_change(history: History) -> Iterator[Violation]:
    """Nor does the process in a container that is not started again."""
    known: dict[str, str] = {}
    for told in history.told:
        if told.container_id:
            before = known.setdefault(told.assignment, told.container_id)
            if before != told.container_id:
                yield Violation(
                    Kind.DOUBLED,
                    f"{told.assignment} was told as {before[:12]}, then as"
                    f" {told.container_id[:12]}",
                )
    pids: defaultdict[str, set[int]] = defaultdict(set)
    for container in history.containers():
        if container.state == "running" and container.pid:
            pids[container.id].add(container.pid)
    by_hand = {c.id for c in history.containers() if c.task_id in history.touched}
    for id_, found in sorted(pids.items()):
        if len(found) > 1 and id_ not in by_hand:
            yield Violation(Kind.DOUBLED, f"{id_[:12]} ran as processes {sorted(found)}")


# ------------------------------------------------------------------ promise 2


def no_false_success(history: History) -> Iterator[Violation]:
    """``completed`` only where the engine said of that very container: ended by itself with 0,
    and the job, where it can tell, says that it came to its end."""
    verdicts = verdicts_by_container(history)
    for told in history.at_the_end.values():
        if told.state != "completed":
            continue
        if told.exit_code != 0:
            yield Violation(Kind.FALSE, f"{told.task_id} completed with {told.exit_code}")
        codes = verdicts.get(told.container_id or "", set())
        if told.container_id is None or not codes:
            yield Violation(
                Kind.FALSE, f"{told.task_id} completed, and no engine saw its container end"
            )
        elif codes != {0}:
            yield Violation(
                Kind.FALSE, f"{told.task_id} completed, its container ended with {sorted(codes)}"
            )
        if told.task_id in history.began and told.task_id not in history.ended_well:
            yield Violation(
                Kind.FALSE, f"{told.task_id} completed, its process never came to its end"
            )


def no_false_failure(history: History) -> Iterator[Violation]:
    """A job that really came to its end with 0 and was not being stopped, by a person or a
    limit, is not called failed."""
    stopped = {
        operation.task_id for operation in history.operations if operation.verb in ("cancel", "rm")
    }
    stopped |= {told.task_id for told in history.told if told.state == "stopping" or told.lost}
    verdicts = verdicts_by_container(history)
    for told in history.at_the_end.values():
        good = verdicts.get(told.container_id or "") == {0}
        if told.state == "failed" and good and told.task_id in history.ended_well:
            if told.task_id in stopped | history.touched | history.meddled:
                continue
            yield Violation(
                Kind.FALSE, f"{told.task_id} failed ({told.reason}), its container ended with 0"
            )


# ------------------------------------------------------------------ promise 4


def nothing_is_given_up_unasked(history: History) -> Iterator[Violation]:
    """A worker that is out of reach costs a task its place there only by its owner's choice, or
    by a person's word."""
    given_up = {told.task_id for told in history.told if told.lost}
    for task_id in sorted(given_up - history.may_be_lost):
        yield Violation(Kind.LOST, f"{task_id} was given up, and nobody had allowed that")


def verdicts_by_container(history: History) -> dict[str, set[int]]:
    """container id -> every exit code its engine gave to a run that had really started."""
    verdicts: defaultdict[str, set[int]] = defaultdict(set)
    started = {deed.id for deed in history.deeds if deed.action == "start"}
    started |= {container.id for container in history.containers() if container.started_at}
    for deed in history.deeds:
        if deed.action == "die" and deed.id in started and deed.exit_code is not None:
            verdicts[deed.id].add(deed.exit_code)
    for container in history.containers():
        if container.state == "exited" and container.started_at:
            # An error in the engine's record makes a zero worth nothing.
            verdicts[container.id].add(container.exit_code if not container.error else 255)
    return dict(verdicts)


# ------------------------------------------------------------------ promise 5


def never_more_than_there_is(history: History) -> Iterator[Violation]:
    """At every sample, over all stores."""
    for sample in history.samples:
        room = history.rooms.get(sample.worker)
        if room is None:
            continue
        holding = [container for container in sample.containers if container.holds]
        for what, capacity in (("cpu_milli", room.cpu_milli), ("memory", room.memory)):
            held = sum(getattr(container, what) for container in holding)
            if held > capacity:
                yield Violation(
                    Kind.OVER, f"{sample.worker}: {held} of {capacity} {what} at {sample.at:.1f}"
                )
        yield from _gpus_held_twice(sample)


def _gpus_held_twice(sample: Sample) -> Iterator[Violation]:
    held: Counter[str] = Counter()
    for container in sample.containers:
        if container.holds:
            for uuid in container.gpus:
                held[uuid] += min(WHOLE_GPU, container.gpu_milli)
            if len(container.gpus) * WHOLE_GPU < container.gpu_milli:
                yield Violation(Kind.OVER, f"{container.name} has fewer GPUs than it reserved")
    for uuid, milli in sorted(held.items()):
        if milli > WHOLE_GPU:
            yield Violation(
                Kind.OVER, f"{sample.worker}: {milli} thousandths of {uuid} at {sample.at:.1f}"
            )


# ------------------------------------------------------------------ promise 6


def logs_are_whole(history: History) -> Iterator[Violation]:
    """What came home is what was written: all of it where the job came to its end, and
    otherwise a beginning of it; nothing twice, nothing out of order."""
    for task_id, expected in sorted(history.expected.items()):
        told = history.at_the_end.get(task_id)
        if told is None or task_id in history.lossy:
            continue
        archived = history.archived.get(task_id, b"")
        whole = told.state == "completed" or (
            task_id in history.ended_well and told.container_id and told.state != "cancelled"
        )
        if whole and task_id not in history.touched | history.meddled:
            if archived != expected:
                yield Violation(Kind.LOST, f"{task_id}: {difference(archived, expected)}")
        elif not expected.startswith(archived) and task_id not in history.touched:
            yield Violation(Kind.LOST, f"{task_id}: {difference(archived, expected)}")


def earlier_tries_keep_their_logs(history: History) -> Iterator[Violation]:
    """A task that is tried again keeps what it wrote before."""
    for name, expected in sorted(history.earlier_expected.items()):
        archived = history.earlier_archived.get(name, b"")
        if archived != expected:
            yield Violation(Kind.LOST, f"{name}: {difference(archived, expected)}")


def difference(found: bytes, expected: bytes) -> str:
    """Where two logs part, in words."""
    at = next(
        (i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b),
        min(len(found), len(expected)),
    )
    return (
        f"log of {len(found)} bytes instead of {len(expected)}, apart from byte {at} on:"
        f" {found[at : at + 30]!r} instead of {expected[at : at + 30]!r}"
    )


# ------------------------------------------------------------------ nothing lost, nothing undone


def final_is_final(history: History) -> Iterator[Violation]:
    """No transition out of a final state, and its facts stay."""
    ended: dict[tuple[str, str], tuple[str, int | None, str]] = {}
    for told in [*history.told, *history.at_the_end.values()]:
        key = (told.home, told.task_id)
        facts = (told.state, told.exit_code, told.reason)
        if key in ended and ended[key] != facts:
            yield Violation(Kind.FALSE, f"{told.task_id} was {ended[key]}, then {facts}")
        elif told.final:
            ended[key] = facts


def nothing_is_lost(history: History) -> Iterator[Violation]:
    """Every task that was acknowledged is there at the end, and it is over; one that was
    forgotten on demand may be gone."""
    wanted = {
        operation.task_id
        for operation in history.operations
        if operation.verb == "submit" and operation.answer is Answer.OK
    }
    # What was told once was known once, acknowledged or not.
    wanted |= {told.task_id for told in history.told}
    for task_id in sorted(wanted - history.forgotten):
        if task_id not in history.at_the_end:
            yield Violation(Kind.LOST, f"{task_id} was acknowledged and is not there")
    for told in history.at_the_end.values():
        if not told.final:
            yield Violation(Kind.LOST, f"{told.task_id} is {told.state} for ever ({told.reason})")


def nothing_is_left(history: History) -> Iterator[Violation]:
    """Ended tasks leave no container behind."""
    for worker, names in sorted(history.left.items()):
        if names:
            yield Violation(Kind.LEFT, f"{worker} still has {', '.join(names)}")


def task_of(name: str) -> str:
    """The task of an assignment, by its name."""
    return name.rpartition(".")[0]


CHECKS: Sequence[Check] = (
    started_at_most_once,
    container_ids_never_change,
    no_false_success,
    no_false_failure,
    nothing_is_given_up_unasked,
    never_more_than_there_is,
    logs_are_whole,
    earlier_tries_keep_their_logs,
    final_is_final,
    nothing_is_lost,
    nothing_is_left,
)
