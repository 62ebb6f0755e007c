"""Bringing logs home, and reading them while they come.

There is one way: from the worker's engine into the archive, and from the archive to whoever
reads. A reader of a running task starts a follower for it; the last one to leave ends it; when
the task ends, the harvest brings what is missing, and makes sure of what was followed. A cut
stream goes on where the archive ends; see ``gather`` for what the engine lost meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

from cloudai.archive import Archive, LogWriter
from cloudai.core.errors import (
    CloudaiError,
    ContainerGone,
    EngineFailed,
    LogUnreadable,
    StoreFailed,
    WorkerUnreachable,
)
from cloudai.core.model import Task
from cloudai.crash import point

from .gather import Gatherer, Opened
from .link import Link
from .signals import Signal

log = logging.getLogger(__name__)

Key = tuple[str, int]
SILENCE = 30.0
"""Seconds after which a follower that brought nothing is compared with the log's end."""
ON_ITS_WAY = 2.0
"""Seconds a record may take from the engine's file to its follower."""
UNREADABLE_AFTER = 3
"""Tries after which the rest of an ended container's log counts as unreadable for good: a full
disk tears the record that was being written, and the engine reads no further."""
FULL = 5.0
"""Seconds between tries where the disk at home takes nothing."""


class Collection:
    """One assignment's log on its way home. At most one stream writes at a time."""

    def __init__(self, archive: Archive, key: Key) -> None:
        self.archive = archive
        self.key = key
        self.grown = Signal()
        self.readers = 0
        self.follower: asyncio.Task[None] | None = None
        self.closing = False
        """The harvest is at work: nobody follows any more."""
        self.moved = 0
        """Bytes by which what was read moved since the beginning: see ``Gatherer.moved``."""
        self._unreadable = 0
        self._writing = asyncio.Lock()

    async def bring(self, link: Link, container_id: str, *, follow: bool) -> None:
        """Appends what the engine has beyond the archive's end; with ``follow`` until the
        container ends. Raises what the engine raises; what came is kept."""
        async with self._gathering(link, container_id) as gathering:
            if gathering is None:
                return
            gatherer, writer = gathering
            await gatherer.bring()
            if follow:
                await self._follow(link, container_id, writer)

    async def finish(self, link: Link, container_id: str) -> None:
        """Brings the rest and closes the archive. Raises what the engine raises."""
        self.closing = True
        try:
            await self._stop_following()
            async with self._gathering(link, container_id) as gathering:
                if gathering is not None:
                    await self._bring_rest(*gathering)
        except ContainerGone:
            await self.close()
            raise
        finally:
            self.closing = False
        point("harvest.brought")
        await self.close()

    async def _bring_rest(self, gatherer: Gatherer, writer: LogWriter) -> None:
        """What the engine cannot read is a gap at the log's end."""
        try:
            await gatherer.bring(final=True)
        except LogUnreadable as error:
            self._unreadable += 1
            if self._unreadable < UNREADABLE_AFTER:
                raise
            log.warning("%s: the rest of its log is given up: %s", self.key, error)
            writer.mark_gap(None)

    async def close(self) -> None:
        """Marks the log whole and compresses it, in a thread: both read all of it."""
        async with self._writing:
            await asyncio.to_thread(self._finish)
        self.grown.fire()

    def _finish(self) -> None:
        with self.archive.writer(*self.key) as writer:
            writer.finish()
        try:
            self.archive.compress(*self.key)
        except StoreFailed as error:
            log.warning("%s: its log stays uncompressed: %s", self.key, error)

    @asynccontextmanager
    async def _gathering(
        self, link: Link, container_id: str
    ) -> AsyncIterator[tuple[Gatherer, LogWriter] | None]:
        """``None`` where the log is whole already."""
        async with self._writing:
            if self.archive.complete(*self.key):
                yield None
                return
            with self.archive.writer(*self.key) as writer:
                gatherer = self._gatherer(link, container_id, writer, follow=False)
                try:
                    yield gatherer, writer
                finally:
                    if gatherer.moved:
                        self.moved += gatherer.moved
                        self.grown.fire()

    def _gatherer(
        self, link: Link, container_id: str, writer: LogWriter, *, follow: bool
    ) -> Gatherer:
        def open_log(since: int) -> Opened:
            return link.engine.logs(container_id, since=since, follow=follow)

        return Gatherer(
            self.archive,
            self.key,
            writer,
            open_log,
            room=link.engine.log_room,
            grown=self.grown.fire,
        )

    async def _follow(self, link: Link, container_id: str, writer: LogWriter) -> None:
        """As long as the gatherer does, and as the follower is not found to be silent."""
        gatherer = self._gatherer(link, container_id, writer, follow=True)
        following = asyncio.ensure_future(gatherer.follow())
        try:
            while True:
                size = writer.resume.size
                await asyncio.wait({following}, timeout=SILENCE)
                if following.done():
                    await following
                    return
                if writer.resume.size == size and await self._is_deaf(link, container_id, writer):
                    log.info("%s: the log goes on and its follower is silent", self.key)
                    return
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _is_deaf(self, link: Link, container_id: str, writer: LogWriter) -> bool:
        """Whether the engine has a last record that a silent follower did not bring."""
        before = writer.resume
        last = None
        try:
            async with link.engine.logs(container_id, tail=1) as batches:
                async for batch in batches:
                    last = batch[-1]
        except EngineFailed as error:
            log.debug("%s: its last record: %s", self.key, error)
        if last is None:
            return False
        begin = max(0, before.size - len(last.data))
        end = b"".join(self.archive.read_from(*self.key, begin, marks=False))
        if last.at <= before.at and end == last.data:
            return False
        # It may be on its way.
        await asyncio.sleep(ON_ITS_WAY)
        return writer.resume == before

    async def _stop_following(self) -> None:
        if self.follower is not None:
            self.follower.cancel()
            await asyncio.gather(self.follower, return_exceptions=True)


class Collector:
    """All logs on their way home."""

    def __init__(self, archive: Archive, link_of: Callable[[str], Link | None]) -> None:
        self.archive = archive
        self._link_of = link_of
        self._collections: dict[Key, Collection] = {}

    def of(self, task: Task) -> Collection:
        assert task.assignment is not None
        key = (task.id, task.assignment.number)
        return self._collections.setdefault(key, Collection(self.archive, key))

    async def finish(self, task: Task, link: Link) -> None:
        """The harvest's part. Raises ``ContainerGone`` when the container is gone already."""
        assert task.assignment is not None
        collection = self.of(task)
        if not self.archive.complete(*collection.key):
            assert task.assignment.container_id is not None
            await collection.finish(link, task.assignment.container_id)
        else:
            await collection.close()
        collection.grown.fire()
        if not collection.readers:
            self._collections.pop(collection.key, None)

    async def catch_up(self, task: Task) -> None:
        """Brings home what the engine has now. Raises ``WorkerUnreachable`` and others."""
        assignment = task.assignment
        if assignment is None or assignment.container_id is None or assignment.harvested:
            return
        link = self._link_of(assignment.worker_id)
        if link is None:
            return
        collection = self.of(task)
        if collection.follower is None:
            await collection.bring(link, assignment.container_id, follow=False)

    async def follow(self, task: Task) -> AsyncGenerator[tuple[int, bool], None]:
        """Yields each time the task's log at home grew, with the bytes by which what was read
        before has moved, and at first and after a second without that (``True``). Keeps a
        follower while it is used."""
        assert task.assignment is not None
        assert task.assignment.container_id is not None
        collection = self.of(task)
        collection.readers += 1
        moved, heard = collection.moved, False
        try:
            while True:
                followed = collection.follower is not None and not collection.follower.done()
                if not followed and not collection.closing:
                    collection.follower = asyncio.ensure_future(
                        self._keep_following(
                            collection, task.assignment.worker_id, task.assignment.container_id
                        )
                    )
                ear = collection.grown.listen()
                yield collection.moved - moved, not heard
                moved = collection.moved
                # The timeout is no poll for bytes: it notices an end that nobody announced.
                heard = await ear.wait(timeout=1)
        finally:
            collection.readers -= 1
            if not collection.readers and collection.follower is not None:
                collection.follower.cancel()
                collection.follower = None

    async def _keep_following(
        self, collection: Collection, worker_id: str, container_id: str
    ) -> None:
        """Follows across lost connections, until the container ended or the log is whole."""
        while not self.archive.complete(*collection.key):
            link = self._link_of(worker_id)
            if link is None:
                return
            try:
                await collection.bring(link, container_id, follow=True)
            except WorkerUnreachable as error:
                log.debug("%s: log stream of %s cut: %s", worker_id, collection.key, error)
                link.lost(error)
            except StoreFailed as error:
                log.warning("log of %s: %s", collection.key, error)
                await asyncio.sleep(FULL)
            except CloudaiError as error:
                log.info("%s: log of %s: %s", worker_id, collection.key, error)
            # Ended, or cut: the container's end is the harvest's business. Not in a hurry.
            await asyncio.sleep(0.2)
