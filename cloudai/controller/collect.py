"""Bringing logs home, and reading them while they come.

There is one way: from the worker's engine into the archive, and from the archive to whoever
reads. A reader of a running task starts a follower for it; the last one to leave ends it; when
the task ends, the harvest brings what is missing. A cut stream goes on where the archive ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable

from cloudai.archive import Archive, LogWriter
from cloudai.core.errors import CloudaiError, ContainerGone, WorkerUnreachable
from cloudai.core.model import Task
from cloudai.crash import point

from .link import Link
from .signals import Signal

log = logging.getLogger(__name__)

Key = tuple[str, int]


class Collection:
    """One assignment's log on its way home. At most one stream writes at a time."""

    def __init__(self, archive: Archive, key: Key) -> None:
        self.archive = archive
        self.key = key
        self.grown = Signal()
        self.readers = 0
        self.follower: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    async def bring(self, link: Link, container_id: str, *, follow: bool) -> None:
        """Appends what the engine has beyond the archive's end; with ``follow`` until the
        container ends. Raises what the engine raises; what came is kept."""
        async with self._writing:
            if self.archive.complete(*self.key):
                return
            with self.archive.writer(*self.key) as writer:
                resume = writer.resume
                skip = resume.count
                batch = _Batch(writer, self.grown)
                stream = link.engine.logs(container_id, since=resume.at, follow=follow)
                try:
                    async with stream as records:
                        async for record in records:
                            if skip == resume.count and record.at != resume.at:
                                skip = 0  # what was written last is gone there: a gap
                            if skip:
                                skip -= 1
                            else:
                                batch.add(record.at, record.data)
                finally:
                    batch.flush()

    async def finish(self, link: Link, container_id: str) -> None:
        """Brings the rest and closes the archive. Raises what the engine raises."""
        if self.follower is not None:
            self.follower.cancel()
            await asyncio.gather(self.follower, return_exceptions=True)
        try:
            await self.bring(link, container_id, follow=False)
        except ContainerGone:
            await self.close()
            raise
        point("harvest.brought")
        await self.close()

    async def close(self) -> None:
        """Marks the log whole. In a thread: it reads the log once for its checksum."""
        async with self._writing:
            await asyncio.to_thread(self._finish)
        self.grown.fire()

    def _finish(self) -> None:
        with self.archive.writer(*self.key) as writer:
            writer.finish()


class _Batch:
    """Records on their way to the disk: everything that came at once is one write, and nothing
    waits for more to come (``call_soon`` runs as soon as the stream has to wait)."""

    AT_MOST = 1024 * 1024

    def __init__(self, writer: LogWriter, grown: Signal) -> None:
        self._writer = writer
        self._grown = grown
        self._records: list[tuple[int, bytes]] = []
        self._bytes = 0
        self._failed: CloudaiError | None = None

    def add(self, at: int, data: bytes) -> None:
        if not self._records:
            asyncio.get_running_loop().call_soon(self._flush_soon)
        self._records.append((at, data))
        self._bytes += len(data)
        if self._bytes >= self.AT_MOST:
            self.flush()

    def _flush_soon(self) -> None:
        try:
            self.flush()
        except CloudaiError as error:
            self._failed = error

    def flush(self) -> None:
        """Raises ``StoreFailed`` where the disk does, also for an earlier batch."""
        if self._failed is not None:
            raise self._failed
        records, self._records, self._bytes = self._records, [], 0
        if records:
            self._writer.extend(records)
            self._grown.fire()


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

    async def follow(self, task: Task) -> AsyncGenerator[None, None]:
        """Yields each time the task's log at home grew. Keeps a follower while it is used."""
        assert task.assignment is not None
        assert task.assignment.container_id is not None
        collection = self.of(task)
        collection.readers += 1
        try:
            while True:
                if collection.follower is None or collection.follower.done():
                    collection.follower = asyncio.ensure_future(
                        self._keep_following(
                            collection, task.assignment.worker_id, task.assignment.container_id
                        )
                    )
                ear = collection.grown.listen()
                yield
                # The timeout is no poll for bytes: it notices an end that nobody announced.
                await ear.wait(timeout=1)
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
            except CloudaiError as error:
                log.info("%s: log of %s: %s", worker_id, collection.key, error)
            # Ended, or cut: the container's end is the harvest's business. Not in a hurry.
            await asyncio.sleep(0.2)
