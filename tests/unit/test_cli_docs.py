"""``docs/cli.md`` says what the commands say of themselves.

``python -m tests.unit.test_cli_docs`` writes its reference anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cloudai.cli.entry import COMMANDS, cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
MARK = "<!-- What follows is generated: python -m tests.unit.test_cli_docs -->\n"


def every_command() -> Iterator[tuple[str, click.Command]]:
    """All commands with the words that call them."""
    context = click.Context(cli, info_name="cloudai")
    for section in COMMANDS.values():
        for name in section:
            command = cli.get_command(context, name)
            assert command is not None
            yield f"cloudai {name}", command
            if isinstance(command, click.Group):
                for sub, child in command.commands.items():
                    yield f"cloudai {name} {sub}", child


def reference() -> str:
    """The generated part of the page."""
    parts = [MARK]
    for words, command in every_command():
        parts.append(f"\n## {words}\n\n```\n{usage(words, command)}\n```\n")
    return "".join(parts)


def usage(words: str, command: click.Command) -> str:
    context = click.Context(command, info_name=words, terminal_width=100, max_content_width=100)
    context.help_option_names = ["-h", "--help"]
    return command.get_help(context)


def test_the_page_is_what_the_commands_say() -> None:
    head, mark, rest = PAGE.read_text().partition(MARK)
    assert head.startswith("# ")
    assert mark + rest == reference(), "run: python -m tests.unit.test_cli_docs"


@pytest.mark.parametrize(("words", "command"), list(every_command()))
def test_every_command_and_every_option_has_help(words: str, command: click.Command) -> None:
    assert command.help
    assert re.match("[A-Z]", command.help), words
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help, f"{words} {option.opts[0]}"


def test_the_list_of_commands_says_what_they_say() -> None:
    names = {words.split()[1] for words, _ in every_command()}
    assert names == {name for section in COMMANDS.values() for name in section}
    for section in COMMANDS.values():
        for name, (_, does) in section.items():
            assert does.endswith("."), name
            assert len(does) <= 65, f"{name}: one line of 80 columns"


@pytest.mark.parametrize(("words", "command"), list(every_command()))
def test_every_command_takes_the_common_flags(words: str, command: click.Command) -> None:
    if isinstance(command, click.Group):
        return
    options = {name for one in command.params for name in one.opts}
    assert {"--json", "--quiet", "-q", "--inventory"} <= options


if __name__ == "__main__":
    kept = PAGE.read_text().partition(MARK)[0]
    PAGE.write_text(kept + reference())
