"""What sbatch's options are called here. Pure.

Each option of an ``#SBATCH`` line becomes flags of ``cloudai task`` that mean the same, or is
refused with the word to use instead: none is passed over. What is harmless and not done, such as
``--output``, is told in a notice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from .directives import Directive
from .errors import InvalidInput
from .wording import nearest, shown

MOST_HOSTS = 1000
_TIME = re.compile(r"(?:([0-9]{1,6})-)?([0-9]{1,8})(?::([0-9]{1,4}))?(?::([0-9]{1,4}))?")
_MEMORY = re.compile(r"([0-9]{1,15})([KMGT]?)B?", re.IGNORECASE)
_HOST = re.compile(r"([A-Za-z0-9._-]*)\[([0-9,-]+)\]([A-Za-z0-9._-]*)|([A-Za-z0-9][A-Za-z0-9._-]*)")
_LATER = re.compile(r"now(?:\+([0-9]{1,9})(second|minute|hour|day|week)?s?)?")
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?\s*([ap]m)?")
_DAY = re.compile(
    r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})(?:t([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?)?"
)
_US_DAY = re.compile(r"([0-9]{2})([/.]?)([0-9]{2})\2([0-9]{2})")
_HOURS = {"midnight": 0, "elevenses": 11, "noon": 12, "fika": 15, "teatime": 16}
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
_ENDS = {"afterok": "ok", "afternotok": "failed", "afterany": "any"}


class NotHere(ValueError):
    """An option that cannot be honoured, and what to use instead."""


@dataclass(frozen=True, slots=True)
class Said:
    """One option of a line, as flags of ``cloudai task``."""

    line: int
    spelled: str
    """As it stands there: ``--mem=4G``."""
    flags: tuple[str, ...]


@dataclass(slots=True)
class Translation:
    """What ``#SBATCH`` lines become."""

    said: list[Said] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


# ------------------------------------------------------------------ values


def parse_time(text: str) -> int | None:
    """Seconds of Slurm's time limit: ``90`` (minutes), ``1:30`` (minutes and seconds),
    ``h:m:s``, ``d-h``, ``d-h:m``, ``d-h:m:s``; ``None``: no limit. Raises ``NotHere``."""
    if text.upper() in ("UNLIMITED", "INFINITE", "-1", "0"):
        return None
    found = _TIME.fullmatch(text)
    if not found:
        raise NotHere("give minutes, m:s, h:m:s, d-h, d-h:m or d-h:m:s")
    days, first, second, third = found.groups()
    if days is not None:
        hours, minutes, seconds = int(first), int(second or 0), int(third or 0)
    elif third is not None:
        hours, minutes, seconds = int(first), int(second), int(third)
    else:
        hours, minutes, seconds = 0, int(first), int(second or 0)
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds or None


def parse_memory(text: str) -> int:
    """Bytes: ``4000`` is 4000 MiB, ``4G`` 4 GiB. Raises ``NotHere``."""
    found = _MEMORY.fullmatch(text)
    if not found:
        raise NotHere("give MB, or a number with K, M, G or T, such as 16G")
    power = "KMGT".index((found[2] or "M").upper()) + 1
    return int(found[1]) << 10 * power


def parse_hosts(text: str) -> list[str]:
    """``gpu[1-3,7],login``: the names, leading zeros kept. Raises ``NotHere``."""
    names: list[str] = []
    for part in re.split(r",(?![^\[]*\])", text):
        found = _HOST.fullmatch(part.strip())
        if not found:
            raise NotHere("give names such as gpu1,gpu2 or gpu[1-4]")
        if found[4]:
            names.append(found[4])
            continue
        for piece in found[2].split(","):
            first, dash, last = piece.partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()):
                raise NotHere("give names such as gpu1,gpu2 or gpu[1-4]")
            span = range(int(first), int(last or first) + 1)
            if len(span) + len(names) > MOST_HOSTS:
                raise NotHere(f"at most {MOST_HOSTS} names")
            names += [f"{found[1]}{one:0{len(first)}}{found[3]}" for one in span]
    return names


def parse_dependency(text: str, *, what: str = "dependency") -> list[str]:
    """Needs (``task-…:ok``) of ``afterok:ID:ID,afterany:ID``; an ID may be a task's name.
    Raises ``InvalidInput``."""
    needs: list[str] = []
    for part in text.split(","):
        kind, colon, rest = part.strip().partition(":")
        if "?" in part:
            raise _refuse(what, text, "?: any one of several is not known here; all must be met")
        if kind == "singleton":
            raise _refuse(what, text, "singleton is not known here; name the task: afterany:NAME")
        if kind == "after":
            raise _refuse(what, text, "after: counts from a start; here tasks wait for an end")
        if kind not in (*_ENDS, "aftercorr") or not colon or not all(rest.split(":")):
            raise _refuse(what, text, "give afterok:ID, afternotok:ID, afterany:ID or aftercorr:ID")
        each = "[*]:ok" if kind == "aftercorr" else f":{_ENDS[kind]}"
        needs += [f"{one.strip()}{each}" for one in rest.split(":")]
    return needs


def parse_begin(
    text: str, now: datetime, *, local: Callable[[datetime], datetime], what: str = "begin"
) -> str:
    """A moment for the API of what Slurm calls one: ``now+1hour``, ``16:00``, ``noon``,
    ``tomorrow``, ``2026-01-31T02:00``, in this machine's time; all else as it is. ``now``: naive,
    in local time; ``local``: such a time with its zone. Raises ``InvalidInput``."""
    word = text.strip().lower()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if later := _LATER.fullmatch(word):
        return f"{int(later[1] or 0) * _SECONDS[later[2] or 'second']}s"
    try:
        if word == "today":
            at = midnight
        elif word == "tomorrow":
            at = midnight + timedelta(days=1)
        elif word in _HOURS:
            at = _next(midnight + timedelta(hours=_HOURS[word]), now)
        elif clock := _CLOCK.fullmatch(word):
            at = _next(midnight + _clock(clock), now)
        elif day := _DAY.fullmatch(word):
            at = datetime(*(int(part or 0) for part in day.groups()))  # type: ignore[arg-type]
        elif us := _US_DAY.fullmatch(word):
            at = datetime(2000 + int(us[4]), int(us[1]), int(us[3]))
        else:
            return text
    except ValueError:
        raise _refuse(what, text, "there is no such time") from None
    return local(at).isoformat(timespec="seconds")


def _clock(found: re.Match[str]) -> timedelta:
    hour, minute, second = int(found[1]), int(found[2]), int(found[3] or 0)
    if found[4]:
        if not 1 <= hour <= 12:
            raise ValueError(hour)
        hour = hour % 12 + (12 if found[4] == "pm" else 0)
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError(found[0])
    return timedelta(hours=hour, minutes=minute, seconds=second)


def _next(at: datetime, now: datetime) -> datetime:
    return at if at > now else at + timedelta(days=1)


def _refuse(what: str, text: str, right: str) -> InvalidInput:
    return InvalidInput(f"{what}: {shown(text)}; {right}", field=what)


# ------------------------------------------------------------------ options


@dataclass(frozen=True, slots=True)
class _Option:
    does: Callable[[str], Sequence[str]]
    short: str = ""
    takes: str = "value"
    """``value``, ``flag``, or ``maybe`` (only behind ``=``)."""
    notice: str = ""


def _plain(flag: str) -> Callable[[str], Sequence[str]]:
    return lambda value: (flag, value)


def _does(*flags: str) -> Callable[[str], Sequence[str]]:
    return lambda _: flags


def _never(words: str) -> Callable[[str], Sequence[str]]:
    def refuse(_: str) -> Sequence[str]:
        raise NotHere(words)

    return refuse


def _time(value: str) -> Sequence[str]:
    seconds = parse_time(value)
    return () if seconds is None else ("--time-limit", str(seconds))


def _memory(flag: str) -> Callable[[str], Sequence[str]]:
    def translate(value: str) -> Sequence[str]:
        amount = parse_memory(value)
        if not amount:
            raise NotHere("0, all there is, cannot be asked for; say how much")
        return flag, f"{amount // 1024}k"

    return translate


def _one(what: str, instead: str) -> Callable[[str], Sequence[str]]:
    def check(value: str) -> Sequence[str]:
        if value.strip() not in ("1", "1-1"):
            raise NotHere(f"a task is one {what}; {instead}")
        return ()

    return check


def _gpus(value: str) -> Sequence[str]:
    model, _, count = value.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", count):
        model, count = value, "1"
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]*", model):
            raise NotHere("give a number, or a model and a number: 2, a100:2")
    return ("--gpu", f"{model}:{count}") if model else ("--gpus", count)


def _gres(value: str) -> Sequence[str]:
    if value.lower() == "none":
        return ()
    if value == "gpu":
        return "--gpus", "1"
    kind, _, rest = value.partition(":")
    if kind != "gpu" or "," in value:
        raise NotHere("cloudai gives GPUs alone: gpu:2 or gpu:a100:2")
    return _gpus(rest)


def _partition(value: str) -> Sequence[str]:
    return "--require", f"pool in ({', '.join(part.strip() for part in value.split(','))})"


def _nodelist(value: str) -> Sequence[str]:
    names = parse_hosts(value)
    if len(names) > 1:
        raise NotHere("a task is on one node; any of several: #CLOUDAI --node A --node B")
    return "--node", names[0]


def _exclude(value: str) -> Sequence[str]:
    names = parse_hosts(value)
    return "--avoid", f"worker in ({', '.join(names)})"


def _constraint(value: str) -> Sequence[str]:
    words = value.split("&")
    if not all(re.fullmatch(r"[A-Za-z0-9_.=-]+", word) for word in words):
        raise NotHere("only features joined by & are known; else #CLOUDAI --require EXPR")
    return [flag for word in words for flag in ("--require", word)]


def _export(value: str) -> Sequence[str]:
    names = [part for part in value.split(",") if part]
    if any(name.upper() in ("ALL", "NIL") for name in names):
        raise NotHere(
            "the variables of this machine do not go along; name those it needs: --export=A,B=1"
        )
    return [flag for name in names if name.upper() != "NONE" for flag in ("-e", name)]


def _mail(value: str) -> Sequence[str]:
    if value.upper() != "NONE":
        raise NotHere("cloudai sends no mail; `cloudai wait TASK && mail …` does")
    return ()


def _unmet(value: str) -> Sequence[str]:
    if value.lower() not in ("yes", "y"):
        raise NotHere("what can never start is cancelled, or skipped: --on-unmet skip")
    return "--on-unmet", "cancel"


def _dependency(value: str) -> Sequence[str]:
    return "--dependency", value


_KEPT = "is not written here: `cloudai logs TASK` has all that the task writes"
_ONE_TASK = "--array or --replicas make several"
_COMMAND_LINE = "it belongs on the command line: "

OPTIONS: dict[str, _Option] = {
    "array": _Option(_plain("--array"), "a"),
    "begin": _Option(_plain("--begin"), "b"),
    "chdir": _Option(_plain("--workdir"), "D"),
    "comment": _Option(_does(), notice="is not kept"),
    "constraint": _Option(_constraint, "C"),
    "cpus-per-task": _Option(_plain("--cpus"), "c"),
    "dependency": _Option(_dependency, "d"),
    "error": _Option(_does(), "e", notice=_KEPT),
    "exclude": _Option(_exclude, "x"),
    "export": _Option(_export),
    "gpus": _Option(_gpus, "G"),
    "gpus-per-node": _Option(_gpus),
    "gpus-per-task": _Option(_gpus),
    "gres": _Option(_gres),
    "job-name": _Option(_plain("--name"), "J"),
    "kill-on-invalid-dep": _Option(_unmet),
    "mail-type": _Option(_mail),
    "mem": _Option(_memory("--memory")),
    "no-requeue": _Option(_does("--no-requeue"), takes="flag"),
    "nodelist": _Option(_nodelist, "w"),
    "nodes": _Option(_one("container on one node", "--replicas N places several together"), "N"),
    "ntasks": _Option(_one("program", _ONE_TASK), "n"),
    "ntasks-per-node": _Option(_one("program", _ONE_TASK)),
    "open-mode": _Option(_does(), notice=_KEPT),
    "output": _Option(_does(), "o", notice=_KEPT),
    "oversubscribe": _Option(_does(), "s", takes="flag"),
    "partition": _Option(_partition, "p"),
    "requeue": _Option(_does("--requeue"), takes="flag"),
    "signal": _Option(_plain("--signal")),
    "test-only": _Option(_does("--test-only"), takes="flag"),
    "time": _Option(_time, "t"),
    "tmp": _Option(_memory("--storage")),
    "wait": _Option(_does("--wait"), "W", takes="flag"),
    # What is refused, with what to use instead.
    "account": _Option(_never("there are no accounts; whose task it is says --user"), "A"),
    "cpus-per-gpu": _Option(_never("say how many in all: --cpus-per-task")),
    "deadline": _Option(_never("there are no deadlines; --time limits a run")),
    "exclusive": _Option(
        _never("workers are shared; ask for all of one: --cpus-per-task, --mem, --gpus"),
        takes="maybe",
    ),
    "export-file": _Option(_never("#CLOUDAI --env-file FILE reads variables from a file")),
    "get-user-env": _Option(_never("name the variables: --export=A,B"), takes="maybe"),
    "hold": _Option(_never("nothing is held; --begin says when it may start"), "H", "flag"),
    "immediate": _Option(_never("`cloudai dispatch` runs it now or not at all"), "I", "maybe"),
    "input": _Option(_never("a task has no stdin; redirect in the script: command <FILE"), "i"),
    "licenses": _Option(_never("there are no licences to count"), "L"),
    "mail-user": _Option(_never("cloudai sends no mail; `cloudai wait TASK && mail …` does")),
    "mem-per-gpu": _Option(_never("say how much in all: --mem")),
    "nice": _Option(_never("say it by #CLOUDAI --priority low"), takes="maybe"),
    "parsable": _Option(_never(f"{_COMMAND_LINE}cloudai task -q"), takes="flag"),
    "priority": _Option(_never("say it by #CLOUDAI --priority LEVEL")),
    "qos": _Option(_never("there are no qualities of service; #CLOUDAI --priority LEVEL"), "q"),
    "quiet": _Option(_never(f"{_COMMAND_LINE}-q"), "Q", "flag"),
    "reservation": _Option(_never("what is reserved for you is used without naming it")),
    "time-min": _Option(_never("a limit is what --time says")),
    "uid": _Option(_never("#CLOUDAI --run-as UID[:GID] is the user in the container")),
    "gid": _Option(_never("#CLOUDAI --run-as UID[:GID] is the user in the container")),
    "wrap": _Option(_never("a script is a script; a command is: cloudai task IMAGE -c TEXT")),
}
_SHORT = {option.short: name for name, option in OPTIONS.items() if option.short}
PER_CPU = "mem-per-cpu"
"""Needs the number of cores, and is done last."""


def translate(
    directives: Sequence[Directive], *, source: str, cpus: str | None = None
) -> Translation:
    """The ``#SBATCH`` lines of a script. ``source``: its name; ``cpus``: the cores that the
    command line asks for, if it does. Raises ``InvalidInput`` naming file, line and option."""
    done = Translation()
    per_cpu: tuple[int, str, int] | None = None
    for directive in directives:
        for name, value, spelled in _options(directive, source):
            where = f"{source}:{directive.line}: {spelled}"
            try:
                if name == PER_CPU:
                    per_cpu = (directive.line, spelled, parse_memory(value))
                    continue
                option = OPTIONS[name]
                flags = tuple(option.does(value))
            except NotHere as wrong:
                raise InvalidInput(f"{where}: {wrong}", line=directive.line) from None
            if name == "cpus-per-task" and cpus is None:
                cpus = value
            if name == "mem":
                per_cpu = None
            if option.notice:
                done.notices.append(f"{where}: {option.notice}")
            if flags:
                done.said = [one for one in done.said if not _replaces(one, flags)]
                done.said.append(Said(directive.line, spelled, flags))
    if per_cpu is not None:
        done.said.append(_per_cpu(per_cpu, cpus, source))
    return done


_ADDING = ("-e", "--require", "--avoid")


def _replaces(before: Said, flags: tuple[str, ...]) -> bool:
    """A later line of the same option takes the place of the earlier one, as in sbatch."""
    gpus = ("--gpu", "--gpus")
    if before.flags[0] in gpus and flags[0] in gpus:
        return True
    same = before.flags[0] == flags[0] and flags[0] not in _ADDING
    return same or {before.flags[0], flags[0]} == {"--requeue", "--no-requeue"}


def _per_cpu(asked: tuple[int, str, int], cpus: str | None, source: str) -> Said:
    line, spelled, amount = asked
    try:
        total = amount * float(cpus or 1)
    except ValueError:
        raise InvalidInput(f"{source}:{line}: {spelled}: of how many cores?", line=line) from None
    return Said(line, spelled, ("--memory", f"{round(total) // 1024}k"))


def _options(directive: Directive, source: str) -> list[tuple[str, str, str]]:
    """(name, value, as spelled) of each option of a line."""
    found: list[tuple[str, str, str]] = []
    words = list(directive.words)
    while words:
        word = words.pop(0)
        name, value, short = _named(word, directive, source)
        spelled = word
        takes = "value" if name == PER_CPU else OPTIONS[name].takes
        if takes == "flag" and value is not None:
            if short:
                words.insert(0, f"-{value}")
                spelled, value = word[:2], None
            else:
                raise _bad(directive, source, f"{word}: it takes no value")
        if takes == "value" and value is None:
            if not words:
                raise _bad(directive, source, f"{word}: its value is missing")
            value = words.pop(0)
            spelled = f"{word} {value}"
        found.append((name, value or "", spelled))
    return found


def _named(word: str, directive: Directive, source: str) -> tuple[str, str | None, bool]:
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        known = [*OPTIONS, PER_CPU]
        fitting = [one for one in known if one.startswith(name)] if name else []
        if name not in known and len(fitting) != 1:
            near = nearest(name, known)
            hint = f"; did you mean --{near}?" if near else ""
            which = f"could be --{' or --'.join(fitting)}" if fitting else "is not known here"
            raise _bad(directive, source, f"--{name} {which}{hint if not fitting else ''}")
        return (name if name in known else fitting[0]), (value if equals else None), False
    if word.startswith("-") and len(word) > 1:
        if word[1] not in _SHORT:
            raise _bad(directive, source, f"{word[:2]} is not known here")
        return _SHORT[word[1]], word[2:] or None, True
    raise _bad(directive, source, f"{shown(word)} is no option")


def _bad(directive: Directive, source: str, words: str) -> InvalidInput:
    return InvalidInput(f"{source}:{directive.line}: {words}", line=directive.line)
