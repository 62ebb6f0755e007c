"""``task --script``, sbatch's spellings and the watchdogs on the command line: what is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloudai.core.request import FIELDS

from .cli_case import Cloudai
from .stub_controller import Reply, StubController, make_task
from .test_cli_arguments import SUBMIT, sent  # noqa: F401 - a fixture

TRAIN = """\
#!/bin/bash
#SBATCH --job-name=train --mem=2G   # as it was for Slurm
#SBATCH --time=1:30:00
#SBATCH -o slurm-%j.out
#CLOUDAI --image python:3.12 -e LR=0.1 --node gpu1
#CLOUDAI --idle-output 30m --signal USR1@120

python train.py "$@"
"""


@pytest.fixture
def train(tmp_path: Path) -> str:
    file = tmp_path / "train.sh"
    file.write_text(TRAIN)
    return str(file)


@pytest.mark.parametrize(
    ("args", "body"),
    [
        (["--signal", "USR1@60"], {"signal": "USR1@60"}),
        (
            ["--first-output", "10m", "--idle-output", "90"],
            {"first_output": "10m", "idle_output": "90"},
        ),
        (["--after", "a", "--after", "b:any"], {"after": ["a", "b:any"]}),
        (["--dependency", "afterok:a:b"], {"after": ["a:ok", "b:ok"]}),
        (["--after", "a", "--on-unmet", "skip"], {"after": ["a"], "on_unmet": "skip"}),
        (["--begin", "now+1hour"], {"begin": "3600s"}),
        (["--begin", "2h"], {"begin": "2h"}),
        (["--requeue"], {"on_lost": "requeue", "preemptible": True}),
        (["--requeue", "--on-lost", "requeue"], {"on_lost": "requeue", "preemptible": True}),
        (["--no-requeue"], {}),
    ],
)
def test_flags_become_fields(args: list[str], body: dict[str, Any], sent: Any) -> None:  # noqa: F811
    assert sent("task", "alpine", *args) == {"docker_image": "alpine", **body}
    assert body.keys() <= set(FIELDS)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--on-unmet", "skip"], "give both"),
        (["--requeue", "--on-lost", "fail"], "say different things"),
        (["--no-requeue", "--preemptible"], "say different things"),
        (["--array", "0-3", "--replicas", "2"], "do not go together"),
        (["--array", "0-3", "--follow"], "use --wait"),
        (["--image", "busybox"], "both name the image"),
        (["--script", "/nosuch.sh"], "No such file"),
        (["--dependency", "afterok"], "--dependency: 'afterok'; give afterok:ID"),
        (["--begin", "25:00"], "--begin: '25:00'; there is no such time"),
    ],
)
def test_what_cannot_be_meant(args: list[str], words: str, cloudai: Cloudai) -> None:
    result = cloudai("task", "alpine", *args)
    assert (result.code, words in result.err) == (2, True), result


def test_a_script_says_how_it_is_run(sent: Any, train: str, cloudai: Cloudai) -> None:  # noqa: F811
    assert sent("task", "--script", train, "--", "--epochs", "5") == {
        "docker_image": "python:3.12",
        "script": TRAIN,
        "argv": ["--epochs", "5"],
        "name": "train",
        "req_memory": "2097152k",
        "time_limit": 5400.0,
        "env": {"LR": "0.1"},
        "nodes": ["gpu1"],
        "idle_output": "30m",
        "signal": "USR1@120",
    }
    told = cloudai("task", "--script", train).err
    assert "⚠ train.sh:4: -o slurm-%j.out: is not written here" in told
    assert cloudai("task", "--script", train, "-q").err == ""


def test_the_command_line_wins(sent: Any, train: str) -> None:  # noqa: F811
    line = ["--name", "n", "-mem", "4", "--node", "gpu2", "-e", "LR=1", "-e", "A=b"]
    body = sent("task", "--script", train, "gpu9", "alpine", *line)
    assert (body["docker_image"], body["target"], body["name"]) == ("alpine", "gpu9", "n")
    assert (body["req_memory"], body["nodes"]) == ("4", ["gpu2"])
    assert body["env"] == {"LR": "1", "A": "b"}
    assert body["time_limit"] == 5400.0


def test_gpus_by_either_flag_are_one_thing(sent: Any, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "s").write_text("#SBATCH --gres=gpu:a100:2\n")
    body = sent("task", "--script", str(tmp_path / "s"), "alpine", "--gpus", "1")
    assert body["req_gpu"] == 1.0
    assert "gpu_model" not in body
    assert body["name"] == "s"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("#SBATCH --exclusive", "s.sh:2: --exclusive: workers are shared"),
        ("#CLOUDAI --replicas 0", "s.sh:2: invalid value for '--replicas'"),
        ("#CLOUDAI -cpus 3", "s.sh:2: no such option -cpus. Did you mean -cpu_cores"),
        ("#CLOUDAI alpine", "s.sh:2: 'alpine' is no flag; an image is said by --image"),
        ("#CLOUDAI --json", "s.sh:2: --json belongs on the command line"),
        ("#CLOUDAI -- x", "s.sh:2: arguments of the script come on the command line"),
        ("#SBATCH --begin=25:00", "s.sh:2: --begin=25:00: '25:00'; there is no such time"),
    ],
)
def test_a_mistake_in_a_script_has_its_line(
    line: str, words: str, tmp_path: Path, cloudai: Cloudai
) -> None:
    (tmp_path / "s.sh").write_text(f"#!/bin/sh\n{line}\ntrue\n")
    result = cloudai("task", "--script", str(tmp_path / "s.sh"), "alpine")
    assert (result.code, words in result.err) == (2, True), result


def test_what_the_server_refuses_has_its_line_too(
    stub: StubController, tmp_path: Path, cloudai: Cloudai
) -> None:
    (tmp_path / "s.sh").write_text("#!/bin/sh\n#SBATCH --signal=KILL\ntrue\n")
    refusal = {"code": "invalid", "message": "signal: 'KILL'; no", "hint": "", "details": {}}
    stub.on(SUBMIT, Reply({"error": {**refusal, "exit_code": 2}}, 422))
    result = cloudai("task", "--script", str(tmp_path / "s.sh"), "alpine")
    assert "s.sh:2: --signal=KILL: 'KILL'; no" in result.err


@pytest.mark.parametrize("data", [b"\xff\xfe", b"x" * 200_000])
def test_what_is_no_script(data: bytes, tmp_path: Path, cloudai: Cloudai) -> None:
    (tmp_path / "s.sh").write_bytes(data)
    result = cloudai("task", "--script", str(tmp_path / "s.sh"), "alpine")
    assert result.code == 2
    assert "--script" in result.err


def test_a_dry_run_by_slurms_word_queues_nothing(stub: StubController, cloudai: Cloudai) -> None:
    stub.on(SUBMIT, Reply(make_task(), 200))
    result = cloudai("task", "alpine", "--test-only")
    assert "Nothing was queued" in result.out
    assert stub.asked[-1].query["dry_run"] == ["true"]
