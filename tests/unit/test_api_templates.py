"""Task types by the API: listed, shown, rendered, and the same by every way a task comes in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cloudai.engines.fake import FakeWorker
from tests.unit.test_api_scheduler import ask
from tests.unit.test_controller import Bench

SAY = """
about: says it
parameters:
  what: {type: text, help: what to say}
  often: {type: int, default: 2, min: 1, max: 9, help: how often}
task:
  image: alpine
  argv: [say, "--times={{ often }}", "{{ what }}"]
  retries: 1
"""


@pytest.fixture
def a_bench(tmp_path: Path) -> Callable[..., Bench]:
    folder = tmp_path / "templates" / "tasks"
    folder.mkdir(parents=True)
    (folder / "say.yaml.j2").write_text(SAY)
    return lambda **workers: Bench(tmp_path, workers)


async def test_types_are_listed_shown_and_rendered(a_bench, tmp_path):
    async with a_bench(w1=FakeWorker(cpus=4)).running() as bench:
        status, answer = await ask(bench, "GET", "/templates/")
        assert status == 200
        listed = {one["name"]: one for one in answer["templates"]}
        assert listed["say"]["about"] == "says it"
        assert listed["llm"]["origin"] == "shipped"
        status, one = await ask(bench, "GET", "/templates/say")
        assert one["parameters"][1] == {
            **{"name": "often", "type": "int", "help": "how often", "required": False},
            **{"default": 2, "choices": None, "min": 1, "max": 9},
        }
        assert one["task"]["argv"][2] == "{{ what }}"
        body = {"parameters": {"what": "a 'b' $(c)"}}
        status, rendered = await ask(bench, "POST", "/templates/say/render", body)
        assert rendered["body"]["argv"] == ["say", "--times=2", "a 'b' $(c)"]
        assert rendered["docker_run"].startswith("docker run -d ")
        status, tasks = await ask(bench, "GET", "/tasks/")
        assert tasks["total"] == 0
        path = tmp_path / "templates" / "tasks" / "say.yaml.j2"
        status, by_path = await ask(bench, "GET", f"/templates/{path}")
        assert (status, by_path["origin"], by_path["name"]) == (200, "file", "say")
        status, error = await ask(bench, "GET", "/templates/sya")
        assert status == 404
        assert "did you mean 'say'" in error["error"]["message"]


async def test_every_way_a_task_comes_in_knows_them(a_bench):
    asked = {"task_type": "say", "parameters": {"what": "hi"}}
    async with a_bench(w1=FakeWorker(cpus=99, memory=99 * 1024**3)).running() as bench:
        await bench.desk.settled(5)
        status, task = await ask(bench, "POST", "/tasks/", asked)
        assert (status, task["task_type"], task["command"]) == (201, "say", "say --times=2 hi")
        assert task["retries"] == 1
        status, again = await ask(bench, "GET", f"/tasks/{task['task_id']}")
        assert again["task_type"] == "say"
        status, group = await ask(bench, "POST", "/groups/", {"tasks": [asked], "replicas": 2})
        assert [one["task_type"] for one in group["tasks"]] == ["say", "say"]
        status, _ = await ask(bench, "POST", "/tasks/", {**asked, "array": "0-1"})
        assert status == 201
        text = "tasks: [{type: say, parameters: {what: '{{ n }}'}, matrix: {n: [1, 2]}}]"
        files = [{"name": "b.yaml", "text": text, "format": "yaml"}]
        status, batch = await ask(bench, "POST", "/batches/", {"files": files})
        assert status == 201, batch
        status, sent = await ask(bench, "POST", "/workers/w1/dispatch", asked)
        assert sent["retries"] == 0
        status, found = await ask(bench, "GET", "/tasks/?task_type=say")
        assert found["total"] == 1 + 2 + 2 + 2 + 1
        status, none = await ask(bench, "GET", "/tasks/?task_type=other")
        assert none["total"] == 0


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"task_type": "say"}, "parameters.what: missing"),
        ({"task_type": "say", "parameters": {"what": "x", "often": 10}}, "from 1 to 9"),
        ({"task_type": "say", "parameters": {"wat": "x"}}, "did you mean 'what'"),
        ({"task_type": "/etc/passwd"}, "ends in .yaml.j2"),
        ({"docker_image": "alpine", "parameters": {"what": "x"}}, "they go with task_type"),
    ],
)
async def test_what_cannot_be_meant_queues_nothing(a_bench, body, why):
    async with a_bench(w1=FakeWorker(cpus=4)).running() as bench:
        status, answer = await ask(bench, "POST", "/tasks/", body)
        assert (status, answer["error"]["exit_code"]) == (422, 2)
        assert why in answer["error"]["message"]
        status, tasks = await ask(bench, "GET", "/tasks/")
        assert tasks["total"] == 0


async def test_a_mistake_in_a_batch_is_told_at_its_place_in_the_batch(a_bench):
    async with a_bench(w1=FakeWorker(cpus=4)).running() as bench:
        text = "tasks:\n- type: say\n  parameters: {wat: x}\n"
        files = [{"name": "/b.yaml", "text": text, "format": "yaml"}]
        status, answer = await ask(bench, "POST", "/batches/", {"files": files})
        assert status == 422
        (problem,) = answer["error"]["details"]["problems"]
        assert (problem["file"], problem["line"]) == ("/b.yaml", 3)
        assert "did you mean 'what'" in problem["text"]
