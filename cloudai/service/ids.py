"""Ids of what comes: read aloud and typed, so without look-alikes."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime

LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""No look-alikes."""
_PAIRS = [first + second for first in LETTERS for second in LETTERS]
MANY = len(LETTERS) ** 8
STEP = 527_115_649_839
"""The golden section of ``MANY``: ids that follow each other look nothing alike. The two have no
divisor in common, so that the steps come to all before they come back to one."""


def new_id(kind: str, at: datetime) -> str:
    """``kind-<unix seconds>-<suffix>``: 8 random letters a second."""
    return new_ids(at)(kind)


def new_ids(at: datetime) -> Callable[[str], str]:
    """Makes as many as are wanted, no two of them alike: of a hundred thousand that are drawn
    one by one, two would be in one case of 170."""
    moment, number = int(at.timestamp()), secrets.randbelow(MANY)

    def another(kind: str) -> str:
        nonlocal number
        number = (number + STEP) % MANY
        rest, fourth = divmod(number, len(_PAIRS))
        rest, third = divmod(rest, len(_PAIRS))
        first, second = divmod(rest, len(_PAIRS))
        suffix = _PAIRS[first] + _PAIRS[second] + _PAIRS[third] + _PAIRS[fourth]
        return f"{kind}-{moment}-{suffix}"

    return another
