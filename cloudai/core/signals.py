"""The signal that a task is given time by, as people write it: ``USR1@60``. Pure."""

from __future__ import annotations

import re

from .errors import InvalidInput
from .wording import did_you_mean, shown

NUMBERS = {
    **{1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 5: "TRAP", 6: "ABRT", 7: "BUS", 8: "FPE"},
    **{9: "KILL", 10: "USR1", 11: "SEGV", 12: "USR2", 13: "PIPE", 14: "ALRM", 15: "TERM"},
    **{16: "STKFLT", 17: "CHLD", 18: "CONT", 19: "STOP", 20: "TSTP", 21: "TTIN", 22: "TTOU"},
    **{23: "URG", 24: "XCPU", 25: "XFSZ", 26: "VTALRM", 27: "PROF", 28: "WINCH", 29: "IO"},
    **{30: "PWR", 31: "SYS"},
}
"""Of Linux, which every container runs on, whatever the machine that sends it."""
DEFAULT_BEFORE = 60.0
LONGEST_BEFORE = 3600.0
"""Seconds."""

_UNCATCHABLE = ("KILL", "STOP")
_SIGNAL = re.compile(r"(?:(?P<who>[A-Za-z]+):)?(?P<name>[A-Za-z0-9]+)(?:@(?P<before>[0-9.]+))?")
_RIGHT = "give a signal, and the seconds it comes before: USR1@60"


def parse_signal(value: object, *, what: str = "signal") -> tuple[str, float]:
    """A signal's name without ``SIG``, and the seconds that it is sent before the end; 60 where
    none are given, as in Slurm.

    Slurm's ``B:`` says that the batch shell alone gets it; here the container's own program
    always does, and nothing else, so it changes nothing. Raises ``InvalidInput``.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    found = _SIGNAL.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise _refuse(what, value, _RIGHT)
    if found["who"] and found["who"].upper() != "B":
        raise _refuse(
            what, value, f"{found['who']}: means nothing here; only B: may stand before the signal"
        )
    return _name(found["name"], value, what), _before(found["before"], value, what)


def _name(word: str, value: object, what: str) -> str:
    if word.isdecimal():
        name = NUMBERS.get(int(word))
        if name is None:
            raise _refuse(what, value, "give a number from 1 to 31, or a name such as USR1")
    else:
        name = word.upper().removeprefix("SIG")
        name = {"IOT": "ABRT", "CLD": "CHLD", "POLL": "IO"}.get(name, name)
        if name not in NUMBERS.values():
            known = [one.lower() for one in NUMBERS.values() if one not in _UNCATCHABLE]
            raise _refuse(what, value, did_you_mean(name, known))
    if name in _UNCATCHABLE:
        raise _refuse(what, value, f"no program can catch {name}; give one that it can, as USR1")
    return name


def _before(text: str | None, value: object, what: str) -> float:
    if text is None:
        return DEFAULT_BEFORE
    try:
        seconds = float(text)
    except ValueError:
        raise _refuse(what, value, _RIGHT) from None
    if seconds > LONGEST_BEFORE:
        raise _refuse(what, value, f"give at most {LONGEST_BEFORE:g} seconds")
    return seconds


def _refuse(what: str, value: object, right: str) -> InvalidInput:
    return InvalidInput(f"{what}: {shown(value)}; {right}", field=what)
