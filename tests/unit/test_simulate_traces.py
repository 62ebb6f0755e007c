"""Traces and fleets from text: what is read, what is counted, what is refused and where."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.core.errors import InvalidInput
from cloudai.core.model import GIB, MIB
from cloudai.simulate import (
    fleet_of_header,
    fleet_of_workers,
    in_parts,
    read_fleet_file,
    read_trace_file,
    trace_of_history,
    without_memory,
)
from cloudai.simulate.files import form_of, read_trace
from cloudai.simulate.fleets import read_fleet
from cloudai.simulate.openb import read_nodes, read_pods
from cloudai.simulate.ours import read_csv, read_json_lines
from cloudai.simulate.swf import read_swf

from .stub_controller import make_ended, make_gpu, make_task, make_worker

# In the manner of the logs of the Parallel Workloads Archive.
SWF = """\
; Version: 2
; Computer: Intel iPSC/860
; MaxNodes: 4
; MaxProcs: 128
;
    1        0 -1   1451   64   -1     -1   -1   -1   -1 -1   1   1   1 -1 -1 -1 -1
    2     1460 -1   3726    8   25.5  1024   16 7200 2048  1   2   1   3  1 -1 -1 -1
    3     5198 -1     -1   -1   -1     -1   -1   -1   -1  5   2   1   3  1 -1 -1 -1
    4     5269 -1     17   -1   -1     -1   -1   -1   -1  1  -1  -1  -1 -1 -1 -1 -1
"""


def test_a_log_in_standard_workload_format() -> None:
    trace = read_swf(SWF, source="log.swf")
    first, second = trace.jobs
    assert (first.id, first.user, first.submitted, first.runtime) == ("job-1", "user-1", 0, 1451)
    assert first.shape.resources.cpus == 64
    assert first.shape.limit is None
    # What is asked for goes before what was given; memory is KB a processor.
    assert second.shape.resources.cpus == 16
    assert second.shape.resources.memory == 16 * 2048 * 1024
    assert second.shape.limit == 7200
    assert dict(trace.skipped) == {"run time not known": 1, "processors not known": 1}
    assert trace.header["MaxProcs"] == "128"


def test_processors_as_gpus() -> None:
    trace = read_swf(SWF, source="log.swf", gpus=True)
    assert trace.jobs[0].shape.resources.gpus == 64
    assert trace.jobs[0].shape.resources.cpu_milli == 0
    fleet = fleet_of_header(trace.header, source="log.swf", gpus=True)
    assert (len(fleet.places), fleet.total.gpus) == (4, 128)


def test_the_machine_of_a_header_and_jobs_wider_than_its_nodes() -> None:
    trace = read_swf(SWF, source="log.swf")
    fleet = fleet_of_header(trace.header, source="log.swf")
    assert [place.free.total.cpus for place in fleet.places if place.free] == [32] * 4
    split = in_parts(without_memory(trace), fleet.widest().cpu_milli, fleet.widest().gpu_milli)
    assert [part.resources.cpus for part in split.jobs[0].parts] == [32, 32]
    assert len(split.jobs[1].parts) == 1
    assert any("1 jobs are wider" in note for note in split.notes)
    assert any("memory is not counted" in note for note in split.notes)


def test_parts_hold_what_the_whole_does() -> None:
    trace = read_swf("1 0 0 10 70 -1 -1 70 -1 1000 1 1 1 1 1 1 -1 -1", source="log")
    split = in_parts(trace, 16_000, 0).jobs[0]
    assert [part.resources.cpus for part in split.parts] == [16, 16, 16, 16, 6]
    assert split.cpu_milli == trace.jobs[0].cpu_milli
    whole = trace.jobs[0].shape.resources.memory
    assert whole <= sum(part.resources.memory for part in split.parts) < whole + len(split.parts)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 2 3", "3 fields where a line has 18"),
        ("1 x" + " 1" * 16, "is not a number"),
        ("1 nan" + " 1" * 16, "is not a number"),
        ("1 1e300" + " 1" * 16, "beyond any log"),
        ("1 0 0 5 99999999999" + " 1" * 13, "beyond any"),
    ],
)
def test_what_is_no_line_of_a_log_is_refused_with_its_place(line: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=f"log.swf:2: .*{said}"):
        read_swf("; a comment\n" + line, source="log.swf")


def test_a_header_that_says_nothing_of_its_machine() -> None:
    with pytest.raises(InvalidInput, match="neither MaxProcs nor MaxNodes"):
        fleet_of_header({}, source="log.swf")


def test_our_own_json_lines() -> None:
    lines = [
        {"submitted": 0, "runtime": "1h", "user": "ann", "req_cpu": 2, "req_memory": "4g"},
        {"submitted": 10, "runtime": 5, "req_gpu": 0.5, "priority": "high", "time_limit": "10m"},
        {"submitted": 10, "runtime": 5, "group": "g", "placement": "strict-spread", "id": "a"},
    ]
    trace = read_json_lines("\n".join(map(json.dumps, lines)), source="t.jsonl")
    first, second, third = trace.jobs
    assert (first.user, first.runtime, first.id) == ("ann", 3600, "line-1")
    assert first.shape.resources.cpus == 2
    assert first.shape.resources.memory == 4 * GIB
    assert (second.priority, second.shape.limit) == (75, 600)
    assert second.gpu_milli == 500
    assert (third.id, third.group, third.placement) == ("a", "g", "strict_spread")


def test_our_own_csv_says_the_same() -> None:
    text = (
        "submitted,runtime,user,req_cpu,req_gpu,require,preemptible\n"
        "2026-01-31T12:00:00Z,90m,ann,2,1,zone=lab; gpus>=4,true\n"
        "2026-01-31T12:01:00Z,10,bob,,,,\n"
    )
    first, second = read_csv(text, source="t.csv").jobs
    assert second.submitted - first.submitted == 60
    assert first.runtime == 5400
    assert first.shape.require == ("zone=lab", "gpus>=4")
    assert first.shape.preemptible
    assert second.shape.resources.cpus == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"runtime": 1}', "submitted: missing"),
        ('{"submitted": 1}', "runtime: missing"),
        ('{"submitted": 1, "runtime": 1, "req_cpus": 1}', "unknown field 'req_cpus'.*req_cpu"),
        ('{"submitted": 1, "runtime": -1}', "negative"),
        ('{"submitted": 1, "runtime": 1, "req_gpu": 1.5}', "req_gpu"),
        ('{"submitted": true, "runtime": 1}', "submitted"),
        ("[1]", "where a JSON object belongs"),
        ("{", "not JSON"),
        ('{"submitted": "2026-01-31", "runtime": 1}', "one kind in a trace"),
    ],
)
def test_a_line_of_ours_that_cannot_be_meant(line: str, said: str) -> None:
    good = '{"submitted": 0, "runtime": 1}'
    with pytest.raises(InvalidInput, match=f"t.jsonl:2: .*{said}"):
        read_json_lines(f"{good}\n{line}", source="t.jsonl")


def test_ids_stand_once() -> None:
    line = '{"submitted": 0, "runtime": 1, "id": "a"}'
    with pytest.raises(InvalidInput, match="t:2: id: 'a' stands twice"):
        read_json_lines(f"{line}\n{line}", source="t")


def test_many_faults_are_told_up_to_a_number() -> None:
    with pytest.raises(InvalidInput) as caught:
        read_json_lines("{}\n" * 50, source="t")
    assert len(caught.value.message.splitlines()) == 21
    assert "and 30 more" in caught.value.message


def test_what_ran_here() -> None:
    tasks = [
        make_ended(req_cpu=2.0, req_gpu=1.0, env=["HOME"], name="train"),
        make_ended(task_id="task-2", status="failed", exit_code=1),
        make_task(task_id="task-3", status="cancelled"),
        make_ended(task_id="task-4", created_at="2026-01-30T00:00:00.000000Z"),
    ]
    since = 1_769_860_000.0
    trace = trace_of_history(tasks, source="here", since=since)
    assert [job.id for job in trace.jobs] == [tasks[0]["task_id"], "task-2"]
    assert trace.jobs[0].runtime == 12
    assert trace.jobs[0].submitted == pytest.approx(1_769_860_800)
    assert trace.jobs[0].name == "train"
    assert dict(trace.skipped) == {"never ran, or has not ended": 1, "submitted before": 1}


# ---------------------------------------------------------------- openb

NODES = "sn,cpu_milli,memory_mib,gpu,model\nn-0,64000,262144,2,P100\nn-1,96000,393216,0,\n"
PODS_HEAD = (
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,"
    "creation_time,deletion_time,scheduled_time\n"
)
PODS = PODS_HEAD + (
    "p-0,12000,16384,1,460,V100M16|V100M32,LS,Running,5,105,15\n"
    "p-1,12000,16384,0,0,,BE,Pending,9,20,\n"
)


def test_the_nodes_and_pods_of_openb() -> None:
    fleet = read_nodes(NODES, source="nodes.csv")
    assert (fleet.total.gpus, fleet.total.cpus) == (2, 160)
    assert fleet.places[0].facts()["gpu_model"] == ("P100",)
    first, second = read_pods(PODS, source="pods.csv").jobs
    assert first.gpu_milli == 460
    assert first.shape.resources.memory == 16384 * MIB
    assert first.shape.require == ("gpu_model in (V100M16, V100M32)",)
    assert (first.submitted, first.runtime) == (5, 90)
    assert second.runtime is None


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("p,x,1,0,0,,,,1,2,3", "cpu_milli: 'x'"),
        ("p,1,1,2,500,,,,1,2,3", "2 GPUs of 500"),
        ("p,1,1,1,0,,,,1,2,3", "1 GPUs of 0"),
        (",1,1,0,0,,,,1,2,3", "name: missing"),
        ("p,1,1,0,0,,,,1,2,3,4,5", "more values than columns"),
        ("p,1", "num_gpu: missing"),
    ],
)
def test_a_pod_that_cannot_be_meant(row: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=f"pods.csv:2: .*{said}"):
        read_pods(PODS_HEAD + row, source="pods.csv")


# ---------------------------------------------------------------- fleets


def test_a_fleet_in_yaml() -> None:
    text = """
gpu-[2]:
  cpus: 64
  memory: 512
  gpus: {A100: 4, T4: 2}
  gpu_memory: 80
  labels: {zone: lab}
  pools: big, lab
cpu[07:08]:
  cpus: 8
  memory: 512m
"""
    fleet = read_fleet(text, source="fleet.yaml")
    assert [place.worker_id for place in fleet.places] == ["gpu-1", "gpu-2", "cpu07", "cpu08"]
    facts = fleet.places[0].facts()
    assert facts["gpu_model"] == ("A100", "T4")
    assert facts["zone"] == ("lab",)
    assert facts["pool"] == ("big", "lab")
    assert fleet.total.gpus == 12
    assert fleet.places[0].free
    assert fleet.places[0].free.gpus[0].gpu.memory == 80 * GIB


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {cpus: 1}", r"fleet.yaml:1:4: memory: missing"),
        ("a: {cpus: x, memory: 1}", r"fleet.yaml:1:11: cpus"),
        ("a: {cpus: 1, memory: 1, gpu: 3}", r"unknown key 'gpu'; did you mean 'gpus'"),
        ("a: {cpus: 1, memory: 1, gpus: {A: x}}", r"gpus.A"),
        ("a: {cpus: 1, memory: 1, gpus: 3}", r"keys and values belong here"),
        ("a: 3", r"give its cpus and memory"),
        ("a[0]:\n  cpus: 1\n  memory: 1", "give 1 to"),
        ("a1: {cpus: 1, memory: 1}\na[2]:\n  cpus: 1\n  memory: 1", "'a1' stands twice"),
        ("- a", "a fleet is workers"),
        ("", "no workers in it"),
        ("{}", "no workers in it"),
    ],
)
def test_a_fleet_that_cannot_be_meant(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read_fleet(text, source="fleet.yaml")


def test_the_workers_that_are_there() -> None:
    workers = [
        make_worker(gpus=[make_gpu(0), make_gpu(1, error="fell off the bus")]),
        make_worker(worker_id="w2", cpus={"total": None, "reserved": None, "free": None}),
    ]
    fleet = fleet_of_workers(workers)
    assert (fleet.total.cpus, fleet.total.gpus) == (16, 1)
    assert "1 workers were never seen and are left out: w2" in fleet.notes[0]


# ---------------------------------------------------------------- files


def test_a_format_is_known_by_what_stands_there(tmp_path) -> None:
    assert form_of(SWF) == "swf"
    assert form_of(PODS) == "openb"
    assert form_of("\ufeffsubmitted,runtime\n") == "csv"
    assert form_of('{"submitted": 1}') == "json"
    assert form_of('{"tasks": [], "total": 0}') == "answer"
    assert form_of("nothing of the kind") == ""
    packed = tmp_path / "log.swf.gz"
    packed.write_bytes(gzip.compress(SWF.encode()))
    assert len(read_trace_file(packed).jobs) == 2
    nodes = tmp_path / "nodes.csv"
    nodes.write_text(NODES)
    assert len(read_fleet_file(nodes).places) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe", "t:1: is not UTF-8"),
        (b"\x1f\x8bjunk", "cannot be read"),
        (b"", "neither JSON lines"),
        (b"submitted,runtime\n", "no task in it"),
        (b'{"tasks": [{"created_at": 3}], "total": 1}', "no task in it; 1 left out"),
    ],
)
def test_a_file_that_is_no_trace(tmp_path, content: bytes, said: str) -> None:
    path = tmp_path / "t"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=said):
        read_trace_file(path)


def test_a_file_that_is_not_there(tmp_path) -> None:
    with pytest.raises(InvalidInput, match="no such file"):
        read_trace_file(tmp_path / "t")
    with pytest.raises(InvalidInput, match="no such file"):
        read_fleet_file(tmp_path)


GARBAGE = st.text(max_size=300) | st.text("0123456789 -.;eE\n", max_size=300)
PIECES = st.lists(
    st.sampled_from(
        [*"{}[],:\n\"'", "submitted", "runtime", "req_gpu", "0", "1e999", "-1", "null", "; x", " "]
    )
    | st.text(max_size=5),
    max_size=60,
).map("".join)
HEADS = st.sampled_from(["", PODS_HEAD, "submitted,runtime,group\n", '{"tasks": [', "; a: b\n"])


def refusal(read: Callable[..., object], text: str, **more: str) -> str:
    """What it said in place of an answer; empty where it read the text."""
    try:
        read(text, source="t", **more)
    except InvalidInput as refused:
        return refused.message
    return ""


@given(HEADS, GARBAGE | PIECES, st.sampled_from(["auto", "json", "csv", "swf", "openb"]))
def test_garbage_is_read_or_refused(head: str, text: str, form: str) -> None:
    said = refusal(read_trace, head + text, form=form)
    assert said.startswith("t:") or not said


@given(GARBAGE | PIECES)
def test_a_garbage_fleet_is_read_or_refused(text: str) -> None:
    for read in (read_fleet, read_nodes):
        said = refusal(read, text)
        assert said.startswith("t:") or not said


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                key: st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.floats()
                for key in (
                    "task_id",
                    "created_at",
                    "started_at",
                    "completed_at",
                    "req_cpu",
                    "name",
                )
            },
        ),
        max_size=4,
    )
)
def test_a_garbled_history_is_counted(tasks: list[dict[str, object]]) -> None:
    trace = trace_of_history(tasks, source="here")
    assert len(trace.jobs) + sum(trace.skipped.values()) == len(tasks)
