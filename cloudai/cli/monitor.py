"""``monitor``: seed 002's screen. Live logs until the task ends or any key is pressed."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any

import click

from .options import common, task_argument
from .output import THICK, THIN, StatusLine, on_terminal, print_json, say
from .session import Session
from .submit import goes_on
from .terminal import clean
from .wording import exit_code_of, is_final, since, standing
from .writing import LogWriter

Task = dict[str, Any]
News = Task | bytes | Exception
LOOK_EVERY = 5.0
"""Seconds between looks whether the task's worker can still be reached."""


@click.command()
@task_argument
@click.argument("user", required=False)
@common
@click.pass_obj
def monitor_command(session: Session, task: str, user: str | None) -> int:
    """Watch a task's log live, until it ends or any key is pressed.

    Ends with the task's exit code, or 125 where cloudai failed it or it was cancelled; with 0
    when a key was pressed: the task goes on. USER, where given, must be its owner.
    """
    from cloudai.client import task_path
    from cloudai.core.errors import NotFound

    found: Task = session.client.get(task_path(task))
    if user is not None and found["user_id"] != user:
        raise NotFound(
            f"Task {found['task_id']} not found for user {user}",
            hint="`cloudai tasks` shows whose it is",
        )
    if session.json:
        from .following import finished

        found = finished(session.client, found["task_id"])
        print_json(found)
        return exit_code_of(found)
    return _watch(session, found)


def _watch(session: Session, task: Task) -> int:
    from .keys import Keys, can_read_keys

    with_keys = can_read_keys()
    if not session.quiet:
        _header(task, with_keys=with_keys)
    if not with_keys:
        last = _show(_plain(session, task), session)
    else:
        with Keys() as keys:
            last = _show(_live(session, task, keys), session)
    if last is None:
        say()
        goes_on(task["task_id"])
        return 0
    if not session.quiet:
        _footer(last)
    return exit_code_of(last)


def _header(task: Task, *, with_keys: bool) -> None:
    if on_terminal() and os.environ.get("TERM") != "dumb":
        sys.stdout.write("\x1b[2J\x1b[H")
    say(THICK)
    say("  TASK MONITOR - Live Logs")
    say(THICK)
    say(f"Task ID: {clean(task['task_id'])}")
    say(f"User ID: {clean(task['user_id'])}")
    say(THIN)
    if with_keys:
        say("Press any key to exit")
    say()
    sys.stdout.flush()


def _footer(task: Task) -> None:
    say()
    say(THICK)
    say(f"  Task {task['status'].capitalize()}")
    if task["status"] != "completed":
        if task.get("reason") not in (None, "", task["status"]):
            say(f"  Reason: {clean(task['reason'])}")
        if task.get("exit_code") is not None:
            say(f"  Exit code: {task['exit_code']}")
    say(THICK)


def _show(news: Iterator[News | None], session: Session) -> Task | None:
    """Writes what comes; the final task, or ``None`` when a key was pressed."""
    last: Task | None = None
    status = StatusLine(shown=not session.quiet)
    with LogWriter() as writer:
        try:
            for one in news:
                if isinstance(one, Exception):
                    raise one
                if one is None:
                    last = None
                elif isinstance(one, bytes):
                    status.clear()
                    writer.write(one)
                elif last is None or not is_final(last):
                    last = one
                    _standing(status, writer, one)
        except KeyboardInterrupt:
            status.clear()
            writer.finish_line()
            if last is not None:
                goes_on(last["task_id"])
            raise
        finally:
            status.clear()
            writer.finish_line()
    return last


def _standing(status: StatusLine, writer: LogWriter, task: Task) -> None:
    seen = task.get("worker_seen") or {}
    if task["status"] in ("queued", "starting"):
        status.show(standing(task))
    elif seen.get("reachable") is False and not is_final(task):
        writer.finish_line()
        status.show(
            f"{task['worker_id']} has not been reached {since(seen.get('since'))};"
            " the task stands as last seen"
        )
    else:
        status.clear()


def _plain(session: Session, task: Task) -> Iterator[News | None]:
    from .following import follow

    yield from follow(session.client, task["task_id"])


def _live(session: Session, task: Task, keys: Any) -> Iterator[News | None]:
    """News from threads of their own, so that a key is heard at any time; ``None``: a key."""
    # The pipe is left to the end of the process: the threads may still write to it.
    told, tell = os.pipe()
    news: queue.Queue[News | None] = queue.Queue(maxsize=256)

    def put(one: News | None) -> None:
        news.put(one)
        with contextlib.suppress(OSError):
            os.write(tell, b".")

    ended = threading.Event()
    for work in (_follow_in, _look_in):
        threading.Thread(target=work, args=(session, task, put, ended), daemon=True).start()
    while True:
        # Not for ever: a signal that comes just before the wait is heard at its end only.
        ready = keys.wait(told, timeout=1.0)
        if keys.fd in ready:
            keys.read()
            yield None
            return
        for _ in os.read(told, 64) if told in ready else b"":
            one = news.get()
            if one is None:
                return
            yield one


def _follow_in(session: Session, task: Task, put: Any, ended: threading.Event) -> None:
    from .following import follow

    try:
        for one in follow(session.client, task["task_id"]):
            put(one)
        put(None)
    except Exception as error:  # carried to the main thread, which shows it
        put(error)
    finally:
        ended.set()


def _look_in(session: Session, task: Task, put: Any, ended: threading.Event) -> None:
    from cloudai.client import task_path
    from cloudai.core.errors import CloudaiError

    while not ended.wait(LOOK_EVERY):
        with contextlib.suppress(CloudaiError):
            seen = session.client.get(task_path(task["task_id"]))
            if seen["status"] == "running":
                put(seen)
