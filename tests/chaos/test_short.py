"""The short form of ``make chaos``: faults chosen well, and every crash point once."""

from __future__ import annotations

import pytest

from .__main__ import try_fault
from .faults import FAULTS, Fault
from .on_homes import POINTS, WORKS_WHEN_ASKED_AGAIN, crash_at

AT_ONCE = 9
"""Laptops whose controllers die side by side: alone each would take as long as all of them."""

CRASHES = [
    Fault(
        name=f"crash at {', '.join(points)}",
        how="the controller dies there",
        expected=WORKS_WHEN_ASKED_AGAIN,
        run=crash_at(*points),
    )
    for points in (POINTS[at : at + AT_ONCE] for at in range(0, len(POINTS), AT_ONCE))
]
SHORT = [fault for fault in FAULTS.values() if fault.short]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", [*SHORT, *CRASHES], ids=lambda fault: fault.name)
def test_the_promises_hold(fault, fleet, tmp_path_factory):
    row = try_fault(fault, fleet, fleet.root.parent / "c", seed=1)
    assert not row.trouble, row.trouble
    assert not row.violations, "\n".join(map(str, row.violations))
