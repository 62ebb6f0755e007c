"""What tasks bring along, on its way to their workers, and what they send home.

Both go on where they were cut: a worker keeps what came of a pack, and this side what came of a
download; both are checked by their SHA-256 before anybody counts on them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from cloudai.core.errors import (
    CloudaiError,
    ContainerGone,
    EngineFailed,
    NotFound,
    WorkerUnreachable,
)
from cloudai.core.files import Download, Parcel, downloads_of
from cloudai.core.model import Assignment, State, Task
from cloudai.crash import point
from cloudai.disk import FULL_DISK, as_store_failed, make_private_folder, write_whole
from cloudai.files import Refused, Staging, place
from cloudai.files.arrive import Unpacked
from cloudai.service import Service

from .link import Link, Reach

log = logging.getLogger(__name__)

T = TypeVar("T")
GIVEN_UP_AFTER = 5
"""Times an engine refuses a download, or it comes damaged, before the task is told and it goes on
without."""
PAUSE = 2.0
"""Seconds between such tries, times how many there were."""
LOOK_AGAIN = 30.0
"""Seconds after which a worker that did not take its files away is told to again."""


class Unwanted(EngineFailed):
    """The task is to stop: what it brings along is of no use."""


class Carrier:
    """Carries for the tasks of one controller. ``phases``: task -> what it is at, for people."""

    def __init__(self, service: Service, phases: dict[str, str]) -> None:
        self._service = service
        self._phases = phases
        self._packs: dict[tuple[str, str], asyncio.Lock] = {}
        self._links: dict[str, asyncio.Lock] = {}
        self._unwanted: set[str] = set()
        self._failures: dict[tuple[str, int], int] = {}
        self._unneeded: dict[str, float] = {}
        """worker that has what no task needs -> the monotonic time before which it is let be"""

    def changed(self, task: Task) -> None:
        """Hears of every change: one that is to stop, or ended, is not waited for."""
        if task.assignment is None:
            return
        if task.state is State.STARTING or not task.spec.uploads:
            self._unwanted.discard(task.assignment.id)
        else:
            self._unwanted.add(task.assignment.id)

    # ---------------------------------------------------------------- there

    async def parcel(self, task: Task) -> Parcel:
        """What it brings along. Raises ``NotFound`` where that is gone."""
        if not task.spec.uploads:
            return Parcel()
        return await asyncio.to_thread(self._service.files.parcel, task.spec)

    async def send(self, task: Task, link: Link, parcel: Parcel, have: Mapping[str, int]) -> None:
        """Puts what is missing on the worker. Several tasks that need the same share one
        transfer. Not under the worker's lock, and not in a place for starts."""
        assert task.assignment is not None
        service, left = self._service, sum(parcel.packs[pack] for pack in have)
        async with self._of(link):
            await asyncio.to_thread(service.files.sent_to, link.id)
            for pack, came in have.items():
                lock = self._packs.setdefault((link.id, pack), asyncio.Lock())
                if lock.locked():
                    self._phases[task.id] = "waiting for its files to be sent"
                    async with lock:
                        return  # the next start says what is missing still
                async with lock:
                    size = parcel.packs[pack]
                    await service.note(task.id, "uploading", f"{_size(size - came)} to {link.id}")
                    point("upload.begun")
                    data = self._sent(task, pack, came, left)
                    try:
                        await link.engine.put(service.store.id, pack, data, begin=came, size=size)
                    finally:
                        await data.aclose()
                    left -= size
                self._packs.pop((link.id, pack), None)
        point("upload.done")
        await service.note(task.id, "uploaded", f"to {link.id}")

    async def _sent(
        self, task: Task, pack: str, begin: int, left: int
    ) -> AsyncGenerator[bytes, None]:
        assert task.assignment is not None
        chunks, done = self._service.files.read(pack, begin), begin
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            if task.assignment.id in self._unwanted:
                raise Unwanted("it is to stop: nothing more is sent")
            yield chunk
            done += len(chunk)
            self._phases[task.id] = f"uploading: {_size(done)} of {_size(left)}"

    def _of(self, link: Link) -> asyncio.Lock:
        """Held while something is sent to a worker, or taken away there."""
        return self._links.setdefault(link.id, asyncio.Lock())

    # ---------------------------------------------------------------- and away again

    async def tidy(self, link_of: Callable[[str], Link | None]) -> None:
        """Takes what no task of this store needs any more away from workers that can be
        reached. Call it often: it does nothing where nothing is to be done."""
        service = self._service
        if service.forgot_uploads:
            service.forgot_uploads = False
            having = await asyncio.to_thread(service.files.workers)
            if having:
                needed = await service.in_thread(service.store.workers_with_uploads)
                self._unneeded = {one: 0.0 for one in having if one not in needed}
        for worker_id, not_before in tuple(self._unneeded.items()):
            link = link_of(worker_id)
            if link is None or link.reach is not Reach.ACTIVE or time.monotonic() < not_before:
                continue
            if await self.forget(link):
                self._unneeded.pop(worker_id, None)
            else:
                self._unneeded[worker_id] = time.monotonic() + LOOK_AGAIN

    @property
    def untidy(self) -> bool:
        """Whether there is something to be taken away, or may be."""
        return self._service.forgot_uploads or bool(self._unneeded)

    async def forget(self, link: Link, *, even_needed: bool = False) -> bool:
        """Takes everything away from one worker, unless tasks need it (``even_needed``: then
        too). Whether it is gone."""
        service = self._service
        async with self._of(link):
            needed = await service.in_thread(service.store.workers_with_uploads)
            if link.id in needed and not even_needed:
                return True  # again needed: not now
            point("forget.files")
            try:
                await link.engine.forget_files(service.store.id)
            except WorkerUnreachable as error:
                link.lost(error)
                return False
            except CloudaiError as error:
                log.warning("worker %s: its files: %s", link.id, error)
                return False
            await asyncio.to_thread(service.files.gone_from, link.id)
        return True

    # ---------------------------------------------------------------- home

    async def bring(self, task: Task, held: Assignment, link: Link) -> None:
        """All downloads of a task that has ended, of its last try. Raises what lets it be tried
        again: ``WorkerUnreachable``, ``EngineFailed``, ``StoreFull``. What can never succeed is
        told in the task's story."""
        downloads = downloads_of(task.spec)
        if not downloads or held.container_id is None or not await self._is_last(task, held):
            return
        for index, one in enumerate(downloads):
            if await asyncio.to_thread(self._brought, held, index):
                continue
            try:
                await self._bring_one(task, held, link, index, one)
            except NotFound as error:
                if isinstance(error, ContainerGone):
                    raise
                await self._warn(task, f"{one.path} is not brought home: {error.message}")
            except Refused as error:
                await self._warn(task, f"{one.path} is not brought home: {error}")
            except EngineFailed as error:
                if isinstance(error, ContainerGone):
                    raise
                await self._count(task, held, index, one, error)
            except WorkerUnreachable:
                self._phases.pop(task.id, None)
                raise
            await asyncio.to_thread(self._mark, held, index)
            point("download.placed")
            self._staging(task, held, index, one).remove()
            self._staging_at_home(held, index).remove()
            self._failures.pop((held.id, index), None)

    def done_with(self, held: Assignment) -> None:
        """Its container is gone, and that is recorded."""
        for path in self._marks.glob(f"{held.id}-*"):
            path.unlink(missing_ok=True)

    async def _count(
        self, task: Task, held: Assignment, index: int, one: Download, error: CloudaiError
    ) -> None:
        """Raises, for another try, until it was tried often enough."""
        failures = self._failures[held.id, index] = self._failures.get((held.id, index), 0) + 1
        if failures < GIVEN_UP_AFTER:
            self._phases[task.id] = f"bringing {one.path} home failed: {error.message}"
            await asyncio.sleep(PAUSE * failures)
            raise error
        await self._warn(task, f"{one.path} is not brought home: {error.message}")

    async def _warn(self, task: Task, words: str) -> None:
        log.warning("%s: %s", task.id, words)
        await self._service.note(task.id, "warning", words)

    async def _is_last(self, task: Task, held: Assignment) -> bool:
        """An earlier try's results would only be in the way of the last one's."""
        present = await self._service.in_thread(self._service.store.get, task.id)
        last = present.assignment
        return present.state.final and last is not None and last.number == held.number

    async def _bring_one(
        self, task: Task, held: Assignment, link: Link, index: int, one: Download
    ) -> None:
        to = Path(one.place(task.id, task.spec.array_index))
        staging = self._staging(task, held, index, one)
        try:
            begin = await asyncio.to_thread(staging.begin)
        except OSError as error:
            if error.errno in FULL_DISK:
                raise as_store_failed(error, staging.folder) from None
            await self._warn(task, f"{to} cannot be written: {error.strerror}")
            to = self._service.home / "results" / f"{held.id}-{index}"
            staging = self._staging_at_home(held, index)
            begin = await _on_disk(staging.begin, staging.folder)
        await self._gather(task, held, link, one, staging, begin)
        point("download.came")
        unpacked = await _on_disk(staging.unpack, staging.folder)
        where = await self._place(task, held, index, unpacked, to)
        words = f"{one.path} is in {where}: {unpacked.files} files, {_size(unpacked.size)}"
        await self._service.note(task.id, "downloaded", words)
        for left_out in unpacked.left_out:
            await self._warn(task, f"left out of {one.path}: {left_out}")

    async def _gather(
        self, task: Task, held: Assignment, link: Link, one: Download, staging: Staging, begin: int
    ) -> None:
        assert held.container_id is not None
        came = begin
        self._phases[task.id] = f"bringing {one.path} home"
        async with link.engine.fetch(held.container_id, one.path, begin=begin) as fetched:
            async for chunk in fetched.chunks:
                await _on_disk(partial(staging.append, chunk), staging.folder)
                came += len(chunk)
                self._phases[task.id] = f"bringing {one.path} home: {_size(came)}"
        if await _on_disk(staging.digest, staging.folder) != fetched.digest:
            await asyncio.to_thread(staging.spoiled)
            raise EngineFailed("what came is not what was sent", hint="it is fetched anew")

    async def _place(
        self, task: Task, held: Assignment, index: int, unpacked: Unpacked, to: Path
    ) -> Path:
        """Where it is to go, or, where that cannot be, under ``results`` at home."""
        try:
            return await asyncio.to_thread(place, unpacked.root, to)
        except Refused as error:
            words = str(error)
        except OSError as error:
            if error.errno in FULL_DISK:
                raise as_store_failed(error, to) from None
            words = f"{error.filename or to}: {error.strerror}"
        await self._warn(task, words)
        instead = self._service.home / "results" / f"{held.id}-{index}"
        await _on_disk(lambda: make_private_folder(instead.parent), instead)
        if unpacked.root.is_dir():
            return await _on_disk(lambda: place(unpacked.root, instead), instead)
        return await _on_disk(lambda: place(unpacked.root, instead / "-").parent, instead)

    # ---------------------------------------------------------------- what is done

    @property
    def _marks(self) -> Path:
        return self._service.home / "files" / "brought"

    def _brought(self, held: Assignment, index: int) -> bool:
        return (self._marks / f"{held.id}-{index}").exists()

    def _mark(self, held: Assignment, index: int) -> None:
        make_private_folder(self._marks)
        write_whole(self._marks / f"{held.id}-{index}", b"")

    def _staging(self, task: Task, held: Assignment, index: int, one: Download) -> Staging:
        to = Path(one.place(task.id, task.spec.array_index))
        return Staging(to.parent / f".cloudai-{held.id}-{index}")

    def _staging_at_home(self, held: Assignment, index: int) -> Staging:
        return Staging(self._service.home / "results" / f".cloudai-{held.id}-{index}")


async def _on_disk(call: Callable[[], T], path: Path) -> T:
    """In a thread. Raises ``StoreFailed`` and its kin for ``OSError``."""
    try:
        return await asyncio.to_thread(call)
    except OSError as error:
        raise as_store_failed(error, path) from error


def _size(size: int) -> str:
    """For people."""
    value, unit = float(size), "B"
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1024 or unit == "GB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
