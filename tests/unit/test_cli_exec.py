"""``exec`` against a real WebSocket server on a UNIX socket."""

from __future__ import annotations

import contextlib
import http
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, unix_serve

from cloudai.core.errors import Conflict, TaskNotFound
from tests.unit.cli_case import Screen, command, environment, process

Talk = Callable[[ServerConnection], None]
Serve = Callable[[Talk], list[str]]


@pytest.fixture
def serve(home: Path) -> Iterator[Serve]:
    """Starts a server that talks as told; the list gets the paths that were asked."""
    with contextlib.ExitStack() as stack:

        def start(talk: Talk, refuse: Any = None) -> list[str]:
            asked: list[str] = []

            def handler(link: ServerConnection) -> None:
                assert link.request is not None
                asked.append(link.request.path)
                with contextlib.suppress(ConnectionClosed):
                    talk(link)

            def process_request(_: ServerConnection, __: Request) -> Response | None:
                if refuse is None:
                    return None
                body = json.dumps({"error": refuse.as_json()}).encode()
                status = http.HTTPStatus(refuse.http_status)
                headers = Headers({"Content-Length": str(len(body))})
                return Response(status.value, status.phrase, headers, body)

            home.mkdir()
            path = str(home / "controller.sock")
            server = stack.enter_context(unix_serve(handler, path, process_request=process_request))
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return asked

        yield start


def run(home: Path, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command("exec", *args), env=environment(home), input=stdin, capture_output=True, check=False
    )


def test_output_and_exit_code_are_the_commands_own(serve: Serve, home: Path) -> None:
    def talk(link: ServerConnection) -> None:
        assert json.loads(link.recv()) == {"eof": True}
        link.send(b"\x01out\xff\n")
        link.send(b"\x02err\n")
        link.send(b"\x01more\n")
        link.send(json.dumps({"exit_code": 7}))

    asked = serve(talk)
    done = run(home, "task 1", "--", "ls", "-l", "--", "a&b", stdin=b"not meant for it")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\xff\nmore\n", b"err\n")
    url = urlsplit(asked[0])
    assert url.path == "/tasks/task%201/exec"
    query = parse_qs(url.query)
    assert query["arg"] == ["ls", "-l", "--", "a&b"]
    assert query["tty"] == ["0"]


def test_interactive_sends_what_is_piped_in_and_its_end(serve: Serve, home: Path) -> None:
    def talk(link: ServerConnection) -> None:
        got = b""
        while isinstance(message := link.recv(), bytes):
            got += message
        assert json.loads(message) == {"eof": True}
        link.send(b"\x01" + got[::-1])
        link.send(json.dumps({"exit_code": 0}))

    serve(talk)
    done = run(home, "t", "-i", "--", "rev", stdin=b"abc" * 100_000)
    assert (done.returncode, done.stdout) == (0, b"cba" * 100_000)


@pytest.mark.parametrize("before", [True, False])
def test_what_the_controller_refuses_is_said(before: bool, serve: Any, home: Path) -> None:
    error = TaskNotFound("t") if before else Conflict("Task t is completed, not running")
    talk: Talk = lambda link: link.send(json.dumps({"error": error.as_json()}))  # noqa: E731
    serve(talk, refuse=error if before else None)
    done = run(home, "t", "--", "ls")
    assert done.returncode == error.exit_code
    assert done.stderr.decode().startswith(f"❌ {error.message}\n")
    done = run(home, "t", "--json", "--", "ls")
    assert json.loads(done.stdout) == {"error": error.as_json()}


def test_a_link_that_breaks_is_not_taken_for_an_end(serve: Serve, home: Path) -> None:
    serve(lambda link: link.send(b"\x01half"))
    done = run(home, "t", "--", "ls")
    assert (done.returncode, done.stdout) == (1, b"half")
    assert b"broke" in done.stderr


def test_a_terminal_becomes_the_commands(serve: Serve, home: Path) -> None:
    resized = threading.Event()

    def talk(link: ServerConnection) -> None:
        link.send(b"\x01$ \x1b[6n")
        got = b""
        while b"q" not in got:
            message = link.recv()
            if isinstance(message, bytes):
                got += message
            else:
                assert json.loads(message) == {"resize": [100, 40]}
                link.send(b"\x01resized")
                resized.set()
        link.send(b"\x01" + repr(got).encode())
        link.send(json.dumps({"exit_code": 3}))

    asked = serve(talk)
    with Screen(home, "exec", "t", "-it", "--", "sh") as screen:
        assert "\x1b[6n" in screen.until("$ \x1b[6n"), "what is its own terminal is not cleaned"
        screen.press(b"\x03\r\x1b[A")
        import fcntl
        import struct
        import termios

        fcntl.ioctl(screen.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        screen.until("resized")
        screen.press(b"q")
        assert screen.end() == 3
        assert screen.modes == screen.attributes
    assert r"b'\x03\r\x1b[Aq'" in screen.text.decode()
    assert parse_qs(urlsplit(asked[0]).query)["tty"] == ["1"]
    assert resized.is_set()


def test_without_a_terminal_its_output_is_made_safe_on_ours(serve: Serve, home: Path) -> None:
    def talk(link: ServerConnection) -> None:
        link.send(b"\x01\x1b]0;owned\x07ok\n")
        link.send(json.dumps({"exit_code": 0}))

    serve(talk)
    with Screen(home, "exec", "t", "--", "ls") as screen:
        assert screen.end() == 0
    assert screen.text == b"ok\r\n"


def test_a_terminal_is_not_promised_where_there_is_none(home: Path) -> None:
    done = run(home, "t", "-it", "--", "sh")
    assert done.returncode == 2
    assert b"terminal" in done.stderr


def test_ctrl_c_leaves(serve: Serve, home: Path) -> None:
    runs, over = threading.Event(), threading.Event()

    def talk(link: ServerConnection) -> None:
        link.send(b"\x01on\n")
        runs.set()
        with contextlib.suppress(ConnectionClosed):
            while True:
                link.recv()
        over.set()

    serve(talk)
    import signal

    with process(home, "exec", "t", "--", "sleep", "100") as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"on\n"
        running.send_signal(signal.SIGINT)
        assert running.wait(15) == 130
        assert running.stderr is not None
        assert running.stderr.read() == b""
    assert over.wait(10), "the controller hears that we left"
