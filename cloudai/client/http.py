"""HTTP/1.1 over a connected socket: one request, one answer, as much of it as that takes.

The standard library's own client imports a mail parser and TLS, neither of which a UNIX socket
needs; without them a command takes a fifth less time.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from io import BufferedReader

PIECE = 65536
"""Bytes read at once, and in a line of a head at the most."""


class Cut(ConnectionError):
    """The answer ended before its end, or is none."""


class Response:
    """An answer whose body is still to come from ``reader``. Raises ``Cut`` where its head does
    not come whole."""

    def __init__(self, reader: BufferedReader) -> None:
        self._reader = reader
        version, _, rest = self._line().partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise Cut("that is no answer in HTTP")
        self.status = int(rest[:3])
        self.headers: dict[str, str] = {}
        """By their names in lower case."""
        while line := self._line():
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()

    def read(self) -> bytes:
        """The whole body. Raises ``Cut`` where it is not."""
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes. Raises ``Cut`` where it ends before its end."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := self._chunk_size():
                yield from self._exactly(size)
                self._line()
            while self._line():  # what may come after the last chunk says nothing to us
                pass
        elif "content-length" in self.headers:
            yield from self._exactly(int(self.headers["content-length"]))
        elif self.status not in (204, 304):
            while piece := self._reader.read1(PIECE):
                yield piece

    def _chunk_size(self) -> int:
        try:
            return int(self._line().partition(";")[0], 16)
        except ValueError:
            raise Cut("a chunk does not say its size") from None

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._reader.read1(min(size, PIECE))
            if not piece:
                raise Cut(f"{size} bytes are missing")
            size -= len(piece)
            yield piece

    def _line(self) -> str:
        line = self._reader.readline(PIECE)
        if not line.endswith(b"\n"):
            raise Cut("it ended in a line of its head")
        return line.rstrip(b"\r\n").decode("latin-1")


def send(
    link: socket.socket,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str],
    body: bytes | Iterator[bytes] | None,
) -> None:
    """Sends a request. ``target`` and ``headers`` are ASCII, percent-encoded by the caller. A
    ``body`` in pieces is sent in chunks, until the other end has heard enough."""
    sent = {"Host": "controller", "Connection": "close", **headers}
    if isinstance(body, bytes):
        sent["Content-Length"] = str(len(body))
    elif body is not None:
        sent["Transfer-Encoding"] = "chunked"
    head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    start = f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("ascii")
    if body is None or isinstance(body, bytes):
        link.sendall(start + (body or b""))
        return
    link.sendall(start)
    for piece in body:
        if piece and not _send_chunk(link, piece):
            return
    _send_chunk(link, b"")


def _send_chunk(link: socket.socket, piece: bytes) -> bool:
    """Whether it was taken: where it was not, an answer says why."""
    try:
        link.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True
