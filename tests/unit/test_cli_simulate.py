"""``simulate`` as it is typed, and what it prints."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.unit.cli_case import Cloudai
from tests.unit.stub_controller import (
    Asked,
    Reply,
    StubController,
    make_ended,
    make_gpu,
    make_task,
    make_worker,
)
from tests.unit.synthetic_trace import swf

from .test_simulate_traces import NODES, PODS_HEAD

STRATEGIES = ["spread", "load_balanced", "performance_optimized", "node_specific", "binpack"]


@pytest.fixture
def log(tmp_path: Path) -> str:
    path = tmp_path / "log.swf"
    path.write_text(swf(40, seed=3, nodes=4, processors=32, widest=16))
    return str(path)


def test_a_log_under_all_strategies(cloudai: Cloudai, log: str) -> None:
    result = cloudai("simulate", log, "--calibrate")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    # Above, the file's name may be long.
    assert max(map(len, lines[5:])) <= 80
    assert "4 workers of 8 cores, as the header says" in result.out
    assert "wider than any worker" in result.out
    for name in [*STRATEGIES, "best-fit", "random"]:
        assert len([line for line in lines if line.startswith(f"{name} ")]) == 4
    head = next(line.split() for line in lines if line.startswith("STRATEGY"))
    assert head == ["STRATEGY", "WAIT", "MEDIAN", "95%", "SLOWDOWN", "SLOWDOWN_95%", "MAKESPAN"]


def test_the_same_again_prints_the_same(cloudai: Cloudai, log: str) -> None:
    asked = ("simulate", log, "--strategy", "binpack", "--calibrate", "--seed", "5")
    assert cloudai(*asked).out == cloudai(*asked).out


def test_as_json_and_in_short(cloudai: Cloudai, log: str, tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    asked = ("simulate", log, "--strategy", "binpack", "--until", "1d")
    answer = cloudai(*asked, "--json", "--plot", str(plot)).json
    (row,) = answer["strategies"]
    assert answer["trace"]["tasks"] == 40
    assert answer["fleet"] == {
        "source": f"the header of {log}",
        "workers": 4,
        "cpus": 32.0,
        "gpus": 0.0,
        "notes": ["4 workers of 8 cores, as the header says"],
    }
    assert row["name"] == "binpack"
    assert row["placed"] + row["never_placed"] == row["tasks"]
    assert len(row["series"]["cpus"]) == 400
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")
    assert cloudai(*asked, "--quiet").out == f"binpack {row['wait_mean']:.1f}\n"


def test_what_ran_here_on_the_present_workers(cloudai: Cloudai, stub: StubController) -> None:
    tasks = [
        make_ended(task_id=f"task-{n}", req_gpu=1.0, created_at=f"2026-01-31T12:00:{50 - n}.0Z")
        for n in range(5)
    ]
    tasks.append(make_task(task_id="task-9", status="cancelled"))

    def page(asked: Asked) -> Reply:
        at = int(asked.query["offset"][0])
        return Reply({"tasks": tasks[at : at + 4], "total": len(tasks)})

    stub.on("GET /tasks/", page)
    stub.on("GET /workers/", {"workers": [make_worker(gpus=[make_gpu(0)])]})
    result = cloudai("simulate", "--history", "--strategy", "spread", "--json")
    (row,) = result.json["strategies"]
    assert row["placed"] == 5
    assert result.json["trace"]["skipped"] == {"never ran, or has not ended": 1}
    assert result.json["fleet"]["source"] == "the workers that are there"
    assert stub.asked[0].query["status"] == ["completed", "failed", "cancelled"]


def test_history_since_then_asks_for_no_older_page(cloudai: Cloudai, stub: StubController) -> None:
    old = make_ended(task_id="old", created_at="2020-01-01T00:00:00.0Z")
    stub.on("GET /tasks/", {"tasks": [make_ended(), old], "total": 500})
    stub.on("GET /workers/", {"workers": [make_worker()]})
    result = cloudai("simulate", "--history", "--since", "2026-01-01", "--strategy", "spread")
    assert result.code == 0
    assert "1 tasks" in result.out
    assert "1 left out: submitted before" in result.out
    assert [str(one) for one in stub.asked].count("GET /tasks/") == 1
    stub.on("GET /tasks/", {"tasks": [], "total": 0})
    result = cloudai("simulate", "--history")
    assert (result.code, result.err) == (3, "❌ No task has run here\n")


def test_place_or_drop(cloudai: Cloudai, tmp_path: Path) -> None:
    nodes, pods = tmp_path / "nodes.csv", tmp_path / "pods.csv"
    nodes.write_text(NODES)
    rows = [f"p-{n},1000,1024,1,{milli},,LS,Running,5,9,7" for n, milli in enumerate([500, 250])]
    pods.write_text(PODS_HEAD + "\n".join(rows) + "\n")
    asked = ("simulate", str(pods), "--fleet", str(nodes), "--place-or-drop", "--seeds", "3")
    result = cloudai(*asked, "--strategy", "binpack", "--calibrate")
    assert (result.code, result.err) == (0, "")
    heads = ["STRATEGY", "AT_100%", "AT_130%", "DROPPED"]
    assert [heads] == [line.split() for line in result.out.splitlines() if "AT_" in line]
    assert "mean ± standard deviation of 3 shuffles" in result.out
    assert "paper" not in result.out
    answer = cloudai(*asked, "--strategy", "binpack", "--arrivals", "1", "--json").json
    (row,) = answer["strategies"]
    (mark,) = row["allocated"]
    assert mark["arrived"] == 1
    assert len(mark["each"]) == 3
    short = cloudai(*asked, "--strategy", "binpack", "--arrivals", "1", "-q").out
    assert short == f"binpack {mark['mean'] * 100:.2f}\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "Give a TRACE, or --history."),
        (("x", "--history"), "Give a TRACE, or --history."),
        (("x", "--since", "1d"), "--since goes with --history."),
        (("x", "--place-or-drop", "--until", "1d"), "do not go with --place-or-drop"),
        (("x", "--plot", "no/such/folder/p.svg"), "there is no folder no/such/folder"),
        (("x",), "x: there is no such file"),
        (("x", "--strategy", "bin"), "--strategy: 'bin'"),
    ],
)
def test_what_cannot_be_meant(cloudai: Cloudai, args: tuple[str, ...], said: str) -> None:
    result = cloudai("simulate", *args)
    assert result.code == 2
    assert said in result.err


def test_openb_needs_a_fleet_and_a_fleet_needs_workers(
    cloudai: Cloudai, stub: StubController, tmp_path: Path, log: str
) -> None:
    pods = tmp_path / "pods.csv"
    pods.write_text(PODS_HEAD + "p-0,1000,1024,1,500,,LS,Running,5,9,7\n")
    assert "need a fleet" in cloudai("simulate", str(pods)).err
    stub.on("GET /workers/", {"workers": []})
    result = cloudai("simulate", log, "--fleet", "inventory")
    assert (result.code, "No worker was ever seen" in result.err) == (3, True)
