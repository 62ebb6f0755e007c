"""What a front door sends to have a placement group: the body of ``POST /groups/`` (docs/api.md).

::

    {"placement": "strict_spread", "tasks": [BODY, …]}      each a body of POST /tasks/
    {"placement": "pack", "replicas": 4, "tasks": [BODY]}   four times the same
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .errors import InvalidInput
from .model import Placement, TaskSpec
from .request import Expand, Request, check_key, known_fields, read_request
from .wishes import check_placement, whole_number
from .wording import shown

MOST_TASKS = 256
FIELDS = ("placement", "tasks", "replicas", "idempotency_key")


@dataclass(frozen=True, slots=True)
class Member:
    """One task of a group, and the values of its environment variables."""

    spec: TaskSpec
    env: Mapping[str, str]
    body: Mapping[str, object]
    """What was sent for it."""


def read_group(
    body: Mapping[str, object], *, default_user: str, group: str, expand: Expand | None = None
) -> list[Member]:
    """The members of the group, in the order of their ranks, checked as a whole.

    ``group``: its id. ``expand``: as of ``read_request``. The idempotency key, where there is
    one, is the first member's. Raises ``InvalidInput`` naming the field, as in
    ``tasks[3].req_cpu``.
    """
    request = known_fields(body, FIELDS)
    placement = request.read("placement", check_placement, otherwise=Placement.PACK)
    key = request.read("idempotency_key", check_key, otherwise=None)
    members = _members(request, default_user, expand)
    _check_alike(members)
    return [
        replace(
            member,
            spec=replace(
                member.spec,
                group=group,
                group_size=len(members),
                group_rank=rank,
                placement=placement,
                idempotency_key=None if rank else key,
            ),
        )
        for rank, member in enumerate(members)
    ]


def _members(request: Request, default_user: str, expand: Expand | None) -> list[Member]:
    bodies = request.body.get("tasks")
    if not isinstance(bodies, list | tuple) or not 1 <= len(bodies) <= MOST_TASKS:
        raise InvalidInput(
            f"tasks: {shown(bodies)}; give a list of 1 to {MOST_TASKS} tasks, each as the body of"
            " POST /tasks/",
            field="tasks",
        )
    members = [_member(body, at, default_user, expand) for at, body in enumerate(bodies)]
    if not request.given("replicas"):
        return members
    right = f"give a whole number from 1 to {MOST_TASKS}"
    replicas = request.quantity(
        "replicas", lambda value, what: _replicas(value, what, right), otherwise=1
    )
    if len(members) > 1:
        raise InvalidInput(
            f"replicas: {replicas}, and {len(members)} tasks; give one task to be repeated",
            field="replicas",
        )
    return members * replicas


def _replicas(value: object, what: str, right: str) -> int:
    number = whole_number(value, what=what, most=MOST_TASKS, right=right)
    if not number:
        raise InvalidInput(f"{what}: {shown(value)}; {right}", field=what)
    return number


def _member(body: object, at: int, default_user: str, expand: Expand | None) -> Member:
    where = f"tasks[{at}]"
    if not isinstance(body, Mapping):
        raise InvalidInput(f"{where}: {shown(body)}; give an object", field=where)
    try:
        spec, env = read_request(body, default_user=default_user, expand=expand)
    except InvalidInput as wrong:
        wrong.message = f"{where}.{wrong.message}"
        if "field" in wrong.details:
            wrong.details["field"] = f"{where}.{wrong.details['field']}"
        raise
    if body.get("array") is not None:
        raise InvalidInput(
            f"{where}.array: a group's tasks are no arrays; give replicas, beside tasks",
            field=f"{where}.array",
        )
    if spec.idempotency_key is not None:
        raise InvalidInput(
            f"{where}.idempotency_key: it makes one task; give the group one, beside tasks",
            field=f"{where}.idempotency_key",
        )
    return Member(spec, env, body)


def _check_alike(members: list[Member]) -> None:
    """A group is placed as one, so it is one user's, with one place in the queue."""
    first = members[0].spec
    for at, member in enumerate(members):
        for field in ("user_id", "priority"):
            own, of_first = getattr(member.spec, field), getattr(first, field)
            if own != of_first:
                raise InvalidInput(
                    f"tasks[{at}].{field}: {shown(own)}, and {shown(of_first)} in tasks[0]; all"
                    " tasks of a group have the same",
                    field=f"tasks[{at}].{field}",
                )
