"""What a batch leaves behind adds up with what the store knows, and the next run goes by it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any
from xml.etree import ElementTree

from cloudai.records.joblog import completed_in, whole_lines
from tests.fleet.cloudai_home import Home, until

FILE = """\
name: nightly
defaults: {image: alpine, cpus: 0.25, memory: 0.0625, storage: 0.0625}
tasks:
- {name: prepare, command: echo ready}
- id: train
  name: train-{{ seed }}
  matrix: {seed: range(4)}
  command: "echo loss $(({{ seed }} * 2)); exit $(({{ seed }} == 3 ? 7 : 0))"
  after: prepare
- {name: alarm, command: "true", after: {train: failed}}
- {name: evaluate, command: "true", after: {train: ok}, on_unmet: skip}
- {name: tidy, command: sleep 1, after: {evaluate: any, alarm: any}}
"""


def members(home: Home, batch_id: str) -> dict[str, Any]:
    found = home.ask(f"/tasks/?batch={batch_id}")["tasks"]
    return {task["name"]: task for task in found}


def test_a_batch_is_followed_recorded_reported_and_resumed(home: Home) -> None:
    (home.folder / "nightly.yaml").write_text(FILE)
    reports = [word for name in ("r.json", "r.xml", "r.html") for word in ("--report", name)]
    told = home.run("batch", "nightly.yaml", "--joblog", "log", *reports, code=7).text
    assert " failed 7 " in told
    assert "ended in" in told

    # The numbers are the store's.
    document = json.loads((home.folder / "r.json").read_text())
    batch = home.ask(f"/batches/{document['batch_id']}")
    tasks = members(home, batch["batch_id"])
    counts = document["figures"]["counts"]
    assert {word: n for word, n in counts.items() if n} == {
        word: n for word, n in batch["counts"].items() if n
    }
    assert counts == {"completed": 6, "failed": 1, "cancelled": 0, "skipped": 1}
    for told_of in document["tasks"]:
        kept = tasks[told_of["label"]]
        same = ("exit_code", "worker_id", "started_at", "completed_at", "fingerprint")
        assert {key: told_of[key] for key in same} == {key: kept[key] for key in same}
    by_worker = Counter(task["worker_id"] for task in tasks.values() if task["worker_id"])
    shares = {one["name"]: one["tasks"] for one in document["figures"]["workers"]}
    assert shares == dict(by_worker)
    seconds = sum(task["seconds"] or 0 for task in document["tasks"])
    assert abs(seconds - document["figures"]["total_seconds"]) < 0.01
    suite = ElementTree.parse(home.folder / "r.xml").getroot()[0]
    assert [suite.attrib[word] for word in ("tests", "failures", "errors", "skipped")] == [
        *("8", "1", "0", "1")
    ]
    failure = suite.find(".//failure")
    assert failure is not None
    assert failure.text == "loss 6"
    assert "loss 6" in (home.folder / "r.html").read_text()

    # The log has what ran, and the next run does what did not complete.
    log = (home.folder / "log").read_bytes()
    assert len(list(whole_lines(log))) == 7
    assert sum(completed_in(log).values()) == 6
    home.run("batch", "nightly.yaml", "--joblog", "log", "--resume", code=7)
    again = home.ask("/batches/?limit=1")["batches"][0]
    assert set(members(home, again["batch_id"])) == {"train-3", "evaluate"}
    assert (home.folder / "log").read_bytes().startswith(log)
    assert [one.seq for one in whole_lines((home.folder / "log").read_bytes())][-1] == 9

    # Whoever comes later sees the same.
    home.run("wait", batch["batch_id"], code=7)
    home.run("batch", "joblog", batch["batch_id"], "later")
    assert completed_in((home.folder / "later").read_bytes()) == completed_in(log)
    assert "✗ train" in home.run("graph", batch["batch_id"]).text


def test_a_client_that_is_killed_leaves_whole_lines_and_the_batch_running(home: Home) -> None:
    (home.folder / "nightly.yaml").write_text(FILE)
    client = home.start("batch", "nightly.yaml", "-q", "--joblog", "log")
    log = home.folder / "log"
    until(lambda: log.exists() and log.read_bytes().count(b"\n") > 1, "a task in the log")
    client.kill()
    client.communicate()
    left = log.read_bytes()
    assert left.endswith(b"\n")
    batch_id = home.ask("/batches/?limit=1")["batches"][0]["batch_id"]
    home.run("batch", "follow", batch_id, "--joblog", "log", "-q", code=7)
    whole = log.read_bytes()
    assert whole.startswith(left)
    seqs = [one.seq for one in whole_lines(whole)]
    assert sorted(seqs) == [1, 2, 3, 4, 5, 6, 8]  # the seventh, evaluate, never ran
