"""What tasks bring along and send home, on real sshd and real engines."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.fleet.cloudai_home import Home, counted_starts, until
from tests.fleet_lab import Worker


def files_of(worker: Worker) -> list[str]:
    return sorted(str(path.relative_to(worker.home)) for path in worker.home.rglob("*"))


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.py").write_text("one\n")
    (folder / "sub" / "big").write_bytes(os.urandom(2_000_000))
    (folder / ".gitignore").write_text("*.log\n")
    (folder / "x.log").write_text("not this")
    return folder


def story(home: Home, task: str) -> list[str]:
    return [event["what"] for event in home.ask(f"/tasks/{task}")["events"]]


def test_a_task_has_its_folder_and_its_results_come_home(home, mended_fleet, code, tmp_path):
    worker = mended_fleet[1]
    before = files_of(worker)
    script = (
        "pwd; ls -A; cat a.py; mkdir /out; cp -r . /out/all; ln -s /etc/passwd /out/evil; exit 3"
    )
    words = ("--upload", str(code), "--download", f"/out:{tmp_path}/res/{{task}}", "-c", script)
    first = home.task(worker.name, "alpine", *words)
    home.ended(first)
    assert home.run("logs", first).text == "/workspace\n.gitignore\na.py\nsub\none\n"
    results = tmp_path / "res" / first
    assert (results / "all/sub/big").read_bytes() == (code / "sub/big").read_bytes()
    assert not (results / "evil").exists()
    assert "left out of /out" in home.run("show", first).text
    # Nothing is sent a second time, and of a changed tree only what changed.
    second = home.task(worker.name, "alpine", *words)
    home.ended(second)
    assert "uploading" not in story(home, second)
    (code / "a.py").write_text("two\n")
    third = home.task(worker.name, "alpine", *words)
    home.ended(third)
    assert home.run("logs", third).text.endswith("two\n")
    assert "1.0 KB to" in home.run("show", third).text
    assert not list((tmp_path / "res").glob(".cloudai*"))
    assert worker.docker("ps", "-aq").stdout == ""
    home.run("rm", first, second, third)
    until(lambda: files_of(worker) == before, "nothing is left on the worker")


def test_files_are_copied_in_and_out_by_hand(home, mended_fleet, code):
    task = home.dispatch(mended_fleet[1], "alpine", "--run-as", "7:8", "--", "sleep", "600")
    home.run("cp", str(code), f"{task}:/new/place")
    assert home.run("exec", task, "--", "cat", "/new/place/a.py").text == "one\n"
    home.run("cp", f"{task}:/new/place/sub", str(home.folder / "sub"))
    assert (home.folder / "sub/big").read_bytes() == (code / "sub/big").read_bytes()
    piped = home.run("cp", f"{task}:/new/place/a.py", "-").out
    assert subprocess.run(["tar", "xO"], input=piped, capture_output=True).stdout == b"one\n"
    home.run("cp", "-", f"{task}:/", send=piped)
    assert home.run("exec", task, "--", "cat", "/a.py").text == "one\n"
    missing = home.run("cp", f"{task}:/nope", "x", code=3)
    assert "Could not find the file /nope" in missing.error


def test_a_controller_that_dies_while_a_container_is_filled(home, mended_fleet, code):
    """The next one cannot know how much of it is there: it makes another, fills and starts it."""
    worker = mended_fleet[1]
    tool, mark = worker.root / "tools" / "docker", worker.root / "filling"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(
        "#!/bin/sh\nPATH=/usr/local/bin:/usr/bin:/bin\n"
        f'if [ "$1 $2" = "cp -" ] && mkdir {mark} 2>/dev/null; then\n'
        '{ head -c 1000000; sleep 3; cat; } | docker "$@"\nelse exec docker "$@"; fi\n'
    )
    tool.chmod(0o755)
    try:
        with counted_starts(worker) as starts:
            script = "sha256sum sub/big"
            task = home.task(worker.name, "alpine", "--upload", str(code), "-c", script)
            until(mark.exists, "it is being filled")
            home.kill_controller()
            [ended] = home.ended(task)
        assert ended["status"] == "completed", ended
        digest = subprocess.run(["sha256sum", code / "sub/big"], capture_output=True, text=True)
        assert home.run("logs", task).text.split()[0] == digest.stdout.split()[0]
        assert starts == {f"{task}.1": 1}
    finally:
        tool.unlink()


def test_a_worker_goes_on_while_its_engine_locks_a_container(home, mended_fleet):
    worker = mended_fleet[1]
    locked = home.dispatch(worker, "alpine", "--", "sleep", "600")
    copying = home.start("cp", "-", f"{locked}:/", stdin=subprocess.PIPE)
    assert copying.stdin is not None
    try:
        copying.stdin.write(b"x/\0".ljust(100, b"\0"))  # a tar stream's first bytes, no more
        copying.stdin.flush()
        inspect = ["inspect", "--format", "{{.State.Status}}", f"{locked}.1"]
        docker = ["timeout", "1", "docker", "-H", worker.docker_host, *inspect]
        until(lambda: subprocess.run(docker, capture_output=True).returncode == 124, "a lock")
        began = time.monotonic()
        other = home.dispatch(worker, "alpine", "-c", "sleep 1; exit 5")
        [ended] = home.ended(other)
        assert (ended["status"], ended["exit_code"]) == ("failed", 5)
        assert time.monotonic() - began < 8
        shown = home.worker(worker)  # looked at now, all of it
        assert shown["state"] == "active", shown["reason"]
        assert home.ask(f"/tasks/{locked}")["status"] == "running"
    finally:
        copying.kill()
        copying.communicate()
    until(lambda: home.run("exec", locked, "--", "true", code=None).code == 0, "it is let go")
