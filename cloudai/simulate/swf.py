"""Standard Workload Format, as the Parallel Workloads Archive publishes logs: 18 numbers a
line, header comments behind ``;``, -1 for what is not known.

::

     1 job        4 run time      7 used memory          10 requested memory  13 group
     2 submitted  5 processors    8 requested processors 11 status            14 executable
     3 wait       6 CPU time used 9 requested time       12 user              15 queue ...

Processors are cores here, or GPUs where asked. Memory is KB a processor.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from cloudai.core.errors import InvalidInput
from cloudai.core.model import Resources
from cloudai.core.schedule import Shape
from cloudai.core.wording import shown

from .trace import Faults, Job, Trace, by_submission

FIELDS = 18
UNKNOWN = -1.0
MOST_PROCESSORS = 10_000_000
LATEST = 1e10
"""Seconds: beyond any log."""
_HEADER = re.compile(r";\s*([A-Za-z][A-Za-z ]{0,40}?)\s*:\s*(.*)")


def is_swf(text: str) -> bool:
    """Whether it looks like it: comments with ``;``, then lines of 18 numbers."""
    for line in text.split("\n", 500):
        if line.strip() and not line.lstrip().startswith(";"):
            return len(line.split()) == FIELDS and _numbers(line.split()) is not None
    return text.lstrip().startswith(";")


def _numbers(words: Sequence[str]) -> list[float] | None:
    try:
        found = [float(word) for word in words]
    except ValueError:
        return None
    return found if all(math.isfinite(one) for one in found) else None


def read_swf(text: str, *, source: str, gpus: bool = False) -> Trace:
    """The jobs of a log. ``gpus``: its processors are taken as GPUs, with no cores.

    Raises ``InvalidInput`` with file and line of what is no such line. What cannot be replayed
    is counted: see ``Trace.skipped``.
    """
    faults, jobs, skipped = Faults(source), list[Job](), Counter[str]()
    header: dict[str, str] = {}
    seen: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith(";"):
            if (found := _HEADER.match(line.strip())) is not None:
                header.setdefault(found[1], found[2].strip())
        elif line.strip():
            try:
                job = _job(line.split(), number, seen, gpus=gpus)
            except InvalidInput as wrong:
                faults.add(number, wrong.message)
                continue
            if isinstance(job, Job):
                jobs.append(job)
            else:
                skipped[job] += 1
    faults.settle()
    kind = "GPUs" if gpus else "cores"
    return Trace(
        source=source,
        jobs=by_submission(jobs),
        skipped=skipped,
        notes=(f"processors are taken as {kind}",),
        header=header,
        kind="swf",
    )


def _job(words: Sequence[str], line: int, seen: set[str], *, gpus: bool) -> Job | str:
    """The job, or why it cannot be replayed."""
    if len(words) != FIELDS:
        raise InvalidInput(f"{len(words)} fields where a line has {FIELDS}")
    numbers = _numbers(words)
    if numbers is None:
        wrong = next(word for word in words if _numbers([word]) is None)
        raise InvalidInput(f"{shown(wrong)} is not a number")
    if max(numbers) > LATEST or min(numbers) < -LATEST:
        raise InvalidInput(f"{max(numbers, key=abs):g} is beyond any log")
    submitted, runtime = numbers[1], numbers[3]
    asked = numbers[7] if numbers[7] > 0 else numbers[4]
    if submitted < 0:
        return "submission not known"
    if runtime < 0:
        return "run time not known"
    if asked <= 0:
        return "processors not known"
    if asked > MOST_PROCESSORS:
        raise InvalidInput(f"{asked:g} processors are beyond any machine")
    processors = math.ceil(asked)
    id_ = f"job-{words[0]}"
    if id_ in seen:
        id_ = f"{id_}-line-{line}"
    seen.add(id_)
    return Job(
        id=id_,
        user=f"user-{numbers[11]:g}" if numbers[11] >= 0 else "user",
        submitted=submitted,
        runtime=runtime,
        parts=(_shape(numbers, processors, gpus=gpus),),
    )


def _shape(numbers: Sequence[float], processors: int, *, gpus: bool) -> Shape:
    memory = max(0.0, numbers[9]) * 1024 * processors
    amount = processors * 1000
    return Shape(
        resources=Resources(
            cpu_milli=0 if gpus else amount, gpu_milli=amount if gpus else 0, memory=int(memory)
        ),
        kind=f"application {numbers[13]:g}" if numbers[13] >= 0 else "",
        limit=numbers[8] if numbers[8] > 0 else None,
    )


def without_memory(trace: Trace) -> Trace:
    """For a fleet whose memory nobody knows."""
    if not any(job.shape.resources.memory for job in trace.jobs):
        return trace

    def bare(shape: Shape) -> Shape:
        return replace(shape, resources=replace(shape.resources, memory=0))

    jobs = tuple(replace(job, parts=tuple(map(bare, job.parts))) for job in trace.jobs)
    note = "memory is not counted: the header does not say what workers have"
    return replace(trace, jobs=jobs, notes=(*trace.notes, note))


# ---------------------------------------------------------------- wider than a worker


def in_parts(trace: Trace, cpu_milli: int, gpu_milli: int) -> Trace:
    """The same trace, jobs that no worker could hold split into parts that fill workers and
    start together. ``cpu_milli``, ``gpu_milli``: the most that one worker has."""
    jobs = tuple(_split(job, cpu_milli, gpu_milli) for job in trace.jobs)
    wide = sum(len(job.parts) > 1 for job in jobs)
    if not wide:
        return trace
    note = f"{wide} jobs are wider than any worker: each is split, its parts start together"
    return replace(trace, jobs=jobs, notes=(*trace.notes, note))


def _split(job: Job, cpu_milli: int, gpu_milli: int) -> Job:
    need = job.shape.resources
    wide, most = (need.gpu_milli, gpu_milli) if need.gpu_milli else (need.cpu_milli, cpu_milli)
    if wide <= most or most < 1000:
        return job
    most -= most % 1000
    full, rest = divmod(wide, most)
    widths = [most] * full + ([rest] if rest else [])
    return replace(job, parts=tuple(_part(job.shape, width, wide) for width in widths))


def _part(shape: Shape, width: int, wide: int) -> Shape:
    need = shape.resources
    memory = -(-need.memory * width // wide)
    if need.gpu_milli:
        cpu = need.cpu_milli * width // wide
        part = replace(need, gpu_milli=width, memory=memory, cpu_milli=cpu)
    else:
        part = replace(need, cpu_milli=width, memory=memory)
    return replace(shape, resources=part)
