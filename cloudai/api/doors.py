"""What the doors know beside the tasks: who asked when, which inventory was meant, how to leave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

from cloudai.controller.loop import Controller
from cloudai.controller.shut_out import shut_out
from cloudai.core.errors import Conflict, Leaving
from cloudai.inventory import InventoryFile


class Doors:
    """One controller's doors."""

    def __init__(
        self, controller: Controller, home: Path, *, idle_exit: float | None = None
    ) -> None:
        self.controller = controller
        self.home = home
        self.idle_exit = idle_exit
        """Seconds of quiet after which it leaves by itself; ``None``: never."""
        self.since = datetime.now(UTC)
        self.leave = asyncio.Event()
        """Set by ``POST /controller/stop``."""
        self._left = False
        self._asking: set[asyncio.Task[None]] = set()
        self._open = 0
        self._last = time.monotonic()

    @contextmanager
    def asked(self) -> Iterator[None]:
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            self._last = time.monotonic()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Around what changes nothing, and may wait for as long as its reader does: it ends when
        we leave. Raises ``Leaving`` then."""
        task = asyncio.current_task()
        assert task is not None
        self._asking.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if self._left and task.uncancel() == 0:
                raise Leaving from None
            raise
        finally:
            self._asking.discard(task)

    def let_go(self) -> None:
        """Ends what only reads, once nobody new can come in."""
        self._left = True
        for task in self._asking:
            task.cancel()

    def quiet_for(self) -> float:
        """Seconds since anybody asked, or anything was queued or on a worker; none while there
        are schedules to keep."""
        if self._open or self.controller.schedules.all:
            return 0.0
        return time.monotonic() - max(self._last, self.controller.idle_since)

    def notices(self) -> list[str]:
        """What wants a person's eye, a line each."""
        lines = []
        if wrong := self.controller.inventory_error:
            meanwhile = (
                "the last good version stays in use"
                if self.controller.fleet.workers()
                else "there are no workers"
            )
            lines.append(f"inventory: {meanwhile} until this is mended: {wrong}")
        path = self.controller.inventory.path
        if path is not None and not wrong and path != self.home / "hosts.yaml":
            # Only one that a person named can be missing.
            lines += [] if path.exists() else [f"inventory: there is no file {path}"]
        if lonely := self.controller.absences.notice():
            lines.append(lonely)
        if refused := shut_out(self.controller.fleet.workers()):
            lines.append(refused)
        lines += self.controller.schedules.notices()
        return lines

    def check_inventory(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """A controller has one inventory. Raises ``Conflict`` where a person named another;
        answers a notice where another merely lies in the current folder."""
        sent = dict(headers)
        if b"x-cloudai-inventory" not in sent:
            return ""
        wanted = Path(unquote(sent[b"x-cloudai-inventory"].decode("latin-1")))
        explicit = b"x-cloudai-inventory-explicit" in sent
        present = self.controller.inventory.path
        if present == wanted:
            return ""
        if present is None or (wanted.exists() and not present.exists()):
            self.controller.inventory = InventoryFile(wanted, home=self.home)
            self.controller.wake()
            return ""
        if explicit:
            raise self._conflict(wanted, present)
        if not wanted.exists() or wanted == self.home / "hosts.yaml":
            return ""
        return (
            f"using the inventory {present}, not {wanted}:"
            " `cloudai controller stop` first to change over"
        )

    def _conflict(self, wanted: Path, present: Path | None) -> Conflict:
        return Conflict(
            f"the controller of {self.home} uses the inventory {present}, not {wanted}",
            hint="`cloudai controller stop`, then again; or another CLOUDAI_HOME for another fleet",
        )
