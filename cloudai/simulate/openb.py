"""The trace of a production GPU cluster that Alibaba published (``clusterdata``,
cluster-trace-gpu-v2023): ``openb_node_list`` as a fleet, ``openb_pod_list`` as a trace."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from cloudai.core.errors import InvalidInput
from cloudai.core.labels import parse
from cloudai.core.model import MIB, Resources
from cloudai.core.schedule import Place, Shape, empty_place
from cloudai.core.wording import shown

from .fleets import AMPLE, Fleet
from .trace import Faults, Job, Trace, by_submission

NODE_FIELDS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
POD_FIELDS = (
    *("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec"),
    *("creation_time", "deletion_time", "scheduled_time"),
)
LARGEST = 10**12
MOST_GPUS = 64
"""Of one node."""

Row = Mapping[str | None, str | list[str] | None]


def has_fields(text: str, fields: Sequence[str]) -> bool:
    """Whether the first line of a CSV file names all of these."""
    head = text.lstrip("\ufeff").partition("\n")[0].strip().split(",")
    return set(fields) <= set(head)


def is_nodes(text: str) -> bool:
    return has_fields(text, NODE_FIELDS)


def is_pods(text: str) -> bool:
    return has_fields(text, POD_FIELDS)


def read_nodes(text: str, *, source: str) -> Fleet:
    """The nodes as workers. Raises ``InvalidInput`` with file and line."""
    faults, places = Faults(source), dict[str, Place]()
    for line, row in rows_of(text, faults):
        try:
            place = _place(row)
            if place.worker_id in places:
                raise InvalidInput(f"node {shown(place.worker_id)} stands twice")
        except InvalidInput as wrong:
            faults.add(line, wrong.message)
            continue
        places[place.worker_id] = place
    faults.settle()
    return Fleet(source=source, places=tuple(places.values()))


def _place(row: Row) -> Place:
    gpus = whole(row, "gpu", most=MOST_GPUS)
    return empty_place(
        text_of(row, "sn"),
        total=Resources(
            cpu_milli=whole(row, "cpu_milli"),
            memory=whole(row, "memory_mib") * MIB,
            storage=AMPLE,
        ),
        devices=[(text_of(row, "model", empty=True), None)] * gpus,
    )


def read_pods(text: str, *, source: str) -> Trace:
    """The tasks as jobs; those of which no run is recorded have no run time. Raises
    ``InvalidInput`` with file and line."""
    faults, jobs = Faults(source), list[Job]()
    for line, row in rows_of(text, faults):
        try:
            jobs.append(_job(row))
        except InvalidInput as wrong:
            faults.add(line, wrong.message)
    faults.settle()
    twice = [name for name, count in Counter(job.id for job in jobs).items() if count > 1]
    if twice:
        raise InvalidInput(f"{source}: task {shown(twice[0])} stands twice")
    return Trace(source=source, jobs=by_submission(jobs), kind="openb")


def _job(row: Row) -> Job:
    gpus = whole(row, "num_gpu", most=MOST_GPUS)
    milli = whole(row, "gpu_milli", most=1000) if gpus else 0
    if gpus and (milli == 0 or (gpus > 1 and milli < 1000)):
        raise InvalidInput(f"{gpus} GPUs of {milli} thousandths each; give 1 to 1000 of one")
    models = [one for one in text_of(row, "gpu_spec", empty=True).split("|") if one]
    created, scheduled = whole(row, "creation_time"), text_of(row, "scheduled_time", empty=True)
    began = whole(row, "scheduled_time") if scheduled else None
    return Job(
        id=text_of(row, "name"),
        user="openb",
        submitted=float(created),
        runtime=None if began is None else float(max(0, whole(row, "deletion_time") - began)),
        parts=(
            Shape(
                resources=Resources(
                    cpu_milli=whole(row, "cpu_milli"),
                    memory=whole(row, "memory_mib") * MIB,
                    gpu_milli=gpus * milli,
                ),
                require=(str(parse(f"gpu_model in ({','.join(models)})")),) if models else (),
            ),
        ),
    )


# ---------------------------------------------------------------- CSV


def rows_of(text: str, faults: Faults) -> Iterator[tuple[int, Row]]:
    """The rows with their lines, after the first, which names the columns. What is no CSV at
    all is a fault."""
    reader = csv.DictReader(text.lstrip("\ufeff").splitlines(), strict=True)
    try:
        for row in reader:
            if None in row:
                faults.add(reader.line_num, "more values than columns")
            else:
                yield reader.line_num, row
    except csv.Error as wrong:
        faults.add(reader.line_num, f"not CSV: {wrong}")


def text_of(row: Row, field: str, *, empty: bool = False) -> str:
    """The field's text. Raises ``InvalidInput`` where it has none, but for ``empty``."""
    value = row.get(field)
    text = value.strip() if isinstance(value, str) else ""
    if not text and not empty:
        raise InvalidInput(f"{field}: missing")
    return text


def whole(row: Row, field: str, *, most: int = LARGEST) -> int:
    """The field as a whole number from 0. Raises ``InvalidInput``."""
    text = text_of(row, field)
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) <= most):
        raise InvalidInput(f"{field}: {shown(text)}; give a whole number from 0 to {most}")
    return int(text)
