"""What would have been: a trace of tasks on a described fleet, under several strategies. Pure.

::

    trace       Job, Trace: what came, when, for how long; what was left out, and why
    ours        JSON lines and CSV with the API's field names; the store's own history
    swf         Standard Workload Format
    openb       the GPU cluster trace of Alibaba: its nodes and its tasks
    fleets      a fleet from YAML, from the workers that are there, from a trace's header
    replay      discrete events on the scheduler's own board: no clock
    fragments   free GPUs that the tasks of the trace could not use
    measures    waiting, slowdown, use, over time
    filling     place at once or drop: how much of a fleet a strategy fills
    rivals      plain best-fit and random, to compare with
    drawing     plots: text, SVG

Reading files is its edge (``files``); nothing else here touches disk, clock or network. The
board that places here is the one that places for real.
"""

from __future__ import annotations

from .drawing import as_svg, as_text
from .files import read_fleet_file, read_trace_file
from .filling import PUBLISHED, Filling, fill_many, is_published_list
from .fleets import Fleet, fleet_of_header, fleet_of_workers
from .measures import Summary, summary_of
from .ours import trace_of_history
from .replay import Outcome, replay
from .rivals import RIVALS, Contestant, contestants
from .swf import in_parts, without_memory
from .trace import Job, Trace

__all__ = [
    "PUBLISHED",
    "RIVALS",
    "Contestant",
    "Filling",
    "Fleet",
    "Job",
    "Outcome",
    "Summary",
    "Trace",
    "as_svg",
    "as_text",
    "contestants",
    "fill_many",
    "fleet_of_header",
    "fleet_of_workers",
    "in_parts",
    "is_published_list",
    "read_fleet_file",
    "read_trace_file",
    "replay",
    "summary_of",
    "trace_of_history",
    "without_memory",
]
