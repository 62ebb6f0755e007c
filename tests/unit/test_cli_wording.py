"""Numbers, times and ends of tasks in words."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from cloudai.cli.wording import amount, exit_code_of, local, long_span, span
from tests.unit.stub_controller import make_ended


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = os.environ.get("TZ")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    if before is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.parametrize(
    ("at", "now", "shown"),
    [
        ("2026-01-31T12:03:59.000000Z", datetime(2026, 1, 31, 12, 7, tzinfo=UTC), "12:03"),
        ("2026-01-31T23:58:00.000000Z", datetime(2026, 2, 1, 0, 2, tzinfo=UTC), "23:58"),
        ("2026-01-31T12:03:00.000000Z", datetime(2026, 2, 1, 0, 4, tzinfo=UTC), "31 Jan 12:03"),
        ("2025-01-31T12:03:00.000000Z", datetime(2026, 2, 1, 0, 4, tzinfo=UTC), "2025-01-31"),
        (None, datetime(2026, 2, 1, tzinfo=UTC), "-"),
        ("yesterday", datetime(2026, 2, 1, tzinfo=UTC), "-"),
    ],
)
def test_a_time_is_as_short_as_it_can_be(at: str | None, now: datetime, shown: str) -> None:
    assert local(at, now=now) == shown


@pytest.mark.parametrize(
    ("seconds", "short", "long"),
    [
        (-3, "0s", "0 s"),
        (59.9, "59s", "59 s"),
        (60, "1min", "1 min"),
        (3600, "1h00", "1 h"),
        (7500, "2h05", "2 h 5 min"),
        (86400 * 3 + 5, "3d", "3 d"),
    ],
)
def test_a_span_for_tables_and_for_sentences(seconds: float, short: str, long: str) -> None:
    assert (span(seconds), long_span(seconds)) == (short, long)


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [(12.0, 1, "12"), (12.54, 1, "12.5"), (100.0, 0, "100"), (0.0, 2, "0"), (None, 1, "-")],
)
def test_an_amount_carries_no_empty_digits(value: float | None, digits: int, shown: str) -> None:
    assert amount(value, digits) == shown


@pytest.mark.parametrize(
    ("task", "code"),
    [
        (make_ended(), 0),
        (make_ended("failed", 3), 3),
        (make_ended("failed", 127), 127),
        (make_ended("failed", 0), 125),
        (make_ended("failed", None), 125),
        (make_ended("cancelled", 0), 125),
        (make_ended("cancelled", 143), 125),
    ],
)
def test_a_task_that_did_not_complete_never_ends_a_command_with_zero(task: Any, code: int) -> None:
    assert exit_code_of(task) == code
