"""``task`` and ``dispatch``: hand a task over, and go on with it as asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .asking import as_typed, task_body, task_options
from .options import DashedCommand, common
from .output import StatusLine, on_terminal, print_error, say, tell
from .scripted import read_script
from .session import Session
from .timing import start_options, starts_of
from .wishes import group_body, queue_options
from .wording import exit_code_of, result, seconds_since, standing

if TYPE_CHECKING:
    from cloudai.client import Answer

Task = dict[str, Any]
KNOWN = "was there before: the same --idempotency-key made it; nothing new was queued"
AWAY_FOR = 5.0
"""Seconds for which a worker may be out of reach while it starts a dispatched task: it may
only have been cut off for a moment."""


@click.command(cls=DashedCommand)
@task_options("[WORKER] IMAGE")
@click.option(
    "--script",
    metavar="FILE",
    help="Run this script (- is stdin); its #CLOUDAI and #SBATCH lines are flags. Its arguments"
    " come after --.",
)
@click.option("--image", metavar="IMAGE", help="IMAGE, where it is a script that names it.")
@start_options
@queue_options
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and queue nothing.")
@common
@click.pass_context
def task_command(ctx: click.Context, /, words: tuple[str, ...], **asked: Any) -> int:
    """Queue a task; the controller places it, on WORKER only where one is named.

    The command comes after --, or as shell text with -c; without either the image's own runs.
    With --type both image and command come from a template (docs/templates.md).

    \b
      cloudai task alpine -- echo hello
      cloudai task --type llm -p prompt="Why is the sky blue?" -p max_tokens=128
      cloudai task worker-1 python:3.12 -cpu_cores 2.0 -mem 4.0 -c "python train.py"
      cloudai task --script train.sh python:3.12 -- --epochs 5
    """
    session: Session = ctx.obj
    script = read_script(ctx, asked)
    if script is not None and not session.quiet:
        for notice in script.notices:
            tell(f"⚠ {notice}")
    if asked["image"] is not None and words:
        if ctx.get_parameter_source("image") is ParameterSource.COMMANDLINE:
            raise click.UsageError("--image and a word both name the image.", ctx=ctx)
        asked["image"] = None
    target, image = _worker_and_image(
        ctx, words or tuple(filter(None, [asked["image"]])), asked["task_type"]
    )
    _check(ctx, session, asked)
    dry_run = asked["dry_run"] or asked["test_only"]
    places = script.places if script else None
    body = task_body(ctx, image=image, target=target, asked=asked)
    with as_typed(session, places=places):
        body |= starts_of(ctx, asked)
    if script is not None:
        body["script"] = script.text
    group = group_body(ctx, body, asked)
    with as_typed(session, places=places), _meant_as_image(target, image, body):
        answer = session.client.request(
            "POST",
            "/groups/" if group else "/tasks/",
            body=group or body,
            query={"dry_run": dry_run or None},
            patience=patience_for(body),
        )
    if group:
        return _go_on_with_group(session, answer, wait=asked["wait"], dry_run=dry_run)
    task: Task = answer.data
    if dry_run:
        of = f"; an array of {task['array_size']}" if task.get("array") else ""
        session.show(task, lambda task: _preview(task, f"{dry_run_of(task)} (--dry-run){of}"))
        return 0
    if asked["array"] is not None:
        return _go_on_with_array(session, task, known=answer.status == 200, wait=asked["wait"])
    done = f"queued for {task['target']}" if task["target"] else "queued"
    words_for_it = f"✅ Task {task['task_id']} {KNOWN if answer.status == 200 else done}"
    return _go_on(session, task, asked, words=lambda: _preview(task, words_for_it))


@click.command(cls=DashedCommand)
@task_options("WORKER IMAGE")
@common
@click.pass_context
def dispatch_command(ctx: click.Context, /, words: tuple[str, ...], **asked: Any) -> int:
    """Run a task on WORKER now, past queue and scheduler: for tests and debugging.

    The worker is checked, and the answer comes when the container runs, or why it does not.

    \b
      cloudai dispatch worker-1 alpine -- sleep 60
    """
    session: Session = ctx.obj
    worker, image = _worker_and_image(ctx, words, asked["task_type"])
    if worker is None and asked["task_type"] is not None:
        worker, image = image, None
    if worker is None:
        raise click.UsageError("Both are needed: WORKER IMAGE.", ctx=ctx)
    _check(ctx, session, asked)
    body = task_body(ctx, image=image, target=None, asked=asked)
    from cloudai.core.errors import CloudaiError

    try:
        with as_typed(session):
            task, created = _started(session, worker, body)
    except CloudaiError as error:
        return print_error(error, as_json=session.json, prefix="Failed to dispatch task: ")
    done = f"dispatched directly to worker {worker}!" if created else KNOWN
    return _go_on(session, task, asked, words=lambda: say(f"✅ Task {task['task_id']} {done}"))


def patience_for(body: dict[str, Any]) -> float | None:
    """Seconds for the answer: what is brought along is read first, however long that takes."""
    return float("inf") if body.get("uploads") else None


def _go_on_with_group(session: Session, answer: Answer, *, wait: bool, dry_run: bool) -> int:
    from .groups import go_on_with, preview_group

    if dry_run:
        session.show(answer.data, preview_group)
        return 0
    return go_on_with(session, answer.data, known=answer.status == 200, wait=wait)


def _go_on_with_array(session: Session, array: Task, *, known: bool, wait: bool) -> int:
    from .awaiting import Awaited, wait_for_all
    from .wording import counted_tasks

    ref = array["task_id"]
    done_with = KNOWN if known else f"queued: {counted_tasks(array['array_size'])}"
    words = f"✅ Array {ref} {done_with}"
    if not (wait and session.json):
        session.show(array, lambda _: say(words), quiet=[ref])
    if not wait:
        return 0
    sys.stdout.flush()
    done, code = wait_for_all(session, [Awaited("array", ref)])
    if session.json:
        session.show({**array, "tasks": done}, lambda _: None)
    return code


def _worker_and_image(
    ctx: click.Context, words: tuple[str, ...], task_type: str | None
) -> tuple[str | None, str | None]:
    if not words and task_type is not None:
        return None, None
    if not words:
        raise click.UsageError("The image is missing.", ctx=ctx)
    if len(words) > 2:
        wanted = "WORKER IMAGE" if ctx.info_name == "dispatch" else "[WORKER] IMAGE"
        raise click.UsageError(
            f"Too many words: put the command after --,"
            f" as in `cloudai {ctx.info_name} {wanted} -- COMMAND …`.",
            ctx=ctx,
        )
    return (words[0] if len(words) == 2 else None), words[-1]


@contextmanager
def _meant_as_image(target: str | None, image: str | None, body: dict[str, Any]) -> Iterator[None]:
    """Adds to a worker that is not there what was meant more probably: `task alpine ls`."""
    from cloudai.core.errors import WorkerNotFound

    try:
        yield
    except WorkerNotFound as error:
        if "argv" not in body and "command" not in body:
            error.hint += f"; if {target} is the image: cloudai task {target} -- {image}"
        raise


def _check(ctx: click.Context, session: Session, asked: dict[str, Any]) -> None:
    if asked["follow"] and session.json:
        raise click.UsageError(
            "--follow prints the task's log; with --json use --wait, and `cloudai logs`.", ctx=ctx
        )
    for several in ("replicas", "array"):
        if asked["follow"] and asked.get(several) is not None:
            raise click.UsageError(
                f"--follow prints one log; with --{several} use --wait.", ctx=ctx
            )


def _started(session: Session, worker: str, body: dict[str, Any]) -> tuple[Task, bool]:
    """The task once its container runs or has ended, and whether it is new. Raises why it does
    not run."""
    from cloudai.client import worker_path
    from cloudai.core.errors import CloudaiError, Insufficient

    from .following import until

    status = StatusLine(shown=not (session.json or session.quiet))
    # Where a person looks on, what is being pulled is shown soon; the server waits otherwise.
    patience = 2 if on_terminal(sys.stderr) else 25
    try:
        answer = session.client.request(
            "POST",
            worker_path(worker, "dispatch"),
            body=body,
            query={"timeout": patience},
            patience=patience_for(body),
        )
        task: Task = answer.data
        try:
            while task["status"] in ("queued", "starting"):
                _check_reach(task)
                status.show(standing(task))
                task = until(session.client, task["task_id"], "started", timeout=patience)
        except KeyboardInterrupt:
            status.clear()
            goes_on(task["task_id"])
            raise
    finally:
        status.clear()
    if task["status"] == "failed" and task["started_at"] is None:
        reason = str(task["reason"])
        kind = Insufficient if reason.startswith("Insufficient ") else CloudaiError
        raise kind(reason, task_id=task["task_id"])
    return task, answer.status != 200


def _check_reach(task: Task) -> None:
    """Raises where the worker went away in the middle: whoever dispatched wants an answer, and
    whether the container runs can be seen only once the worker is back."""
    from cloudai.core.errors import WorkerUnreachable

    away = seconds_since(task["worker_seen"]["since"])
    if not task["worker_seen"]["reachable"] and away is not None and away >= AWAY_FOR:
        task_id, worker = task["task_id"], task["worker_id"]
        raise WorkerUnreachable(
            f"{worker} went out of reach while it was starting {task_id}, which may run there",
            hint=f"`cloudai show {task_id}` tells once it is back; `cloudai cancel {task_id}`"
            " wants it no more",
            task_id=task_id,
            worker=worker,
        )


def dry_run_of(task: Task) -> str:
    """That nothing was queued, and where it would go now."""
    if worker := task.get("would_start_on"):
        return f"Nothing was queued; it would start on {worker} now"
    if why := task.get("would_wait"):
        return f"Nothing was queued; it would wait: {why}"
    return "Nothing was queued"


def _preview(task: Task, line: str) -> None:
    from .preview import preview

    say(preview(task))
    say()
    say(line)


def _go_on(session: Session, task: Task, asked: dict[str, Any], *, words: Any) -> int:
    """After it was accepted: leave, wait, or follow."""
    if asked["follow"]:
        return _follow(session, task, words)
    if not asked["wait"]:
        session.show(task, lambda _: words(), quiet=[task["task_id"]])
        return 0
    if not session.json:
        session.show(task, lambda _: words(), quiet=[task["task_id"]])
        sys.stdout.flush()
    last = _wait(session, task)
    session.show(last, lambda last: say(result(last)))
    return exit_code_of(last)


def _wait(session: Session, task: Task) -> Task:
    from .following import until
    from .wording import is_final

    status = StatusLine(shown=not (session.json or session.quiet))
    # A person at a terminal sees what it waits for; a script asks seldom.
    patience = 2 if on_terminal(sys.stderr) else 55
    try:
        while not is_final(task):
            status.show(_waiting(task))
            task = until(session.client, task["task_id"], "final", timeout=patience)
    except KeyboardInterrupt:
        status.clear()
        goes_on(task["task_id"])
        raise
    finally:
        status.clear()
    return task


def _waiting(task: Task) -> str:
    if task["status"] in ("queued", "starting"):
        return standing(task)
    return f"{task['status']} on {task['worker_id']}"


def _follow(session: Session, task: Task, words: Any) -> int:
    """With ``--quiet`` the log alone is on stdout, else the preview stands before it."""
    from .following import follow
    from .writing import LogWriter

    if not session.quiet:
        words()
    sys.stdout.flush()
    status = StatusLine(shown=not session.quiet)
    with LogWriter() as writer:
        try:
            for news in follow(session.client, task["task_id"]):
                if isinstance(news, bytes):
                    status.clear()
                    writer.write(news)
                    continue
                task = news
                if task["status"] in ("queued", "starting"):
                    status.show(standing(task))
        except KeyboardInterrupt:
            status.clear()
            writer.finish_line()
            goes_on(task["task_id"])
            raise
        finally:
            status.clear()
        if on_terminal():
            writer.finish_line()
    if not session.quiet:
        tell(result(task))
    return exit_code_of(task)


def goes_on(task_id: str) -> None:
    """Says that leaving ends nothing."""
    tell(f"Task {task_id} goes on.")
    tell(f"  cloudai monitor {task_id}   watches it")
    tell(f"  cloudai cancel {task_id}    stops it")
