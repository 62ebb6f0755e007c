"""What a front door sends to have a part of a worker kept for somebody, checked: the body of
``POST /reservations/``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .errors import InvalidInput
from .model import LOWEST_PRIORITY, Resources
from .names import check_user, check_worker_id
from .request import Request, known_fields
from .units import parse_amount, parse_cpus, parse_duration, parse_gpus
from .wishes import check_priority

FIELDS = (
    *("worker_id", "req_cpu", "req_memory", "req_storage", "req_gpu"),
    *("user_id", "priority", "for", "note"),
)
LONGEST_NOTE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A reservation that somebody asks for."""

    worker_id: str
    resources: Resources
    user_id: str | None
    """``None``: for everybody's tasks of its priority and higher."""
    priority: int
    seconds: float | None
    """``None``: until it is given back."""
    note: str


def read_reservation(body: Mapping[str, object], *, default_user: str) -> Wanted:
    """Whose it is: the named user's; with a priority alone, everybody's from that on; with
    neither, ``default_user``'s. Raises ``InvalidInput``."""
    request = known_fields(body, FIELDS)
    if not request.given("worker_id"):
        raise InvalidInput("worker_id: missing; say on which worker", field="worker_id")
    nobody = None if request.given("priority") else default_user
    return Wanted(
        worker_id=check_worker_id(request.text("worker_id"), what="worker_id"),
        resources=_resources(request),
        user_id=request.read("user_id", check_user, otherwise=nobody),
        priority=request.quantity("priority", check_priority, otherwise=LOWEST_PRIORITY),
        seconds=request.quantity("for", parse_duration, otherwise=None),
        note=_note(request),
    )


def _resources(request: Request) -> Resources:
    found = Resources(
        cpu_milli=request.quantity("req_cpu", _cpus, otherwise=0),
        memory=request.quantity("req_memory", _amount, otherwise=0),
        storage=request.quantity("req_storage", _amount, otherwise=0),
        gpu_milli=request.quantity("req_gpu", parse_gpus, otherwise=0),
    )
    if found == Resources():
        raise InvalidInput(
            "a reservation of nothing", hint="say how much of what: CPUs, memory, storage, GPUs"
        )
    return found


def _cpus(value: object, *, what: str) -> int:
    return parse_cpus(value, what=what, zero=True)


def _amount(value: object, *, what: str) -> int:
    return parse_amount(value, what=what, zero=True)


def _note(request: Request) -> str:
    note = request.text("note").strip() if request.given("note") else ""
    if len(note) > LONGEST_NOTE:
        raise InvalidInput(f"note: {len(note)} characters; at most {LONGEST_NOTE}", field="note")
    return note
