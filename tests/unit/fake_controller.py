"""A program that stands in for ``cloudai controller run --background`` when a client starts it.

``fake_controller.py BEHAVIOUR --ready-fd N``; the home is in ``CLOUDAI_HOME``. Each start
leaves a line in ``starts``.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
from pathlib import Path

from tests.unit.stub_controller import Reply, StubController


def main() -> int:
    behaviour, fd = sys.argv[1], int(sys.argv[-1])
    home = Path(os.environ["CLOUDAI_HOME"])
    with (home / "starts").open("a") as starts:
        starts.write(f"{os.getpid()} {os.getcwd()}\n")
    match behaviour:
        case "die":
            print("a first line")
            print("the disk is on fire", file=sys.stderr)
            return 3
        case "refuse":
            error = {"code": "store_too_new", "message": "A newer cloudai wrote this database"}
            os.write(fd, json.dumps({"error": {**error, "hint": "upgrade"}}).encode() + b"\n")
            return 1
        case "leaving" if len((home / "starts").read_text().splitlines()) < 3:
            os.write(fd, b'{"ready": true}\n')
            return 0
        case "hang":
            threading.Event().wait()
    return serve(home, fd)


def serve(home: Path, fd: int) -> int:
    lock = os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # Another was faster: wait until it is up, as the real one does.
        while not (home / "up").exists():
            pass
        os.write(fd, b'{"ready": true}\n')
        return 0
    left = threading.Event()

    def leave(_: object) -> Reply:
        left.set()
        return Reply({"stopping": True})

    (home / "controller.sock").unlink(missing_ok=True)
    with StubController(home) as stub:
        stub.on("GET /health", {"status": "ok", "pid": os.getpid()})
        stub.on("POST /controller/stop", leave)
        (home / "up").touch()
        os.write(fd, b'{"ready": true}\n')
        os.close(fd)
        left.wait()
        (home / "controller.sock").unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
