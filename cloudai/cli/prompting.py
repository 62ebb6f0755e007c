"""The prompt of ``shell``: editing, history, completion. The only home of prompt_toolkit."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from click.shell_completion import CompletionItem, ShellComplete, split_arg_string
from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import History
from prompt_toolkit.input.typeahead import clear_typeahead
from prompt_toolkit.output import ColorDepth

from .entry import cli
from .output import with_colours
from .terminal import clean

NAME = "master"
"""As in the seeds."""
MOST_LINES = 10_000
"""Of the history: when it has twice as many, the older half goes."""


class Prompt:
    """Asks for lines, at the terminal."""

    def __init__(self, history: Path) -> None:
        """``history``: the file in which lines are kept."""
        self._modes = termios.tcgetattr(0)
        self._session: PromptSession[str] = PromptSession(
            history=PrivateHistory(history),
            completer=Commands(),
            complete_while_typing=False,
            auto_suggest=AutoSuggestFromHistory() if with_colours() else None,
            color_depth=None if with_colours() else ColorDepth.DEPTH_1_BIT,
        )

    def ask(self, code: int) -> str:
        """A line, or several that were pasted. ``code``: of the last command. Raises
        ``KeyboardInterrupt`` at Ctrl-C and ``EOFError`` at Ctrl-D."""
        # Whatever a command that was killed left the terminal in.
        with suppress(termios.error):
            termios.tcsetattr(0, termios.TCSADRAIN, self._modes)
        failed = [("ansired", f" [{code}]")] if code else []
        return self._session.prompt(FormattedText([("", NAME), *failed, ("", "> ")]))

    def forget_typed(self) -> None:
        """Drops what was typed before this prompt listened: it was meant for the command."""
        clear_typeahead(self._session.input)


class PrivateHistory(History):
    """Lines in a 0600 file, one a line; those that begin with a space are kept nowhere."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def load_history_strings(self) -> Iterable[str]:
        """The newest first."""
        try:
            lines = self._path.read_text("utf-8", "replace").splitlines()
        except OSError:
            return []
        if len(lines) > 2 * MOST_LINES:
            lines = lines[-MOST_LINES:]
            self._write(lines, os.O_TRUNC)
        return reversed(lines)

    def append_string(self, string: str) -> None:
        """Keeps each line, but for one that begins with a space or is the last one again."""
        for line in string.splitlines():
            if line.strip() and not line[0].isspace() and line != self._last():
                super().append_string(line)

    def store_string(self, string: str) -> None:
        self._write([string], os.O_APPEND)

    def _last(self) -> str | None:
        known = self.get_strings()
        return known[-1] if known else None

    def _write(self, lines: list[str], how: int) -> None:
        """Without a history the prompt is as good: a full disk is no reason to end it."""
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | how, 0o600)
            with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
                os.fchmod(descriptor, 0o600)
                file.writelines(f"{line}\n" for line in lines)


class Commands(Completer):
    """What click would complete in a system's shell, and the shell's own words."""

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        before = document.text_before_cursor
        words = split_arg_string(before)
        incomplete = words.pop() if words and not before[-1:].isspace() else ""
        if not before.endswith(incomplete):
            return  # a quoted word: what stands there is not what it means
        for item in complete(words, incomplete):
            yield Completion(
                item.value, start_position=-len(incomplete), display_meta=clean(item.help or "")
            )


def complete(words: list[str], incomplete: str) -> list[CompletionItem]:
    """How the last word may go on, after ``words``."""
    if words[:1] == ["cloudai"]:
        words = words[1:]
    own = [("help", "List the commands, or tell about one."), ("exit", "Leave.")]
    found = [
        CompletionItem(name, help=does)
        for name, does in own
        if not words and name.startswith(incomplete)
    ]
    if words == ["help"]:
        words = []
    try:
        found += ShellComplete(cli, {}, "cloudai", "").get_completions(words, incomplete)
    except Exception:  # half a line may mean nothing; that is told once it is whole
        return found
    return [item for item in found if item.type == "plain" and isinstance(item.value, str)]
