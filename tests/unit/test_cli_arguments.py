"""What the flags say is what is sent; what cannot be meant is said and nothing is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloudai.cli.argv import gives_values
from cloudai.cli.register import Address, read_address
from tests.unit.cli_case import Cloudai
from tests.unit.stub_controller import Reply, StubController, make_running, make_task

SUBMIT, DISPATCH = "POST /tasks/", "POST /workers/worker-1/dispatch"


@pytest.fixture
def sent(stub: StubController, cloudai: Cloudai, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``sent("task", …)``: the body that a command sends, without whose it is."""
    monkeypatch.setenv("CLOUDAI_USER", "ann")
    stub.on(SUBMIT, Reply(make_task(), 201))
    stub.on(DISPATCH, Reply(make_running(), 201))

    def run(*args: str) -> dict[str, Any]:
        before = len(stub.asked)
        result = cloudai(*args)
        assert result.code == 0, result
        body = stub.asked[before].body
        assert body.pop("user_id") == "ann"
        return body

    return run


@pytest.mark.parametrize(
    ("args", "body"),
    [
        (["alpine"], {"docker_image": "alpine"}),
        (["gpu1", "alpine"], {"docker_image": "alpine", "target": "gpu1"}),
        (["alpine", "--", "echo", "hi"], {"docker_image": "alpine", "argv": ["echo", "hi"]}),
        (
            ["alpine", "--", "sh", "-c", "x", "--", "--help", "-q", ""],
            {"docker_image": "alpine", "argv": ["sh", "-c", "x", "--", "--help", "-q", ""]},
        ),
        (["alpine", "-c", "echo $HOME; x"], {"docker_image": "alpine", "command": "echo $HOME; x"}),
        (["alpine", "-c", ""], {"docker_image": "alpine", "command": ""}),
        (["alpine", "-c", "-cpus"], {"docker_image": "alpine", "command": "-cpus"}),
        (
            ["alpine", "-cpu_cores", "2.0", "-mem", "4.0", "-storage", "10.0", "-gpu_cores", "1.0"],
            {
                "docker_image": "alpine",
                "req_cpu": 2.0,
                "req_memory": "4.0",
                "req_storage": "10.0",
                "req_gpu": 1.0,
            },
        ),
        (
            ["--cpus", "2", "--memory", "512m", "--storage", "4g", "--gpus=0.5", "alpine"],
            {
                "docker_image": "alpine",
                "req_cpu": 2.0,
                "req_memory": "512m",
                "req_storage": "4g",
                "req_gpu": 0.5,
            },
        ),
        (
            ["alpine", "--gpu", "a100:2", "--gpu-memory", "40", "--priority", "high"],
            {
                "docker_image": "alpine",
                "gpu_model": "a100",
                "req_gpu": "2",
                "gpu_memory": "40",
                "priority": "high",
            },
        ),
        (
            ["alpine", "--gpu", "RTX 4090", "--gpus", "0.5"],
            {"docker_image": "alpine", "gpu_model": "RTX 4090", "req_gpu": 0.5},
        ),
        (
            ["alpine", "--strategy", "node-specific", "--node", "gpu1", "--node", "zone=lab"],
            {
                "docker_image": "alpine",
                "strategy": "node-specific",
                "nodes": ["gpu1", "zone=lab"],
            },
        ),
        (
            ["alpine", "--require", "memory>=64", "--avoid", "!ssd", "--affinity", "db"],
            {
                "docker_image": "alpine",
                "require": ["memory>=64"],
                "avoid": ["!ssd"],
                "near": ["db"],
            },
        ),
        (
            ["alpine", "--anti-affinity", "a", "--anti-affinity", "b", "--preemptible"],
            {"docker_image": "alpine", "apart": ["a", "b"], "preemptible": True},
        ),
        (
            ["alpine", "--retries", "3", "--retry-on", "oom,75"],
            {"docker_image": "alpine", "retries": "3", "retry_on": ["oom", "75"]},
        ),
        # The server names what is wrong with a value, for every front door alike.
        (["alpine", "-cpu_cores", "nan"], {"docker_image": "alpine", "req_cpu": "nan"}),
        (["alpine", "-cpu_cores=-1"], {"docker_image": "alpine", "req_cpu": -1.0}),
        (["alpine", "-cpu_cores", "lots"], {"docker_image": "alpine", "req_cpu": "lots"}),
        (["alpine", "-mem", "-1"], {"docker_image": "alpine", "req_memory": "-1"}),
        (["alpine", "-gpu_cores", ""], {"docker_image": "alpine", "req_gpu": ""}),
        (["--", "x"], None),
        (
            [
                *["alpine", "--mount", "type=bind,src=/a,dst=/b", "--mount", "type=tmpfs,dst=/t"],
                *["--workdir", "/w", "--name", "n", "--run-as", "1000:1000", "--shm-size", "2g"],
                *["--time-limit", "90m", "--grace", "5", "--idempotency-key", "k"],
            ],
            {
                "docker_image": "alpine",
                "mounts": ["type=bind,src=/a,dst=/b", "type=tmpfs,dst=/t"],
                "workdir": "/w",
                "name": "n",
                "run_as": "1000:1000",
                "shm_size": "2g",
                "time_limit": "90m",
                "grace": 5.0,
                "idempotency_key": "k",
            },
        ),
        (["alpine", "--time-limit", "60"], {"docker_image": "alpine", "time_limit": 60.0}),
    ],
)
def test_flags_become_the_request(
    args: list[str], body: dict[str, Any] | None, sent: Any, cloudai: Cloudai
) -> None:
    if body is None:
        assert cloudai("task", *args).code == 2
        return
    assert sent("task", *args) == body


def test_dispatch_takes_the_same_flags(sent: Any, stub: StubController) -> None:
    args = [
        "worker-1",
        "alpine:latest",
        "-cpu_cores",
        "2.0",
        "-mem",
        "2.0",
        "-storage",
        "5.0",
        "-gpu_cores",
        "0.5",
    ]
    assert sent("dispatch", *args, "--", "true") == {
        "docker_image": "alpine:latest",
        "argv": ["true"],
        "req_cpu": 2.0,
        "req_memory": "2.0",
        "req_storage": "5.0",
        "req_gpu": 0.5,
    }
    assert str(stub.asked[0]) == DISPATCH


def test_variables_from_flags_files_and_here(
    sent: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_HERE", "a\nb=$(c)")
    monkeypatch.delenv("NOT_HERE", raising=False)
    file = tmp_path / "env"
    file.write_bytes(
        b'\xef\xbb\xbf# a comment\n\n  LEFT=kept \r\nQUOTED="x"\nFROM_HERE\nNOT_HERE\nTWICE=file\n'
    )
    body = sent(
        *("task", "alpine", "--env-file", str(file), "-e", "TWICE=flag", "--env", "EMPTY="),
        *("-e", "EQUALS=a=b", "-e", "FROM_HERE", "-eATTACHED=1"),
    )
    assert body["env"] == {
        "LEFT": "kept ",
        "QUOTED": '"x"',
        "FROM_HERE": "a\nb=$(c)",
        "TWICE": "flag",
        "EMPTY": "",
        "EQUALS": "a=b",
        "ATTACHED": "1",
    }


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["task"], "image is missing"),
        (["task", "w", "alpine", "echo", "hi"], "put the command after --"),
        (["task", "w", "alpine", "echo", "hi"], "cloudai task [WORKER] IMAGE -- COMMAND"),
        (["task", "alpine", "--"], "no command after --"),
        (["task", "alpine", "-c", "x", "--", "y"], "not both"),
        (["task", "alpine", "-c"], "requires an argument"),
        (["task", "alpine", "-c", "--", "y"], "requires an argument"),
        (["task", "alpine", "-cpus", "2"], "Did you mean -cpu_cores?"),
        (["task", "alpine", "-gpu", "2"], "Did you mean -gpu_cores?"),
        (["task", "alpine", "-e", "NOT_HERE"], "no variable NOT_HERE"),
        (["task", "alpine", "--env-file", "-"], "not -"),
        (["task", "alpine", "--env-file", "/nowhere"], "No such file"),
        (["task", "alpine", "-q", "-memory", "4"], "Did you mean -mem?"),
        (["task", "alpine", "--colour"], "No such option"),
        (["dispatch", "alpine"], "WORKER IMAGE"),
        (["exec", "task-1"], "after --"),
        (["exec", "task-1", "--"], "after --"),
        (["wait"], "TASK"),
        (["logs", "task-1", "--tail", "-1"], "tail"),
        (["tasks", "--status", "done"], "done"),
        (["tasks", "--limit", "0"], "limit"),
        (["taks"], "Did you mean task"),
        (["register", "w", "host:x"], "no port"),
        (["completion", "tcsh"], "tcsh"),
        (["workers", "--watch"], "terminal"),
    ],
)
def test_what_cannot_be_meant_is_said_and_nothing_sent(
    args: list[str], words: str, cloudai: Cloudai, stub: StubController
) -> None:
    result = cloudai(*args)
    assert result.code == 2
    assert words in result.err
    assert result.out == ""
    assert stub.asked == []


def test_a_usage_error_is_json_where_json_was_asked(cloudai: Cloudai) -> None:
    result = cloudai("tasks", "--json", "--limit", "many")
    assert result.code == 2
    assert result.json["error"]["code"] == "usage"
    assert result.json["error"]["exit_code"] == 2
    assert "--limit" in result.json["error"]["message"]
    assert result.err == ""


def test_a_log_and_json_do_not_share_stdout(cloudai: Cloudai, stub: StubController) -> None:
    result = cloudai("task", "alpine", "--follow", "--json")
    assert result.code == 2
    assert "--wait" in result.json["error"]["message"]
    assert stub.asked == []


@pytest.mark.parametrize("text", [b"A B=1", b"=1", b"\xff=1"])
def test_a_file_of_variables_that_docker_refuses(
    text: bytes, cloudai: Cloudai, tmp_path: Path
) -> None:
    (tmp_path / "env").write_bytes(text)
    result = cloudai("task", "alpine", "--env-file", str(tmp_path / "env"))
    assert result.code == 2
    assert str(tmp_path / "env") in result.err


@pytest.mark.parametrize("args", [["--json", "queue"], ["queue", "--json"]])
def test_global_flags_stand_before_or_after_the_command(
    args: list[str], cloudai: Cloudai, stub: StubController
) -> None:
    stub.on("GET /tasks/stats/queue", {"tasks": [], "total": 0})
    assert cloudai(*args).json == {"tasks": [], "total": 0}


def test_the_inventory_named_after_the_command_is_sent(
    cloudai: Cloudai, stub: StubController, tmp_path: Path
) -> None:
    stub.on("GET /tasks/stats/queue", {"tasks": [], "total": 0})
    cloudai("queue", "--inventory", "fleet.yaml")
    assert stub.asked[0].headers["x-cloudai-inventory"] == str(tmp_path / "fleet.yaml")
    assert stub.asked[0].headers["x-cloudai-inventory-explicit"] == "1"


@pytest.mark.parametrize(
    ("environ", "flag", "whose"),
    [({"CLOUDAI_USER": "bob"}, [], "bob"), ({"CLOUDAI_USER": "bob"}, ["--user", "eve"], "eve")],
)
def test_whose_task_it_is(
    environ: dict[str, str],
    flag: list[str],
    whose: str,
    cloudai: Cloudai,
    stub: StubController,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    stub.on(SUBMIT, Reply(make_task(), 201))
    cloudai("task", "alpine", *flag)
    assert stub.bodies(SUBMIT)[0]["user_id"] == whose


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host", Address(None, "host", None)),
        ("host:2222", Address(None, "host", 2222)),
        ("ops@host:22", Address("ops", "host", 22)),
        ("[::1]:22", Address(None, "::1", 22)),
        ("ops@[fe80::1]", Address("ops", "fe80::1", None)),
        ("fe80::1", Address(None, "fe80::1", None)),
    ],
)
def test_addresses_are_read(text: str, address: Address) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "@h", "host:", "host:0", "host:65536", "[::1", "[::1]x", ":22"]
)
def test_what_is_no_address_is_refused(text: str, cloudai: Cloudai, stub: StubController) -> None:
    assert cloudai("register", "w", text).code == 2
    assert stub.asked == []


@pytest.mark.parametrize(
    ("args", "gives"),
    [
        (["task", "alpine", "-e", "A=b"], True),
        (["task", "alpine", "--env", "A=b"], True),
        (["task", "alpine", "--env=A=b"], True),
        (["task", "alpine", "-eA=b"], True),
        (["task", "alpine", "-e", "A"], False),
        (["task", "alpine", "--env=A"], False),
        (["task", "alpine", "--", "-e", "A=b"], False),
        (["task", "alpine", "-e"], False),
        (["queue"], False),
    ],
)
def test_values_in_our_arguments_are_noticed(args: list[str], gives: bool) -> None:
    assert gives_values(args) is gives


def test_how_many_gpus_is_said_once(cloudai: Cloudai, stub: StubController) -> None:
    for args, why in (
        (["--gpu", "a100:2", "--gpus", "1"], "both say how many; give one"),
        (["--gpu", ":2"], "give a model, or a model and a number"),
        (["--gpu", "a100:"], "give a model, or a model and a number"),
    ):
        result = cloudai("task", "alpine", *args)
        assert result.code == 2
        assert why in result.err
    assert (
        "No such option '--priority'"
        in cloudai("dispatch", "worker-1", "alpine", "--priority", "high").err
    )
    assert not stub.asked


def test_logs_of_an_earlier_try(cloudai: Cloudai, stub: StubController) -> None:
    path = "GET /tasks/train/logs"
    stub.on(path, Reply(chunks=[b"one"]))
    assert cloudai("logs", "train", "--try", "1").out == "one"
    (asked,) = [one for one in stub.asked if str(one) == path]
    assert asked.query == {"number": ["1"]}
