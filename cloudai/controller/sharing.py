"""Parts of workers that are kept for somebody: kept in memory as the store has them, and told
to the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cloudai.core.errors import Insufficient, NotFound
from cloudai.core.model import Reservation, Resources
from cloudai.core.reserving import Wanted, read_reservation
from cloudai.core.schedule import Board
from cloudai.core.schedule import Reservation as Kept
from cloudai.core.schedule.lending import Lending, lending
from cloudai.core.wording import amount
from cloudai.service import Service, now

from .fleet import Fleet, free_now
from .link import Link


@dataclass(frozen=True, slots=True)
class Reserved:
    """A reservation, and what becomes of it now."""

    reservation: Reservation
    lending: Lending


class Sharing:
    """The reservations of one home. ``changed`` is called when one comes or goes."""

    def __init__(self, service: Service, fleet: Fleet, *, changed: Callable[[], None]) -> None:
        self._service = service
        self._fleet = fleet
        self._changed = changed
        self._all: list[Reservation] = []

    async def load(self) -> None:
        """Reads them from the store: at the start, and after each change."""
        self._all = await self._service.reservations(now())

    def present(self, at: datetime) -> list[Reservation]:
        """Those that hold, in the order in which they were made. One whose time is over is
        dropped here, whether or not the store was asked since."""
        self._all = [one for one in self._all if one.until is None or one.until > at]
        return self._all

    def by_worker(self, at: datetime) -> dict[str, list[Kept]]:
        """As the scheduler takes them. Several of one owner on a worker are one to it: what
        their tasks use there counts once."""
        found: dict[str, dict[tuple[str | None, int], Kept]] = {}
        for one in self.present(at):
            whose = found.setdefault(one.worker_id, {})
            key = (one.user_id, one.priority)
            if key in whose:
                whose[key] = replace(whose[key], resources=whose[key].resources + one.resources)
            else:
                whose[key] = _kept(one)
        return {worker_id: list(whose.values()) for worker_id, whose in found.items()}

    def told(self, board: Board, at: datetime, worker_id: str | None = None) -> list[Reserved]:
        """All of them, or those on one worker, with what their owners use and what is lent, as
        the board has it."""
        wanted = [one for one in self.present(at) if worker_id in (None, one.worker_id)]
        by_worker: dict[str, list[Kept]] = {}
        for one in wanted:
            by_worker.setdefault(one.worker_id, []).append(_kept(one))
        found: dict[str, Lending] = {}
        for worker, kept in by_worker.items():
            i = board.workers.index.get(worker)
            if i is not None:
                found |= lending(kept, board.workers.free[i], board.workers.running[i])
        return [Reserved(one, found.get(one.id, Lending())) for one in wanted]

    # ---------------------------------------------------------------- made and given back

    async def reserve(
        self, body: Mapping[str, object], *, default_user: str, patience: float
    ) -> Reservation:
        """Keeps a part of a worker. Raises ``WorkerNotFound``, ``InvalidInput``, and
        ``Insufficient`` where the worker could never hold all that is reserved there."""
        wanted = read_reservation(body, default_user=default_user)
        link = self._fleet.link(wanted.worker_id)
        if link.sight is None:
            await link.ensure(patience)
        self._check(link, wanted)
        at = now()
        until = None if wanted.seconds is None else at + timedelta(seconds=wanted.seconds)
        made = await self._service.add_reservation(
            wanted.worker_id,
            wanted.resources,
            user_id=wanted.user_id,
            priority=wanted.priority,
            until=until,
            created_by=default_user,
            note=wanted.note,
        )
        await self.load()
        self._changed()
        return made

    async def give_back(self, reservation_id: str) -> Reservation:
        """It holds no more. Raises ``NotFound``."""
        found = next((one for one in self.present(now()) if one.id == reservation_id), None)
        if found is None:
            raise NotFound(
                f"Reservation {reservation_id} not found",
                hint="`cloudai reservations` lists them",
            )
        await self._service.remove_reservation(reservation_id)
        await self.load()
        self._changed()
        return found

    def _check(self, link: Link, wanted: Wanted) -> None:
        free = free_now(link, ())
        if free is None:
            return
        total = free.total - link.spec.reserve
        before = sum(
            (one.resources for one in self.present(now()) if one.worker_id == link.id), Resources()
        )
        for what, unit, name in (
            ("CPUs", 1000, "cpu_milli"),
            ("GB of memory", 2**30, "memory"),
            ("GB of disk", 2**30, "storage"),
            ("GPUs", 1000, "gpu_milli"),
        ):
            there, taken = getattr(total, name), getattr(before, name)
            asked = getattr(wanted.resources, name)
            if asked and taken + asked > there:
                so_far = f", of which {_plain(taken / unit)} are reserved already" if taken else ""
                raise Insufficient(
                    f"{link.id} has {_plain(there / unit)} {what}{so_far};"
                    f" {_plain(asked / unit)} are asked for",
                    worker=link.id,
                )


def _kept(one: Reservation) -> Kept:
    until = float("inf") if one.until is None else one.until.timestamp()
    return Kept(
        id=one.id, user=one.user_id, resources=one.resources, until=until, priority=one.priority
    )


def _plain(value: float) -> str:
    return amount(max(0.0, value), down=True).removesuffix(".0")
