"""How an answer is shown: JSON, bare lines, or text and tables for people.

On a terminal tables are drawn by rich; piped they are plain columns that awk can cut: no
space inside a cell but in the last column. All foreign text passes ``terminal.clean``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from .terminal import clean, clean_block

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from cloudai.core.errors import CloudaiError

THICK, THIN = "═" * 55, "─" * 55


class Styled(NamedTuple):
    """A cell and its style on a terminal."""

    text: str
    style: str


Cell = str | Styled


class Column(NamedTuple):
    """A column of a table. ``flexible``: may be folded onto several lines on a terminal."""

    title: str
    right: bool = False
    flexible: bool = False


def say(text: object = "") -> None:
    """A line on stdout; line ends inside are kept."""
    print(clean_block(text))


def say_in(style: str, text: object) -> None:
    """A line on stdout, in a colour where colours are welcome."""
    if not style or not with_colours():
        say(text)
        return
    from rich.text import Text

    rich_console().print(Text(clean_block(text), style=style), soft_wrap=True)


def tell(text: object) -> None:
    """A line on stderr: for people, never part of the answer."""
    print(clean_block(text), file=sys.stderr)


def print_json(data: Any, *, line: bool = False) -> None:
    """A JSON document, in ASCII so that no terminal or encoding can harm it."""
    import json

    print(json.dumps(data, indent=None if line else 2))


def print_error(error: CloudaiError, *, as_json: bool, prefix: str = "") -> int:
    """Shows an error where it belongs; answers its exit code."""
    if as_json:
        print_json({"error": error.as_json()})
        return error.exit_code
    sys.stdout.flush()
    tell(f"❌ {prefix}{error.message}")
    for line in error.hint.splitlines():
        tell(f"   {line}")
    return error.exit_code


def on_terminal(stream: TextIO | None = None) -> bool:
    """Whether a person reads the stream (stdout) on a terminal."""
    try:
        return (stream or sys.stdout).isatty()
    except ValueError:
        return False


def columns() -> int:
    """The terminal's width; ``COLUMNS`` speaks first, 80 where nothing is known."""
    import shutil

    return shutil.get_terminal_size((80, 24)).columns


def with_colours() -> bool:
    """Whether colours are welcome on stdout."""
    return on_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_table(heads: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    """A table: drawn on a terminal, plain columns in a pipe."""
    if on_terminal():
        print_rich(rich_table(heads, rows))
        return
    for line in plain_table(heads, rows):
        print(line)


def plain_table(heads: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> list[str]:
    """Lines of aligned columns; only the last column's cells may hold spaces."""
    texts = [[head.title.replace(" ", "_") for head in heads]]
    for row in rows:
        cells = [clean(_text(cell)) or "-" for cell in row]
        texts.append([cell.replace(" ", "_") for cell in cells[:-1]] + cells[-1:])
    widths = [max(len(row[at]) for row in texts) for at in range(len(heads))]
    lines = []
    for row in texts:
        padded = [
            cell.rjust(width) if head.right else cell.ljust(width)
            for cell, width, head in zip(row, widths, heads, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def rich_table(heads: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> Table:
    """The table as rich draws it: ids stay whole, the flexible columns give way."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for at, head in enumerate(heads):
        widest = max([len(head.title), *(len(clean(_text(row[at]))) for row in rows)])
        table.add_column(
            Text(head.title),
            justify="right" if head.right else "left",
            no_wrap=not head.flexible,
            overflow="fold",
            min_width=min(widest, 8) if head.flexible else widest,
        )
    for row in rows:
        table.add_row(*(Text(clean(_text(cell)), style=_style(cell)) for cell in row))
    return table


def print_rich(renderable: RenderableType) -> None:
    """Draws on the terminal, with colours where they are welcome."""
    rich_console().print(renderable)


def rich_console() -> Console:
    """The terminal as rich sees it: foreign text is no markup, and no colours means none."""
    from rich.console import Console

    return Console(
        color_system="auto" if with_colours() else None, highlight=False, markup=False, emoji=False
    )


def _text(cell: Cell) -> str:
    return cell.text if isinstance(cell, Styled) else cell


def _style(cell: Cell) -> str:
    return cell.style if isinstance(cell, Styled) else ""


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Names and values, one a line, folded under themselves on a terminal; ``None``: left out."""
    width = max((len(name) for name, _ in fields), default=0) + 2
    for name, value in fields:
        if value is not None and value != "":
            say(folded(name.ljust(width), value))


def folded(head: str, text: object) -> str:
    """The text after its head; on a terminal folded between words, under itself."""
    import textwrap

    whole = clean(text)
    room = max(20, columns() - len(head))
    lines = textwrap.wrap(whole, room, break_on_hyphens=False) if on_terminal() else [whole]
    return f"\n{' ' * len(head)}".join([head + "".join(lines[:1]), *lines[1:]])


class StatusLine:
    """One line on stderr that is written over while something takes its time.

    Shown only where a person looks at a terminal, and gone afterwards.
    """

    def __init__(self, *, shown: bool = True) -> None:
        self._shown = shown and on_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"
        self._text = ""

    def show(self, text: str) -> None:
        line = f"⏳ {clean(text)}"[: max(10, columns() - 3)]
        if self._shown and line != self._text:
            self._text = line
            sys.stdout.flush()
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()

    def clear(self) -> None:
        if self._text:
            self._text = ""
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
