"""``shell``: the seeds' ``master>`` prompt. Every command without ``cloudai`` before it.

Lines are words and quotes, nothing more: no pipes, variables or patterns. Commands run in this
process, which is warm; those that keep the terminal or a process for themselves get one.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

import click

import cloudai

from .argv import split
from .options import common
from .output import on_terminal, say, tell
from .session import Session

USAGE, INTERRUPTED, BROKEN_PIPE = 2, 130, 141
LEAVE = ("exit", "quit")
APART = (("exec",), ("controller", "run"))
"""Commands that read stdin in the background, or change the whole process."""
OF_A_SYSTEM_SHELL = ("|", ">", ">>", "<", "&&", "||", ";", "&")


@click.command()
@common
@click.pass_obj
def shell_command(session: Session) -> int:
    """Type commands at a prompt, without cloudai before each.

    Tab completes commands, options, and the names of tasks and workers. Lines are kept in the
    home's shell_history, but for those that begin with a space. help lists the commands; exit,
    quit or Ctrl-D leaves; Ctrl-C clears the line, or ends the command that runs.

    Without a terminal, lines are read from stdin: all of them are run, with no input of their
    own, and it ends with the last exit code that was not 0.

    \b
      cloudai shell
      printf 'queue\\nworkers\\n' | cloudai shell
    """
    always = _always(session)
    if sys.stdin.isatty() and on_terminal():
        return _at_a_prompt(session, always)
    return _from_stdin(always)


def _always(session: Session) -> list[str]:
    """What was said to the shell counts for each command in it."""
    words = ["--json"] if session.json else []
    words += ["--quiet"] if session.quiet else []
    return words + (["--inventory", session.inventory] if session.inventory else [])


# ------------------------------------------------------------------ where lines come from


def _at_a_prompt(session: Session, always: list[str]) -> int:
    from cloudai.client import find_home
    from cloudai.client.place import make_home

    from .prompting import Prompt

    home = find_home(os.environ)
    make_home(home)
    if not session.quiet:
        say(f"cloudai {cloudai.__version__}: Tab completes, help lists the commands, exit leaves.")
    prompt = Prompt(home / "shell_history")
    code = 0
    while True:
        try:
            text = prompt.ask(code)
        except KeyboardInterrupt:
            code = 0
            continue
        except EOFError:
            return 0
        # What was pasted may be several.
        for line in text.splitlines():
            try:
                code = obey(line, always, before=code)
            except EOFError:
                return 0
            if asks_for_a_value(line):
                prompt.forget_typed()


def _from_stdin(always: list[str]) -> int:
    code = worst = 0
    for line in _own_lines():
        try:
            code = obey(line, always, before=0)
        except EOFError:
            break
        worst = code or worst
        if code in (BROKEN_PIPE, INTERRUPTED):
            break
    return worst


def _own_lines() -> Iterator[str]:
    """The lines of stdin, which is empty for the commands: none eats what comes after it."""
    script: IO[str]
    with open(os.dup(0), encoding="utf-8", errors="surrogateescape") as script:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        yield from script


# ------------------------------------------------------------------ what a line means


class Refused(Exception):
    """A line that cannot be meant, and why."""


def obey(line: str, always: list[str], *, before: int) -> int:
    """Does what a line says; its exit code, ``before`` where it says nothing. Raises
    ``EOFError`` for one that wants to leave."""
    try:
        words = read_line(line)
    except Refused as why:
        for text in str(why).splitlines():
            tell(text)
        return USAGE
    if not words:
        return before
    if words[0] in LEAVE:
        raise EOFError
    return run_words(words, always)


def read_line(line: str) -> list[str]:
    """Its words; none for an empty line or a comment. Raises ``Refused``."""
    text = line.strip()
    if not text or text.startswith("#"):
        return []
    try:
        words = shlex.split(text)
    except ValueError as error:
        is_quote = "quotation" in str(error)
        what = "A quote is not closed" if is_quote else "Nothing follows the last backslash"
        raise Refused(f"❌ {what}.") from None
    if words[0] == "cloudai":
        words = words[1:] or ["--help"]
    if words[0] == "help":
        words = [*words[1:], "--help"]
    if words[0] in LEAVE and len(words) > 1:
        raise Refused(f"❌ {words[0]} takes no words.")
    if words[0] == "shell" and "--help" not in words:
        raise Refused("❌ This is the shell already.")
    for word in split(words)[0]:
        if word in OF_A_SYSTEM_SHELL:
            raise Refused(
                f"❌ {word} means nothing here: there are no pipes, files or lists of commands.\n"
                "   In your system's shell: cloudai COMMAND | …"
            )
    return words


def asks_for_a_value(line: str) -> bool:
    """Whether what was typed too early is a secret, and no line."""
    return {"secret", "set"} <= set(line.split())


def run_words(words: list[str], always: list[str]) -> int:
    """Runs one command; its exit code."""
    from .entry import run

    if any(tuple(words[: len(one)]) == one for one in APART):
        return _run_apart([*always, *words])
    try:
        code = run([*always, *words])
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.stderr.flush()
    return code


def _run_apart(words: list[str]) -> int:
    """In a process of its own, in the foreground: Ctrl-C is for it alone."""
    from cloudai.client import find_home
    from cloudai.client.start import environment

    sys.stdout.flush()
    # Not ignored: that would be the child's lot too.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with subprocess.Popen(  # noqa: S603 (our own interpreter, no shell)
            [sys.executable, "-P", "-m", "cloudai", *words],
            env=environment(find_home(os.environ)),
        ) as running:
            code = running.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    return 128 - code if code < 0 else code
