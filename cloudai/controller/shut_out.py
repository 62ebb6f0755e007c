"""Whether every worker refuses us: nothing can run then until a person acts, and whoever submits
(cron at night, too) should hear it."""

from __future__ import annotations

from collections.abc import Sequence

from .link import Link, Reach

NAMED = 3
"""Workers whose ids are told."""


def shut_out(links: Sequence[Link]) -> str:
    """What wants a person's eye, a line; empty while any worker may let us in."""
    if not links or any(link.reach is not Reach.STOPPED for link in links):
        return ""
    alike: dict[str, list[str]] = {}
    for link in links:
        hint = link.error.hint.replace("\n", "; ") if link.error else ""
        alike.setdefault(f"{link.reason}: {hint}" if hint else link.reason, []).append(link.id)
    told = [f"{_listed(ids)}: {why}" for why, ids in alike.items()]
    more = f"; and {len(told) - NAMED} more such causes" if len(told) > NAMED else ""
    return f"no worker lets us in, so nothing can run. {'; '.join(told[:NAMED])}{more}"


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return ", ".join(ids[:NAMED]) + more
