"""Submits the batches of schedules when they are due.

Each time of a schedule has a once key of its own, so that a controller that is killed between
the batch and the note of it makes no second one: the next finds the batch by its key.
"""

from __future__ import annotations

import asyncio
import logging
import stat
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from cloudai.core.cron import Due, Schedule, due, is_bad, outcome, read_schedule, set_back
from cloudai.core.errors import CloudaiError, Conflict, InvalidInput, NotFound, StoreFailed
from cloudai.core.formats import FORMATS, format_of
from cloudai.core.model import Batch, Task
from cloudai.crash import point
from cloudai.crontimes import check_line, check_zone, next_after, own_zone
from cloudai.service import Service, new_id, now
from cloudai.store import schedule_not_found

log = logging.getLogger(__name__)

TICK = 1.0
"""Seconds between looks at the clock: it may be set, and the machine may sleep."""
LARGEST_FILE = 64 * 2**20
"""Bytes of a batch file."""
SUBMITTED = "submitted"


class Submit(Protocol):
    """``Batches.submit``, checked against the workers."""

    async def __call__(
        self,
        body: Mapping[str, object],
        *,
        default_user: str,
        dry_run: bool = False,
        moment: datetime | None = None,
    ) -> tuple[Batch, list[Task], bool]: ...


class Schedules:
    """The schedules of one home."""

    def __init__(self, service: Service, submit: Submit) -> None:
        self._service = service
        self._submit = submit
        self.clock: Callable[[], datetime] = now
        self._all: dict[str, Schedule] = {}
        self._looked: datetime | None = None
        self._seen: dict[str, tuple[datetime, datetime]] = {}
        """id -> (the time it was due, when that was first seen)."""
        self._one_at_a_time = asyncio.Lock()

    # ---------------------------------------------------------------- asking

    @property
    def all(self) -> list[Schedule]:
        """In the order in which they were made."""
        return list(self._all.values())

    def get(self, schedule_id: str) -> Schedule:
        """Raises ``NotFound``."""
        if schedule_id not in self._all:
            raise schedule_not_found(schedule_id)
        return self._all[schedule_id]

    def notices(self) -> list[str]:
        """What wants a person's eye: schedules whose last time came to nothing."""
        return [
            f"schedule {one.id}: {one.last_outcome}" for one in self.all if is_bad(one.last_outcome)
        ]

    # ---------------------------------------------------------------- made, removed, run

    async def add(self, body: Mapping[str, object], *, default_user: str) -> tuple[Schedule, int]:
        """A new schedule, and how many tasks its batch would have now. Raises ``InvalidInput``
        also for files that are broken or gone, ``Conflict`` where its id is taken."""
        wanted = read_schedule(body, default_user=default_user)
        line = check_line(wanted.line)
        zone = check_zone(wanted.zone) if wanted.zone is not None else own_zone()
        at = self.clock()
        one = Schedule(
            id=wanted.id or new_id("cron", at),
            user_id=wanted.user_id,
            line=line,
            zone=zone,
            files=wanted.files,
            settings=wanted.settings,
            missed=wanted.missed,
            overlap=wanted.overlap,
            created_at=at,
            due_at=next_after(line, zone, at),
        )
        _, tasks, _ = await self._submit_now(one, one.key, moment=one.due_at, dry_run=True)
        async with self._one_at_a_time:
            await self._service.in_thread(self._service.store.add_schedule, one)
            self._all[one.id] = one
        return one, len(tasks)

    async def remove(self, schedule_id: str) -> None:
        """Forgets it; the batches that it made go on. Raises ``NotFound``."""
        async with self._one_at_a_time:
            await self._service.in_thread(self._service.store.remove_schedule, schedule_id)
            self._all.pop(schedule_id, None)

    async def run_now(self, schedule_id: str, *, overlap: bool) -> Batch:
        """Submits its batch at once, by hand: its times stay as they are. Raises what keeps it
        from that: ``NotFound``, ``InvalidInput``, ``Conflict`` while its last batch has not
        ended, unless ``overlap`` is meant or it may."""
        async with self._one_at_a_time:
            one, at = self.get(schedule_id), self.clock()
            before = await self._unended(one)
            if before and not (overlap or one.overlap):
                raise Conflict(
                    f"{before} of schedule {one.id} has not ended",
                    hint=f"wait for it, or: cloudai cron run {one.id} --overlap",
                )
            key = f"{one.keys}by hand {new_id('run', at)}"
            batch, _, _ = await self._submit_now(one, key, moment=at)
            await self._note(
                one, last_at=at, last_batch=batch.id, last_outcome=f"{SUBMITTED} by hand"
            )
            return batch

    # ---------------------------------------------------------------- as time goes by

    async def load(self) -> None:
        """Knows its schedules; call it before anybody may ask."""
        found = await self._service.in_thread(self._service.store.schedules)
        self._all = {one.id: one for one in found}
        await self._follow_clock()

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                await self.look()
            except CloudaiError as error:
                log.error("schedules: %s; tried again", error)
            except Exception:
                log.exception("schedules: a mistake of ours; tried again")
            await asyncio.sleep(self._until_next())

    def _until_next(self) -> float:
        first = min((one.due_at for one in self.all), default=None)
        left = TICK if first is None else (first - self.clock()).total_seconds()
        return min(TICK, left) if left > 0 else TICK

    async def look(self) -> None:
        """Sees to whatever is due at this moment."""
        async with self._one_at_a_time:
            await self._look()

    async def _look(self) -> None:
        at = self.clock()
        if self._looked is not None and at < self._looked - timedelta(seconds=TICK):
            log.warning("the clock was set back, from %s to %s", self._looked, at)
            await self._follow_clock()
        self._looked = at
        for one in self.all:
            try:
                for found in due([one], at, next_after, seen=self._first_seen):
                    await self._see_to(found)
            except StoreFailed as error:
                # Nothing was written: the next look finds it as it was.
                log.error("schedule %s: %s", one.id, error)

    async def _follow_clock(self) -> None:
        for one in self.all:
            due_at = set_back(one, self.clock(), next_after)
            if due_at is not None:
                await self._note(one, due_at=due_at)

    def _first_seen(self, one: Schedule) -> datetime:
        known = self._seen.get(one.id)
        if known is None or known[0] != one.due_at:
            known = self._seen[one.id] = (one.due_at, self.clock())
        return known[1]

    async def _see_to(self, found: Due) -> None:
        one = found.schedule
        batch, words = await self._run(found)
        log.info("schedule %s, due at %s: %s", one.id, found.at, words)
        await self._note(
            one,
            due_at=found.next_at,
            last_at=found.at,
            last_batch=batch or one.last_batch,
            last_outcome=words,
        )

    async def _run(self, found: Due) -> tuple[str | None, str]:
        """The batch, where one was made for this time, and what came of it in words."""
        one = found.schedule
        made = await self._service.in_thread(self._service.store.batch_of_schedule, one.key)
        if made is not None:
            return made, SUBMITTED  # by a controller that ended before it could note it
        if not found.run:
            return None, outcome("missed", "no controller was there at that time")
        before = None if one.overlap else await self._unended(one)
        if before is not None:
            return None, outcome("left out", f"{before} had not ended")
        point("cron.due")
        try:
            batch, _, _ = await self._submit_now(one, one.key, moment=found.at)
        except StoreFailed:
            raise
        except CloudaiError as error:
            return None, outcome("failed", error.message)
        return batch.id, SUBMITTED

    async def _unended(self, one: Schedule) -> str | None:
        return await self._service.in_thread(self._service.store.unended_of_schedule, one.keys)

    async def _submit_now(
        self, one: Schedule, key: str, *, moment: datetime, dry_run: bool = False
    ) -> tuple[Batch, list[Task], bool]:
        body = {
            "files": await asyncio.to_thread(lambda: [_read(path) for path in one.files]),
            "set": one.settings,
            "once_key": key,
        }
        made = await self._submit(
            body,
            default_user=one.user_id,
            dry_run=dry_run,
            moment=moment.astimezone(ZoneInfo(one.zone)),
        )
        if not dry_run:
            point("cron.submitted")
        return made

    async def _note(self, one: Schedule, **changes: Any) -> None:
        changed = replace(one, **changes)
        if await self._service.in_thread(self._service.store.note_schedule, changed, one):
            self._all[one.id] = changed


def _read(path: str) -> dict[str, str]:
    """A batch file as ``POST /batches/`` takes it. Raises ``NotFound``, ``InvalidInput``."""
    form = format_of(path)
    if form is None:
        raise InvalidInput(
            f"{path}: its name ends in none of {', '.join(FORMATS)}: what is it?", field="files"
        )
    try:
        known = Path(path).stat()
        if not stat.S_ISREG(known.st_mode):
            raise InvalidInput(f"{path}: it is not a file", field="files")
        if known.st_size > LARGEST_FILE:
            raise InvalidInput(f"{path}: more than {LARGEST_FILE} bytes", field="files")
        text = Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput(f"{path}: not UTF-8", field="files") from None
    except OSError as error:
        raise NotFound(f"{path}: {error.strerror}", file=path) from None
    return {"name": path, "text": text, "format": form}
