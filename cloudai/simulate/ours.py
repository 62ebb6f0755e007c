"""Traces with the API's field names: JSON lines, CSV, and what the store remembers.

A line has the fields of ``POST /tasks/`` that say what is asked of a worker (``req_cpu``,
``req_memory``, ``req_gpu``, ``time_limit``, ``priority``, ``require``, ...), read as the API
reads them, and ``submitted`` and ``runtime``; ``user`` and ``id`` where known, and ``group`` and
``placement`` for tasks that start together.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from cloudai.core.errors import InvalidInput
from cloudai.core.model import Placement, State, Task
from cloudai.core.request import FIELDS, read_request
from cloudai.core.schedule import shape_of
from cloudai.core.units import parse_duration, parse_since
from cloudai.core.usage import kind_of
from cloudai.core.wishes import check_placement
from cloudai.core.wording import did_you_mean, shown

from .openb import rows_of
from .trace import Faults, Job, Trace, by_submission

OWN = ("submitted", "runtime", "user", "id", "group", "placement")
LISTS = ("nodes", "require", "avoid", "near", "apart", "retry_on")
"""In CSV, several of these stand with ``;`` between them."""
NOT_OF_A_PLACE = (
    *("argv", "command", "env", "mounts", "workdir", "run_as", "shm_size"),
    *("idempotency_key", "on_lost", "lost_after", "grace", "retries", "retry_on"),
)
"""What the store remembers of a task that has no say in where it goes."""
EPOCH = datetime.fromtimestamp(0, UTC)
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,254}")


def read_json_lines(text: str, *, source: str) -> Trace:
    """One JSON object a line. Raises ``InvalidInput`` with file and line of what is not."""
    faults = Faults(source)

    def rows() -> Iterator[tuple[int, dict[str, object]]]:
        for number, line in enumerate(text.lstrip("\ufeff").split("\n"), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as wrong:
                faults.add(number, f"not JSON: {wrong}")
                continue
            if isinstance(row, dict):
                yield number, row
            else:
                faults.add(number, f"{shown(row)} where a JSON object belongs")

    return _trace(rows(), faults)


def read_csv(text: str, *, source: str) -> Trace:
    """A table whose first line names the fields. Raises ``InvalidInput`` with file and line."""
    faults = Faults(source)

    def rows() -> Iterator[tuple[int, dict[str, object]]]:
        for number, row in rows_of(text, faults):
            given = {key: value for key, value in row.items() if isinstance(value, str)}
            yield number, {str(key): _cell(str(key), one) for key, one in given.items() if one}

    return _trace(rows(), faults)


def _cell(field: str, text: str) -> object:
    if field in LISTS:
        return [one.strip() for one in text.split(";") if one.strip()]
    if field == "preemptible" and text.strip().lower() in ("true", "false"):
        return text.strip().lower() == "true"
    return text.strip()


def _trace(rows: Iterable[tuple[int, dict[str, object]]], faults: Faults) -> Trace:
    jobs: dict[str, Job] = {}
    clocks: set[str] = set()
    for line, row in rows:
        try:
            job = _job(row, line, clocks)
            if job.id in jobs:
                raise InvalidInput(f"id: {shown(job.id)} stands twice")
            if len(clocks) > 1:
                clocks = {"moment"}
                raise InvalidInput(
                    "submitted: a moment here and seconds elsewhere; give one kind in a trace"
                )
        except InvalidInput as wrong:
            faults.add(line, wrong.message)
            continue
        jobs[job.id] = job
    faults.settle()
    return Trace(source=faults.source, jobs=by_submission(list(jobs.values())))


def _job(row: Mapping[str, object], line: int, clocks: set[str]) -> Job:
    for field in row:
        if field not in FIELDS and field not in OWN:
            raise InvalidInput(
                f"unknown field {shown(field)}; {did_you_mean(field, (*OWN, *FIELDS))}"
            )
    for field in ("submitted", "runtime"):
        if row.get(field) is None:
            raise InvalidInput(f"{field}: missing")
    body = {field: value for field, value in row.items() if field in FIELDS}
    if row.get("user") is not None:
        body["user_id"] = row["user"]
    return job_of(
        body,
        id_=_word(row, "id") or f"line-{line}",
        submitted=_moment(row["submitted"], clocks),
        runtime=parse_duration(row["runtime"], what="runtime"),
        group=_word(row, "group"),
        placement=_placement(row.get("placement")),
    )


def job_of(
    body: Mapping[str, object],
    *,
    id_: str,
    submitted: float,
    runtime: float | None,
    group: str | None = None,
    placement: Placement = Placement.PACK,
) -> Job:
    """A job from the body of a request. Raises ``InvalidInput`` naming the field."""
    spec, _ = read_request({"docker_image": "trace", **body}, default_user="user")
    task = Task(id=id_, spec=spec, state=State.QUEUED, created_at=EPOCH)
    return Job(
        id=id_,
        user=spec.user_id,
        submitted=submitted,
        runtime=runtime,
        parts=(shape_of(task, kind_of(spec)),),
        priority=spec.priority,
        name=spec.name,
        group=group,
        placement=placement,
    )


def _word(row: Mapping[str, object], field: str) -> str | None:
    value = row.get(field)
    if value is None:
        return None
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not _WORD.fullmatch(text):
        raise InvalidInput(f"{field}: {shown(value)}; give a word")
    return text


def _placement(value: object) -> Placement:
    if value is None:
        return Placement.PACK
    if not isinstance(value, str):
        raise InvalidInput(f"placement: {shown(value)}; give text")
    return check_placement(value)


def _moment(value: object, clocks: set[str]) -> float:
    """Seconds: a moment such as 2026-01-31T12:00:00Z since the epoch, a number as it is, a
    duration since the trace began."""
    if isinstance(value, str) and _MOMENT.match(value):
        clocks.add("moment")
        return parse_since(value, EPOCH, what="submitted") / 1e9
    clocks.add("seconds")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not (math.isfinite(value) and 0 <= value <= 1e10):
            raise InvalidInput(f"submitted: {shown(value)}; give seconds, or a moment")
        return float(value)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,9})?", value):
        return float(value)
    return parse_duration(value, what="submitted")


# ---------------------------------------------------------------- the store's own history


def trace_of_history(tasks: Iterable[Mapping[str, Any]], *, source: str, since: float = 0) -> Trace:
    """What ran here, as ``GET /tasks/`` answers; those that never ran are counted. ``since``:
    only what was submitted then or later, in seconds since the epoch."""
    jobs, skipped = list[Job](), Counter[str]()
    for task in tasks:
        submitted, began = _at(task.get("created_at")), _at(task.get("started_at"))
        ended = _at(task.get("completed_at"))
        if submitted is None or submitted < since:
            skipped["submitted before"] += 1
        elif began is None or ended is None:
            skipped["never ran, or has not ended"] += 1
        else:
            try:
                jobs.append(_past(task, submitted, max(0.0, ended - began)))
            except InvalidInput as wrong:
                skipped[f"cannot be read ({wrong.message})"] += 1
    return Trace(source=source, jobs=by_submission(jobs), skipped=skipped, kind="history")


def _past(task: Mapping[str, Any], submitted: float, runtime: float) -> Job:
    body = {
        field: task[field]
        for field in FIELDS
        if task.get(field) is not None and field not in NOT_OF_A_PLACE
    }
    return job_of(
        body,
        id_=_word(task, "task_id") or "task",
        submitted=submitted,
        runtime=runtime,
        group=_word(task, "group") if task.get("group_size", 1) != 1 else None,
        placement=_placement(task.get("placement")),
    )


def _at(text: object) -> float | None:
    if not isinstance(text, str):
        return None
    try:
        return parse_since(text, EPOCH) / 1e9
    except InvalidInput:
        return None
