"""One task's whole story, for ``show``."""

from __future__ import annotations

from typing import Any

from .output import Column, folded, print_fields, print_table, say
from .wording import NOTHING, amount, clock, is_final, long_span, priority_of, since, took

Task = dict[str, Any]


def print_story(task: Task) -> None:
    """What it is, how it stands, where it ran, and what happened, in time's order."""
    print_fields(_fields(task))
    if task.get("assignments"):
        say()
        print_table(
            [
                Column("ASSIGNMENT"),
                Column("WORKER"),
                Column("STARTED"),
                Column("EXIT", right=True),
                Column("CONTAINER"),
                Column("WHY", flexible=True),
            ],
            [_assignment_row(one) for one in task["assignments"]],
        )
    if task.get("events"):
        say()
        for event in task["events"]:
            text = f"{event['what']} {event.get('text') or ''}"
            say(folded(f"{clock(event['at'])}  ", text))


def _fields(task: Task) -> list[tuple[str, object]]:
    named = f" ({task['name']})" if task.get("name") else ""
    seconds = took(task)
    ended = clock(task["completed_at"]) if task["completed_at"] else None
    if ended and seconds is not None:
        ended += f", after {long_span(seconds)}"
    return [
        ("Task", task["task_id"] + named),
        ("Status", _status(task)),
        ("Why", task["reason"]),
        ("Hint", task.get("hint")),
        ("Last seen", unreachable(task)),
        ("User", task["user_id"]),
        ("Type", task.get("task_type")),
        ("Image", task["docker_image"]),
        ("Command", _command(task)),
        ("Asked", _asked(task)),
        ("Only on", task["target"]),
        ("GPUs", ", ".join(task["gpus"])),
        ("Created", clock(task["created_at"])),
        ("Started", clock(task["started_at"]) if task["started_at"] else None),
        ("Ended", ended),
        ("Exit code", task["exit_code"]),
        ("Container", task["container_id"]),
        ("Variables", ", ".join(task["env"])),
        ("Mounts", " ".join(task["mounts"])),
        ("Brings along", " ".join(task.get("uploads", ()))),
        ("Sends home", " ".join(task.get("downloads", ()))),
        ("Workdir", task["workdir"]),
        ("Runs as", task["run_as"]),
        ("Shared memory", f"{amount(task['shm_size'], 3)} GB" if task["shm_size"] else None),
        ("Time limit", long_span(task["time_limit"]) if task["time_limit"] else None),
        ("Signal", _signal(task)),
        (
            "First output",
            f"within {long_span(task['first_output'])}" if task.get("first_output") else None,
        ),
        (
            "Idle output",
            f"at most {long_span(task['idle_output'])}" if task.get("idle_output") else None,
        ),
        ("If lost", _if_lost(task)),
        *_wishes(task),
        ("Key", task["idempotency_key"]),
        ("Runs by", task.get("docker_run")),
    ]


def _command(task: Task) -> str:
    from cloudai.core.script import as_script

    script = as_script(task["command"])
    return script.summary if script else task["command"] or "(the image's own)"


def _signal(task: Task) -> str | None:
    if not task.get("signal"):
        return None
    name, _, before = task["signal"].partition("@")
    return f"{name}, {long_span(float(before))} before its time limit and at each stop"


def _status(task: Task) -> str:
    words = str(task["status"])
    if task["worker_id"]:
        words += f" on {task['worker_id']}"
    if task["status"] == "running":
        words += f" {since(task['started_at'])}"
    if task["phase"]:
        words += f": {task['phase']}"
    return words + (" (dispatched)" if task["direct"] else "")


def unreachable(task: Task) -> str | None:
    """That its worker is out of reach, and since when; ``None`` where it is not."""
    seen = task.get("worker_seen") or {}
    if seen.get("reachable", True) or is_final(task):
        return None
    return (
        f"⚠ {task['worker_id']} has not been reached {since(seen.get('since'))};"
        " the task stands as last seen"
    )


def _if_lost(task: Task) -> str | None:
    does = {"requeue": "it is run elsewhere", "fail": "it fails"}.get(task.get("on_lost", ""))
    return f"{does} after {long_span(task['lost_after'])} out of reach" if does else None


def _wishes(task: Task) -> list[tuple[str, object]]:
    """What it asks of the scheduler: only what it asked."""
    memory = task.get("gpu_memory")
    return [
        ("Priority", priority_of(task)),
        ("Strategy", task.get("strategy")),
        ("Nodes", " or ".join(task.get("nodes", ()))),
        ("GPU model", task.get("gpu_model")),
        ("GPU memory", f"{amount(memory, 3)} GB on each" if memory else None),
        ("Requires", " and ".join(task.get("require", ()))),
        ("Avoids", ", ".join(task.get("avoid", ()))),
        ("Near", " or ".join(task.get("near", ()))),
        ("Apart from", ", ".join(task.get("apart", ()))),
        ("Preemptible", "yes" if task.get("preemptible") else None),
        ("Retries", _retries(task)),
        ("Not before", clock(task["not_before"]) if task.get("not_before") else None),
        ("Group", _group(task)),
        ("After", ", ".join(task.get("after", ()))),
        ("Batch", _batch(task)),
        ("Array", _array(task)),
    ]


def _retries(task: Task) -> str | None:
    if not task.get("retries"):
        return None
    causes = ", ".join(task.get("retry_on", ()))
    used = f"{task.get('failures', 0)} of {task['retries']} used"
    return f"{used}, on {causes}" if causes else used


def _group(task: Task) -> str | None:
    """Which placement group it is one of."""
    if not task.get("group"):
        return None
    rank, size = task["group_rank"], task["group_size"]
    return f"{task['group']}, rank {rank} of {size}, {task['placement']}"


def _batch(task: Task) -> str | None:
    return f"{task['batch']}, entry {task['entry']}" if task.get("batch") else None


def _array(task: Task) -> str | None:
    """Which array it is an element of."""
    if not task.get("array"):
        return None
    limit = f", {task['array_limit']} at once" if task["array_limit"] else ""
    return f"{task['array']}, index {task['array_index']} of {task['array_size']}{limit}"


def counted(counts: dict[str, int]) -> str:
    """``3 running, 97 completed``: what there is none of is left out."""
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none"


def print_array(array: dict[str, Any]) -> None:
    """An array as a whole."""
    named = f" ({array['name']})" if array.get("name") else ""
    limit = f", {array['array_limit']} at once" if array["array_limit"] else ""
    print_fields(
        [
            ("Array", array["task_id"] + named),
            ("Status", f"{array['status']}: {counted(array['counts'])}"),
            ("Elements", f"{array['array_size']}{limit}"),
            ("User", array["user_id"]),
            ("Image", array["docker_image"]),
            ("Command", _command(array)),
            ("Batch", array["batch"]),
            ("Created", clock(array["created_at"])),
            ("Started", clock(array["started_at"]) if array["started_at"] else None),
            ("Ended", clock(array["completed_at"]) if array["completed_at"] else None),
        ]
    )


def _asked(task: Task) -> str:
    return (
        f"{task['req_cpu']:.2f} cores, {task['req_memory']:.2f} GB memory,"
        f" {task['req_storage']:.2f} GB storage, {task['req_gpu']:.2f} GPUs"
    )


def _assignment_row(one: dict[str, Any]) -> list[str]:
    ended = "" if one["ended_at"] is None else f"ended {clock(one['ended_at'])[11:]}"
    return [
        f"#{one['number']}",
        one["worker_id"],
        clock(one["started_at"])[11:] if one["started_at"] else NOTHING,
        NOTHING if one["exit_code"] is None else str(one["exit_code"]),
        (one["container_id"] or NOTHING)[:12],
        ": ".join(filter(None, (ended, one["reason"]))) or NOTHING,
    ]
