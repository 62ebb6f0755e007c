"""The main job as people do it: the real command, real sshd, real engines."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.fleet.cloudai_home import a_home, until


def test_from_registering_to_the_result(mended_fleet, tmp_path):
    """A fresh laptop: nothing known, nothing in the inventory."""
    worker = mended_fleet.workers[0]
    with a_home(tmp_path / "h", mended_fleet) as home:
        home.inventory.unlink()
        (home.folder / "known_hosts").unlink()
        where = [worker.name, f"{worker.user}@{worker.host}:{worker.port}"]
        key = ["--identity-file", str(mended_fleet.identity_file)]
        refused = home.run("register", *where, *key, code=1)
        assert worker.fingerprint in refused.error
        assert not home.inventory.exists()
        wrong = ["--fingerprint", "SHA256:" + "A" * 43]
        home.run("register", *where, *key, *wrong, code=None)
        assert not home.inventory.exists()
        home.run("register", *where, *key, "--fingerprint", worker.fingerprint)
        assert worker.host in home.inventory.read_text()
        assert home.json("workers")["workers"][0]["state"] == "active"
        done = home.run("task", "alpine", "--wait", "--", "echo", "hello")
        assert "📤 SENDING TASK TO WORKER" in done.text
        home.run("unregister", worker.name)
        assert home.json("workers")["workers"] == []


def test_a_task_runs_where_there_is_room_and_ends_with_its_own_code(home):
    done = home.run("task", "alpine", "--name", "seven", "--wait", "-c", "echo one; exit 7", code=7)
    assert "exit code 7" in done.text
    assert home.run("logs", "seven").out == b"one\n"
    shown = home.show("seven")
    assert (shown["status"], shown["exit_code"], shown["reason"]) == ("failed", 7, "exit code 7")
    assert shown["assignments"][0]["harvested"]
    assert [event["what"] for event in shown["events"]][:2] == ["submitted", "placed"]
    home.run("rm", "seven")
    home.run("show", "seven", code=3)


def test_the_messages_of_the_seed_to_the_letter(home, fleet):
    def failed(*words: str, code: int) -> str:
        return home.run("dispatch", *words, code=code).error.splitlines()[0]

    assert failed("worker-999", "alpine:latest", code=3) == (
        "❌ Failed to dispatch task: Worker worker-999 not found"
    )
    cores = float(os.cpu_count() or 1)
    assert failed("worker-1", "alpine:latest", "-cpu_cores", "100.0", code=4) == (
        f"❌ Failed to dispatch task: Insufficient CPU: worker has {cores} available,"
        " task requires 100.0"
    )
    home.run("drain", "worker-2")
    assert failed("worker-2", "alpine:latest", code=1) == (
        "❌ Failed to dispatch task: Worker worker-2 is not active"
    )
    home.run("resume", "worker-2")
    fleet["worker-1"].kill("sshd")
    until(lambda: home.json("workers")["workers"][0]["state"] == "unreachable", "it is noticed")
    assert failed("worker-1", "alpine:latest", code=5) == (
        "❌ Failed to dispatch task: Failed to connect to worker: connection refused"
    )
    assert all(worker["tasks"] == 0 for worker in home.json("workers")["workers"])
    assert [task["status"] for task in home.json("tasks")["tasks"]] == ["failed"] * 4


def test_seed_flags_and_usual_flags_mean_the_same(home, fleet):
    seed = ["-cpu_cores", "0.5", "-mem", "0.25", "-storage", "2.0"]
    usual = ["--cpus", "0.5", "--memory", "256m", "--storage", "2g"]
    for flags in (seed, usual):
        task = home.show(home.dispatch("worker-1", "alpine", *flags, "--", "sleep", "60"))
        asked = [task[key] for key in ("req_cpu", "req_memory", "req_storage", "req_gpu")]
        assert asked == [0.5, 0.25, 2.0, 0.0]
        with fleet["worker-1"].engine() as engine:
            limits = engine.containers.get(task["container_id"]).attrs["HostConfig"]
        assert (limits["NanoCpus"], limits["Memory"]) == (500_000_000, 256 * 2**20)
        assert limits["MemorySwap"] == limits["Memory"]
        assert limits["Init"] is True


def test_a_finished_task_is_known_within_a_second(home):
    task_id = home.dispatch("worker-1", "alpine", "--", "sleep", "2")
    home.run("wait", task_id)
    shown = home.show(task_id)
    [exited] = [event["at"] for event in shown["events"] if event["what"] == "exited"]
    # Both clocks are this machine's: when the engine saw it end, and when we wrote that down.
    assert shown["completed_at"] <= exited
    assert seconds_between(shown["completed_at"], exited) < 1


def seconds_between(one: str, other: str) -> float:
    from datetime import datetime

    return (datetime.fromisoformat(other) - datetime.fromisoformat(one)).total_seconds()


def test_the_ways_a_task_ends(home):
    cases = {
        "oom": (
            ["--memory", "16m", "-c", "x=$(yes | head -c 100000000); echo $x"],
            "out of memory",
        ),
        "time": (["--time-limit", "1", "--grace", "0", "--", "sleep", "60"], "time limit of 1 s"),
        "nosuch": (["--", "/nosuch"], "exit code 127: command not found"),
        "killed": (["-c", "kill -9 $$"], "exit code 137: killed (SIGKILL)"),
    }
    for name, (words, _) in cases.items():
        home.task("alpine", "--cpus", "0.5", "--name", name, *words)
    for name, (_, reason) in cases.items():
        home.run("wait", name, code=None)
        shown = home.show(name)
        assert shown["status"] == "failed", shown
        assert reason in shown["reason"], shown["reason"]


def test_an_image_that_cannot_be_had_says_so_and_leaves_nothing(home, fleet):
    image = "127.0.0.1:1/nosuch:v1"
    done = home.run("dispatch", "worker-1", image, code=1)
    assert "❌ Failed to dispatch task:" in done.error
    assert image in done.error
    assert fleet["worker-1"].docker("ps", "-aq").stdout == ""
    done = home.run("task", "worker-1", image, "--wait", code=125)
    assert image in done.text + done.error


def test_storage_that_is_only_watched_is_stopped_with_its_reason(home):
    task = home.dispatch(
        "worker-1", "alpine", "--storage", "20m", "--grace", "0",
        "-c", "dd if=/dev/zero of=/big bs=1M count=60; sleep 600",
    )  # fmt: skip
    home.run("wait", task, code=143)
    assert "storage limit" in home.show(task)["reason"]


def test_cancel_is_polite_then_firm(home):
    polite = home.dispatch(
        "worker-1", "alpine", "-c",
        "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done",
    )  # fmt: skip
    deaf = home.dispatch(
        "worker-2", "alpine", "--grace", "1", "-c",
        "trap '' TERM; echo ready; while :; do sleep 0.1; done",
    )  # fmt: skip
    for task in (polite, deaf):
        until(lambda one=task: home.run("logs", one).out == b"ready\n", "its trap is set")
    home.run("cancel", polite, deaf)
    home.run("wait", polite, deaf, code=None)
    assert home.run("logs", polite).out == b"ready\nbye\n"
    assert [home.show(one)["status"] for one in (polite, deaf)] == ["cancelled"] * 2
    home.run("cancel", polite, code=1)


def test_logs_are_the_bytes_of_the_container_live_and_after_it_is_gone(home):
    script = r"printf 'a\000\303\251\033[31mb\n'; sleep 1; echo err >&2; printf tail"
    task = home.dispatch("worker-1", "alpine", "-c", script)
    live = home.run("logs", "-f", task).out
    assert live == b"a\0\xc3\xa9\x1b[31mb\nerr\ntail"
    home.run("wait", task)
    assert home.run("logs", task).out == live
    assert home.run("logs", task, "--tail", "1").out == b"tail"


def test_monitor_shows_the_seeds_screen_and_ends_with_the_tasks_code(home):
    task = home.dispatch("worker-1", "alpine", "-c", "for i in 1 2 3; do echo $i; done; exit 4")
    done = home.run("monitor", task, code=4)
    lines = done.text.splitlines()
    assert "  TASK MONITOR - Live Logs" in lines
    assert f"Task ID: {task}" in lines
    assert lines.index("1") < lines.index("2") < lines.index("3")
    assert "\x1b" not in done.text
    home.run("monitor", task, "bob", code=3)


def test_exec_enters_the_container(home):
    task = home.dispatch("worker-3", "alpine", "--", "sleep", "60")
    done = home.run(
        "exec", "-i", task, "--", "sh", "-c", "cat; echo oops >&2; exit 9", send=b"in", code=9
    )
    assert done.out == b"in"
    assert done.error == "oops\n"


def test_why_it_waits_is_said_and_it_starts_when_there_is_room(home):
    cores = str(os.cpu_count() or 1)
    first = home.dispatch("worker-1", "alpine", "--cpus", cores, "--", "sleep", "60")
    second = home.task("worker-1", "alpine", "--cpus", cores, "--", "true")
    until(lambda: "Insufficient CPU" in home.run("queue").text, "the reason")
    home.run("cancel", first)
    home.run("wait", second)


def test_the_same_idempotency_key_is_the_same_task(home):
    key = ["--idempotency-key", "nightly"]
    first, again = (home.task("alpine", *key, "--", "true") for _ in range(2))
    assert first == again
    assert home.json("tasks")["total"] == 1


def test_values_of_env_reach_the_container_whole_and_nobody_else(home, fleet):
    secret = "s3cr3t-$(id)-'\"\n" + "x" * 1000
    marker = b"s3cr3t-"
    (home.folder.parent / "envfile").write_text("FILE=from-a-file\n")
    running = home.start(
        "task", "alpine", "--follow", "-e", f"TOKEN={secret}", "-e", "PATH=/bin:/other",
        "-e", "DOCKER_HOST=tcp://evil:1", "--env-file", str(home.folder.parent / "envfile"),
        "-c", 'printf %s "$TOKEN"; echo "|$PATH|$DOCKER_HOST|$FILE"; sleep 3',
    )  # fmt: skip
    seen = set()
    while running.poll() is None:
        for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if marker in cmdline.read_bytes():
                    seen.add(cmdline.read_bytes())
            except OSError:
                continue
        time.sleep(0.02)
    out, error = running.communicate()
    assert f"{secret}|/bin:/other|tcp://evil:1|from-a-file\n".encode() in out, error
    # The kernel shows the first argv until the program's first line of code has run.
    assert all(b"-m\0cloudai" in one and one.count(marker) == 1 for one in seen)
    assert marker not in home.everything().replace(out, b"").replace(secret.encode(), b"")


def test_rest_over_the_socket_with_nothing_but_http(home):
    home.run("workers")

    def ask(method: str, path: str, body: object = None) -> tuple[int, object]:
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(home.folder / "controller.sock"))
            data = b"" if body is None else json.dumps(body).encode()
            head = f"{method} {path} HTTP/1.0\r\nContent-Type: application/json\r\n"
            link.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
            answer = b"".join(iter(lambda: link.recv(65536), b""))
        head_, _, body_ = answer.partition(b"\r\n\r\n")
        return int(head_.split()[1]), json.loads(body_) if body_ else None

    status, task = ask("POST", "/tasks/", {"docker_image": "alpine", "argv": ["true"]})
    assert status == 201
    status, task = ask("GET", f"/tasks/{task['task_id']}?until=final&timeout=30")
    assert (status, task["status"]) == (200, "completed")
    assert ask("GET", "/tasks/?status=completed")[1]["total"] == 1
    metrics = ask("GET", "/tasks/stats/metrics")[1]
    assert (metrics["total_tasks"], metrics["success_rate"]) == (1, 100.0)
    health = ask("GET", "/tasks/workers/health")[1]
    assert (health["status"], health["online_workers"]) == ("healthy", 3)
    assert len(ask("GET", "/tasks/workers/stats")[1]["workers"]) == 3
    status, error = ask("POST", "/tasks/", {"docker_image": "--privileged"})
    assert (status, error["error"]["code"]) == (422, "invalid")
    assert ask("GET", "/nosuch")[0] == 404
    assert ask("DELETE", f"/tasks/{task['task_id']}")[0] == 204
    assert "/tasks/{task_id}/logs" in ask("GET", "/openapi.json")[1]["paths"]
    assert (home.folder / "controller.sock").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "words",
    [
        ["alpine", "--cpus", "nan"],
        ["alpine", "--cpus", "-1"],
        ["alpine", "--memory", "0"],
        ["alpine", "--memory", "12q"],
        ["alpine", "--gpus", "1.5"],
        ["--", "-it"],
        ["al pine"],
        ["alpine\n"],
        ["$(reboot)"],
        ["alpine", "-e", "1A=x"],
        ["alpine", "-e", "NVIDIA_VISIBLE_DEVICES=all"],
        ["alpine", "--mount", "type=bind,src=relative,dst=/x"],
        ["alpine", "--time-limit", "soon"],
        ["alpine", "--user", "1000:1000"],
        ["alpine", "--name", "../../x"],
    ],
)
def test_bad_input_is_refused_with_words_and_nothing_is_kept(home, words):
    done = home.run("task", *words, code=2)
    assert done.error.strip()
    assert "Traceback" not in done.error
    assert home.json("tasks")["total"] == 0


def test_a_killed_controller_is_followed_by_one_that_goes_on(home, fleet):
    task = home.dispatch("worker-1", "alpine", "-c", "echo before; sleep 3; echo after")
    container = home.show(task)["container_id"]
    home.kill_controller()
    home.run("wait", task)
    assert home.show(task)["container_id"] == container
    assert home.run("logs", task).out == b"before\nafter\n"
    assert fleet["worker-1"].docker("ps", "-aq").stdout == ""


def test_who_waits_when_the_controller_is_stopped_is_answered_by_the_next(home, fleet):
    script = "echo before; until [ -e /go ]; do sleep 0.1; done; echo after; exit 3"
    task = home.dispatch("worker-1", "alpine", "-c", script)
    container = home.show(task)["container_id"]
    waiting = home.start("wait", task)
    following = home.start("logs", "-f", task)
    assert following.stdout is not None
    assert following.stdout.readline() == b"before\n"
    first = home.controller_pid
    home.run("controller", "stop")
    assert fleet["worker-1"].docker("exec", container, "touch", "/go").returncode == 0
    assert (waiting.wait(30), waiting.communicate()[1]) == (3, b"")
    assert following.communicate(timeout=30)[0] == b"after\n"
    assert home.controller_pid != first


def test_ctrl_c_is_quiet_and_the_task_goes_on(home):
    running = home.start("task", "alpine", "--follow", "-c", "echo $((40 + 2))-ready; sleep 30")
    assert running.stdout is not None
    while b"42-ready" not in (line := running.stdout.readline()):
        assert line, running.communicate()
    running.send_signal(signal.SIGINT)
    _, error = running.communicate(timeout=10)
    assert running.returncode == 130
    assert b"Traceback" not in error
    [task] = home.json("tasks")["tasks"]
    assert task["status"] == "running"


def test_two_commands_at_once_start_one_controller(home):
    both = [home.start("workers", "--json") for _ in range(4)]
    for one in both:
        out, error = one.communicate(timeout=60)
        assert one.returncode == 0, error
        assert len(json.loads(out)["workers"]) == 3


def test_without_an_inventory_this_machines_engine_is_the_worker(mended_fleet, tmp_path):
    worker = mended_fleet.workers[0]
    with a_home(tmp_path / "h", mended_fleet, DOCKER_HOST=worker.docker_host) as home:
        home.inventory.unlink()
        done = home.run("task", "alpine", "--follow", "--", "echo", "hello")
        assert "hello" in done.text.splitlines()
        assert home.json("workers")["workers"][0]["worker_id"] == "local"
        assert worker.docker("ps", "-aq").stdout == ""


def test_a_table_can_be_cut_by_a_pipe(home):
    for _ in range(3):
        home.task("alpine", "--", "true")
    head = subprocess.run(
        "python3 -m cloudai tasks | head -1",
        shell=True,
        env=home.environment,
        capture_output=True,
        check=True,
    )
    assert head.stdout.startswith(b"TASK")
    assert head.stderr == b""


def test_an_inventory_from_git_needs_only_its_host_keys(mended_fleet, tmp_path):
    """A second laptop: the worker stands in the inventory, its key is not known here yet."""
    worker = mended_fleet.workers[0]
    where = [worker.name, f"{worker.host}:{worker.port}"]
    with a_home(tmp_path / "h", mended_fleet) as home:
        before = home.inventory.read_text()
        (home.folder / "known_hosts").unlink()
        refused = home.run("dispatch", worker.name, "alpine", "--", "true", code=5)
        assert f"cloudai register {' '.join(where)}" in refused.error
        home.run("register", *where, "--fingerprint", worker.fingerprint)
        home.run("dispatch", worker.name, "alpine", "--", "true")
        assert home.inventory.read_text() == before
        again = home.run("register", *where, "--fingerprint", worker.fingerprint, code=1)
        assert "is in the inventory already" in again.error
