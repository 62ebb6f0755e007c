"""The scheduler seen as a whole: what it goes by, who has how much, and what is kept for whom."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request

from cloudai.core.model import State
from cloudai.core.policy import HOUR, Policy, Quota

from . import shapes
from .requests import RESERVATION_EXAMPLES
from .tasks import desk_of

router = APIRouter(tags=["scheduler"])

Wanted = Annotated[dict[str, Any], Body(openapi_examples=RESERVATION_EXAMPLES)]


@router.get("/reservations/")
async def list_reservations(request: Request, worker: str | None = None) -> shapes.Json:
    """Parts of workers that are kept for somebody, in the order in which they were made."""
    found = desk_of(request).reservations(worker)
    return {"reservations": [shapes.reservation(one) for one in found]}


@router.post("/reservations/", status_code=201)
async def reserve(request: Request, body: Wanted) -> shapes.Json:
    """Keeps a part of a worker; 409 `insufficient` where it could never hold all of it."""
    made = await desk_of(request).reserve(body, default_user=request.app.state.default_user)
    return shapes.reservation(made)


@router.delete("/reservations/{reservation_id}", status_code=204)
async def unreserve(request: Request, reservation_id: str) -> None:
    """Gives it back."""
    await desk_of(request).unreserve(reservation_id)


@router.get("/scheduler/")
async def overview(request: Request) -> shapes.Json:
    """What tasks are ordered by, how many there are in each state, and who has had how much."""
    desk = desk_of(request)
    counts = {}
    for state in State:
        _, counts[str(state)] = await desk.service.tasks(states=[state], limit=1)
    board = desk.controller.planner.board
    shares, weights = board.shares, board.policy.weights
    waiting: dict[str, int] = {}
    for task_id in desk.controller.waiting:
        user = desk.controller.planner.user_of(task_id)
        waiting[user] = waiting.get(user, 0) + 1
    holding = {user: held for user, held in shares.holdings.items() if held.tasks}
    users = sorted({*shares.use, *holding, *waiting, *weights} - {"", "*"})
    return {
        "policy": policy(board.policy),
        "tasks": counts,
        "users": [
            {
                "user_id": user,
                "weight": board.policy.weight(user),
                "had": round(shares.score(user) / HOUR, 4),
                "waiting": waiting.get(user, 0),
                "tasks": holding[user].tasks if user in holding else 0,
                "cpus": holding[user].cpu / 1000 if user in holding else 0.0,
                "memory": shapes.gib(holding[user].memory) if user in holding else 0.0,
                "gpus": holding[user].gpu / 1000 if user in holding else 0.0,
            }
            for user in sorted(users, key=lambda user: (shares.score(user), user))
        ],
    }


def policy(one: Policy) -> shapes.Json:
    """What the inventory says of scheduling; times in seconds."""
    return {
        "strategy": str(one.strategy),
        "half_life": one.half_life,
        "ageing": one.ageing,
        "lift": one.lift,
        "weights": dict(one.weights),
        "quotas": _quotas(one.quotas),
        "pool_quotas": {pool: _quotas(quotas) for pool, quotas in one.pool_quotas.items()},
    }


def _quotas(quotas: Any) -> shapes.Json:
    return {user: _quota(quota) for user, quota in quotas.items()}


def _quota(quota: Quota) -> shapes.Json:
    """Cores and GPUs as everywhere, not in thousandths."""
    shown = asdict(quota)
    cpus, gpus = shown.pop("cpu_milli"), shown.pop("gpu_milli")
    shown["cpus"] = None if cpus is None else cpus / 1000
    shown["gpus"] = None if gpus is None else gpus / 1000
    return shown
