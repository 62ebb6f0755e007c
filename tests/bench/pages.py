"""The figures' places in the pages that quote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .figures import Group
from .report import as_markdown
from .results import CHECKOUT
from .timing import BenchFailed

BEGIN, END = "<!-- figures of `make bench` -->", "<!-- end of figures -->"
PAGE = CHECKOUT / "docs" / "performance.md"


def write(found: Mapping[str, str], groups: Sequence[Group], page: Path = PAGE) -> None:
    """Puts a run's figures between the page's marks; what stands around them is people's.
    Raises ``BenchFailed`` for a page without them."""
    before, begin, rest = page.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise BenchFailed(f"{page.name} has no place for figures: between {BEGIN} and {END}")
    told = "\n".join(as_markdown(found, groups))
    page.write_text(f"{before}{BEGIN}\n\n{told}\n\n{END}{after}", "utf-8")
