"""``cloudai shell``: at a prompt on a terminal, and from a pipe."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudai.cli import shell
from cloudai.cli.prompting import MOST_LINES, PrivateHistory, complete
from cloudai.core.errors import TaskNotFound
from tests.unit.cli_case import Cloudai, Screen, command, environment, process
from tests.unit.stub_controller import (
    TASK_ID,
    Asked,
    Reply,
    StubController,
    make_running,
    make_task,
    make_worker,
)

HISTORY = "shell_history"
READY = b"\x1b[?2004h"
"""Written once a prompt listens: pasted lines are told apart from typed ones."""


class At(Screen):
    """The shell on a terminal. What is typed before a prompt listens goes elsewhere."""

    def __init__(self, home: Path, *words: str) -> None:
        super().__init__(home, "shell", *words, PROMPT_TOOLKIT_NO_CPR="1")
        self.prompts = 0
        """How many were used."""

    def prompt(self) -> None:
        """Waits for the next, to use it."""
        self._until_prompt()
        self.prompts = self.text.count(READY)

    def line(self, text: str) -> str:
        """What was shown for a line, up to the next prompt."""
        self.prompt()
        began = len(self.text)
        self.press(text.encode() + b"\n")
        self._until_prompt()
        return self.text[began:].decode()

    def _until_prompt(self) -> None:
        while self.text.count(READY) <= self.prompts:
            assert self._read(15.0), f"no prompt comes; the screen has {self.text!r}"


@pytest.fixture
def over() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


# ------------------------------------------------------------------ at a prompt


def test_commands_need_no_prefix_and_a_bad_code_shows(home: Path, stub: StubController) -> None:
    stub.on("GET /workers/", {"workers": [make_worker()]})
    stub.refuse("GET /tasks/nosuch", TaskNotFound("nosuch"))
    with At(home) as screen:
        assert "worker-1" in screen.line("workers")
        assert "worker-1" in screen.line("cloudai workers")
        assert "Task nosuch not found" in screen.line("show nosuch")
        assert "[3]" in screen.text.decode()
        assert "Did you mean workers?" in screen.line("wokers")
        assert "A quote is not closed" in screen.line('show "nosuch')
        assert "no pipes" in screen.line("workers | wc")
        assert "This is the shell already" in screen.line("shell")
        assert "Usage: cloudai task " in screen.line("help task")
        assert screen.text.count(b"[2]") >= 3
        screen.prompt()
        screen.press(b"exit\n")
        assert screen.end() == 0
        assert screen.modes == screen.attributes


def test_ctrl_c_clears_the_line_and_ctrl_d_leaves(home: Path, stub: StubController) -> None:
    with At(home) as screen:
        screen.prompt()
        screen.press(b"rm every\x03")
        screen.prompt()
        screen.press(b"\x04")
        assert screen.end() == 0
    assert [str(one) for one in stub.asked] == []
    assert not (home / HISTORY).exists()


def test_ctrl_c_ends_the_command_and_not_the_shell(
    home: Path, stub: StubController, over: threading.Event
) -> None:
    waits = threading.Event()

    def wait(asked: Asked) -> Reply:
        if asked.query.get("until"):
            waits.set()
            over.wait(15)
        return Reply(make_running())

    stub.on(f"GET /tasks/{TASK_ID}", wait)
    with At(home) as screen:
        screen.prompt()
        screen.press(f"wait {TASK_ID}\n".encode())
        assert waits.wait(15)
        screen.press(b"\x03")
        screen.prompt()
        screen.until("[130]")
        screen.press(b"quit\n")
        assert screen.end() == 0


def test_monitor_takes_the_keys_and_gives_them_back(
    home: Path, stub: StubController, over: threading.Event
) -> None:
    def log(_: Asked) -> Reply:
        def chunks() -> Iterator[bytes]:
            yield b"step 1\n"
            over.wait(15)

        return Reply(chunks=chunks())

    def one(asked: Asked) -> Reply:
        if asked.query.get("until") == ["final"]:
            over.wait(5)
        return Reply(make_running())

    stub.on(f"GET /tasks/{TASK_ID}", one)
    stub.on(f"GET /tasks/{TASK_ID}/logs", log)
    with At(home) as screen:
        screen.prompt()
        screen.press(f"monitor {TASK_ID}\n".encode())
        screen.until("step 1")
        screen.press(b"x")
        screen.prompt()
        assert "goes on" in screen.text.decode()
        screen.press(b"exit\n")
        assert screen.end() == 0


def test_what_a_command_of_its_own_process_ends_with_is_its_code(
    home: Path, stub: StubController
) -> None:
    stub.refuse(f"GET /tasks/{TASK_ID}/exec", TaskNotFound(TASK_ID))
    with At(home) as screen:
        assert f"Task {TASK_ID} not found" in screen.line(f"exec {TASK_ID} -it -- sh")
        assert "[3]" in screen.text.decode()


def test_a_secret_that_is_typed_is_in_no_history(home: Path, stub: StubController) -> None:
    made = {"name": "T", "set_at": None, "kept": "file", "size": 7, "note": ""}
    stub.on("PUT /secrets/T", made)
    stub.on("GET /workers/", {"workers": []})
    with At(home) as screen:
        screen.prompt()
        screen.press(b"secret set T\n")
        screen.until("(is not shown): ")
        screen.press(b"hunter2\n")
        screen.line(" workers --quiet")
        for _ in range(2):
            screen.line("workers -q")
        screen.prompt()
        screen.press(b"\x1b[A\n")  # the line before, by the arrow
        screen.prompt()
        screen.press(b"exit\n")
        assert screen.end() == 0
    assert b"hunter2" not in screen.text
    assert (home / HISTORY).read_text() == "secret set T\nworkers -q\nexit\n"
    assert stat.S_IMODE((home / HISTORY).stat().st_mode) == 0o600
    assert len([one for one in stub.asked if one.path == "/workers/"]) == 4


def test_a_secret_that_is_typed_too_early_is_no_line(home: Path, stub: StubController) -> None:
    stub.on("PUT /secrets/T", {"name": "T", "set_at": None, "kept": "file", "size": 1, "note": ""})
    with At(home) as screen:
        screen.prompt()
        screen.press(b"secret set T\nhunter2\n")
        screen.until("(is not shown): ")
        screen.press(b"x\n")
        screen.prompt()
        screen.press(b"exit\n")
        assert screen.end() == 0
    assert b"No such command" not in screen.text
    assert (home / HISTORY).read_text() == "secret set T\nexit\n"


def test_tab_completes_names_of_tasks(home: Path, stub: StubController) -> None:
    stub.on("GET /tasks/", {"tasks": [make_task(name="train")], "total": 1})
    stub.refuse("GET /tasks/train", TaskNotFound("train"))
    with At(home) as screen:
        screen.prompt()
        screen.press(b"show tr\t")
        screen.until("ain")  # how much is drawn anew differs
        screen.press(b"\n")
        screen.until("Task train not found")


# ------------------------------------------------------------------ from a pipe


def from_stdin(home: Path, text: str, *words: str) -> tuple[int, str, str]:
    with process(home, "shell", *words, stdin=subprocess.PIPE) as running:
        out, err = running.communicate(text.encode(), timeout=30)
    return running.returncode, out.decode(), err.decode()


def test_lines_of_a_pipe_are_all_run(home: Path, stub: StubController) -> None:
    stub.on("GET /workers/", {"workers": [make_worker()]})
    stub.refuse("GET /tasks/nosuch", TaskNotFound("nosuch"))
    lines = "# a comment\n\nworkers\nshow nosuch\n'\nworkers"
    code, out, err = from_stdin(home, lines, "-q")
    assert (code, out) == (2, "worker-1\nworker-1\n")
    assert "master" not in out + err
    assert "\x1b" not in out + err
    assert err.index("Task nosuch not found") < err.index("A quote is not closed")
    assert from_stdin(home, "show nosuch\nworkers\nexit\nshow '\n", "--json")[0] == 3
    assert from_stdin(home, "")[0] == 0
    assert not (home / HISTORY).exists()


def test_no_command_eats_the_lines_after_it(home: Path, stub: StubController) -> None:
    code, out, err = from_stdin(home, "secret set T\nworkers\n")
    assert [str(one) for one in stub.asked] == ["PUT /secrets/T", "GET /workers/"]
    assert stub.bodies("PUT /secrets/T") == [{"base64": "", "in_file": False}]
    assert (code, out) == (1, "")
    assert err.count("the test did not say") == 2


def test_a_reader_that_is_gone_ends_it(home: Path, stub: StubController) -> None:
    stub.on("GET /workers/", {"workers": [make_worker()]})
    reading, writing = os.pipe()
    os.close(reading)
    with process(home, "shell", stdin=subprocess.PIPE, stdout=writing) as running:
        os.close(writing)
        running.communicate(b"workers\n" * 100, timeout=30)
    assert running.returncode == 141
    assert len(stub.asked) == 1


# ------------------------------------------------------------------ its parts


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("  ", []),
        ("# rm x", []),
        ("cloudai", ["--help"]),
        ("help", ["--help"]),
        ("help secret set", ["secret", "set", "--help"]),
        ("task x -c 'a | b'", ["task", "x", "-c", "a | b"]),
        ("task x -- sh -c 'a' | b", ["task", "x", "--", "sh", "-c", "a", "|", "b"]),
        ("shell --help", ["shell", "--help"]),
    ],
)
def test_a_line_is_words_and_quotes(line: str, words: list[str]) -> None:
    assert shell.read_line(line) == words


@pytest.mark.parametrize("line", ["a '", "a\\", "exit now", "shell", "a > b", "a && b"])
def test_what_cannot_be_meant_is_told(line: str) -> None:
    with pytest.raises(shell.Refused):
        shell.read_line(line)


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        ([], "he", {"help"}),
        (["cloudai"], "dis", {"dispatch", "distribute"}),
        (["help"], "secr", {"secret"}),
        (["secret"], "", {"set", "list", "rm"}),
        (["task"], "-cpu", {"-cpu_cores"}),
        (["task", "x", "--secr"], "nothing", set()),
        (["nosuch"], "", set()),
        (["show"], "tr", {"train"}),
        (["task", "--secret"], "T", {"TOKEN"}),
        (["drain"], "w", {"worker-1"}),
    ],
)
def test_a_word_is_completed_as_in_a_system_shell(
    words: list[str], incomplete: str, expected: set[str], stub: StubController
) -> None:
    stub.on("GET /tasks/", {"tasks": [make_task(name="train")], "total": 1})
    stub.on("GET /workers/", {"workers": [make_worker()]})
    stub.on("GET /secrets/", {"secrets": [{"name": "TOKEN"}]})
    assert {item.value for item in complete(words, incomplete)} == expected


def test_the_history_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / HISTORY
    path.write_text("".join(f"show {number}\n" for number in range(2 * MOST_LINES + 1)))
    kept = list(PrivateHistory(path).load_history_strings())
    assert (len(kept), kept[0]) == (MOST_LINES, f"show {2 * MOST_LINES}")
    assert len(path.read_text().splitlines()) == MOST_LINES
    assert list(PrivateHistory(tmp_path / "nosuch" / "x").load_history_strings()) == []
    PrivateHistory(tmp_path / "nosuch" / "x").store_string("not there")


def test_what_is_pasted_is_kept_line_by_line(tmp_path: Path) -> None:
    history = PrivateHistory(tmp_path / HISTORY)
    history.append_string("workers\nqueue\n secret\nqueue\nqueue")
    assert (tmp_path / HISTORY).read_text() == "workers\nqueue\n"
    assert list(history.get_strings()) == ["workers", "queue"]


def test_the_help_is_quick(cloudai: Cloudai) -> None:
    """No prompt_toolkit for what only lists or completes."""
    code = "import sys; from cloudai.cli import main; main(['shell', '--help']); print(sys.modules)"
    done = subprocess.run(
        [*command()[:1], "-c", code], env=environment(Path("/nosuch")), capture_output=True
    )
    assert re.search(rb"prompt_toolkit'", done.stdout) is None
