"""The group of all commands, and what becomes of whatever a command raises."""

from __future__ import annotations

import contextlib
import os
import sys
from importlib import import_module

import click

import cloudai

from .argv import split
from .options import common
from .output import print_error, print_json, tell
from .session import Session

COMPLETE = "_CLOUDAI_COMPLETE"
BROKEN_PIPE = 141
INTERRUPTED = 130

# section -> command -> (module, what it does). So the list of commands imports none of them.
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Tasks": {
        "task": ("submit", "Queue a task; the controller places it."),
        "batch": ("batch", "Submit files of tasks as a whole; see how batches stand."),
        "templates": ("templates", "List and show task types, and what one would run."),
        "cron": ("cron", "Submit batch files again and again, at set times."),
        "dispatch": ("submit", "Run a task on one worker now, past queue and scheduler."),
        "monitor": ("monitor", "Watch a task live until it ends, or any key is pressed."),
        "logs": ("logs", "Print what a task wrote, byte for byte."),
        "queue": ("tasks", "List what waits, and why."),
        "why": ("why", "Tell why a task waits, worker by worker."),
        "tasks": ("tasks", "List tasks, newest first."),
        "show": ("tasks", "Tell one task's whole story."),
        "cancel": ("ending", "Stop tasks: politely, then by force."),
        "retry": ("ending", "Run ended tasks once more, or those that failed."),
        "wait": ("ending", "Wait for tasks to end; end with their exit code."),
        "graph": ("graph", "Draw what comes after what in a batch, and how it stands."),
        "mark-lost": ("ending", "Say that tasks' workers are gone for good."),
        "rm": ("ending", "Forget ended tasks and their logs."),
        "cp": ("copying", "Copy files into a task's container, and out of it."),
        "exec": ("execute", "Run a command in a running task's container."),
        "secret": ("secret", "Set, list and remove secrets, which tasks read as files."),
    },
    "Workers": {
        "workers": ("workers", "List the workers and what is free on them."),
        "stats": ("stats", "Show one worker in depth."),
        "doctor": ("doctor", "Check this side and the workers, with a mend for each fault."),
        "register": ("register", "Add a worker: connect, pin its key, check it, write it down."),
        "unregister": ("register", "Take a worker out of the inventory."),
        "drain": ("workers", "Give a worker no new tasks."),
        "resume": ("workers", "Give a drained worker tasks again."),
        "image": ("image", "Send images of this machine to workers: the layers they lack."),
        "registry": ("registry", "Keep log-ins of private registries, for pulls on workers."),
        "orphans": ("orphans", "List containers of no known task; adopt, stop, forget."),
    },
    "Scheduler": {
        "reserve": ("reserve", "Keep a part of a worker for somebody's tasks."),
        "reservations": ("reserve", "List what is kept for whom, and how much of it is used."),
        "unreserve": ("reserve", "Give reservations back."),
        "resource-sharing": ("reserve", "The same by other names."),
        "distribute": ("distribute", "See how tasks spread over the workers; try a strategy."),
        "simulate": ("simulate", "Replay a trace under several strategies, and compare them."),
    },
    "Controller": {
        "init": ("init", "Begin a project: an inventory, a sample task, a batch."),
        "controller": ("controller", "Run, start, stop and see the controller."),
        "backup": ("backup", "Copy the database to a file, while it is in use."),
        "shell": ("shell", "Type commands at a prompt, without cloudai before each."),
        "completion": ("completion", "Print the completion script of a shell."),
    },
}
_PLACES = {name: place for section in COMMANDS.values() for name, place in section.items()}


class Commands(click.Group):
    """Commands that are imported when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_PLACES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _PLACES:
            return None
        module = import_module(f".{_PLACES[cmd_name][0]}", __package__)
        command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _PLACES and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], _PLACES, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, does) for name, (_, does) in section.items()])


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"cloudai {cloudai.__version__}")
        ctx.exit()


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 refused or failed, 2 usage, 3 not found, 4 not enough"
    " resources, 5 worker not reachable; with --wait, --follow, wait and monitor the task's"
    " own, or 125 where cloudai failed or stopped it.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and leave.",
)
@common
def cli() -> None:
    """Turns the SSH hosts a team already has into one GPU cluster."""


def run(args: list[str]) -> int:
    """Runs one command; every error becomes words (or JSON) and an exit code."""
    _speak_any_language()
    if COMPLETE in os.environ:
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "cloudai", COMPLETE, os.environ[COMPLETE])
    session = Session()
    # Known before anything is parsed: a usage error is JSON too where JSON was asked.
    session.json = "--json" in split(args)[0]
    try:
        code = _guarded(args, session)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        code = BROKEN_PIPE
    with contextlib.suppress(OSError):
        for notice in session.notices:
            tell(f"⚠ {notice}")
        sys.stderr.flush()
    return code


def _guarded(args: list[str], session: Session) -> int:
    try:
        with cli.make_context("cloudai", list(args), obj=session) as ctx:
            return cli.invoke(ctx) or 0
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        return _usage(error, session)
    except (KeyboardInterrupt, click.Abort) as stopped:
        return _interrupted(stopped)
    except BrokenPipeError:
        raise
    except Exception as error:
        return _error(args, error, session)


def _usage(error: click.ClickException, session: Session) -> int:
    if session.json:
        fault = {"code": "usage", "message": error.format_message(), "hint": "", "details": {}}
        print_json({"error": {**fault, "exit_code": error.exit_code}})
    else:
        error.show()
    return error.exit_code


def _interrupted(stopped: BaseException) -> int:
    """Ctrl-C, also at a question; the end of the input at a question is a refusal."""
    at_question = isinstance(stopped, click.Abort)
    if at_question and not isinstance(stopped.__context__, KeyboardInterrupt):
        tell("")
        return 1
    return INTERRUPTED


def _error(args: list[str], error: Exception, session: Session) -> int:
    """An error of the tree, a disk that failed, or a fault of ours: lines for people; the
    place of a fault only where asked."""
    from cloudai.core.errors import CloudaiError

    if isinstance(error, CloudaiError):
        return print_error(error, as_json=session.json)
    if os.environ.get("CLOUDAI_DEBUG") or args[:2] == ["controller", "run"]:
        import traceback

        traceback.print_exc()
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.strerror:
        # Without a name it is what we write to: our own output.
        words = f"{error.filename or 'The output cannot be written'}: {error.strerror}"
        return print_error(CloudaiError(words), as_json=session.json)
    return print_error(
        CloudaiError(
            f"This is a fault of cloudai itself: {words}",
            hint="CLOUDAI_DEBUG=1 shows where; please report it with that",
        ),
        as_json=session.json,
    )


def _speak_any_language() -> None:
    """A character that the terminal's encoding lacks is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def _forget_stdout() -> None:
    """The reader is gone: what is left in the buffer goes nowhere, without a word."""
    with contextlib.suppress(OSError, ValueError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
