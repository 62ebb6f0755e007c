"""``task --type`` and ``templates``: what is sent, and how answers are shown."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from tests.unit.stub_controller import Reply, make_running, make_task

TASK = {"task_type": "llm", "user_id": "ann"}


@pytest.fixture(autouse=True)
def ann(home, monkeypatch):
    monkeypatch.setenv("CLOUDAI_USER", "ann")


@pytest.mark.parametrize(
    ("args", "body"),
    [
        (["--type", "llm"], TASK),
        (
            ["--type", "llm", "-p", "prompt=a=b", "--param", "n=", "-mem", "4"],
            {**TASK, "parameters": {"prompt": "a=b", "n": ""}, "req_memory": "4"},
        ),
        (["--type", "llm", "own/image:1"], {**TASK, "docker_image": "own/image:1"}),
        (["--type", "llm", "gpu1", "alpine"], {**TASK, "docker_image": "alpine", "target": "gpu1"}),
        (["--type=llm", "--", "echo"], {**TASK, "argv": ["echo"]}),
    ],
)
def test_a_type_stands_for_the_image(stub, cloudai, args, body):
    stub.on("POST /tasks/", Reply(make_task(), 201))
    result = cloudai("task", *args)
    assert result.code == 0, result
    assert stub.asked[0].body == body


def test_a_file_is_sent_as_its_whole_path(stub, cloudai, tmp_path):
    stub.on("POST /tasks/", Reply(make_task(), 201))
    cloudai("task", "--type", "./own.yaml.j2")
    assert stub.asked[0].body["task_type"] == str(tmp_path / "own.yaml.j2")


def test_a_dispatch_needs_its_worker_alone(stub, cloudai):
    stub.on("POST /workers/worker-1/dispatch", Reply(make_running(), 201))
    result = cloudai("dispatch", "worker-1", "--type", "llm", "-p", "prompt=x")
    assert result.code == 0, result
    assert stub.asked[0].body == {**TASK, "parameters": {"prompt": "x"}}


def test_a_value_comes_from_a_file_from_stdin_or_begins_with_an_at(stub, cloudai, monkeypatch):
    stub.on("POST /tasks/", Reply(make_task(), 201))
    Path("text").write_text('line 1\n"$(x)" {{ y }}\n')
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from stdin\n")))
    cloudai("task", "--type", "llm", "-p", "a=@text", "-p", "b=@-", "-p", "c=@@home")
    assert stub.asked[0].body["parameters"] == {
        "a": 'line 1\n"$(x)" {{ y }}\n',
        "b": "from stdin\n",
        "c": "@home",
    }


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--type", "llm", "-p", "prompt"], "give NAME=VALUE"),
        (["--type", "llm", "-p", "=x"], "give NAME=VALUE"),
        (["--type", "llm", "-p", "a=1", "-p", "a=2"], "-p a: given twice"),
        (["--type", "llm", "-p", "a=@nowhere"], "No such file"),
        (["--type", "llm", "-p", "a=@"], "An @ of its own is written @@"),
        (["alpine", "-p", "a=1"], "-p gives a parameter to a task type"),
        ([], "The image is missing"),
    ],
)
def test_what_cannot_be_meant_is_said_and_nothing_is_sent(stub, cloudai, args, why):
    result = cloudai("task", *args)
    assert result.code == 2
    assert why in result.err
    assert not stub.asked


def test_a_refusal_names_the_flag(stub, cloudai):
    error = {
        "code": "invalid",
        "message": "parameters.promt: llm has no such parameter",
        **{"hint": "", "exit_code": 2, "details": {"field": "parameters"}},
    }
    stub.on("POST /tasks/", Reply({"error": error}, 422))
    assert "❌ -p promt: llm has no such" in cloudai("task", "--type", "llm").err


ONE = {
    **{"name": "llm", "file": "/x/llm.yaml.j2", "origin": "shipped", "about": "Answers \x1b[1m"},
    "problem": None,
    "parameters": [
        {
            **{"name": "prompt", "type": "text", "help": "what to answer", "required": True},
            **{"default": None, "choices": None, "min": None, "max": None},
        },
        {
            **{"name": "n", "type": "int", "help": "how many", "required": False},
            **{"default": 5, "choices": None, "min": 1, "max": 131072},
        },
    ],
    "task": {"image": "alpine", "argv": ["{{ prompt }}"]},
}


def test_the_list_and_one_of_it(stub, cloudai):
    broken = {**ONE, "name": "bad", "about": None, "problem": "/x/bad.yaml.j2:3:5: key 'x'"}
    stub.on("GET /templates/", Reply({"templates": [broken, ONE], "folders": []}))
    stub.on("GET /templates/llm", Reply(ONE))
    listed = cloudai("templates", "list")
    assert "⚠ /x/bad.yaml.j2:3:5: key 'x'" in listed.out
    assert "\x1b" not in listed.out
    assert cloudai("templates", "list", "-q").out.split() == ["bad", "llm"]
    shown = cloudai("templates", "show", "llm").out
    assert "how many (from 1 to 131072)" in shown
    assert "(needed)" in shown
    assert 'argv: ["{{ prompt }}"]' in shown
    assert cloudai("templates", "show", "llm", "--json").json == ONE


def test_a_rendering_is_the_line_and_the_request(stub, cloudai):
    answer = {"body": {"docker_image": "alpine", "argv": ["ü"]}, "docker_run": "docker run alpine"}
    stub.on("POST /templates/llm/render", Reply(answer))
    result = cloudai("templates", "render", "llm", "-p", "prompt=x")
    assert stub.asked[0].body == {"parameters": {"prompt": "x"}}
    assert result.out.startswith("docker run alpine\n\n{\n")
    assert '"ü"' in result.out
    assert cloudai("templates", "render", "llm", "-q").out == "docker run alpine\n"
