"""Schedules: batches that are submitted again and again, and which of them are due.

When a line's next time is, ``crontimes`` knows; here a function is handed in for it, so that no
clock and no time zone is needed to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from .errors import InvalidInput
from .names import check_entry_id, check_user
from .request import Request, known_fields
from .wishes import check_flag
from .wording import shown

FIELDS = ("line", "files", "set", "id", "zone", "missed", "overlap", "user_id")
LATE = timedelta(seconds=60)
"""A time that nobody saw within it is a missed one."""
SET_BACK = timedelta(days=1)
"""A clock that is set back by more than this was wrong before."""

LONGEST_OUTCOME = 500
"""Characters."""

NextAfter = Callable[[str, str, datetime], datetime]
"""(line, zone, moment) -> the first time after that moment."""


class Missed(StrEnum):
    """What becomes of times at which no controller ran."""

    SKIP = "skip"
    ONCE = "once"
    """One run for all of them, as soon as there is a controller again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A batch that is submitted at times that a cron line says."""

    id: str
    user_id: str
    line: str
    """Five fields, as cron's."""
    zone: str
    """The time zone in which they are meant, by its IANA name."""
    files: tuple[str, ...]
    """Whole paths; read anew each time."""
    settings: Mapping[str, str]
    """The values of ``--set``."""
    missed: Missed
    overlap: bool
    """Whether it runs also while its last batch has not ended."""
    created_at: datetime
    due_at: datetime
    """The next time."""
    last_at: datetime | None = None
    """The latest time that came, whatever was done then."""
    last_batch: str | None = None
    last_outcome: str = ""

    @property
    def keys(self) -> str:
        """How the once keys of all its batches begin."""
        return f"schedule {self.id} "

    @property
    def key(self) -> str:
        """The once key of its next batch. The same however often this time is looked at, also by
        another controller: so one time makes at most one batch."""
        return f"{self.keys}{self.due_at:%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A schedule that somebody asks for."""

    id: str | None
    user_id: str
    line: str
    zone: str | None
    """``None``: this machine's."""
    files: tuple[str, ...]
    settings: Mapping[str, str]
    missed: Missed
    overlap: bool


def read_schedule(body: Mapping[str, object], *, default_user: str) -> Wanted:
    """The body of ``POST /schedules/``, but for what its line, zone and files mean. Raises
    ``InvalidInput``."""
    request = known_fields(body, FIELDS)
    for field in ("line", "files"):
        if not request.given(field):
            right = "say when, such as 0 2 * * *" if field == "line" else "say which batch files"
            raise InvalidInput(f"{field}: missing; {right}", field=field)
    return Wanted(
        id=request.read("id", check_entry_id, otherwise=None),
        user_id=request.read("user_id", check_user, otherwise=default_user),
        line=" ".join(request.text("line").split()),
        zone=request.text("zone") if request.given("zone") else None,
        files=_files(request),
        settings=_settings(request),
        missed=request.read("missed", _missed, otherwise=Missed.SKIP),
        overlap=request.quantity("overlap", check_flag, otherwise=False),
    )


def _files(request: Request) -> tuple[str, ...]:
    given = request.body["files"]
    if not isinstance(given, list) or not given:
        raise InvalidInput(f"files: {shown(given)}; give a list of paths", field="files")
    for path in given:
        if not isinstance(path, str) or not path.startswith("/") or not path.isprintable():
            raise InvalidInput(f"files: {shown(path)}; give whole paths, from /", field="files")
    return tuple(given)


def _settings(request: Request) -> dict[str, str]:
    given = request.body.get("set") or {}
    if not isinstance(given, Mapping) or not all(isinstance(one, str) for one in given.values()):
        raise InvalidInput(f"set: {shown(given)}; give names and texts", field="set")
    return {str(name): str(value) for name, value in given.items()}


def _missed(text: str, *, what: str) -> Missed:
    try:
        return Missed(text)
    except ValueError:
        raise InvalidInput(f"{what}: {shown(text)}; give skip or once", field=what) from None


# ------------------------------------------------------------------ what is due


@dataclass(frozen=True, slots=True)
class Due:
    """A schedule whose time has come."""

    schedule: Schedule
    run: bool
    """Whether it is to be submitted; else its time is missed, and passed over."""
    at: datetime
    """The time that came; of several that were missed the latest."""
    next_at: datetime


def due(
    schedules: Iterable[Schedule],
    now: datetime,
    next_after: NextAfter,
    *,
    seen: Callable[[Schedule], datetime],
) -> list[Due]:
    """What is due at ``now``. ``seen``: when a controller first saw that a schedule's present
    time had come: a run that could not be made at once is not missed for that."""
    found: list[Due] = []
    for one in schedules:
        if one.due_at <= now:
            latest = _latest(one, now, next_after)
            run = seen(one) - latest <= LATE or one.missed is Missed.ONCE
            found.append(Due(one, run, latest, next_after(one.line, one.zone, now)))
    return found


def _latest(schedule: Schedule, now: datetime, next_after: NextAfter) -> datetime:
    """The latest time that has come, of a thousand at most: a month of minutes is too many."""
    latest = schedule.due_at
    for _ in range(1000):
        following = next_after(schedule.line, schedule.zone, latest)
        if following > now:
            break
        latest = following
    return latest


def set_back(schedule: Schedule, now: datetime, next_after: NextAfter) -> datetime | None:
    """The next time of a schedule after the clock was set back, or ``None`` where that stays as
    it is. Times that came before do not come again, unless they are so far ahead now that the
    clock must have been wrong when they came."""
    done = schedule.last_at
    since = now if done is None or done - now > SET_BACK else max(now, done)
    due_at = next_after(schedule.line, schedule.zone, since)
    return due_at if due_at < schedule.due_at else None


def outcome(word: str, why: str) -> str:
    """What came of a run, in a line: ``failed: …``, ``left out: …``, ``missed: …``."""
    lines = [line.strip() for line in why.splitlines() if line.strip()]
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    text = f"{word}: {lines[0] if lines else ''}"
    return text[: LONGEST_OUTCOME - len(more)] + more


def is_bad(text: str) -> bool:
    """Whether an outcome wants a person's eye."""
    return text.startswith("failed: ")
