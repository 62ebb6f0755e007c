"""On a real terminal: monitor, Ctrl-C, what is restored; and in real pipes."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.cli import main
from cloudai.cli.terminal import LogCleaner, clean
from cloudai.client import start
from tests.unit.cli_case import Cloudai, Screen, command, environment, process
from tests.unit.stub_controller import (
    TASK_ID,
    Asked,
    Reply,
    StubController,
    make_ended,
    make_running,
    make_task,
    make_worker,
)

ONE, LOGS = f"GET /tasks/{TASK_ID}", f"GET /tasks/{TASK_ID}/logs"
HEADER = f"""\
═══════════════════════════════════════════════════════
  TASK MONITOR - Live Logs
═══════════════════════════════════════════════════════
Task ID: {TASK_ID}
User ID: ann
───────────────────────────────────────────────────────
"""
FOOTER = """\

═══════════════════════════════════════════════════════
  Task Completed
═══════════════════════════════════════════════════════
"""
BOX_END = "═" * 55 + "\n"


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """Set when the test is over, for logs that go on until then."""
    event = threading.Event()
    yield event
    event.set()


def live(stub: StubController, over: threading.Event) -> None:
    """A task that runs, wrote one line, and goes on."""

    def wait(asked: Asked) -> Reply:
        if asked.query.get("until") == ["final"]:
            over.wait(5)
        return Reply(make_running())

    def log(_: Asked) -> Reply:
        def chunks() -> Iterator[bytes]:
            yield b"step 1\n"
            over.wait(20)

        return Reply(chunks=chunks())

    stub.on(ONE, wait)
    stub.on(LOGS, log)


# ------------------------------------------------------------------ monitor


def test_monitor_is_the_screen_of_seed_002(home: Path, stub: StubController) -> None:
    stub.on(ONE, make_running(), make_running(), make_ended())
    stub.on(LOGS, Reply(chunks=[b"step 1\nstep 2\n"]))
    with Screen(home, "monitor", TASK_ID) as screen:
        assert screen.end() == 0
    shown = screen.text.decode().replace("\r\n", "\n")
    assert shown == (
        "\x1b[2J\x1b[H" + HEADER + "Press any key to exit\n\nstep 1\nstep 2\n" + FOOTER
    )


def test_monitor_in_a_pipe_is_plain(cloudai: Cloudai, stub: StubController) -> None:
    stub.on(ONE, make_running(), make_running(), make_ended())
    stub.on(LOGS, Reply(chunks=[b"step 1\n", b"step 2"]))
    result = cloudai("monitor", TASK_ID, "ann")
    assert result.out == HEADER + "\nstep 1\nstep 2\n" + FOOTER
    assert (result.code, result.err) == (0, "")


@pytest.mark.parametrize(
    ("end", "code", "footer"),
    [
        (
            make_ended("failed", 3, reason="exit code 3"),
            3,
            "  Task Failed\n  Reason: exit code 3\n  Exit code: 3\n",
        ),
        (
            make_ended("failed", None, reason="its container is gone"),
            125,
            "  Task Failed\n  Reason: its container is gone\n",
        ),
        (
            make_ended("cancelled", 143, reason="cancelled"),
            125,
            "  Task Cancelled\n  Exit code: 143\n",
        ),
    ],
)
def test_monitor_ends_as_the_task_did(
    end: dict[str, object], code: int, footer: str, cloudai: Cloudai, stub: StubController
) -> None:
    stub.on(ONE, end)
    stub.on(LOGS, Reply(chunks=[b"x\n"]))
    result = cloudai("monitor", TASK_ID)
    assert result.out.endswith(BOX_END + footer + BOX_END)
    assert result.code == code
    assert cloudai("monitor", TASK_ID, "--json").json == end
    assert cloudai("monitor", TASK_ID, "-q").out == "x\n"


def test_monitor_is_the_owners(cloudai: Cloudai, stub: StubController) -> None:
    stub.on(ONE, make_running())
    result = cloudai("monitor", TASK_ID, "bob")
    assert result.code == 3
    assert result.err.startswith(f"❌ Task {TASK_ID} not found for user bob\n")


@pytest.mark.parametrize("key", [b"x", b"\n", b"\x1b[A", b" "])
def test_any_key_leaves_monitor_and_the_task_goes_on(
    key: bytes, home: Path, stub: StubController, over: threading.Event
) -> None:
    live(stub, over)
    with Screen(home, "monitor", TASK_ID) as screen:
        screen.until("step 1")
        assert screen.modes != screen.attributes, "keys must come without Enter"
        screen.press(key)
        assert screen.end() == 0
        assert screen.modes == screen.attributes
    assert f"Task {TASK_ID} goes on" in screen.text.decode()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_monitor_restores_the_terminal_when_it_is_ended(
    number: int, code: int, home: Path, stub: StubController, over: threading.Event
) -> None:
    live(stub, over)
    with Screen(home, "monitor", TASK_ID) as screen:
        screen.until("step 1")
        if number == signal.SIGINT:
            screen.press(b"\x03")
        else:
            os.kill(screen.pid, number)
        assert screen.end() == code
        assert screen.modes == screen.attributes
    assert "Traceback" not in screen.text.decode()


def test_monitor_restores_the_terminal_when_it_fails(home: Path, stub: StubController) -> None:
    stub.on(ONE, make_running(), Reply({"error": {"code": "store_busy", "message": "busy"}}, 503))
    with Screen(home, "monitor", TASK_ID) as screen:
        assert screen.end() == 1
        assert screen.modes == screen.attributes
    assert "❌ busy" in screen.text.decode()


def test_monitor_says_what_a_task_waits_for(home: Path, stub: StubController) -> None:
    stub.on(
        ONE,
        make_task(),
        make_task(reason="no worker has 100 cores"),
        make_task(status="starting", worker_id="gpu1", phase="pulling alpine: 43 %"),
        make_ended(),
    )
    stub.on(LOGS, Reply(chunks=[b"step 1\n"]))
    with Screen(home, "monitor", TASK_ID) as screen:
        assert screen.end() == 0
    shown = screen.text.decode()
    assert "⏳ queued: no worker has 100 cores" in shown
    assert "⏳ starting on gpu1: pulling alpine: 43 %" in shown
    assert "\r\x1b[Kstep 1" in shown, "the line is gone before the log begins"


# ------------------------------------------------------------------ logs on a terminal


def test_logs_on_a_terminal_are_made_safe(home: Path, stub: StubController) -> None:
    evil = b"\x1b]0;owned\x07\x1b[2J\x1b[31mred\xc2\x9b2J \xe2\x80\xaeabc\x08\n10%\r20%\r\n"
    stub.on(LOGS, Reply(chunks=[evil[:9], evil[9:]]))
    with Screen(home, "logs", TASK_ID) as screen:
        assert screen.end() == 0
    assert screen.text.decode() == "\x1b[31mred abc\r\n10%\r\x1b[K20%\r\n\x1b[0m"
    with Screen(home, "logs", TASK_ID, "--raw") as screen:
        assert screen.end() == 2
    assert b"owned" not in screen.text


def cleaned(*chunks: bytes) -> str:
    cleaner = LogCleaner()
    return "".join([cleaner.feed(chunk) for chunk in chunks]) + cleaner.close()


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"plain\ttab\n", "plain\ttab\n"),
        ("größe 🚀\n".encode(), "größe 🚀\n"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"\x1b[1;32mok\x1b[0m", "\x1b[1;32mok\x1b[0m\x1b[0m"),
        (b"\x1b[38:5:8mx", "\x1b[38:5:8mx\x1b[0m"),
        (b"\x1b[10A\x1b[2K\x1b[?1049h\x1b[6nx", "x"),
        (b"\x1b]52;c;ZXZpbA==\x1b\\x\x1bP1$r\x1b\\y\x1b_z\x1b\\", "xy"),
        (b"\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"\x1bc\x1b(0\x1b#8x", "x"),
        (b"\x1b]0;never ends\nnext", "\nnext"),
        (b"\x1b]0;" + b"a" * 500, "]0;" + "a" * 500),
        (b"10%\r50%\r100%\r\n", "10%\r\x1b[K50%\r\x1b[K100%\n"),
        (b"done\r", "done"),
        (b"\x1b[3", "[3"),
        (b"\x00\x07\x08\x0b\x0c\x7f", ""),
        ("\u202etxt.exe\u2066\u200f".encode(), "txt.exe"),
        ("\x9d0;t\x9cx\x9b31my".encode(), "x\x1b[31my\x1b[0m"),
    ],
)
def test_what_a_terminal_is_shown_of_a_log(data: bytes, shown: str) -> None:
    assert cleaned(data) == shown


_bits = st.sampled_from([b"\x1b", b"[", b"]", b"3", b"m", b"\r", b"\n", b"x", b"\xc2\x9b", b"\x07"])


@given(st.lists(_bits | st.binary(max_size=4), max_size=30))
def test_chunks_may_be_cut_anywhere(parts: list[bytes]) -> None:
    data = b"".join(parts)
    whole = cleaned(data)
    assert cleaned(*parts) == whole
    assert cleaned(*(data[at : at + 1] for at in range(len(data)))) == whole


@given(st.binary() | st.lists(_bits, max_size=40).map(b"".join))
def test_nothing_but_text_colours_and_line_starts_gets_through(data: bytes) -> None:
    import re

    left = re.sub("\x1b\\[[0-9;:]*m|\r\x1b\\[K", "", cleaned(data))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", left)


@given(st.text())
def test_a_cell_is_one_line_of_plain_text(text: str) -> None:
    shown = clean(text)
    shown.encode("utf-8")
    assert not set(shown) & set("\x1b\x07\r\n\t\x9b\u202e")


# ------------------------------------------------------------------ workers --watch


@pytest.mark.parametrize(("key", "code"), [(b"q", 0), (b"\x03", 130)])
def test_watch_stays_until_it_is_left(
    key: bytes, code: int, home: Path, stub: StubController
) -> None:
    stub.on(
        "GET /workers/",
        {"workers": [make_worker()]},
        {"workers": [make_worker(worker_id="worker-2")]},
    )
    with Screen(home, "workers", "--watch") as screen:
        screen.until("worker-1")
        screen.until("worker-2")
        screen.press(key)
        assert screen.end() == code
        assert screen.modes == screen.attributes
    assert b"\x1b[2J" not in screen.text, "redrawn in place: no flicker"
    assert screen.text.count(b"\x1b[?25h") == 1, "the cursor is shown again"


# ------------------------------------------------------------------ pipes and Ctrl-C


def test_a_reader_that_has_enough_is_no_fault(home: Path, stub: StubController) -> None:
    def chunks() -> Iterator[bytes]:
        while True:
            yield b"line\n" * 5000

    stub.on(LOGS, lambda _: Reply(chunks=chunks()))
    with process(home, "logs", TASK_ID) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() == b"line\n"
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(10) == 141


def test_a_table_whose_reader_is_gone_is_no_fault(home: Path, stub: StubController) -> None:
    stub.on("GET /tasks/", {"tasks": [make_task()] * 5000, "total": 5000})
    read, write = os.pipe()
    os.close(read)
    with process(home, "tasks", stdout=write) as running:
        os.close(write)
        assert running.stderr is not None
        assert running.stderr.read() == b""
        assert running.wait(10) == 141


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_nowhere(closed: str, home: Path, stub: StubController) -> None:
    stub.on("GET /tasks/", {"tasks": [make_task()], "total": 1})
    line = f"{shlex.join(command('tasks'))} {closed}"
    done = subprocess.run(
        ["/bin/sh", "-c", line], env=environment(home), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (TASK_ID in done.stdout) == (closed in ("2>&-", "<&-"))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["task", "alpine", "--wait"], True),
        (["task", "alpine", "--follow"], True),
        (["monitor", TASK_ID], True),
        (["wait", TASK_ID], False),
        (["logs", TASK_ID, "-f"], False),
    ],
)
def test_ctrl_c_ends_quietly_and_ends_no_task(
    args: list[str], says: bool, home: Path, stub: StubController, over: threading.Event
) -> None:
    live(stub, over)
    stub.on("POST /tasks/", Reply(make_running(), 201))
    waits = threading.Event()
    for route in (ONE, LOGS):
        (answer,) = stub.routes[route]

        def noticed(asked: Asked, answer: object = answer) -> Reply:
            if asked.path.endswith("/logs") or asked.query.get("until") == ["final"]:
                waits.set()
            assert callable(answer)
            reply: Reply = answer(asked)
            return reply

        stub.on(route, noticed)
    with process(home, *args) as running:
        assert waits.wait(10)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=10)
        assert running.returncode == 130
    assert "Traceback" not in err.decode()
    assert ("goes on" in err.decode()) is says
    if not says:
        assert err == b""


def test_ctrl_c_while_a_dispatched_image_is_pulled_says_that_it_goes_on(
    home: Path, stub: StubController, over: threading.Event
) -> None:
    pulling = make_task(status="starting", worker_id="worker-1")
    stub.on("POST /workers/worker-1/dispatch", Reply(pulling, 201))
    waits = threading.Event()

    def asked_again(_: Asked) -> Reply:
        waits.set()
        over.wait(10)
        return Reply(pulling)

    stub.on(ONE, asked_again)
    with process(home, "dispatch", "worker-1", "alpine") as running:
        assert waits.wait(10)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=10)
    assert running.returncode == 130
    assert err.decode().splitlines()[0] == f"Task {TASK_ID} goes on."


def test_the_result_stands_on_a_line_of_its_own_after_a_log_without_an_end(
    home: Path, stub: StubController
) -> None:
    stub.on("POST /tasks/", Reply(make_running(), 201))
    stub.on(ONE, make_running(), make_ended("completed", 0))
    stub.on(LOGS, Reply(chunks=[b"no end"]))
    with Screen(home, "task", "alpine", "--follow") as screen:
        assert "no end\r\n✅ Task" in screen.until("completed")


def test_ctrl_c_while_a_controller_is_being_started(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def impatient(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(start, "start_controller", impatient)
    assert main(["queue"]) == 130
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------ secrets


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="ps is read from /proc")
def test_values_of_variables_do_not_stay_in_ps(
    home: Path, stub: StubController, over: threading.Event
) -> None:
    asked = threading.Event()

    def submit(_: Asked) -> Reply:
        asked.set()
        over.wait(20)
        return Reply(make_task(), 201)

    stub.on("POST /tasks/", submit)
    secret = "s3cr3t-0f-the-t3st"
    with process(home, "task", "alpine", "-e", f"TOKEN={secret}") as running:
        assert asked.wait(10)
        line = Path(f"/proc/{running.pid}/cmdline").read_bytes()
        assert secret.encode() not in line
        assert line.startswith(b"cloudai")
    assert stub.bodies("POST /tasks/")[0]["env"] == {"TOKEN": secret}


# ------------------------------------------------------------------ odd surroundings


def test_an_encoding_without_our_signs_is_no_reason_to_fail(
    home: Path, stub: StubController
) -> None:
    stub.on("POST /tasks/", Reply(make_task(), 201))
    env = environment(home, PYTHONIOENCODING="ascii")
    done = subprocess.run(command("task", "alpine"), env=env, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(f"? Task {TASK_ID} queued\n".encode())
