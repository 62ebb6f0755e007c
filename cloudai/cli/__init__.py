"""The command line. One small file a group of commands, each loaded when it is used.

``cloudai --help`` and completion import click and the standard library only: anything heavier
is imported inside the command that needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """The executable ``cloudai``: runs one command, answers its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    from .argv import gives_values, hide_values

    if argv is None and gives_values(args):
        hide_values()
    try:
        from .entry import run

        return run(args)
    except KeyboardInterrupt:
        return 130
