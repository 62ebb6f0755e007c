"""``exec``: a command in a running task's container, over a WebSocket."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from .options import ARGV, DashedCommand, common, task_argument
from .output import on_terminal, with_colours
from .session import Session
from .terminal import LogCleaner

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

STDOUT = 1


@click.command(cls=DashedCommand)
@task_argument
@click.option("-i", "--interactive", is_flag=True, help="Send it what is typed, or piped in.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal; needs one here.")
@common
@click.pass_context
def exec_command(ctx: click.Context, task: str, interactive: bool, tty: bool) -> int:
    """Run a command in a running task's container, for debugging. Ends with its exit code.

    \b
      cloudai exec task-1731629400-k3f9x2 -it -- sh
    """
    session: Session = ctx.obj
    argv = ctx.meta[ARGV]
    if not argv:
        raise click.UsageError(
            f"The command is missing: put it after --, as in `cloudai exec {task} -- ls -l`.",
            ctx=ctx,
        )
    if tty and not (on_terminal() and (not interactive or sys.stdin.isatty())):
        raise click.UsageError("-t needs a terminal on this side too.", ctx=ctx)
    with _link(session, task, argv, tty=tty) as link:
        if not interactive:
            _send_end(link)
            return _until_end(link, tty=tty)
        if tty:
            return _with_terminal(link)
        _send_in_background(link, sys.stdin.fileno())
        return _until_end(link, tty=False)


@contextlib.contextmanager
def _link(session: Session, task: str, argv: list[str], *, tty: bool) -> Iterator[ClientConnection]:
    """The open WebSocket. Raises the error the controller answers instead of opening it."""
    from websockets.exceptions import InvalidHandshake, InvalidStatus
    from websockets.sync.client import unix_connect

    from cloudai.client import ControllerFailed, task_path
    from cloudai.client.errors import error_from_json

    client = session.client
    size = shutil.get_terminal_size((80, 24))
    query = urlencode(
        {"tty": int(tty), "columns": size.columns, "rows": size.lines, "arg": argv}, doseq=True
    )
    path = task_path(task, "exec")
    socket = client.ensure_running()
    try:
        link = unix_connect(
            socket,
            f"ws://controller{path}?{query}",
            additional_headers=client.headers(),
            max_size=None,
            compression=None,
        )
    except InvalidStatus as refusal:
        try:
            answer = json.loads(refusal.response.body or b"")
        except ValueError:
            answer = None
        raise error_from_json(answer, status=refusal.response.status_code) from None
    except (InvalidHandshake, OSError, TimeoutError, EOFError) as error:
        raise ControllerFailed(
            "The controller does not answer", hint="`cloudai controller status` shows it"
        ) from error
    if link.response is not None:
        client.heed(
            version=link.response.headers.get("X-Cloudai-Version"),
            notice=link.response.headers.get("X-Cloudai-Notice"),
        )
    with contextlib.closing(link):
        yield link


def _until_end(link: ClientConnection, *, tty: bool) -> int:
    """Writes its output as it comes; its exit code. Raises what ended it instead."""
    from websockets.exceptions import ConnectionClosed

    from cloudai.client import ControllerFailed
    from cloudai.client.errors import error_from_json

    show = {True: _Output(sys.stdout, as_is=tty), False: _Output(sys.stderr, as_is=tty)}
    try:
        while True:
            message = link.recv()
            if isinstance(message, bytes):
                show[message[:1] != b"\x02"].write(message[1:])
                continue
            word = json.loads(message)
            if "exit_code" in word:
                return int(word["exit_code"])
            raise error_from_json(word, status=500)
    except ConnectionClosed as error:
        raise ControllerFailed(
            "The link to the command broke; whether it still runs is not known",
            hint="`cloudai show` tells how its task stands",
        ) from error
    finally:
        for output in show.values():
            output.close()


class _Output:
    """A stream of ours: bytes as they are, but made safe where they reach a terminal that
    the command was not given."""

    def __init__(self, stream: Any, *, as_is: bool) -> None:
        self._stream = stream
        plain = as_is or not on_terminal(stream)
        self._cleaner = None if plain else LogCleaner(colours=with_colours())

    def write(self, data: bytes) -> None:
        if self._cleaner is None:
            self._stream.buffer.write(data)
        else:
            self._stream.write(self._cleaner.feed(data))
        self._stream.flush()

    def close(self) -> None:
        if self._cleaner is not None:
            with contextlib.suppress(OSError):
                self._stream.write(self._cleaner.close())
                self._stream.flush()


def _send_end(link: ClientConnection) -> None:
    """Nothing more comes from us. What the other side said before it left is still read."""
    from websockets.exceptions import ConnectionClosed

    with contextlib.suppress(ConnectionClosed):
        link.send(json.dumps({"eof": True}))


def _with_terminal(link: ClientConnection) -> int:
    """Our terminal becomes the command's: every key goes there, and so does its size."""
    from .keys import Keys

    with Keys(raw=True) as keys:
        _send_in_background(link, keys.fd)
        told = threading.Event()
        before = signal.signal(signal.SIGWINCH, lambda *_: told.set())
        threading.Thread(target=_send_sizes, args=(link, told), daemon=True).start()
        try:
            return _until_end(link, tty=True)
        finally:
            signal.signal(signal.SIGWINCH, before)


def _send_sizes(link: ClientConnection, told: threading.Event) -> None:
    """In a thread: a signal handler must not write to the link while it is being written."""
    from websockets.exceptions import ConnectionClosed

    while told.wait():
        told.clear()
        size = os.get_terminal_size(sys.stdout.fileno())
        try:
            link.send(json.dumps({"resize": [size.columns, size.lines]}))
        except ConnectionClosed:
            return


def _send_in_background(link: ClientConnection, fd: int) -> None:
    """Sends what comes on ``fd``, and its end, while the caller reads the answers."""
    from websockets.exceptions import ConnectionClosed

    def send() -> None:
        with contextlib.suppress(ConnectionClosed, OSError):
            while data := os.read(fd, 65536):
                link.send(data)
            _send_end(link)

    threading.Thread(target=send, daemon=True).start()
