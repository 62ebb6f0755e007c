"""Batches and arrays on real workers, also where the controller is killed in the middle."""

from __future__ import annotations

import json

import pytest

from tests.fleet.cloudai_home import Home, until

LITTLE = "cpus: 0.1, memory: 16m, storage: 16m"
PIPELINE = f"""
name: nightly
defaults: {{image: alpine, {LITTLE}, env: {{TOKEN: "s3cret"}}}}
tasks:
- {{name: prepare, command: "echo ready"}}
- id: train
  name: train-{{{{ lr }}}}
  matrix: {{lr: [0.1, 0.01]}}
  command: 'echo "$TOKEN $CLOUDAI_ARRAY_INDEX"; [ "$CLOUDAI_ARRAY_INDEX/{{{{ lr }}}}" != 1/0.01 ]'
  array: 0-2%2
  after: prepare
- {{name: report, command: "echo done", after: {{train: any}}}}
- {{name: publish, command: "echo no", after: train}}
- {{name: alarm, command: "echo yes", after: {{train: failed}}, on_unmet: skip}}
"""


def ended(home: Home, batch: str) -> dict[str, int]:
    until(lambda: home.ask(f"/batches/{batch}")["ended"], "all of it has ended")
    return {
        state: count for state, count in home.ask(f"/batches/{batch}")["counts"].items() if count
    }


def test_a_batch_runs_as_its_needs_say_and_adds_up(home: Home) -> None:
    file = home.folder / "nightly.yaml"
    file.write_text(PIPELINE)
    once = ("--once-key", "nightly-{{ date }}")
    batch = home.json("batch", str(file), *once)["batch_id"]
    quiet = home.run("batch", str(file), *once, "--quiet")
    assert (quiet.text, quiet.error) == ("", "")
    assert ended(home, batch) == {"completed": 8, "failed": 1, "cancelled": 1}
    tasks = {task["task_id"]: task for task in home.ask(f"/tasks/?batch={batch}")["tasks"]}
    assert len(tasks) == 10
    arrays = {task["array"] for task in tasks.values() if task["entry"] == "train"}
    failed = [task for task in tasks.values() if task["status"] == "failed"]
    assert [(task["name"], task["array_index"]) for task in failed] == [("train-0.01", 1)]
    for array in arrays:
        assert home.run("logs", array).text == "s3cret 0\ns3cret 1\ns3cret 2\n"
    again = home.json("retry", "--failed", batch, "-e", "TOKEN=new")
    assert again["size"] == 2
    assert ended(home, again["batch_id"]) == {"failed": 1, "cancelled": 1}
    assert home.run("logs", f"{failed[0]['name']}[1]").text == "new 1\n"
    home.run("rm", batch)
    assert home.ask("/batches/")["total"] == 1


@pytest.mark.parametrize(("place", "stored"), [("submit.vault", 0), ("submit.stored", 1)])
def test_a_batch_is_there_whole_or_not_at_all(home: Home, place: str, stored: int) -> None:
    """Killed in the middle; the same once key again goes on, and makes nothing twice."""
    home.run("controller", "stop")
    file = home.folder / "nightly.yaml"
    file.write_text(PIPELINE)
    words = ("batch", str(file), "--once-key", "k", "--quiet")
    assert home.run(*words, code=None, CLOUDAI_CRASH_AT=place).code != 0
    assert home.ask("/batches/")["total"] == stored
    assert home.ask("/tasks/")["total"] == 10 * stored
    kept = list((home.folder / "vault").glob("*.json"))
    assert len(kept) == stored, "values of nothing are kept"
    home.run(*words)
    (batch,) = home.ask("/batches/")["batches"]
    assert ended(home, batch["batch_id"]) == {"completed": 8, "failed": 1, "cancelled": 1}
    assert not list((home.folder / "vault").glob("*.json"))


def test_a_mistake_is_told_with_its_place_and_nothing_is_queued(home: Home) -> None:
    file = home.folder / "nightly.yaml"
    file.write_text(PIPELINE.replace("cpus: 0.1", "cpus: lots"))
    done = home.run("batch", str(file), code=2)
    assert f"{file}:3:" in done.error
    said = json.loads(home.run("batch", str(file), "--json", code=2).out)["error"]
    assert said["details"]["problems"][0]["file"] == str(file)
    assert home.ask("/tasks/")["total"] == 0
