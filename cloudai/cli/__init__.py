"""The command line. One small file a group of commands, each loaded when it is used.

``cloudai --help`` and completion import click and the standard library only: anything heavier
is imported inside the command that needs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """The executable ``cloudai``: runs one command, answers its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    _open_streams()
    from .argv import gives_values, hide_values

    if argv is None and gives_values(args):
        hide_values()
    try:
        from .entry import run

        return run(args)
    except KeyboardInterrupt:
        return 130


def _open_streams() -> None:
    """A stream that whoever called us had closed (``>&-``) leads nowhere: else the next file or
    socket would take its place, and be written to."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # The lowest number that is free is the one that was closed.
            stream = open(os.devnull, "w" if number else "r", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)
