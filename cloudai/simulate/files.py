"""Reading traces and fleets from files: the one place here that touches a disk."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

from cloudai.core.errors import InvalidInput
from cloudai.core.wording import shown

from .fleets import Fleet, read_fleet
from .openb import has_fields, is_nodes, is_pods, read_nodes, read_pods
from .ours import read_csv, read_json_lines, trace_of_history
from .swf import is_swf, read_swf
from .trace import Trace

LARGEST = 1 << 30
"""Bytes of a trace, unpacked."""
FORMATS = ("auto", "json", "csv", "swf", "openb")
_GZIP = b"\x1f\x8b"


def read_text(path: Path) -> str:
    """The file whole; one packed with gzip unpacked. Raises ``InvalidInput``."""
    try:
        if not path.is_file():
            raise InvalidInput(f"{path}: there is no such file")
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            if packed:
                with gzip.open(file) as inner:
                    data = inner.read(LARGEST + 1)
            else:
                data = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as wrong:
        why = wrong.strerror if isinstance(wrong, OSError) and wrong.strerror else str(wrong)
        raise InvalidInput(f"{path}: cannot be read: {why}") from None
    if len(data) > LARGEST:
        raise InvalidInput(f"{path}: is larger than 1 GiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        line = data.count(b"\n", 0, wrong.start) + 1
        raise InvalidInput(f"{path}:{line}: is not UTF-8") from None


def read_trace_file(path: Path, *, form: str = "auto", swf_gpus: bool = False) -> Trace:
    """The trace in a file, its format known by what stands in it unless ``form`` says so.

    Raises ``InvalidInput`` with file and line.
    """
    return read_trace(read_text(path), source=str(path), form=form, swf_gpus=swf_gpus)


def read_trace(text: str, *, source: str, form: str = "auto", swf_gpus: bool = False) -> Trace:
    """As ``read_trace_file``, of a text."""
    form = form_of(text) if form == "auto" else form
    match form:
        case "swf":
            trace = read_swf(text, source=source, gpus=swf_gpus)
        case "openb":
            if not is_pods(text):
                raise InvalidInput(f"{source}:1: not the columns of openb's pods")
            trace = read_pods(text, source=source)
        case "csv":
            trace = read_csv(text, source=source)
        case "answer":
            trace = trace_of_history(json.loads(text)["tasks"], source=source)
        case "json":
            trace = read_json_lines(text, source=source)
        case _:
            raise InvalidInput(
                f"{source}: neither JSON lines, CSV, Standard Workload Format nor openb's pods"
            )
    if not trace.jobs:
        raise InvalidInput(f"{source}: no task in it" + _why_none(trace))
    return trace


def _why_none(trace: Trace) -> str:
    return "".join(f"; {count} left out: {why}" for why, count in trace.skipped.most_common(3))


def form_of(text: str) -> str:
    """``json``, ``answer`` (what ``tasks --json`` prints), ``csv``, ``swf``, ``openb`` or
    nothing."""
    if is_pods(text):
        return "openb"
    if text.lstrip().startswith("{"):
        return "answer" if _is_answer(text) else "json"
    if has_fields(text, ("submitted", "runtime")):
        return "csv"
    return "swf" if is_swf(text) else ""


def _is_answer(text: str) -> bool:
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return False
    tasks = whole.get("tasks")
    return isinstance(tasks, list) and all(isinstance(task, dict) for task in tasks)


def read_fleet_file(path: Path) -> Fleet:
    """The fleet in a file: YAML, or openb's nodes. Raises ``InvalidInput`` with file and line."""
    text = read_text(path)
    fleet = (read_nodes if is_nodes(text) else read_fleet)(text, source=str(path))
    if not fleet.places:
        raise InvalidInput(f"{shown(str(path))}: no workers in it")
    return fleet
