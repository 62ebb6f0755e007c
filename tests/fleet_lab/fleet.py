"""The fleet as a whole: up, down, its inventory. Its state is a folder, so that any process may
take it over from any other, also from one that was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from . import network
from .processes import FleetError, members
from .worker import Worker, check_machine, make_key, remove_tree, sweep

LONGEST_ROOT = 60
"""Characters: a UNIX socket's path has 107, and engines put theirs deep."""

DEFAULT_WORKERS = 3
DEFAULT_GPU_WORKERS = (3,)


class Fleet:
    """Several real workers below one folder.

    ``workers``: how many; ``gpus``: the numbers of those with stand-in GPUs; ``bridge``: give
    the engines a bridge network (slower starts, as on real workers) instead of none;
    ``base_port``: the first to try. They count only when the folder holds no fleet yet.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        workers: int = DEFAULT_WORKERS,
        gpus: Sequence[int] = DEFAULT_GPU_WORKERS,
        bridge: bool = False,
        base_port: int | None = None,
    ) -> None:
        self.root = Path(root).resolve()
        if len(str(self.root)) > LONGEST_ROOT:
            raise FleetError(
                f"the fleet's folder {self.root} has too long a path for UNIX sockets: "
                f"at most {LONGEST_ROOT} characters"
            )
        self.workers: list[Worker] = []
        self._plan = [(index, index in gpus) for index in range(1, workers + 1)]
        self._bridge = bridge
        self._first_port = base_port
        self._base = 0
        self._mark = _mark(self.root)
        self._load()

    # -------------------------------------------------------------- state on disk

    @property
    def _state_file(self) -> Path:
        return self.root / "fleet.json"

    def _load(self) -> None:
        try:
            state = json.loads(self._state_file.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return
        self._base, self._bridge = state["base"], state["bridge"]
        self.workers = [self._worker(index, gpus=gpus) for index, gpus in state["workers"]]

    def _save(self) -> None:
        workers = [(worker.index, worker.gpus is not None) for worker in self.workers]
        state = {"base": self._base, "bridge": self._bridge, "workers": workers}
        self._state_file.write_text(json.dumps(state))
        lines = [worker.known_hosts_line for worker in self.workers]
        (self.root / "known_hosts").write_text("".join(f"{line}\n" for line in lines))

    def _worker(self, index: int, *, gpus: bool) -> Worker:
        port = self._base + index
        worker = Worker(self.root, index=index, port=port, mark=self._mark, gpus=gpus)
        worker.bridge = self._bridge
        return worker

    # -------------------------------------------------------------- up and down

    def up(self) -> Fleet:
        """Brings up what is not up, mends what is broken, and clears what a killed run left.

        Raises ``FleetError`` saying exactly what does not start and why.
        """
        check_machine()
        self.root.mkdir(parents=True, exist_ok=True, mode=0o755)
        if not self.workers or not all(worker.keeper.pid for worker in self.workers):
            self._clear()
        if not self.workers:
            indices = [index for index, _ in self._plan]
            self._base = network.choose_base(
                self.root, first=self._first_port, workers=max(indices, default=1)
            )
            self.workers = [self._worker(index, gpus=gpus) for index, gpus in self._plan]
        self._bring_up(self.workers)
        return self

    def _bring_up(self, workers: Sequence[Worker]) -> None:
        if not (self.root / "id_ed25519").exists():
            make_key(self.root / "id_ed25519", "practice fleet")

        def start(worker: Worker) -> None:
            worker.prepare()
            worker.mend()
            worker.load_image()

        self._each(start, workers)
        self._save()

    def _clear(self) -> None:
        """Sweeps away all that an earlier fleet at this path left, whatever remains of it."""
        sweep(self._mark)
        for folder in self.root.glob("w[0-9]*"):
            remove_tree(folder)

    def down(self) -> None:
        """Takes it down; nothing of it is left: no process, mount, namespace, rule, file."""
        if not self.root.exists() and not members(self._mark):
            return
        self._clear()
        for name in ("fleet.json", "known_hosts", "id_ed25519", "id_ed25519.pub"):
            (self.root / name).unlink(missing_ok=True)
        self.workers = []
        with contextlib.suppress(OSError):
            self.root.rmdir()  # unless somebody else keeps something there

    @staticmethod
    def _each(action: Callable[[Worker], None], workers: Sequence[Worker]) -> None:
        with ThreadPoolExecutor(max(1, len(workers))) as pool:
            list(pool.map(action, workers))

    def __enter__(self) -> Fleet:
        return self.up()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    # -------------------------------------------------------------- its workers

    def __getitem__(self, name: str | int) -> Worker:
        """By name (``worker-1``) or number. Raises ``FleetError`` for one that it has not."""
        for worker in self.workers:
            if str(name) in (worker.name, str(worker.index)):
                return worker
        names = ", ".join(worker.name for worker in self.workers) or "none; `up` makes some"
        raise FleetError(f"no worker {name!r} in this fleet; there are: {names}")

    @property
    def gpu_worker(self) -> Worker:
        """The first with stand-in GPUs."""
        for worker in self.workers:
            if worker.gpus:
                return worker
        raise FleetError("no worker of this fleet has stand-in GPUs")

    def add(self, *, gpus: bool = False) -> Worker:
        """Adds a worker and brings it up."""
        index = max((worker.index for worker in self.workers), default=0) + 1
        worker = self._worker(index, gpus=gpus)
        self._bring_up([worker])
        self.workers.append(worker)
        self._save()
        return worker

    def remove(self, name: str | int) -> None:
        """Takes one worker away for good."""
        worker = self[name]
        worker.sweep()
        self.workers.remove(worker)
        self._save()

    # -------------------------------------------------------------- for cloudai

    @property
    def identity_file(self) -> Path:
        return self.root / "id_ed25519"

    def known_hosts(self) -> str:
        """The true host keys, in known_hosts form."""
        return "".join(f"{worker.known_hosts_line}\n" for worker in self.workers)

    def inventory(self) -> str:
        """The fleet as cloudai's inventory, in YAML."""
        lines = [f"defaults: {{user: {Worker.user}, identity_file: {self.identity_file}}}"]
        lines.append("workers:")
        for worker in self.workers:
            lines.append(f"  {worker.name}: {{host: {worker.host}, port: {worker.port}}}")
        return "\n".join(lines) + "\n"


def _mark(root: Path) -> str:
    """How the marks of this fleet's processes, mounts and rules begin: the same for every run at
    this path, and another one in a container, where the same path is another folder.
    """
    try:
        here = os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux, and so no fleet either
        here = ""
    return f"cloudai-fleet-{zlib.crc32(f'{here}:{root}'.encode()):08x}-"


# ------------------------------------------------------------------ where it lives


def default_root(checkout: Path) -> Path:
    """Where a fleet for people lives: ``.fleet`` of the checkout, or a short place of its own
    where the checkout's path is too long for UNIX sockets.
    """
    root = checkout.resolve() / ".fleet"
    if len(str(root)) <= LONGEST_ROOT:
        return root
    token = zlib.crc32(str(root).encode())
    return Path(tempfile.gettempdir()) / f"cloudai-fleet-{os.getuid()}-{token:08x}"


@contextlib.contextmanager
def reserved_root(parent: Path | None = None) -> Iterator[Path]:
    """A root for one test run, free of what an earlier, killed run left there.

    The same few places are used again and again, each held by a lock that dies with its
    holder, so that leftovers are found by the next run instead of piling up.
    """
    parent = parent or Path("/tmp")
    for slot in range(16):
        folder = parent / f"cloudai-test-fleet-{os.getuid()}-{slot}"
        folder.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        try:
            Fleet(folder / "f").down()
            yield folder / "f"
        finally:
            remove_tree(folder)
            os.close(handle)
        return
    raise FleetError(f"too many test fleets at once below {parent}")
