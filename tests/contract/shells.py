"""The shells that the contracts are run over, by name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cloudai.core.model import WorkerSpec
from cloudai.shells import Shell
from cloudai.shells.local import LocalShell
from cloudai.shells.ssh import SshNetwork
from tests.fleet_lab import Worker


@asynccontextmanager
async def opened_shell(kind: str, worker: Worker, folder: Path) -> AsyncIterator[Shell]:
    """``local``: this machine's; ``ssh``: that worker's. ``folder`` is for its own files."""
    if kind == "local":
        here = LocalShell()
        try:
            yield here
        finally:
            await here.close()
        return
    home, ssh_folder = folder / "home", folder / "ssh"
    for path in (home, ssh_folder):
        path.mkdir(mode=0o700, exist_ok=True)
    (ssh_folder / "known_hosts").write_text(f"{worker.known_hosts_line}\n")
    network = SshNetwork(home, ssh_folder=ssh_folder, system_known_hosts=folder / "none")
    spec = WorkerSpec(
        id=worker.name,
        host=worker.host,
        port=worker.port,
        user=worker.user,
        identity_file=str(worker.identity_file),
    )
    there = network.shell(spec)
    try:
        yield there
    finally:
        await there.close()
        await network.close()
