"""A TCP relay in front of a worker's sshd: slow, far away, cut after so many bytes, or mute."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

PIECE = 1024


class Relay:
    """``delay``: seconds each piece is on its way. ``rate``: bytes a second at the most, for each
    direction of a connection; 0: no limit. ``cut_after``: bytes from the worker after which the
    connection ends; 0: never. ``mute``: nothing passes, nothing is closed.
    """

    def __init__(self, host: str, port: int) -> None:
        self.delay = 0.0
        self.rate = 0
        self.cut_after = 0
        self.mute = False
        self.connections = 0
        """How many there were."""
        self.cuts = 0
        self._target = (host, port)
        self._open: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        # Closing alone does not wake the thread in accept.
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Ends every connection now."""
        for link in tuple(self._open):
            self._end(link)

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            try:
                far = socket.create_connection(self._target, timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self._open |= {near, far}
            for one, other, counted in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._copy, args=(one, other, counted), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                while self.mute:
                    time.sleep(0.02)
                if self.delay:
                    time.sleep(self.delay)
                if self.rate:
                    time.sleep(len(piece) / self.rate)
                sink.sendall(piece)
                passed += len(piece)
                if counted and self.cut_after and passed >= self.cut_after:
                    self.cuts += 1
                    break
        self._end(source)
        self._end(sink)

    def _end(self, link: socket.socket) -> None:
        self._open.discard(link)
        with contextlib.suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)
        link.close()
