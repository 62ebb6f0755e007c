"""A crowd of workers in one process: SSH servers that answer as workers do.

Each has an address of its own on loopback, answers the probe with a real worker's answer, and
leads to an engine that lists, describes and sends no events. Nothing runs on it. Rows 8 and 9
use it, where real sshd and engines for a thousand workers would be all that is measured.

``python -m tests.bench.crowd FOLDER COUNT`` serves until its stdin ends; FOLDER holds the keys,
and ``tasks.json``: for each worker, the assignments that run there.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncssh

from .results import CHECKOUT
from .timing import BenchFailed

PORT = 2222
PROBE = CHECKOUT / "tests" / "data" / "probe" / "a100x4.txt"
NONCE = re.compile(rb"printf '\\n%s begin\\n' (\S+)")
STARTED = "2026-11-20T23:35:38Z"
ENGINE = "LZDA:VFLI:ZP4I:47KS:ENZ2:Y6Z6:M7LS:5RYF:TVCK:FVIX:O5DS:OCIN"
READY_WITHIN = 120.0


def address(number: int) -> str:
    """The loopback address of one worker, counted from 0."""
    return f"127.66.{number // 250}.{number % 250 + 1}"


def name(number: int) -> str:
    """Its name in the inventory."""
    return f"w{number:04d}"


@dataclass(frozen=True)
class Crowd:
    """So many of them, whose keys are in that folder."""

    folder: Path
    count: int

    def inventory(self) -> str:
        """All of them as cloudai's inventory."""
        key = self.folder / "user"
        lines = [f"defaults: {{user: root, identity_file: {key}, port: {PORT}}}", "workers:"]
        lines += [f"  {name(number)}: {{host: {address(number)}}}" for number in range(self.count)]
        return "\n".join(lines) + "\n"

    def known_hosts(self) -> str:
        """Their host key under each address."""
        kind, key, *_ = (self.folder / "host.pub").read_text().split()
        places = (f"[{address(number)}]:{PORT}" for number in range(self.count))
        return "".join(f"{place} {kind} {key}\n" for place in places)

    def make_keys(self) -> None:
        for which in ("host", "user"):
            key = asyncssh.generate_private_key("ssh-ed25519")
            key.write_private_key(self.folder / which)
            (self.folder / which).chmod(0o600)
            key.write_public_key(self.folder / f"{which}.pub")

    @contextmanager
    def serving(self, tasks: dict[str, list[dict[str, str]]]) -> Iterator[None]:
        """The crowd, up. ``tasks``: worker -> the assignments that run there, each with its
        ``assignment``, ``task`` and ``store``."""
        (self.folder / "tasks.json").write_text(json.dumps(tasks))
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self.folder), str(self.count)],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if process.stdout.readline() != b"ready\n":
                raise BenchFailed("the crowd of workers did not come up")
            yield
        finally:
            process.stdin.close()
            process.wait(30)


class Worker:
    """What one of them answers."""

    def __init__(self, number: int, tasks: Sequence[dict[str, str]]) -> None:
        text, container = _probe(number)
        self.engine = f"{number:04d}{ENGINE[4:]}"
        self.documents = {one["assignment"]: _document(container, one) for one in tasks}
        told = {key: json.dumps(value) for key, value in self.documents.items()}
        ids = [str(document["Id"]) for document in self.documents.values()]
        self.described = {key: each.encode() for key, each in told.items()}
        self.described |= {
            str(self.documents[key]["Id"]): each for key, each in self.described.items()
        }
        listed = [{"Id": one, "State": "running"} for one in ids]
        self.listed = json.dumps(listed).encode()
        lines = [f"ids {one}" for one in ids] + ["ids status 0"]
        lines += [f"container {one}" for one in told.values()] + ["container status 0"]
        self._probe = text.replace(ENGINE, self.engine) + "\n".join(lines) + "\n"

    def reply(self, script: bytes) -> bytes:
        """The framed answer to one script; only the probe is known here."""
        found = NONCE.search(script)
        if found is None:
            return b""
        nonce = found[1].decode()
        now = f"fact clock {time.time():.9f}\n"
        body = f"{self._probe}{now}\n{nonce} status 0"
        head = f"\n{nonce} begin\n\n{nonce} reply {len(body.encode())}\n"
        return f"{head}{body}\n{nonce} end\n".encode()

    async def engine_connection(
        self, reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]
    ) -> None:
        """Its engine's API, as far as a watch needs it."""
        pending = b""
        while chunk := await reader.read(65536):
            pending += chunk
            while b"\r\n\r\n" in pending:
                head, _, pending = pending.partition(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                writer.write(self._answer(path))
        writer.close()

    def _answer(self, path: str) -> bytes:
        path = re.sub(r"^/v[0-9.]+", "", path.partition("?")[0])
        if path == "/events":
            return (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
        body, kind, status = b"OK", "text/plain", "200 OK"
        if path != "/_ping":
            kind = "application/json"
            named = re.fullmatch(r"/containers/([^/]+)/json", path)
            if path == "/containers/json":
                body = self.listed
            elif named is not None and named[1] in self.described:
                body = self.described[named[1]]
            else:
                status, body = "404 Not Found", b'{"message":"No such container"}'
        head = (
            f"HTTP/1.1 {status}\r\nApi-Version: 1.41\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def _probe(number: int) -> tuple[str, dict[str, Any]]:
    """A real worker's answer without its containers and clock, and a container of it."""
    kept, container = [], {}
    for line in PROBE.read_text().splitlines():
        if line.startswith("container {"):
            container = json.loads(line.removeprefix("container "))
        elif not line.startswith(("container ", "ids ", "fact clock", "fact machine_id")):
            kept.append(line)
    kept.append(f"fact machine_id {number:032x}")
    return "\n".join(kept) + "\n", container


def _document(container: dict[str, Any], task: dict[str, str]) -> dict[str, Any]:
    labels = {
        **container["Config"]["Labels"],
        "cloudai.assignment": task["assignment"],
        "cloudai.task": task["task"],
        "cloudai.store": task["store"],
        "cloudai.cpu_milli": "1000",
        "cloudai.memory": str(2**30),
        "cloudai.storage": str(2**30),
        "cloudai.gpu_milli": "0",
        "cloudai.gpus": "",
    }
    return {
        **container,
        "Id": container_id(task["assignment"]),
        "Name": f"/{task['assignment']}",
        "Config": {**container["Config"], "Labels": labels},
        "State": {**container["State"], "StartedAt": STARTED},
    }


def container_id(assignment: str) -> str:
    """What its container is called by the engine."""
    return sha256(assignment.encode()).hexdigest()


class _Server(asyncssh.SSHServer):
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def unix_connection_requested(self, dest_path: str) -> Any:
        return self._worker.engine_connection


async def _process(worker: Worker, process: asyncssh.SSHServerProcess[bytes]) -> None:
    script = b""
    # The whole script has come with the brace that closes it.
    while not script.endswith(b"\n}\n") and (chunk := await process.stdin.read(65536)):
        script += chunk
    process.stdout.write(worker.reply(script))
    process.exit(0)


async def _serve(folder: Path, count: int) -> None:
    tasks = json.loads((folder / "tasks.json").read_text())
    options = asyncssh.SSHServerConnectionOptions(
        server_host_keys=[folder / "host"],
        authorized_client_keys=str(folder / "user.pub"),
        encoding=None,
        allow_scp=False,
        login_timeout=READY_WITHIN,
    )
    for number in range(count):
        worker = Worker(number, tasks.get(name(number), []))
        await asyncssh.listen(
            address(number),
            PORT,
            options=options,
            backlog=64,
            server_factory=lambda worker=worker: _Server(worker),
            process_factory=lambda process, worker=worker: _process(worker, process),
        )
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
