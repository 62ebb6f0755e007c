"""Amounts, cores, GPUs, durations and moments as people write them. Exact: no float maths.

A quantity is what a front door may send for one: a JSON number, or text. Anything else is
refused like any other value that cannot be meant.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from .errors import InvalidInput
from .model import GIB, MIB
from .wording import shown

PIB = 1024**5
MOST_CPUS = 100_000
MOST_GPUS = 10_000
MOST_SECONDS = 10 * 366 * 86_400
"""Ten years: a longer duration is a slip of the finger."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_DOCKER_SIZE = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r" ?(?:[bB]|(?P<unit>[kKmMgGtTpP])(?:[iI]?[bB])?)?"
)
_POWERS = {unit: 1024**power for power, unit in enumerate("kmgtp", start=1)}
_SECONDS = {
    **{"w": Decimal(604_800), "d": Decimal(86_400), "h": Decimal(3600), "m": Decimal(60)},
    **{"s": Decimal(1), "ms": Decimal("1e-3"), "ns": Decimal("1e-9")},
    # The micro sign, and the letter that looks like it.
    **dict.fromkeys(("us", "\u00b5s", "\u03bcs"), Decimal("1e-6")),
}
_PART = re.compile(rf"([0-9]+\.?[0-9]*|\.[0-9]+)({'|'.join(sorted(_SECONDS, reverse=True))})")
_DURATION = re.compile(rf"\+?(?:{_PART.pattern})+")
_CLOCK = re.compile(r"(?:([0-9]{1,4})-)?([0-9]{1,4}):([0-5][0-9]):([0-5][0-9])")
_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ]([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:\.([0-9]{1,9}))?)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _refuse(what: str, value: object, why: str, right: str) -> InvalidInput:
    return InvalidInput(f"{what}: {shown(value)} {why}; {right}", field=what)


def _number(value: object, *, what: str, right: str) -> Decimal:
    """The number as written, exactly. Raises ``InvalidInput`` for anything else and for < 0."""
    if isinstance(value, float) and not math.isfinite(value):
        raise _refuse(what, value, "is not a quantity", right)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _refuse(what, value, "is not a number", right)
    if isinstance(value, str) and (len(value) > 64 or not _NUMBER.fullmatch(value)):
        raise _refuse(what, value, "is not a number", right)
    number = Decimal(repr(value) if isinstance(value, float) else value)
    if number < 0:
        raise _refuse(what, value, "is negative", right)
    return number


def _thousandths(value: object, *, what: str, most: int, right: str) -> int:
    number = _number(value, what=what, right=right)
    if number > most:
        raise _refuse(what, value, f"is more than {most}", right)
    thousandths = int((number * 1000).to_integral_value(ROUND_HALF_EVEN))
    if number and not thousandths:
        raise _refuse(what, value, "is less than a thousandth", right)
    return thousandths


def parse_docker_size(text: str, *, what: str = "size") -> int:
    """Bytes, as Docker reads ``--memory``: ``32``, ``32b``, ``32k``, ``1.5g``, ``32 MiB``; all
    units binary, fractions of a byte cut off.

    Narrower than Docker only in what nobody means: hexadecimal floats, digits with
    underscores, a zero with a minus, sizes beyond 63 bits. Raises ``InvalidInput``.
    """
    right = "give a number with a unit, such as 512m or 4g"
    found = _DOCKER_SIZE.fullmatch(text) if len(text) <= 64 else None
    if found is None:
        raise _refuse(what, text, "is not a size", right)
    # A float on purpose: Docker's own reading, to the byte. Powers of two lose nothing.
    size = float(found["number"]) * _POWERS.get((found["unit"] or "").lower(), 1)
    if size < 0 or found["number"].startswith("-"):
        raise _refuse(what, text, "is negative", right)
    if size >= 2**63:
        raise _refuse(what, text, "is beyond any machine", right)
    return int(size)


def parse_amount(value: object, *, what: str, zero: bool = False) -> int:
    """Bytes of memory or storage. A bare number is GiB (``4``, ``4.0``, ``"4"``); text with a
    unit is read as Docker reads it (``512m``, ``4g``, ``4GB`` and ``4GiB`` alike).

    Zero is refused unless ``zero``; so is everything below a byte or above 1 PiB, with
    ``InvalidInput`` naming ``what``.
    """
    right = "give GiB such as 4 or 0.5, or a size with its unit such as 512m or 4g"
    if isinstance(value, str) and not _NUMBER.fullmatch(value.rstrip(" ")[:65]):
        try:
            amount = parse_docker_size(value, what=what)
        except InvalidInput as wrong:
            why = "is negative" if "negative" in wrong.message else "is not a size"
            raise _refuse(what, value, why, right) from None
    else:
        gib = _number(
            value.rstrip(" ") if isinstance(value, str) else value, what=what, right=right
        )
        too_much = gib > PIB // GIB
        amount = PIB + 1 if too_much else int((gib * GIB).to_integral_value(ROUND_HALF_EVEN))
        if gib and not amount:
            raise _refuse(what, value, "is less than a byte", right)
    if amount > PIB:
        raise _refuse(what, value, "is more than 1 PiB", right)
    if not amount and not zero:
        raise _refuse(what, value, "is nothing", right)
    return amount


def parse_cpus(value: object, *, what: str, zero: bool = False) -> int:
    """Thousandths of a core, from 0.01 to 100000 cores, rounded to three decimals.

    Zero only with ``zero``. Raises ``InvalidInput`` naming ``what``.
    """
    right = f"give cores, 0.01 to {MOST_CPUS}, such as 2 or 0.5"
    milli = _thousandths(value, what=what, most=MOST_CPUS, right=right)
    if milli < 10 and not (zero and milli == 0):
        raise _refuse(what, value, "is too little", right)
    return milli


def parse_gpus(value: object, *, what: str) -> int:
    """Thousandths of a GPU: 0, a share of one device below 1, or whole devices.

    Raises ``InvalidInput`` naming ``what``; 1.5 is refused, for a share is of one device and
    whole ones are alone on theirs.
    """
    right = "give 0, a share of one GPU such as 0.5, or whole GPUs such as 2"
    milli = _thousandths(value, what=what, most=MOST_GPUS, right=right)
    if milli > 1000 and milli % 1000:
        raise _refuse(what, value, "mixes whole GPUs and a share of one", right)
    return milli


def parse_duration(value: object, *, what: str = "duration") -> float:
    """Seconds: what Docker reads (``45s``, ``90m``, ``1h30m``, ``1.5h``), and ``45``, ``2d``,
    ``1w``, ``1:30:00``, ``2-00:00:00``. Zero is a duration; more than ten years is not. Raises
    ``InvalidInput``.
    """
    right = "give seconds, or a duration such as 45s, 90m, 1h30m or 2d"
    if value == "-0":
        value = "0"  # no duration without a unit, for Docker, but this
    if isinstance(value, str) and (value.startswith("-") or not _NUMBER.fullmatch(value[:65])):
        seconds = _written_duration(value)
        if seconds is None:
            why = "is negative" if value.startswith("-") else "is not a duration"
            if re.fullmatch(r"[0-9]+:[0-9]+", value):
                why = "could be minutes or hours"
            raise _refuse(what, value, why, right)
    else:
        seconds = _number(value, what=what, right=right)
    if seconds > MOST_SECONDS:
        raise _refuse(what, value, "is more than ten years", right)
    return float(seconds)


def _written_duration(text: str) -> Decimal | None:
    if not text or len(text) > 64:
        return None
    if clock := _CLOCK.fullmatch(text):
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return Decimal(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    # Docker takes nothing with a minus sign, too.
    if not _DURATION.fullmatch(text.removeprefix("-")):
        return None
    total = sum((Decimal(part) * _SECONDS[unit] for part, unit in _PART.findall(text)), Decimal(0))
    return None if total and text.startswith("-") else total


def parse_since(text: str, now: datetime, *, what: str = "since") -> int:
    """Nanoseconds since the epoch: RFC 3339 (UTC where no zone is given), seconds since the
    epoch with up to nine decimals, or a duration before ``now`` such as ``10m``.

    ``now`` carries a time zone. Raises ``InvalidInput``.
    """
    right = "give a moment such as 2026-01-31T12:00:00Z, seconds since the epoch, or 10m (ago)"
    if _NUMBER.fullmatch(text[:65]):
        seconds = _number(text, what=what, right=right)
        if seconds > 10**10:
            raise _refuse(
                what, text, "is centuries ahead (seconds are meant, not milliseconds)", right
            )
        return int(seconds * 10**9)
    if found := _MOMENT.fullmatch(text):
        return _nanoseconds(text, found, what=what, right=right)
    try:
        ago = parse_duration(text, what=what)
    except InvalidInput:
        raise _refuse(what, text, "is no moment", right) from None
    return max(0, _since_epoch(now) - int(Decimal(repr(ago)) * 10**9))


def parse_begin(text: str, now: datetime, *, what: str = "begin") -> datetime:
    """A moment: RFC 3339 (UTC where no zone is given), seconds since the epoch, or a duration
    after ``now`` such as ``2h``; at most ten years ahead.

    ``now`` carries a time zone. Raises ``InvalidInput``.
    """
    right = "give a moment such as 2026-01-31T02:00:00Z, or how long from now, such as 2h"
    if found := _MOMENT.fullmatch(text):
        whole = _nanoseconds(text, found, what=what, right=right)
        at = _EPOCH + timedelta(microseconds=whole // 1000)
    elif re.fullmatch(r"[0-9]{10}(\.[0-9]{1,9})?", text):
        at = _EPOCH + timedelta(seconds=float(text))
    else:
        try:
            at = now + timedelta(seconds=parse_duration(text, what=what))
        except InvalidInput:
            raise _refuse(what, text, "is no moment", right) from None
    if at > now + timedelta(seconds=MOST_SECONDS):
        raise _refuse(what, text, "is more than ten years ahead", right)
    return at


def _nanoseconds(text: str, found: re.Match[str], *, what: str, right: str) -> int:
    day, clock, fraction, zone = found.groups()
    iso = f"{day}T{clock or '00:00'}{(zone or 'Z').upper().replace('Z', '+00:00')}"
    try:
        whole = _since_epoch(datetime.fromisoformat(iso))
    except (ValueError, OverflowError):
        raise _refuse(what, text, "is no moment", right) from None
    if whole < 0:
        raise _refuse(what, text, "is before 1970", right)
    return whole + int((fraction or "").ljust(9, "0"))


def _since_epoch(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def show_gib(amount: int) -> str:
    """Bytes as people read them: ``512 MiB``, ``1.5 GiB``, ``62.8 GiB``, ``2 TiB``."""
    units = (("TiB", 1024 * GIB), ("GiB", GIB), ("MiB", MIB), ("KiB", 1024))
    for unit, size in units:
        # 1023.96 MiB is one GiB to a reader.
        if amount >= size * Decimal("0.99995"):
            tenths = (Decimal(amount) / size).quantize(Decimal("0.1"))
            return f"{tenths:f}".removesuffix(".0") + f" {unit}"
    return f"{amount} B"


def show_duration(seconds: float) -> str:
    """Seconds as people read them, at most two units: ``0.4s``, ``45s``, ``5m03s``, ``2h05m``,
    ``3d04h``."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f}".removesuffix(".0") + "s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02}h"
