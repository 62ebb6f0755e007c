"""Ids: as many as are wanted, and no two alike."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

from cloudai.service.ids import LETTERS, MANY, STEP, new_id, new_ids

AT = datetime(2026, 1, 31, tzinfo=UTC)


def test_a_batch_as_large_as_may_be_has_no_id_twice():
    # Drawn one by one, two of them would be alike in one run of 170.
    another = new_ids(AT)
    assert len({another("task") for _ in range(100_000)}) == 100_000
    assert math.gcd(STEP, MANY) == 1  # nor does a larger one


def test_ids_that_follow_each_other_differ_from_their_first_letters_on():
    another = new_ids(AT)
    ids = [another("task") for _ in range(100)]
    assert len({one[: len("task-1769817600-ab")] for one in ids}) == 100


def test_an_id_says_when_it_was_made():
    assert re.fullmatch(rf"task-{int(AT.timestamp())}-[{LETTERS}]{{8}}", new_id("task", AT))
    assert new_id("task", AT) != new_id("task", AT)
