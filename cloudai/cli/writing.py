"""Log bytes on stdout: as they are in a pipe, made safe on a terminal."""

from __future__ import annotations

import sys
from types import TracebackType

from .output import on_terminal, with_colours
from .terminal import LogCleaner


class LogWriter:
    """Writes chunks at once; on leaving, colours are reset."""

    def __init__(self) -> None:
        self._cleaner = LogCleaner(colours=with_colours()) if on_terminal() else None
        self._line_ended = True

    def __enter__(self) -> LogWriter:
        sys.stdout.flush()  # what was printed stands before what is written past it
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._cleaner is not None and not isinstance(error, BrokenPipeError):
            self._put(self._cleaner.close())

    def write(self, data: bytes) -> None:
        """Writes and flushes. Raises ``BrokenPipeError`` where the reader is gone."""
        if self._cleaner is None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            self._line_ended = data.endswith(b"\n")
        else:
            self._put(self._cleaner.feed(data))

    def finish_line(self) -> None:
        """Ends a line that was left open."""
        if not self._line_ended:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._line_ended = True

    def _put(self, text: str) -> None:
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()
            self._line_ended = text.removesuffix("\x1b[0m").endswith("\n")
