"""How long each worker has been out of reach, as far as that counts (see ``core.lost``)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from cloudai.core.errors import EngineFailed, WorkerUnreachable
from cloudai.core.lost import count_absence

from .fleet import Fleet, local_clock
from .link import REFRESH, Link, Reach

log = logging.getLogger(__name__)

FRESH = 2 * REFRESH
"""Seconds for which a worker that answered is taken for one that answers."""


class Absences:
    """The measure, taken once a pass."""

    def __init__(self) -> None:
        self.clock: Callable[[], tuple[float, float]] = lambda: (time.monotonic(), time.time())
        """Seconds on a clock that never jumps, and on the one that people set."""
        self.alone_since: datetime | None = None
        """Since when no worker at all can be reached, where there are several."""
        self._at = self.clock()
        self._counted: dict[str, float] = {}

    def of(self, worker_id: str) -> float:
        """Seconds; 0 for a worker that is not known to be out of reach."""
        return self._counted.get(worker_id, 0.0)

    def count(self, fleet: Fleet) -> None:
        """Takes in how every worker stands now."""
        before, self._at = self._at, self.clock()
        self._counted = count_absence(
            self._counted,
            away={link.id for link in fleet if is_away(link)},
            heard=any(answers(link) for link in fleet.workers()),
            elapsed=self._at[0] - before[0],
            wall=self._at[1] - before[1],
        )
        self._notice_our_own_network(fleet.workers())

    def notice(self) -> str:
        """What wants a person's eye, a line; empty while all is well."""
        if self.alone_since is None:
            return ""
        return (
            f"no worker can be reached since {local_clock(self.alone_since)}: that looks like this"
            " machine's own network, so nothing is decided about any task"
        )

    def _notice_our_own_network(self, workers: Sequence[Link]) -> None:
        remote = [link for link in workers if not is_local(link)]
        alone = len(remote) > 1 and all(
            is_away(link) and isinstance(link.error, WorkerUnreachable) for link in remote
        )
        if alone and self.alone_since is None:
            self.alone_since = datetime.now(UTC)
            log.warning("%s", self.notice())
        elif not alone and self.alone_since is not None:
            self.alone_since = None
            log.info("workers can be reached again")


def is_local(link: Link) -> bool:
    """This machine itself: it says nothing about the network."""
    return link.spec.connection == "local"


def is_away(link: Link) -> bool:
    """Tried in vain. One that refuses us, or whose key changed, is there: a person must act."""
    return link.reach is Reach.UNREACHABLE and isinstance(
        link.error, WorkerUnreachable | EngineFailed
    )


def answers(link: Link) -> bool:
    """Evidence, and not an old belief, that the network reaches as far as a worker."""
    fresh = time.monotonic() - link.heard_at < FRESH
    return link.reach is Reach.ACTIVE and fresh and not is_local(link)
