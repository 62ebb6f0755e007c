"""The practice fleet for every test that needs real workers. It is never skipped: a machine on
which it cannot start fails the tests, with the reason.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.fleet_lab import Fleet, FleetError
from tests.fleet_lab.fleet import reserved_root

# A run that a shell put in the background is deaf to Ctrl-C, and so is everything it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run: a red one speaks of the change, not of the dice. `make search`
# throws them. How long an example takes says nothing on a machine that others use, too.
settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", settings.get_profile("same"), derandomize=False)
settings.load_profile(os.environ.get("CLOUDAI_EXAMPLES", "same"))


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    """Three real workers for the whole run; number 3 has stand-in GPUs.

    Shared by all tests: a test that breaks something or leaves containers takes
    ``mended_fleet`` instead.
    """
    try:
        with reserved_root() as root, Fleet(root) as ready:
            yield ready
    except FleetError as error:
        pytest.fail(f"the practice fleet cannot start: {error}", pytrace=False)
