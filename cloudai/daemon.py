"""The controller as a process: one a home by ``flock``, its socket, its log, its leaving."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import json
import logging
import logging.handlers
import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from cloudai import __version__
from cloudai.api.app import make_app
from cloudai.api.doors import Doors
from cloudai.controller.desk import Desk
from cloudai.controller.embedded import EmbeddedWorker
from cloudai.controller.local_images import LocalImages
from cloudai.controller.loop import Controller
from cloudai.core.errors import CloudaiError, Conflict, StoreFailed
from cloudai.core.model import WorkerSpec
from cloudai.engines import Engine
from cloudai.engines.docker import DockerEngine
from cloudai.inventory import InventoryFile
from cloudai.service import Service, log_limit
from cloudai.shells import Shell
from cloudai.shells.local import LocalShell
from cloudai.shells.ssh import SshNetwork

log = logging.getLogger("cloudai")

LEAVE_WITHIN = 25
"""Seconds for what is being changed when it leaves: a batch is stored whole. What only reads, or
waits for a task, is sent away at once."""
LOOKED_FOR_GARBAGE = (50_000, 20, 20)
"""How many objects are made before those of each age are looked through for garbage. With Python's
own 700 a sixth of the time of a large batch went into that: what a controller holds stays long."""
LONGEST_SOCKET_PATH = 103
"""Bytes: the least of the systems (macOS)."""


def run(
    home: Path,
    inventory: Path,
    *,
    background: bool,
    ready_fd: int | None = None,
    idle_exit: float | None = None,
) -> int:
    """Runs the controller of ``home`` until it is told to leave; the process's exit code.

    ``background``: log to the file only. ``ready_fd`` gets one JSON line, ``{"ready": true}``
    (also when another controller of this home runs already) or ``{"error": …}``.
    ``idle_exit``: seconds of quiet after which it leaves by itself.
    """
    ready = _Ready(ready_fd)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _only_one(home):
            _log_to(home / "controller.log", background)
            gc.set_threshold(*LOOKED_FOR_GARBAGE)
            asyncio.run(_serve(home, inventory, ready, idle_exit))
    except _RunsAlready as other:
        if background:
            ready.tell({"ready": True})
            return 0
        print(f"❌ {other.message}", file=sys.stderr)
        return other.exit_code
    except CloudaiError as error:
        log.error("%s", error)
        ready.tell({"error": error.as_json()})
        if not background:
            print(f"❌ {error.message}\n   {error.hint}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        failed = StoreFailed(f"cannot use {home}: {error.strerror}", hint="set CLOUDAI_HOME")
        ready.tell({"error": failed.as_json()})
        if not background:
            print(f"❌ {failed.message}", file=sys.stderr)
        return failed.exit_code
    return 0


class _RunsAlready(Conflict):
    """Another controller has this home."""


class _Ready:
    """Tells whoever started us, once."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def tell(self, news: dict[str, object]) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, json.dumps(news).encode() + b"\n")
            os.close(self._descriptor)
            self._descriptor = None


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Holds the home's lock; the kernel drops it however the process ends."""
    descriptor = os.open(home / "controller.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _RunsAlready(f"a controller of {home} runs already") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _log_to(path: Path, background: bool) -> None:
    """A line an event, 0600, at most 4 x 10 MB. Never a value of an environment variable."""
    old = os.umask(0o077)
    try:
        handlers: list[logging.Handler] = [
            logging.handlers.RotatingFileHandler(path, maxBytes=10_000_000, backupCount=3)
        ]
    finally:
        os.umask(old)
    if not background:
        handlers.append(logging.StreamHandler(sys.stderr))
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=handlers,
        force=True,
    )
    for chatty in ("asyncssh", "alembic", "uvicorn", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


async def _serve(home: Path, inventory: Path, ready: _Ready, idle_exit: float | None) -> None:
    listening = _bind(home / "controller.sock")
    service = Service(home, log_limit=log_limit(os.environ))
    network = SshNetwork(home)

    def connect(spec: WorkerSpec) -> Engine:
        shell: Shell = LocalShell() if spec.connection == "local" else network.shell(spec)
        return DockerEngine(spec, shell)

    try:
        await service.open()
        file = InventoryFile(inventory, home=home)
        controller = Controller(
            service, file, connect, embedded=EmbeddedWorker(), images=LocalImages()
        )
        await controller.begin()
        doors = Doors(controller, home, idle_exit=idle_exit)
        app = make_app(Desk(controller, network), doors)
        log.info(
            "controller %s of %s, pid %d, inventory %s", __version__, home, os.getpid(), file.path
        )
        server = _Server(
            doors,
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="websockets-sansio",
                timeout_graceful_shutdown=LEAVE_WITHIN,
            ),
        )
        loop = asyncio.create_task(controller.run(), name="controller")
        serving = asyncio.create_task(server.serve(sockets=[listening]), name="api")
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, doors.leave.set)
        ready.tell({"ready": True})
        await _until_leaving(doors, loop, serving)
        server.should_exit = True
        await serving
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        log.info("controller leaves; tasks on workers go on")
    finally:
        await network.close()
        await service.close()
        listening.close()
        with contextlib.suppress(FileNotFoundError):
            (home / "controller.sock").unlink()


class _Server(uvicorn.Server):
    """uvicorn without its own ideas about signals: leaving is the doors' business."""

    def __init__(self, doors: Doors, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._doors = doors

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        self._doors.let_go()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _until_leaving(
    doors: Doors,
    loop: asyncio.Task[None],
    serving: asyncio.Task[None],
) -> None:
    """Returns when it is time to leave; raises what ended the loop or the API."""
    leave = asyncio.ensure_future(doors.leave.wait())
    while True:
        done, _ = await asyncio.wait(
            {leave, loop, serving}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED
        )
        if loop in done or serving in done:
            leave.cancel()
            for ended in (loop, serving):
                if ended in done:
                    ended.result()
            return
        if leave in done:
            return
        if doors.idle_exit is not None and doors.quiet_for() > doors.idle_exit:
            log.info("nothing queued or running, and nobody asked for %.0f s", doors.idle_exit)
            leave.cancel()
            return


def _bind(path: Path) -> socket.socket:
    """The home's socket, 0600. Whatever a killed controller left there is ours to remove: we
    hold the home's lock. Raises ``StoreFailed``."""
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise StoreFailed(
            f"{path} is too long for a UNIX socket ({LONGEST_SOCKET_PATH} bytes at most)",
            hint="set CLOUDAI_HOME to a shorter path",
        )
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(old)
    listening.listen(128)
    return listening
