"""``init``: what a new project has, that it works, and that nothing is ever overwritten."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloudai.batches import Asked, File, read_files
from cloudai.inventory import parse
from cloudai.tasktypes import TaskTypes

ROOT = Path(__file__).parents[2]
FILES = [
    "SAMPLE_TASKS/README.md",
    "SAMPLE_TASKS/task1/Dockerfile",
    "SAMPLE_TASKS/task1/README.md",
    "SAMPLE_TASKS/task1/build.sh",
    "SAMPLE_TASKS/task1/data/measurements.csv",
    "SAMPLE_TASKS/task1/task.py",
    "SAMPLE_TASKS/task1/test_local.sh",
    "inventory/hosts.yaml",
    "nightly.yaml",
    "templates/tasks/sample.yaml.j2",
]


@pytest.fixture
def project(cloudai, tmp_path) -> Path:
    assert cloudai("init", "lab").code == 0
    return tmp_path / "lab"


def tree(folder: Path) -> list[str]:
    return sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())


def test_it_asks_no_controller_and_says_what_to_do_next(stub, cloudai, tmp_path):
    result = cloudai("init", "lab")
    assert (result.code, result.err) == (0, "")
    assert len(result.out.splitlines()) <= 15
    assert max(len(line) for line in result.out.splitlines()) <= 80
    assert "10 files made" in result.out
    assert "cd lab" in result.out
    assert not stub.asked
    assert tree(tmp_path / "lab") == FILES


def test_the_inventory_is_the_example_and_our_own_loader_reads_it(project):
    text = (project / "inventory" / "hosts.yaml").read_text()
    assert text == (ROOT / "inventory" / "hosts.yaml").read_text()
    assert list(parse(text, source="hosts.yaml")) == ["local"]


def test_the_task_type_and_the_batch_go_together(project):
    types = TaskTypes(project / "home")
    types.inventory = lambda: project / "inventory" / "hosts.yaml"
    (one,) = (one for one in types.listed() if one.origin == "project")
    assert one.name == "sample"
    text = (project / "nightly.yaml").read_text()
    now = datetime(2026, 1, 31, tzinfo=UTC)
    asked = Asked({}, now, "ann", "batch-1-a", lambda kind: f"{kind}-1-a", types.expand)
    read = read_files([File(str(project / "nightly.yaml"), text, "yaml")], asked)
    assert [task.name for task in read.tasks] == ["measure-1", "measure-2", "measure-3", None]
    assert read.tasks[1].spec.argv == ("--seed=2", "--points=100")
    assert read.tasks[1].spec.task_type == "sample"
    assert read.once_key == "nightly-2026-01-31"


def test_the_sample_task_passes_its_own_local_test(project):
    script = project / "SAMPLE_TASKS" / "task1" / "test_local.sh"
    assert os.access(script, os.X_OK)
    done = subprocess.run(
        [script, "--no-docker"], capture_output=True, text=True, check=False, cwd="/"
    )
    assert (done.returncode, done.stdout) == (0, "OK: in Python\nOK: summary.json\n"), done.stderr


def test_the_sample_task_sums_up_what_it_is_given(project, tmp_path):
    task = project / "SAMPLE_TASKS" / "task1" / "task.py"
    data = tmp_path / "own.csv"
    data.write_text("time,sensor,value\n1,a,1\n2,a,3\n3,b,5\n")
    out = tmp_path / "out"
    command = ["python3", str(task), "--data", str(data), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "3 data points"
    assert done.stdout.splitlines()[-1] == "completed"
    assert json.loads((out / "summary.json").read_text()) == {
        "a": {"count": 2, "mean": 2.0, "deviation": 1.0, "least": 1.0, "most": 3.0},
        "b": {"count": 1, "mean": 5.0, "deviation": 0.0, "least": 5.0, "most": 5.0},
    }
    done = subprocess.run(["python3", task, "--points", "9"], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"give 50 to 150" in done.stderr


@pytest.mark.parametrize("shell", [["dash"], ["bash", "--posix"], ["busybox", "sh"]])
def test_the_scripts_are_plain_shell(project, shell):
    for script in (project / "SAMPLE_TASKS" / "task1").glob("*.sh"):
        subprocess.run([*shell, "-n", script], check=True)


def test_the_build_script_builds_and_pushes_under_the_name_it_asks_for(project, tmp_path):
    """With a stand-in docker that says what it is called with."""
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin" / "docker"
    docker.write_text('#!/bin/sh\necho "docker $*"\n')
    docker.chmod(0o755)
    script = project / "SAMPLE_TASKS" / "task1" / "build.sh"
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run([script], input="ann\n", capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "docker build -t ann/cloudai-sample-task:latest ." in done.stdout
    assert "docker push ann/cloudai-sample-task:latest" in done.stdout
    done = subprocess.run([script], input="\n", capture_output=True, text=True, env=env)
    assert (done.returncode, "No username" in done.stderr) == (2, True)


def test_what_is_there_stays_and_is_told(cloudai, tmp_path):
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory" / "hosts.yaml").write_text("workers: {mine: {}}\n")
    (tmp_path / "nightly.yaml").symlink_to(tmp_path / "nowhere")
    result = cloudai("init")
    assert result.code == 0
    assert "8 files made" in result.out
    assert "left as it was: inventory/hosts.yaml, nightly.yaml" in result.out
    assert "cd " not in result.out
    assert len(result.out.splitlines()) <= 15
    assert (tmp_path / "inventory" / "hosts.yaml").read_text() == "workers: {mine: {}}\n"
    assert not (tmp_path / "nowhere").exists()
    again = cloudai("init", "--json").json
    assert again["created"] == []
    assert sorted(again["kept"]) == FILES
    assert cloudai("init", "-q", "other").out.split() == sorted(FILES, key=FILES_AS_MADE.index)


FILES_AS_MADE = ["inventory/hosts.yaml", *(one for one in FILES if one != "inventory/hosts.yaml")]


def test_a_file_where_a_folder_is_needed_stops_it_before_anything_is_made(cloudai, tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "templates").write_text("mine")
    result = cloudai("init", "lab")
    assert result.code == 1
    assert "lab/templates is no folder" in result.err
    assert tree(tmp_path / "lab") == ["templates"]
    (tmp_path / "file").write_text("mine")
    assert cloudai("init", "file").code == 1


def test_a_folder_that_cannot_be_written_is_said(cloudai, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "x"))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    result = cloudai("init", "lab")
    assert result.code == 1
    assert "Permission denied" in result.err


def test_a_disk_without_hard_links_is_fine(cloudai, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert cloudai("init", "lab").code == 0
    assert tree(tmp_path / "lab") == FILES
    assert os.access(tmp_path / "lab/SAMPLE_TASKS/task1/build.sh", os.X_OK)


def test_all_of_it_travels_with_the_package():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert data["package-dir"]["cloudai.samples"] == "samples"
    patterns = data["package-data"]["cloudai.samples"]
    shipped = {one for pattern in patterns for one in (ROOT / "samples").glob(pattern)}
    wanted = {ROOT / "samples" / name for name in FILES if name != "inventory/hosts.yaml"}
    assert wanted <= shipped
