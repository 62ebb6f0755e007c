"""What text that others wrote may hold wherever it is shown: on a terminal, in HTML, in XML."""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line end, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns text around
    "\u2028\u2029\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"  # line ends, notes nobody sees
)
_SURROGATE = re.compile("[\ud800-\udfff]")


def plain(text: str) -> str:
    """The text without controls but tab and line end, and without what turns text around; what
    is no character at all shows as U+FFFD."""
    return _SURROGATE.sub("\ufffd", _UNSAFE.sub("", text))
