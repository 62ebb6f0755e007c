"""A process of its own that reads one stream: ``local|ssh HOME SSH_FOLDER PORT SCRIPT``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from cloudai.core.model import WorkerSpec
from cloudai.shells import Shell
from cloudai.shells.local import LocalShell
from cloudai.shells.ssh import SshNetwork


async def read(kind: str, home: str, ssh_folder: str, port: str, script: str) -> None:
    network = SshNetwork(Path(home), ssh_folder=Path(ssh_folder))
    spec = WorkerSpec(id="w", host="127.0.0.1", port=int(port), user="root")
    shell: Shell = LocalShell() if kind == "local" else network.shell(spec)
    async with shell.stream(script) as chunks:
        async for chunk in chunks:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    asyncio.run(read(*sys.argv[1:]))
