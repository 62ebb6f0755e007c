"""What lies between a laptop and a worker: counted, and as slow as asked."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

PIECE = 64 * 1024


class Wire:
    """``rate``: bytes a second at the most, both ways together; 0: no limit."""

    def __init__(self, host: str, port: int, *, rate: int = 0) -> None:
        self.passed = 0
        """Bytes towards the worker so far."""
        self._rate, self._target = rate, (host, port)
        self._free_at = 0.0
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(self._target)
                for one, other in ((near, far), (far, near)):
                    words = (one, other, one is near)
                    threading.Thread(target=self._copy, args=words, daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, outward: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                self._wait(len(piece))
                sink.sendall(piece)
                if outward:
                    self.passed += len(piece)
        for link in (source, sink):
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def _wait(self, size: int) -> None:
        if not self._rate:
            return
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + size / self._rate
            until = self._free_at
        time.sleep(max(0.0, until - time.monotonic()))
