"""What tests that break things on the fleet share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fleet.cloudai_home import Home, a_home
from tests.fleet_lab import Fleet


@pytest.fixture
def mended_fleet(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet without a fault before the test; its faults taken back and its containers
    removed afterwards.
    """
    names = {worker.name for worker in fleet.up().workers}
    yield fleet
    for worker in list(fleet.workers):
        if worker.name not in names:
            fleet.remove(worker.name)
    fleet.up()
    for worker in fleet.workers:
        worker.remove_containers()


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, mended_fleet: Fleet) -> Iterator[Home]:
    """A laptop that knows the practice fleet; its controller and containers go with the test."""
    with a_home(tmp_path_factory.mktemp("home"), mended_fleet) as ready:
        yield ready


@pytest.fixture
def alert_home(tmp_path_factory: pytest.TempPathFactory, mended_fleet: Fleet) -> Iterator[Home]:
    """A laptop whose ssh settings notice a dead connection in a few seconds."""
    user = tmp_path_factory.mktemp("user")
    (user / ".ssh").mkdir(mode=0o700)
    (user / ".ssh" / "config").write_text(
        "Host *\n  ServerAliveInterval 2\n  ServerAliveCountMax 2\n  ConnectTimeout 3\n"
    )
    with a_home(user / "cloudai", mended_fleet, HOME=str(user)) as ready:
        yield ready
