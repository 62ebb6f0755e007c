"""A real sshd on loopback for one test, with a home, keys and settings of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cloudai.core.model import WorkerSpec
from cloudai.shells.ssh import SshNetwork
from cloudai.shells.ssh_connect import Timeouts

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "/usr/sbin/sshd"


@dataclass
class Sshd:
    """Started by ``start``; ``settings`` are lines of sshd_config."""

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    host_key_types: tuple[str, ...] = ("ed25519",)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def authorized_keys(self) -> Path:
        return self.folder / "authorized_keys"

    @property
    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def host_key(self, key_type: str = "ed25519") -> Path:
        return self.folder / f"host_{key_type}"

    def host_key_line(self, key_type: str = "ed25519", *, name: str = "") -> str:
        """Its line for a known_hosts file."""
        public = self.host_key(key_type).with_suffix(".pub").read_text().split()
        return f"{name or f'[127.0.0.1]:{self.port}'} {public[0]} {public[1]}\n"

    def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        for key_type in self.host_key_types:
            if not self.host_key(key_type).exists():
                make_key(self.host_key(key_type), key_type)
        self.port = self.port or free_port()
        Path("/run/sshd").mkdir(exist_ok=True)
        config = self.folder / "sshd_config"
        config.write_text("".join(f"{key} {value}\n" for key, value in self._config()))
        self.process = subprocess.Popen(
            [SSHD, "-D", "-f", str(config), "-E", str(self.folder / "log")],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        until(lambda: answers(self.port), f"sshd does not start: {self.log}")

    def _config(self) -> Iterator[tuple[str, str]]:
        yield "ListenAddress", f"127.0.0.1:{self.port}"
        for key_type in self.host_key_types:
            yield "HostKey", str(self.host_key(key_type))
        defaults = {
            "PidFile": "none",
            "AuthorizedKeysFile": str(self.authorized_keys),
            "StrictModes": "no",
            "UsePAM": "no",
            "UseDNS": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "LogLevel": "VERBOSE",
            "SetEnv": f"HOME={self.home} PATH={os.environ['PATH']}",
        }
        yield from (defaults | dict(self.settings)).items()

    def stop(self) -> None:
        """Ends the listener and every connection it holds, at once."""
        if self.process is None:
            return
        children = descendants(self.process.pid)
        self.process.kill()
        self.process.wait()
        for pid in children:
            with_pid(pid, signal.SIGKILL)
        self.process = None

    def connections(self) -> list[int]:
        """Process ids of its open connections: children of the listener, and theirs."""
        assert self.process is not None
        return descendants(self.process.pid)

    def drop_connections(self) -> None:
        """Every connection dies, the listener stays."""
        for pid in self.connections():
            with_pid(pid, signal.SIGKILL)


class Lab:
    """A laptop's ssh folder and home, and the sshd of its workers; all ended by ``close``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ssh = folder / "dot-ssh"
        self.ssh.mkdir(mode=0o700)
        self.home = folder / "cloudai"
        self.key = self.ssh / "id_ed25519"
        make_key(self.key)
        self.known_hosts = self.ssh / "known_hosts"
        self.config = self.ssh / "config"
        self.servers: list[Sshd] = []
        self.networks: list[SshNetwork] = []

    def sshd(
        self, *, known: bool = True, host_key_types: tuple[str, ...] = ("ed25519",), **settings: str
    ) -> Sshd:
        """A running one that lets our key in, its host key known (or not)."""
        folder = self.folder / f"sshd{len(self.servers)}"
        server = Sshd(folder, settings, host_key_types)
        folder.mkdir()
        server.authorized_keys.write_text(self.key.with_suffix(".pub").read_text())
        self.servers.append(server)
        server.start()
        if known:
            self.know(server.host_key_line(host_key_types[0]))
        return server

    def know(self, line: str) -> None:
        with self.known_hosts.open("a") as file:
            file.write(line)

    def network(self, **timeouts: float) -> SshNetwork:
        made = SshNetwork(
            self.home,
            ssh_folder=self.ssh,
            system_known_hosts=self.folder / "no-system-known-hosts",
            timeouts=Timeouts(**timeouts),
        )
        self.networks.append(made)
        return made

    def spec(self, server: Sshd, **more: object) -> WorkerSpec:
        values: dict[str, object] = {
            "id": "worker-1",
            "host": "127.0.0.1",
            "port": server.port,
            "user": "root",
        }
        return WorkerSpec(**(values | more))  # type: ignore[arg-type]

    async def close(self) -> None:
        for network in self.networks:
            await network.close()
        for server in self.servers:
            server.stop()


def make_key(path: Path, key_type: str = "ed25519", *, passphrase: str = "") -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", key_type, "-N", passphrase, "-C", path.name, "-f", path],
        check=True,
    )


@contextmanager
def agent(folder: Path) -> Iterator[Path]:
    """A real ssh-agent, empty; its socket."""
    path = folder / "agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        until(path.exists, "ssh-agent does not start")
        yield path
    finally:
        process.terminate()
        process.wait()


def add_to_agent(socket_path: Path, key: Path, passphrase: str) -> None:
    """As a person does with ``ssh-add``."""
    ask = key.parent / "askpass"
    ask.write_text(f"#!/bin/sh\necho {passphrase}\n")
    ask.chmod(0o700)
    subprocess.run(
        ["ssh-add", key],
        env=os.environ
        | {
            "SSH_AUTH_SOCK": str(socket_path),
            "SSH_ASKPASS": str(ask),
            "SSH_ASKPASS_REQUIRE": "force",
        },
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )


def until(condition: Callable[[], object], otherwise: str, *, seconds: float = 10) -> None:
    """Polls until it holds; fails with that text."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(otherwise)
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
            return link.recv(4) == b"SSH-"
    except OSError:
        return False


def descendants(pid: int) -> list[int]:
    """All living children of a process, and theirs, from /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    wanted = [pid]
    while wanted:
        next_ones = children.get(wanted.pop(), [])
        found += next_ones
        wanted += next_ones
    return found


def with_pid(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def alive(mark: str) -> list[int]:
    """Processes whose command line holds that mark as one of its words."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if mark.encode() in words:
                found.append(int(entry.name))
    return found
