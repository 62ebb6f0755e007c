"""Docker on a worker: one script a verb for starting, the Engine API for watching (see watch).

A ``DockerEngine`` is given a shell and knows one worker. What it learns by ``probe`` (where
the engine keeps its data, how it limits storage) it uses for starts; nothing else is kept.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from cloudai.core.endings import Ending
from cloudai.core.errors import EngineFailed, Indeterminate, InvalidInput, WorkerUnreachable
from cloudai.core.model import ContainerSight, Phase, TaskSpec, WorkerSight, WorkerSpec
from cloudai.engines import (
    CannotStart,
    Fetched,
    Finding,
    Happening,
    ImageSource,
    LocalImage,
    LogBatch,
    Order,
    Outcome,
    PullProgress,
    RegistryLogin,
    Shipment,
    Usage,
)
from cloudai.engines.arrays import array_env
from cloudai.engines.groups import group_env
from cloudai.scripts import render
from cloudai.shells import Reply, Shell, Terminal

from . import command, files, labels
from .admission import LockHeld, Undo, Unread, has_begun, judged, parse_start
from .api_watch import Way
from .containers import mapping
from .doctor import Examination, judge
from .parts import TOO_LATE, Parts, whole_number
from .probe import Learned, learn, parse_probe
from .pulling import Pull, lines_of, login_settings
from .secret_files import secret_files
from .shipping import Cargo, arrived, read_there, refuse_other_platform
from .watch import Watch, open_watch

PROBE_TIMEOUT = 120.0
"""Seconds; every part of the probe has its own, shorter deadline."""
START_TIMEOUT = 330.0
LOCK_PATIENCE = 30.0
"""Seconds for which a start asks again while others hold the worker's lock."""
"""Seconds: 30 for the lock, 120 for docker, and the looks before and after."""
STALL = 120.0
LOAD_WITHIN = 3600.0
"""Seconds in which an engine unpacks what it was sent; a hundred GiB take that long."""
EARLY_LOOKS = 5
TICK = 5
LOOK_AGAIN = 1.0
"""Seconds between looks at a container that was given time."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,200}")


class DockerEngine:
    """One worker's Docker, see ``cloudai.engines.Engine``."""

    def __init__(self, spec: WorkerSpec, shell: Shell, *, watch_via: Way = "api") -> None:
        self._spec, self._shell, self._watch_via = spec, shell, watch_via
        self._learned: Learned | None = None
        self._watch: Watch | None = None
        self._opening = asyncio.Lock()
        self._shipped: dict[str, str] = {}
        """Image of the sender's engine -> the same one here, where its id differs."""
        self._early: dict[str, asyncio.Task[Mapping[str, Any]] | None] = {}
        """Container that is being started -> how it is described, once that was asked."""

    # --- the host

    async def probe(self) -> WorkerSight:
        """See ``Engine.probe``; ``EngineFailed`` where the worker answers and Docker does not."""
        reply = await self._run("probe", PROBE_TIMEOUT, held_format=command.HELD)
        sight = parse_probe(reply.text, self._spec)
        self._learned = learn(reply.text, sight)
        return sight

    async def doctor(self) -> tuple[Finding, ...]:
        """See ``Engine.doctor``. A Docker that does not answer is a finding, not an error."""
        sight, trouble = None, None
        asked_at = datetime.now(UTC)
        try:
            sight = await self.probe()
        except EngineFailed as error:
            trouble = error
        answered_at = datetime.now(UTC)
        reply = await self._run("doctor", 60, endpoint=self._endpoint())
        return judge(
            Examination(
                worker_id=self._spec.id,
                sight=sight,
                trouble=trouble,
                facts=Parts(reply.text).facts(),
                asked_at=asked_at,
                answered_at=answered_at,
            )
        )

    # --- starting

    async def start(self, order: Order) -> Outcome:
        """See ``Engine.start``."""
        # Through an open socket a look takes a quarter of the time of a docker command there.
        read_back = self.watching != "api"
        try:
            script = await self._start_script(order, read_back=read_back)
        except InvalidInput as error:
            return CannotStart(f"{error.message}{f': {error.hint}' if error.hint else ''}")
        with self._expected(order.assignment_id) as described:
            outcome = await self._admitted(script, order, read_back=read_back)
            if isinstance(outcome, Unread):
                outcome = judged(await described(), order, worker_id=self._spec.id)
        if isinstance(outcome, Undo):
            await self.stop(order.assignment_id, grace=0)
            await self.remove(order.assignment_id)
            return outcome.outcome
        return outcome

    @contextmanager
    def _expected(self, name: str) -> Iterator[Callable[[], Awaitable[Mapping[str, Any]]]]:
        """Around a start: gives a way to learn how its container is described.

        The engine describes none while it starts it, and answers the moment it has: so it is
        asked once the container is there, and its answer comes with the script's.
        """
        self._early[name] = None

        async def described() -> Mapping[str, Any]:
            early = self._early[name]
            with suppress(EngineFailed, WorkerUnreachable):
                if early is not None and has_begun(found := await early):
                    return found
            async with self._watching() as watch:
                return await watch.describe(name)

        try:
            yield described
        finally:
            if (early := self._early.pop(name)) is not None:
                early.cancel()

    async def _admitted(
        self, script: str, order: Order, *, read_back: bool
    ) -> Outcome | Undo | Unread:
        """Asks until the worker's lock was had: a waiting start must not outlive its sender."""
        deadline = time.monotonic() + LOCK_PATIENCE
        timeout = START_TIMEOUT
        if order.parcel.pieces:
            timeout += files.at_disk_speed(order.parcel.size)
        while True:
            reply = await self._shell.run(script, timeout=timeout)
            outcome = parse_start(reply.text, order, worker_id=self._spec.id, read_back=read_back)
            if not isinstance(outcome, LockHeld):
                return outcome
            if time.monotonic() >= deadline:
                raise EngineFailed(
                    f"other starts held the lock of {self._spec.id} for {LOCK_PATIENCE:.0f} s",
                    hint="it is tried again",
                )

    async def _start_script(self, order: Order, *, read_back: bool) -> str:
        _check(order)
        env = command.plan_env({**array_env(order.spec), **group_env(order), **order.env})
        learned = await self._known()
        spec = order.spec
        return render(
            "start",
            docker_host=self._spec.engine_socket or "",
            endpoint=learned.endpoint,
            name=order.assignment_id,
            task=order.task_id,
            store=order.store_id,
            image=self._image_of(spec),
            options=command.run_options(
                order,
                storage_limit=learned.storage_limit,
                env=tuple(env.exported),
                open_files=learned.open_files,
            ),
            argv=command.arguments(spec),
            env_lines=env.lines,
            exported=[f"{name}={value}" for name, value in env.exported.items()],
            secrets=secret_files(order.secrets),
            engine=learned.engine,
            held_format=command.HELD,
            read_back=int(read_back),
            time_limit=math.ceil(spec.time_limit or 0),
            first_output=math.ceil(spec.first_output or 0),
            idle_output=math.ceil(spec.idle_output or 0),
            signal=spec.signal or "",
            before=math.ceil(spec.signal_before) if spec.signal else 0,
            grace=math.ceil(max(0.0, spec.grace)),
            gpu_by=learned.gpu_by,
            cpus=learned.cpus,
            memory=learned.memory,
            data_root=learned.data_root,
            **files.of_start(order.parcel),
            **command.admission(spec, self._spec),
        )

    async def pull(
        self, image: str, *, login: RegistryLogin | None = None, stall: float = STALL
    ) -> AsyncIterator[PullProgress]:
        """See ``Engine.pull``. ``stall``: seconds without progress that end it."""
        learned = await self._known()
        script = render(
            "pull",
            # A folder of settings of our own has none of the login's, which may name the engine.
            docker_host=learned.endpoint if login else self._spec.engine_socket or "",
            settings=login_settings(login) if login else "",
            data_root=learned.data_root,
            image=image,
            tick=max(1, min(TICK, int(stall / 4))),
        )
        pull = Pull(image, stall=stall, clock=time.monotonic)
        async with self._shell.stream(script, idle_timeout=60) as chunks:
            async for line in lines_of(chunks):
                if progress := pull.line(line):
                    yield progress
                if pull.status is not None:
                    break
        pull.finish()

    def _image_of(self, spec: TaskSpec) -> str:
        """What ``docker run`` is given: by its id where it is the sender's own image."""
        if spec.ship_image is None:
            return spec.image
        return self._shipped.get(spec.ship_image, spec.ship_image)

    async def ship(
        self, image: LocalImage, source: ImageSource, *, tell: Callable[[Shipment], None]
    ) -> Shipment:
        """See ``Engine.ship``."""
        reply = await self._run("images", 150, reference=image.reference)
        there = read_there(Parts(reply.text), image, worker_id=self._spec.id)
        refuse_other_platform(image, there, worker_id=self._spec.id)
        may_tag = image.named and "@" not in image.reference
        if there.same is not None:
            self._shipped[image.id] = there.same
            if may_tag and not there.named:
                await self._tag(image, there.same)
            return Shipment(layers=len(image.layers), sent_layers=0, sent=0, done=0, total=0)
        if there.containerd and not image.named:
            raise EngineFailed(
                f"{image.reference} is another image on this machine by now, and the Docker of"
                f" {self._spec.id} takes an image by its name alone",
                hint="submit the task again",
            )
        cargo = Cargo(image, source, there, tell=tell)
        script = render(
            "load",
            docker_host=self._spec.engine_socket or "",
            image_id=image.id,
            reference=image.reference,
            tag=int(may_tag and not there.containerd),
            look_for=image.reference if there.containerd else image.id,
        )
        async with aclosing(cargo.stream()) as chunks:
            reply = await self._shell.feed(script, chunks, idle_timeout=STALL, timeout=LOAD_WITHIN)
        self._shipped[image.id] = arrived(Parts(reply.text), image, worker_id=self._spec.id)
        return cargo.shipment

    async def _tag(self, image: LocalImage, image_id: str) -> None:
        reply = await self._run("tag", 60, image_id=image_id, reference=image.reference)
        parts = Parts(reply.text)
        if parts.status("tag") != 0:
            raise EngineFailed(
                f"{self._spec.id} has {image.reference}, and cannot name it so: {parts.said('tag')}"
            )

    async def stop(
        self, assignment_id: str, *, grace: float, signal: str | None = None, before: float = 0
    ) -> None:
        """See ``Engine.stop``. Raises ``EngineFailed`` for a container that is not ours."""
        if signal is not None and not await self._tell(assignment_id, signal, before):
            return
        seconds = math.ceil(max(0.0, grace))
        limit = seconds + 20
        reply = await self._run(
            "stop", limit + 60.0, name=_name(assignment_id), grace=seconds, limit=limit
        )
        parts = Parts(reply.text)
        if self._ours(parts, assignment_id) in ("running", "restarting", "paused"):
            self._demand(parts, "stop", assignment_id)

    async def _tell(self, assignment_id: str, signal: str, before: float) -> bool:
        """Sends the signal, if nobody did, and waits here for the rest of its time: that takes no
        session of the worker's. Whether the container still lives after it."""
        seconds = math.ceil(max(0.0, before))
        reply = await self._run(
            "tell", 180, name=_name(assignment_id), signal=signal, before=seconds
        )
        parts = Parts(reply.text)
        if self._ours(parts, assignment_id) not in ("running", "restarting", "paused"):
            return False
        # Where no note of it could be kept (a full disk), no signal was sent either.
        told = whole_number("".join(parts.lines("left"))) or 0
        ends = time.monotonic() + min(told, seconds)
        while (left := ends - time.monotonic()) > 0:
            sight = await self.look(assignment_id)
            if sight is None or sight.phase is Phase.EXITED:
                return False
            await asyncio.sleep(min(LOOK_AGAIN, left))
        return True

    async def ending(self, assignment_id: str) -> Ending | None:
        """See ``Engine.ending``."""
        async with self._watching() as watch:
            noted = await watch.volume_labels(f"{_name(assignment_id)}.end")
        if noted.get(labels.ASSIGNMENT) != assignment_id:
            return None
        try:
            return Ending(noted.get(labels.END, ""))
        except ValueError:
            return None

    async def remove(self, assignment_id: str, *, noted: bool = True, secrets: bool = True) -> None:
        """See ``Engine.remove``. Raises ``EngineFailed`` for one that runs or is not ours."""
        if not noted and not secrets and self.watching == "api":
            # Nothing but the container: two calls through the open socket, where a script with
            # two docker commands would take twenty times their CPU.
            async with self._watching() as watch:
                await self._remove_by(watch, _name(assignment_id))
            return
        reply = await self._run("remove", 120, name=_name(assignment_id), noted=int(noted))
        parts = Parts(reply.text)
        if self._may_go(assignment_id, self._ours(parts, assignment_id)):
            self._demand(parts, "remove", assignment_id)

    async def _remove_by(self, watch: Watch, name: str) -> None:
        found = await watch.describe(name)
        if not found:
            return
        named = mapping(mapping(found.get("Config")).get("Labels"))
        if named.get(labels.ASSIGNMENT) != name:
            raise self._not_ours(name)
        if self._may_go(name, str(mapping(found.get("State")).get("Status"))):
            await watch.remove(str(found["Id"]))

    def _may_go(self, assignment_id: str, state: str) -> bool:
        """Whether there is one to remove. Raises ``EngineFailed`` where it runs."""
        if state not in ("", "created", "exited", "dead", "removing"):
            raise EngineFailed(f"{assignment_id} is {state} on {self._spec.id}: not removed")
        return state not in ("", "removing")

    # --- files

    async def put(
        self, store_id: str, pack: str, data: AsyncIterator[bytes], *, begin: int, size: int
    ) -> None:
        """See ``Engine.put``."""
        await files.put(
            self._shell,
            data,
            worker_id=self._spec.id,
            store_id=store_id,
            pack=pack,
            begin=begin,
            size=size,
        )

    async def forget_files(self, store_id: str) -> None:
        """See ``Engine.forget_files``."""
        reply = await self._shell.run(render("forget_files", store=store_id), timeout=120)
        if reply.text.strip() != "gone":
            raise EngineFailed(f"{self._spec.id} did not remove ~/.cache/cloudai/{store_id}")

    @asynccontextmanager
    async def fetch(
        self, container_id: str, path: str, *, begin: int = 0
    ) -> AsyncIterator[Fetched]:
        """See ``Engine.fetch``."""
        async with files.fetch(
            self._shell,
            docker_host=self._spec.engine_socket or "",
            container_id=container_id,
            path=path,
            begin=begin,
        ) as fetched:
            yield fetched

    async def copy_in(self, container_id: str, data: AsyncIterator[bytes]) -> None:
        """See ``Engine.copy_in``."""
        await files.copy_in(
            self._shell,
            data,
            docker_host=self._spec.engine_socket or "",
            container_id=container_id,
        )

    def preview(self, order: Order) -> str:
        """See ``Engine.preview``."""
        limit = self._learned.storage_limit if self._learned else "watch"
        return command.preview(order.spec, storage_limit=limit)

    # --- watching

    async def look(self, assignment_id: str) -> ContainerSight | None:
        """See ``Engine.look``."""
        async with self._watching() as watch:
            return await watch.look(assignment_id)

    async def observe(self) -> tuple[ContainerSight, ...]:
        """See ``Engine.observe``."""
        async with self._watching() as watch:
            return await watch.observe()

    @asynccontextmanager
    async def happenings(self) -> AsyncIterator[AsyncIterator[Happening]]:
        """See ``Engine.happenings``."""
        async with (
            self._watching() as watch,
            watch.happenings() as stream,
            aclosing(self._heeded(watch, stream)) as heeded,
        ):
            yield heeded

    async def _heeded(
        self, watch: Watch, stream: AsyncIterator[Happening]
    ) -> AsyncGenerator[Happening, None]:
        async for happening in stream:
            name = happening.assignment_id
            if happening.action == "create" and name in self._early:
                self._early[name] = early = asyncio.ensure_future(_once_begun(watch, name))
                # Whether anybody asks for it is not known: what it failed by is read here.
                early.add_done_callback(lambda done: done.cancelled() or done.exception())
            yield happening

    @asynccontextmanager
    async def logs(
        self, container_id: str, *, since: int = 0, follow: bool = False, tail: int | None = None
    ) -> AsyncIterator[AsyncIterator[LogBatch]]:
        """See ``Engine.logs``."""
        async with (
            self._watching() as watch,
            watch.logs(container_id, since=since, follow=follow, tail=tail) as records,
        ):
            yield records

    async def usage(self, container_ids: Sequence[str]) -> Mapping[str, Usage]:
        """See ``Engine.usage``."""
        async with self._watching() as watch:
            return await watch.usage(container_ids)

    async def sizes(self) -> Mapping[str, int]:
        """See ``Engine.sizes``."""
        async with self._watching() as watch:
            return await watch.sizes()

    @asynccontextmanager
    async def execute(
        self, container_id: str, argv: Sequence[str], *, tty: bool, columns: int, rows: int
    ) -> AsyncIterator[Terminal]:
        """See ``Engine.execute``."""
        async with (
            self._watching() as watch,
            watch.execute(container_id, argv, tty=tty, columns=columns, rows=rows) as terminal,
        ):
            yield terminal

    @property
    def address(self) -> str:
        """See ``Engine.address``."""
        return self._shell.address

    @property
    def log_room(self) -> int:
        """See ``Engine.log_room``."""
        return command.LOG_ROOM

    @property
    def watching(self) -> Way | None:
        """How the worker is watched now; ``None`` while it is not."""
        return self._watch.way if self._watch else None

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator[Watch]:
        """The open watch, opened on first use. One that lost its worker is not used again; one
        slow or cut answer is no loss to those who follow logs and events through it."""
        learned = await self._known()
        async with self._opening:
            if self._watch is None:
                self._watch = await open_watch(
                    self._shell,
                    learned.endpoint,
                    host=self._spec.engine_socket or "",
                    prefer=self._watch_via,
                )
            watch = self._watch
        try:
            yield watch
        except WorkerUnreachable:
            if not await watch.answers() and self._watch is watch:
                self._watch = None
                await watch.close()
            raise

    async def close(self) -> None:
        """Ends the watch and the shell's connections; the next verb opens them again. So a
        link that went silent is not waited for a second time."""
        watch, self._watch = self._watch, None
        try:
            if watch is not None:
                await watch.close()
        finally:
            await self._shell.close()

    # --- scripts

    async def _run(self, script: str, timeout: float, /, **values: str | int) -> Reply:
        host = self._spec.engine_socket or ""
        return await self._shell.run(render(script, docker_host=host, **values), timeout=timeout)

    async def _known(self) -> Learned:
        if self._learned is None:
            await self.probe()
        assert self._learned is not None
        return self._learned

    def _endpoint(self) -> str:
        if self._learned is not None:
            return self._learned.endpoint
        return self._spec.engine_socket or "unix:///var/run/docker.sock"

    def _ours(self, parts: Parts, assignment_id: str) -> str:
        """The state of a container of ours; empty where there is none of that name."""
        words = parts.said("label")
        if parts.status("label") in TOO_LATE:
            raise Indeterminate(f"Docker on {self._spec.id} did not answer in time")
        if parts.status("label") != 0:
            if re.search(r"no such (container|object)", words, re.IGNORECASE):
                return ""
            raise EngineFailed(f"Docker does not answer on {self._spec.id}: {words}")
        state, _, label = words.partition(" ")
        if label != assignment_id:
            raise self._not_ours(assignment_id)
        return state

    def _not_ours(self, assignment_id: str) -> EngineFailed:
        return EngineFailed(
            f"the container {assignment_id} on {self._spec.id} is not cloudai's,"
            " nothing was touched"
        )

    def _demand(self, parts: Parts, part: str, assignment_id: str) -> None:
        status, words = parts.status(part), parts.said(part)
        if status in TOO_LATE:
            raise Indeterminate(f"Docker on {self._spec.id} did not {part} {assignment_id} in time")
        gone = re.search(r"no such container|already in progress", words, re.IGNORECASE)
        if status != 0 and not gone:
            raise EngineFailed(f"Docker on {self._spec.id} did not {part} {assignment_id}: {words}")


async def _once_begun(watch: Watch, name: str) -> Mapping[str, Any]:
    """How a container is described that was created just now: between that and its start the
    engine may answer at once, and not again before it has started."""
    found: Mapping[str, Any] = {}
    for _ in range(EARLY_LOOKS):
        found = await watch.describe(name)
        if has_begun(found):
            break
    return found


def _name(assignment_id: str) -> str:
    if not NAME.fullmatch(assignment_id):
        raise InvalidInput(f"{assignment_id!r} cannot be the name of a container")
    return assignment_id


def _check(order: Order) -> None:
    """What a worker would misread rather than refuse. Raises ``InvalidInput``."""
    _name(order.assignment_id)
    milli = order.spec.resources.gpu_milli
    if milli > 1000 and milli % 1000:
        raise InvalidInput(
            f"{milli / 1000:g} GPUs cannot be given",
            hint="ask for whole ones, or for a share below 1",
        )
    if order.spec.resources.cpu_milli <= 0 or order.spec.resources.memory <= 0:
        raise InvalidInput("a task needs some CPU and some memory")
    words = [order.spec.image, order.spec.shell or "", *order.spec.argv, *order.spec.mounts]
    words += [order.spec.workdir or "", order.spec.run_as or "", order.spec.user_id]
    for word in [*words, order.spec.name or ""]:
        if "\x00" in word or word.encode("utf-8", "replace").decode() != word:
            raise InvalidInput(
                "its image, command or options hold bytes that no program can be given"
            )
