"""Where a bench runs: a practice fleet, laptops of its own, and how thorough it is to be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.fleet.cloudai_home import Home, a_home
from tests.fleet_lab import Fleet
from tests.fleet_lab.fleet import reserved_root


class Lab:
    """``short``: fewer rounds and smaller sizes, for a look at what a change did; ``rounds``: of
    what is compared round by round; ``bridge``: engines with a bridge network; ``folder``: an
    empty one, with a short path. Close it by leaving its context."""

    def __init__(self, folder: Path, *, rounds: int, short: bool, bridge: bool) -> None:
        self.folder, self.rounds, self.short, self.bridge = folder, rounds, short, bridge
        self._stack = ExitStack()
        self._fleet: Fleet | None = None

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def fleet(self) -> Fleet:
        """Three real workers, up since the first time they were asked for."""
        if self._fleet is None:
            root = self._stack.enter_context(reserved_root())
            self._fleet = self._stack.enter_context(Fleet(root, bridge=self.bridge))
        return self._fleet

    @contextmanager
    def home(self, name: str, **environment: str) -> Iterator[Home]:
        """A laptop that knows the practice fleet, its controller warm."""
        with a_home(self.folder / name, self.fleet, **environment) as home:
            home.run("workers")
            yield home
