"""Why a worker itself ended a task's container, by the note that it keeps of that. Pure.

A worker ends a container at its time limit, or when it has written nothing for too long, while
nobody is connected. How such a container ended does not tell why: it may have caught its signal,
written a last line and left with 0. So the worker notes why before it does anything; the note
also says that the signal was sent, which is sent once, whoever asks for a stop, and how often.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from .lifecycle import Exited
from .model import TaskSpec
from .units import show_duration


class Ending(StrEnum):
    """What a note says."""

    ASKED = "asked"
    """Somebody connected told it to stop; why is known at home."""
    LIMIT = "limit"
    """Its time limit."""
    FIRST = "first"
    """Nothing written within ``first_output``."""
    IDLE = "idle"
    """Nothing written for ``idle_output``."""


def keeps_note(spec: TaskSpec) -> bool:
    """Whether a worker may keep a note of how such a task's container ended."""
    return bool(spec.signal or spec.first_output or spec.idle_output)


def as_noted(event: Exited, spec: TaskSpec, ending: Ending | None) -> Exited:
    """The end of a container, with what its worker noted of it."""
    if event.oom_killed or event.error or ending in (None, Ending.ASKED):
        return event
    if ending is Ending.LIMIT and spec.time_limit is not None:
        return replace(event, over=over_limit(spec))
    if ending is Ending.FIRST and spec.first_output is not None:
        return replace(event, over=f"no output in its first {_span(spec.first_output)}", hung=True)
    if ending is Ending.IDLE and spec.idle_output is not None:
        return replace(event, over=f"no output for {_span(spec.idle_output)}", hung=True)
    return event


def over_limit(spec: TaskSpec) -> str:
    """Its time limit as the reason of its end; ``spec`` has one."""
    words = f"time limit of {spec.time_limit:g} s reached"
    if spec.signal is None:
        return words
    return f"{words}; {spec.signal} was sent {spec.signal_before:g} s before"


def stops_after(spec: TaskSpec) -> float | None:
    """Seconds of running after which it is told to stop by its time limit."""
    if spec.time_limit is None:
        return None
    return max(0.0, spec.time_limit - (spec.signal_before if spec.signal else 0.0))


def _span(seconds: float) -> str:
    """``10m``, ``1h``, ``1m30s``."""
    return show_duration(seconds).removesuffix("00s").removesuffix("00m")
