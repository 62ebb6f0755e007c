"""When a cron line is due, in which time zone. The home of cronsim, of tzlocal and of the zones.

A time of the clock that does not exist on the day on which summer time begins is due as soon as
the clock goes on, and one that exists twice when it ends is due the first time. A line for every
hour (``*``) goes by the hours that pass, so it is due in both of those that are called the same.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import tzlocal
from cronsim import CronSim, CronSimError

from cloudai.core.errors import InvalidInput
from cloudai.core.wording import nearest, shown

WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
LONGEST_LINE = 200

# cronsim's name of a field -> ours, and what it may be.
_FIELDS = {
    "minute": ("minute", "0 to 59"),
    "hour": ("hour", "0 to 23"),
    "day-of-month": ("day of the month", "1 to 31, which such a month must have, L for the last"),
    "month": ("month", "1 to 12, or jan to dec"),
    "day-of-week": ("day of the week", "0 to 7 (both are Sunday), or sun to sat"),
}
_FORMS = "or *, a list 1,3, a range 1-5, steps */10"


def check_line(line: str) -> str:
    """The five fields of a cron line, or of a word such as ``@daily``. Raises ``InvalidInput``
    naming the field that cannot be meant."""
    line = " ".join(line.split())
    if line.startswith("@"):
        return _of_word(line)
    parts = line.split()
    if len(line) > LONGEST_LINE:
        raise _refused(f"it has {len(line)} characters", f"give at most {LONGEST_LINE}")
    if len(parts) != 5:
        raise _refused(
            f"{shown(line)} has {len(parts)} field{'' if len(parts) == 1 else 's'}",
            "give five: minute, hour, day of the month, month, day of the week, as in"
            " 0 2 * * 1-5; or a word such as @daily",
            hint="in quotes, so that the shell leaves the stars alone",
        )
    start = datetime(2024, 1, 1, tzinfo=UTC)
    try:
        next(CronSim(line, start))
    except CronSimError as error:
        raise _bad_field(parts, str(error)) from None
    except StopIteration:
        raise _refused(f"{shown(line)} is never due", "no such day comes within 50 years") from None
    return line


def _of_word(word: str) -> str:
    if word == "@reboot":
        raise _refused(
            "@reboot is no time",
            "put `@reboot cloudai batch FILE` into your own crontab for that",
        )
    found = WORDS.get(word.lower())
    if found is None:
        near = nearest(word, WORDS)
        hint = f"did you mean {near}?" if near else f"give one of {', '.join(WORDS)}"
        raise _refused(f"{shown(word)} is no such word", hint)
    return found


def _bad_field(parts: list[str], said: str) -> InvalidInput:
    key = said.removeprefix("Bad ")
    if key not in _FIELDS:
        return _refused(f"{shown(' '.join(parts))}: {said}", "see docs/cron.md")
    name, right = _FIELDS[key]
    part = parts[list(_FIELDS).index(key)]
    return _refused(f"its {name} is {shown(part)}", f"give {right}; {_FORMS}")


def _refused(why: str, right: str, *, hint: str = "") -> InvalidInput:
    return InvalidInput(f"line: {why}; {right}", hint=hint, field="line")


def check_zone(name: str) -> str:
    """A time zone by its IANA name. Raises ``InvalidInput``."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        known = sorted(available_timezones())
        city = name.replace(" ", "_").casefold()
        near = next((one for one in known if one.casefold().endswith(f"/{city}")), None)
        near = near or nearest(name, known)
        hint = f"did you mean {near}?" if near else "give a name such as Europe/Berlin or UTC"
        raise InvalidInput(f"zone: {shown(name)} is no time zone; {hint}", field="zone") from None
    return name


def own_zone() -> str:
    """This machine's time zone by its IANA name. Raises ``InvalidInput`` where it has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tzlocal.reload_localzone()  # it remembers, and a laptop travels
            name = tzlocal.get_localzone_name()
    except (LookupError, ValueError, OSError):
        name = None
    if not name:
        raise InvalidInput(
            "zone: this machine does not tell its time zone by a name",
            hint="give it, such as --zone Europe/Berlin",
            field="zone",
        )
    return check_zone(name)


def next_after(line: str, zone: str, moment: datetime) -> datetime:
    """The first time after ``moment`` at which the line is due, in UTC. ``line``, ``zone``: as
    checked. Raises ``InvalidInput`` where the zone is known no more."""
    return next(_times(line, zone, moment))


def next_times(line: str, zone: str, moment: datetime, many: int) -> list[datetime]:
    """The next so many of them."""
    return list(islice(_times(line, zone, moment), many))


def _times(line: str, zone: str, moment: datetime) -> Iterator[datetime]:
    last = moment.astimezone(UTC)
    for due in CronSim(_by_the_clock(line), last.astimezone(_zone(zone))):
        # In the second of two hours of one name it begins with the first one.
        if (at := due.astimezone(UTC)) > last:
            yield at
            last = at


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(check_zone(name))


def _by_the_clock(line: str) -> str:
    """The same line, so written that cronsim goes by the clock on the wall: it goes by the time
    that passes where the minute or the hour begins with a star, as Debian's cron does."""
    minute, hour, *days = line.split()
    if hour in ("*", "*/1"):
        return line
    minute = re.sub(r"^\*", "0-59", minute)
    hour = re.sub(r"^\*", "0-23", hour)
    return " ".join((minute, hour, *days))
