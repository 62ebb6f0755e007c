"""A trace on a fleet, event by event, on the scheduler's own board. No clock: time jumps from
one event to the next."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from cloudai.core.model import Resources
from cloudai.core.policy import Policy
from cloudai.core.schedule import Ask, Board, Ranking, Shape, Use
from cloudai.core.usage import Ledger, Run

from .fleets import Fleet
from .fragments import Fragments
from .trace import Job

TOO_LARGE = "no worker could take it, even an empty one"
NO_GROUP = "its group would not fit, even on the empty fleet"
LEFT_WAITING = "still waiting when the simulation ended"
LEFT_OUT = "comes after --until"
UNKNOWN = "run time not known"


@dataclass(slots=True)
class Fate:
    """What became of one job."""

    job: Job
    start: float | None = None
    """When it ran at last; earlier tries that were preempted are lost."""
    end: float | None = None
    why: str = ""
    """Why it never ran."""
    preempted: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """How things stand from a moment on, until the next sample."""

    at: float
    cpu: int
    gpu: int
    """Thousandths in use."""
    waiting: int
    fragments: float
    """Thousandths of GPUs that are free and of no use."""


@dataclass(slots=True)
class Outcome:
    """What a replay comes to."""

    name: str
    """The strategy's."""
    total: Resources
    """Of the fleet."""
    fates: list[Fate] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    at_limit: int = 0
    """Jobs that were stopped at their time limit, before they would have ended."""
    not_counted: Counter[str] = field(default_factory=Counter)
    """Jobs that were no part of it: why -> how many."""
    wants_gpus: bool = False


def replay(
    fleet: Fleet,
    jobs: Sequence[Job],
    policy: Policy,
    *,
    name: str = "",
    ranking: Ranking | None = None,
    until: float | None = None,
) -> Outcome:
    """Runs the trace. ``until``: seconds after its first submission at which to stop. A job
    runs as long as it did, wherever it is, but not past its time limit; one that is preempted
    begins anew."""
    run = _Run(fleet, jobs, policy, ranking, until)
    run.outcome.name = name or str(policy.strategy)
    run.go()
    return run.outcome


class _Run:
    def __init__(
        self,
        fleet: Fleet,
        jobs: Sequence[Job],
        policy: Policy,
        ranking: Ranking | None,
        until: float | None,
    ) -> None:
        self.outcome = Outcome("", fleet.total)
        self.policy = policy
        self.board = Board(policy, ranking)
        for place in fleet.places:
            self.board.see(place)
        self.jobs = self._counted(jobs, until)
        self.stop = self.jobs[0].submitted + until if self.jobs and until is not None else None
        self.fragments = Fragments(self.board, (part for job in self.jobs for part in job.parts))
        self.outcome.wants_gpus = any(job.gpu_milli for job in self.jobs)
        self.ledger = Ledger(policy.half_life)
        self.sizes = Counter(job.group for job in self.jobs if job.group is not None)
        self.ranks: Counter[str] = Counter()
        self.ends: list[tuple[float, int, str]] = []
        self.tries: Counter[str] = Counter()
        """part -> how often it began: an end of an earlier try is none."""
        self.asks: dict[str, tuple[Ask, Fate]] = {}
        self.running: set[str] = set()
        self.held = Resources()
        self._possible: dict[object, bool] = {}

    def _counted(self, jobs: Sequence[Job], until: float | None) -> list[Job]:
        known = [job for job in jobs if job.runtime is not None]
        counted = known
        if until is not None and known:
            counted = [job for job in known if job.submitted <= known[0].submitted + until]
        self.outcome.not_counted += Counter(
            {UNKNOWN: len(jobs) - len(known), LEFT_OUT: len(known) - len(counted)}
        )
        return counted

    # ---------------------------------------------------------------- time

    def go(self) -> None:
        self._refuse_impossible_groups()
        arrived = 0
        while arrived < len(self.jobs) or self.ends:
            now = min(
                self.jobs[arrived].submitted if arrived < len(self.jobs) else float("inf"),
                self.ends[0][0] if self.ends else float("inf"),
            )
            if self.stop is not None and now > self.stop:
                break
            self._end_all(now)
            while arrived < len(self.jobs) and self.jobs[arrived].submitted <= now:
                self._arrive(self.jobs[arrived], now)
                arrived += 1
            self._plan(now)
            self._sample(now)
        if self.stop is not None:
            self._sample(self.stop)
        for task_id in self.asks.keys() - self.running:
            self.asks[task_id][1].why = LEFT_WAITING

    def _sample(self, now: float) -> None:
        samples = self.outcome.samples
        if samples and samples[-1].at == now:
            samples.pop()
        waiting = len(self.asks) - len(self.running)
        held, lost = self.held, self.fragments.total
        samples.append(Sample(now, held.cpu_milli, held.gpu_milli, waiting, lost))

    # ---------------------------------------------------------------- what comes

    def _arrive(self, job: Job, now: float) -> None:
        fate = Fate(job)
        self.outcome.fates.append(fate)
        fate.why = self._impossible(job)
        if fate.why:
            return
        for ask in self._asks_of(job):
            self.asks[ask.id] = (ask, fate)
            self.board.add(ask, now)

    def _asks_of(self, job: Job) -> list[Ask]:
        shapes = plain(job)
        position = len(self.outcome.fates) * 10_000_000
        rank, size, group = 0, len(shapes), job.id
        if job.group is not None and len(shapes) == 1:
            rank, size, group = self.ranks[job.group], self.sizes[job.group], job.group
            self.ranks[job.group] += 1
        return [
            Ask(
                id=job.id if len(shapes) == 1 else f"{job.id}/{part}",
                user=job.user,
                shape=shape,
                priority=job.priority,
                since=job.submitted,
                position=position + part,
                name=job.name,
                group=group if size > 1 else None,
                group_size=size,
                group_rank=rank + part,
                placement=job.placement,
            )
            for part, shape in enumerate(shapes)
        ]

    def _impossible(self, job: Job) -> str:
        """Why it could never be placed; empty where it could."""
        if job.group is not None and not self._possible.get(("group", job.group), True):
            return NO_GROUP
        for shape in dict.fromkeys(plain(job)):
            key = replace(shape, limit=None, kind="")
            if key not in self._possible:
                need = self.board.need(shape)
                self._possible[key] = bool(self.board.workers.large_enough(need).any())
            if not self._possible[key]:
                return TOO_LARGE
        if len(job.parts) > 1:
            whole = ("parts", *job.parts, job.placement)
            if whole not in self._possible:
                self._possible[whole] = self._fits_empty(self._asks_of(job))
            return "" if self._possible[whole] else NO_GROUP
        return ""

    def _refuse_impossible_groups(self) -> None:
        groups: dict[str, list[Ask]] = {}
        for job in self.jobs:
            if job.group is not None and self.sizes[job.group] > 1:
                groups.setdefault(job.group, []).extend(self._asks_of(job))
        for group, asks in groups.items():
            self._possible["group", group] = self._fits_empty(asks)
        self.ranks.clear()

    def _fits_empty(self, asks: list[Ask]) -> bool:
        """Whether all of them find room on the fleet while nothing else is there."""
        board = Board(self.policy)
        for place in self.board.workers.places:
            board.see(place)
        for ask in asks:
            board.add(ask)
        return len(board.plan(0.0).placements) == len(asks)

    # ---------------------------------------------------------------- what starts and ends

    def _plan(self, now: float) -> None:
        gone: set[str] = set()
        while True:
            plan = self.board.plan(now)
            for placing in plan.placements:
                self._start(placing.task_id, now)
            # Nobody is sent back twice at one moment: so this comes to an end.
            victims = [one.task_id for one in plan.preempt if one.task_id not in gone]
            if not victims:
                return
            gone.update(victims)
            for task_id in victims:
                self._preempt(task_id, now)

    def _start(self, task_id: str, now: float) -> None:
        ask, fate = self.asks[task_id]
        runtime, limit = fate.job.runtime, ask.shape.limit
        assert runtime is not None
        lasts = runtime if limit is None else min(runtime, limit)
        self.tries[task_id] += 1
        self.running.add(task_id)
        heapq.heappush(self.ends, (now + lasts, self.tries[task_id], task_id))
        self.held = self.held + ask.shape.resources
        fate.start, fate.end = now, now + lasts
        self.fragments.changed(self.board.workers.at[task_id])

    def _end_all(self, now: float) -> None:
        ended = False
        while self.ends and self.ends[0][0] <= now:
            _, attempt, task_id = heapq.heappop(self.ends)
            if task_id in self.running and self.tries[task_id] == attempt:
                self._free(task_id, now)
                ask, fate = self.asks.pop(task_id)
                limit, runtime = ask.shape.limit, fate.job.runtime or 0.0
                if limit is not None and limit < runtime and ask.group_rank == 0:
                    self.outcome.at_limit += 1
                ended = True
        if ended:
            self._charge(now)

    def _preempt(self, task_id: str, now: float) -> None:
        """Stopped at once, and back in the queue."""
        ask, fate = self.asks[task_id]
        self._free(task_id, now)
        fate.preempted += 1
        fate.start = fate.end = None
        self.board.add(ask, now)

    def _free(self, task_id: str, now: float) -> None:
        ask, fate = self.asks[task_id]
        i = self.board.workers.at[task_id]
        self.board.finish(task_id)
        self.running.discard(task_id)
        self.held = self.held - ask.shape.resources
        began = fate.start if fate.start is not None else now
        self.ledger.add(
            Run(
                user_id=ask.user,
                kind="",
                worker_id="",
                resources=ask.shape.resources,
                started_at=moment(began),
                ended_at=moment(now),
                completed=False,
            )
        )
        self.fragments.changed(i)

    def _charge(self, now: float) -> None:
        """What everybody has used by now, as fair shares count it."""
        self.board.set_use(
            {
                user: Use(cpu_seconds=used.cpu, memory_seconds=used.memory, gpu_seconds=used.gpu)
                for user, used in self.ledger.usage(moment(now)).items()
            }
        )


EPOCH = datetime.fromtimestamp(0, UTC)
LAST_SECOND = 2e11
"""Of what a calendar holds."""


def moment(at: float) -> datetime:
    """The trace's seconds as the ledger has time."""
    return EPOCH + timedelta(seconds=min(at, LAST_SECOND))


def plain(job: Job) -> tuple[Shape, ...]:
    """Its parts as every strategy is to place them: the one that is compared, not their own."""
    return tuple(
        shape if shape.strategy is None else replace(shape, strategy=None) for shape in job.parts
    )
