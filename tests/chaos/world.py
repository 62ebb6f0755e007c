"""A world in virtual time: real Controllers and Services over one real home, fake workers.

Everything that happens on a worker or is told by a controller is written into a ``History``.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest import mock

from cloudai.controller import desk as desk_module
from cloudai.controller import effects as effects_module
from cloudai.controller import link as link_module
from cloudai.controller import loop as loop_module
from cloudai.controller.desk import Desk, has_ended
from cloudai.controller.loop import Controller
from cloudai.core.errors import CloudaiError, Indeterminate, TaskNotFound
from cloudai.core.model import Assignment, ContainerSight, Phase, State, Task
from cloudai.engines.fake import FakeEngine, Fault
from cloudai.engines.fake_worker import BEGINNING, FakeContainer, FakeWorker
from cloudai.inventory import InventoryFile
from cloudai.service import Service
from cloudai.service import ids as ids_module
from cloudai.service import service as service_module

from .checker import task_of
from .history import Answer, Container, Deed, History, Operation, Room, Sample, Told
from .virtual_time import VirtualLoop

T = TypeVar("T")

MOST_DELAY = 0.4
"""Seconds that a command, or its answer, is on its way at the most."""
LATEST = 1.5
"""Seconds after which a start that was sent takes effect no more: its way, and the second for
which it may wait for the worker's lock."""
CONVERGED_WITHIN = 900.0
"""Seconds, once everything is well again."""


class SimWorker(FakeWorker):
    """A fake worker whose every change is a sample."""

    def __init__(self, name: str, world: World, **size: Any) -> None:
        self.world = world
        super().__init__(name=name, clock=world.now, **size)
        total = self.total()
        world.history.rooms[name] = Room(
            cpu_milli=total.cpu_milli, memory=total.memory, gpus=len(self.gpus)
        )
        self.written: dict[str, bytes] = {}

    def write(self, name: str, data: bytes, *, stream: int = 1) -> None:
        super().write(name, data, stream=stream)
        self.written[name] = self.written.get(name, b"") + data

    def start(self, name: str) -> ContainerSight:
        sight = super().start(name)
        if sight.started_at is not None:
            self.world.history.began[sight.task_id] = max(
                sum(worker.starts.get(other, 0) for worker in self.world.workers.values())
                for other in self.world.names_of(sight.task_id)
            )
        return sight

    def end(self, name: str, code: int) -> None:
        """The job itself comes to its end."""
        if self.containers[name].sight.phase is Phase.RUNNING:
            self.world.history.ended_well |= {task_of(name)} if code == 0 else set()
            self.finish(name, code)

    def _tell(self, name: str, action: str) -> None:
        super()._tell(name, action)
        container = self.containers.get(name)
        if container is not None:
            sight = container.sight
            self.world.history.deeds.append(
                Deed(
                    worker=self.name,
                    action=action,
                    name=name,
                    id=sight.id,
                    exit_code=sight.exit_code if action == "die" else None,
                )
            )
        self._sample()

    def _show(self, container: FakeContainer, **changes: object) -> None:
        super()._show(container, **changes)
        self._sample()

    def _sample(self) -> None:
        seen = tuple(container_seen(one.sight) for one in self.containers.values())
        self.world.history.samples.append(
            Sample(at=self.world.loop.time(), worker=self.name, containers=seen)
        )


def container_seen(sight: ContainerSight) -> Container:
    return Container(
        name=sight.assignment_id,
        id=sight.id,
        task_id=sight.task_id,
        store_id=sight.store_id,
        state=str(sight.phase),
        started_at=sight.started_at.isoformat() if sight.started_at else "",
        exit_code=sight.exit_code or 0,
        error=sight.error,
        cpu_milli=sight.held.cpu_milli,
        memory=sight.held.memory,
        gpu_milli=sight.held.gpu_milli,
        gpus=sight.gpus,
    )


class SimEngine(FakeEngine):
    """A connection with a length: commands take their time, and one that was sent may take
    effect long after whoever sent it has lost the connection, or its life."""

    worker: SimWorker

    def __init__(self, worker: SimWorker) -> None:
        super().__init__(worker)
        self.world = worker.world

    async def _call(
        self, verb: str, subject: str, effect: Callable[[], T], *, lost: Fault | None = None
    ) -> T:
        breaks = self._breaks
        sent = self.world.sent(verb, subject, effect)
        await asyncio.sleep(self.world.delay())
        if breaks != self._breaks:
            raise Indeterminate("the fake connection broke on the way there")
        sent.arrived = True
        result = await super()._call(verb, subject, effect, lost=lost)
        await asyncio.sleep(self.world.delay())
        if breaks != self._breaks:
            raise Indeterminate("the fake connection broke on the way back")
        return result


class Sent:
    """A command on its way to a worker."""

    def __init__(self, verb: str, subject: str, effect: Callable[[], object], at: float) -> None:
        self.verb = verb
        self.subject = subject
        self.effect = effect
        self.at = at
        self.arrived = False


class World:
    """A home, workers, and one controller after another. ``seed`` decides all delays."""

    def __init__(self, home: Path, template: Path, seed: int) -> None:
        self.home = home
        self.random = Random(seed)
        self.history = History()
        self.loop = VirtualLoop(self.random)
        self.workers: dict[str, SimWorker] = {}
        self.engines: dict[str, SimEngine] = {}
        self.lives = 0
        self._on_their_way: list[Sent] = []
        self._dead: list[tuple[VirtualLoop, Service]] = []
        shutil.copytree(template, home)
        self._patches = [
            mock.patch.object(module, "time", SimpleNamespace(monotonic=lambda: self.loop.time()))
            for module in (link_module, loop_module, effects_module)
        ] + [
            mock.patch.object(module, "now", self.now)
            for module in (service_module, loop_module, effects_module, desk_module)
        ]
        # Ids of tasks decide who comes first within a second.
        drawn = SimpleNamespace(randbelow=Random(seed).randrange)
        self._patches.append(mock.patch.object(ids_module, "secrets", drawn))
        for patch in self._patches:
            patch.start()

    # ---------------------------------------------------------------- time

    def now(self) -> Any:
        return BEGINNING + timedelta(seconds=self.loop.time())

    def delay(self) -> float:
        return self.random.choice((0.0, 0.0, 0.01, 0.1, MOST_DELAY))

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs something to its end, and everything beside it."""
        return self.loop.run_until_complete(work)

    def pass_time(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    # ---------------------------------------------------------------- a controller's life

    def start_controller(self) -> None:
        self.lives += 1
        self.do(self._start_controller())

    async def _start_controller(self) -> None:
        names = "".join(f"  {name}: {{host: h}}\n" for name in self.workers)
        inventory = self.home / "hosts.yaml"
        inventory.write_text(f"workers:\n{names}")
        self.service = Service(self.home)
        await self.service.open()
        self.controller = Controller(
            self.service, InventoryFile(inventory), lambda spec: self._connect(spec.id)
        )
        heard = self.service.changed

        def changed(task: Task) -> None:
            with suppress(TaskNotFound):
                kept = self.service.store.get(task.id)
                self.history.told.append(told_of(kept, self.loop.time()))
            heard(task)

        self.service.changed = changed
        self.desk = Desk(self.controller, None)  # type: ignore[arg-type]
        await self.controller.begin()
        self._running = self.loop.create_task(self.controller.run())

    def _connect(self, name: str) -> SimEngine:
        away = name in self.engines and self.engines[name]._away is None
        self.engines[name] = SimEngine(self.workers[name])
        if away:
            self.engines[name].go_away()
        return self.engines[name]

    def kill_controller(self) -> None:
        """kill -9: nothing of it runs any more, not one ``finally``."""
        self._dead.append((self.loop, self.service))
        self.loop = VirtualLoop(self.random, self.loop.time())
        for sent in self._on_their_way:
            sent.arrived |= sent.verb != "start"

    def sent(self, verb: str, subject: str, effect: Callable[[], object]) -> Sent:
        one = Sent(verb, subject, effect, self.loop.time())
        self._on_their_way = [
            sent
            for sent in self._on_their_way
            if not sent.arrived and self.loop.time() - sent.at < LATEST
        ]
        if verb == "start":
            self._on_their_way.append(one)
        return one

    def late_starts(self) -> list[Sent]:
        """Starts that nobody waits for any more, and that may still take effect."""
        horizon = self.loop.time() - LATEST
        return [
            sent
            for sent in self._on_their_way
            if not sent.arrived and horizon < sent.at < self.loop.time() - MOST_DELAY
        ]

    def land(self, sent: Sent) -> None:
        sent.arrived = True
        sent.effect()

    def names_of(self, task_id: str) -> set[str]:
        """The containers of a task that ever started anywhere, by name."""
        return {
            name
            for worker in self.workers.values()
            for name in worker.starts
            if task_of(name) == task_id
        }

    # ---------------------------------------------------------------- asking

    def ask(self, verb: str, work: Coroutine[Any, Any, Any], task_id: str = "") -> Any:
        began = self.loop.time()
        result = None
        try:
            result = self.do(work)
            answer = Answer.OK
        except CloudaiError as error:
            answer, task_id = Answer.FAILED, str(error.details.get("task_id", task_id))
        made = result[0] if isinstance(result, tuple) else result
        for task in made if isinstance(made, list) else [made]:
            self.history.operations.append(
                Operation(
                    verb=verb,
                    began=began,
                    ended=self.loop.time(),
                    answer=answer,
                    task_id=task.id if isinstance(task, Task) else task_id,
                )
            )
        return made

    def tasks(self) -> list[Task]:
        return self.do(self.service.tasks(limit=1000))[0]

    def state_of(self, task_id: str) -> State | None:
        """As it is stored now, read without letting time pass; ``None``: there is none."""
        with suppress(TaskNotFound):
            return self.service.store.get(task_id).state
        return None

    # ---------------------------------------------------------------- the end

    def heal(self) -> None:
        """Everything is well again, and every job comes to its end."""
        for engine in self.engines.values():
            engine.come_back()
            engine._faults.clear()
        for worker in self.workers.values():
            worker.outsiders.clear()
            worker.registry.clear()

    def converge(self) -> None:
        """Lets it run until all is over, or fails."""
        deadline = self.loop.time() + CONVERGED_WITHIN
        while not all(has_ended(task) for task in self.tasks()):
            if self.loop.time() > deadline:
                break
            for worker in self.workers.values():
                for name, container in list(worker.containers.items()):
                    worker.pause(name, paused=False)
                    if container.sight.phase is Phase.RUNNING:
                        worker.end(name, 0)
            self.pass_time(5)
        self.pass_time(40)

    def conclude(self) -> History:
        """The history with how things stand at the end."""
        history = self.history
        for task in self.tasks():
            history.at_the_end[task.id] = told_of(task, self.loop.time())
            if task.assignment is None:
                continue
            history.archived[task.id] = self._log_of(task.assignment)
            written = self._written(task.assignment)
            if written is not None:
                history.expected[task.id] = written
            for held in self.service.store.assignments(task.id)[:-1]:
                written = self._written(held)
                # One whose end is not known may have been given up, or removed by somebody.
                if written is None or held.exit_code is None or task.id in history.meddled:
                    continue
                history.earlier_archived[held.id] = self._log_of(held)
                history.earlier_expected[held.id] = written
        history.left = {name: tuple(w.containers) for name, w in self.workers.items()}
        return history

    def _log_of(self, held: Assignment) -> bytes:
        return b"".join(self.service.archive.read(held.task_id, held.number))

    def _written(self, held: Assignment) -> bytes | None:
        """What its job wrote; ``None`` where it wrote nothing."""
        return self.workers[held.worker_id].written.get(held.id)

    def close(self) -> None:
        try:
            for loop, service in [*self._dead, (self.loop, self.service)]:
                loop.run_until_complete(_leave(loop, service))
                loop.close()
        finally:
            for patch in self._patches:
                patch.stop()
            shutil.rmtree(self.home)


async def _leave(loop: VirtualLoop, service: Service) -> None:
    while others := asyncio.all_tasks(loop) - {asyncio.current_task()}:
        for one in others:
            one.cancel()
        await asyncio.gather(*others, return_exceptions=True)
    await loop.shutdown_asyncgens()
    await service.close()


def told_of(task: Task, at: float) -> Told:
    held = task.assignment
    return Told(
        at=at,
        home="home",
        task_id=task.id,
        state=str(task.state),
        exit_code=task.exit_code,
        reason=task.reason,
        container_id=held.container_id if held else None,
        assignment=held.id if held else "",
        lost=held.lost if held else False,
    )


@contextmanager
def a_template(folder: Path) -> Iterator[Path]:
    """A home whose database is made already: making one takes longer than a whole run."""
    folder.mkdir()

    async def make() -> None:
        service = Service(folder)
        await service.open()
        await service.close()

    asyncio.run(make())
    yield folder
    shutil.rmtree(folder)
