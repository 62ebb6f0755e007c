"""The published table has a row for every fault that can be injected, and for no other."""

from __future__ import annotations

from pathlib import Path

from . import __main__ as chaos
from .faults import FAULTS

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"


def published() -> list[str]:
    lines = DOCUMENT.read_text().partition("## The faults")[2].splitlines()
    rows = [line.strip("| ").split(" | ")[0] for line in lines if line.startswith("| ")]
    assert rows[:2] == ["fault", "---"]
    return rows[2:]


def test_every_fault_has_its_row() -> None:
    assert chaos.ROOMS
    assert sorted(published()) == sorted(FAULTS)
