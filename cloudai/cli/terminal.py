"""The one place where text that others wrote is made safe to show.

Names, reasons and log bytes come from containers, workers and other people. On a terminal
they must not move the cursor, retitle the window, write to the clipboard or turn the text
around; what stays is text, line ends, tabs and colours.
"""

from __future__ import annotations

import codecs
import re

from cloudai.plain import plain as _safe

_SPACES = re.compile(r"\s+")


def clean(text: object) -> str:
    """Foreign text as one line: no controls, no line ends, nothing that turns it around."""
    return _SPACES.sub(" ", _safe(str(text))).strip()


def clean_block(text: object) -> str:
    """Foreign text with its line ends and tabs kept."""
    return _safe(str(text).replace("\r\n", "\n"))


class LogCleaner:
    """Makes a stream of log bytes safe for a terminal, chunk by chunk.

    Colours (SGR) pass; every other escape sequence goes whole. A lone carriage return, as
    progress bars write it, starts the line over; so only the line a job is on can change.
    """

    def __init__(self, *, colours: bool = True) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._colours = colours
        self._coloured = False
        self._held = ""
        """An escape sequence that is not whole yet, or a carriage return with nothing after."""

    def feed(self, data: bytes) -> str:
        """What to write for the next bytes; a sequence cut by the chunk's end waits."""
        return self._text(self._decoder.decode(data))

    def close(self) -> str:
        """What to write at the end: colours are reset."""
        rest = self._text(self._decoder.decode(b"", final=True)) + _safe(self._held)
        self._held = ""
        return rest + ("\x1b[0m" if self._coloured else "")

    def _text(self, text: str) -> str:
        text = self._held + text
        self._held = ""
        out: list[str] = []
        at = 0
        while mark := _MARK.search(text, at):
            out.append(_safe(text[at : mark.start()]))
            end = self._sequence(text, mark.start(), out)
            if end is None:
                self._held = text[mark.start() :]
                return "".join(out)
            at = end
        out.append(_safe(text[at:]))
        return "".join(out)

    def _sequence(self, text: str, start: int, out: list[str]) -> int | None:
        """Deals with what starts at ``start``; where it ends, ``None`` while it is not whole."""
        if text[start] == "\r":
            return _carriage_return(text, start, out)
        for whole, partial in _SEQUENCES:
            if found := whole.match(text, start):
                if self._colours and (colour := _SGR.fullmatch(found.group())):
                    out.append(f"\x1b[{colour.group(1)}m")
                    self._coloured = True
                return found.end()
            if (found := partial.match(text, start)) and found.end() == len(text):
                return None
        return start + 1


def _carriage_return(text: str, start: int, out: list[str]) -> int | None:
    if start + 1 == len(text):
        return None
    if text[start + 1] not in "\r\n":
        out.append("\r\x1b[K")
    return start + 1


_MARK = re.compile("[\x1b\x9b\x90\x98\x9d-\x9f\r]")
_SGR = re.compile("(?:\x1b\\[|\x9b)([0-9;:]*)m")
_CONTROL = "(?:\x1b\\[|\x9b)[0-?]{0,64}[ -/]{0,8}"
_STRING = "(?:\x1b[PX\\]^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]{0,256}"
_SHORT = "\x1b[ -/]{0,8}"
_SEQUENCES = [
    # (a whole sequence, the beginning of one). Longer ones are taken for none: their text
    # shows, and nobody hides a log behind a sequence that never ends.
    (re.compile(_CONTROL + "[@-~]"), re.compile(_CONTROL)),
    (
        # Titles, links, clipboard, device control; they end with the line at the latest.
        re.compile(_STRING + "(?:\x07|\x9c|\x1b\\\\|(?=\n))"),
        re.compile(_STRING + "\x1b?"),
    ),
    (re.compile(_SHORT + "[0-OQ-WYZ`-~\\\\]"), re.compile(_SHORT)),
]
