"""One worker of the practice fleet: a folder, a pair of namespaces, an sshd, a dockerd."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import docker

from . import image, network
from .gpus import StandIn
from .processes import Daemon, FleetError, end, end_members, members, remove_cgroups

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The keeper holds the worker's namespaces, so that its engine can die and come back as on a
# real machine. Whoever sees the mark among its mounts belongs to this worker; it is not in the
# worker's folder, for it must outlast that where somebody removes the folder by hand.
KEEPER = """
set -e
ip link set lo up
mkdir -p /run/sshd /run/containerd /etc/docker
mount -t tmpfs -o size=16k,mode=755 "$1" /run/sshd
mount --bind "$2/etc" /etc/docker
mount --bind "$2/containerd" /run/containerd
if [ -e "$2/shadow" ]; then mount --bind "$2/shadow" /etc/shadow; fi
: >"$2/ready"
exec sleep infinity
"""

SSHD_DEFAULTS = {
    "StrictModes": "no",
    "UsePAM": "no",
    "UseDNS": "no",
    "PermitRootLogin": "prohibit-password",
    "PasswordAuthentication": "no",
    "KbdInteractiveAuthentication": "no",
    "PrintMotd": "no",
    "MaxSessions": "10",
    "Subsystem": "sftp internal-sftp",
    "PidFile": "none",
}

PARTS = ("sshd", "dockerd")

MOUNTS, NETWORK = ("mount", "mnt"), ("net", "net")  # as nsenter and /proc call them


class Worker:
    """A worker and what may be done to it. Made by ``Fleet``.

    ``engine_options``: extra words for dockerd. ``sshd_options``: what differs from
    ``SSHD_DEFAULTS``; both take effect when that part is started the next time.
    """

    user = "root"

    def __init__(self, root: Path, *, index: int, port: int, mark: str, gpus: bool) -> None:
        self.index = index
        self.name = f"worker-{index}"
        self.host = network.address(index)
        self.port = port
        self.fleet_root = root
        self.root = root / f"w{index}"
        self.mark = f"{mark}{index:03}"
        self.home = self.root / "home"
        self.socket = self.root / "docker.sock"
        self.identity_file = root / "id_ed25519"
        self.engine_options: list[str] = []
        self.sshd_options: dict[str, str] = {}
        self.bridge = False
        self.gpus = StandIn(self.root / "gpu") if gpus else None
        self.keeper = self._daemon("keeper")
        self.sshd = self._daemon("sshd")
        self.dockerd = self._daemon("dockerd")

    def _daemon(self, name: str) -> Daemon:
        return Daemon(
            f"{name} of {self.name}", self.root / f"{name}.pid", self.root / f"{name}.log"
        )

    # -------------------------------------------------------------- what to connect with

    @property
    def docker_host(self) -> str:
        return f"unix://{self.socket}"

    @property
    def search_path(self) -> str:
        """PATH of log-ins and of the engine: what the worker has of its own comes first."""
        return f"{self.root}/tools:{SYSTEM_PATH}"

    @property
    def host_key(self) -> str:
        """Type and base64 of the public host key."""
        return " ".join((self.root / "host_key.pub").read_text().split()[:2])

    @property
    def known_hosts_line(self) -> str:
        return f"[{self.host}]:{self.port} {self.host_key}"

    @property
    def fingerprint(self) -> str:
        """``SHA256:…`` of the host key, as ssh-keygen prints it."""
        digest = hashlib.sha256(base64.b64decode(self.host_key.split()[1])).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    @contextlib.contextmanager
    def engine(self) -> Iterator[docker.DockerClient]:
        """The docker SDK's client of this worker's engine."""
        client = docker.DockerClient(base_url=self.docker_host, timeout=60)
        try:
            yield client
        finally:
            client.close()

    def docker(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs the docker CLI against this worker's engine."""
        return subprocess.run(
            ["docker", *words],
            env={"PATH": SYSTEM_PATH, "HOME": str(self.home), "DOCKER_HOST": self.docker_host},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def ssh(self, command: str, *, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Runs a command over a fresh connection of the OpenSSH client."""
        options = {
            "UserKnownHostsFile": str(self.fleet_root / "known_hosts"),
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "5",
            "LogLevel": "ERROR",
        }
        words = [f"-o{name}={value}" for name, value in options.items()]
        words += ["-F", "/dev/null", "-i", str(self.identity_file), "-p", str(self.port)]
        return subprocess.run(
            ["ssh", *words, f"{self.user}@{self.host}", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    # -------------------------------------------------------------- up and down

    def prepare(self) -> None:
        """Lays out its folder and starts the keeper; the daemons are not waited for."""
        if self.keeper.pid is not None:
            return
        self.sweep()
        folders = ("etc", "containerd", "home", "tools", "data", "exec")
        for name in folders:
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self._lay_out_keys()
        if self.gpus:
            self.gpus.install(self.root / "tools", seed=self.mark)
        self._start_keeper()

    def _start_keeper(self) -> None:
        (self.root / "ready").unlink(missing_ok=True)
        self.keeper.start(
            [
                *("unshare", "--net", "--mount", "--propagation", "slave"),
                *("/bin/sh", "-c", KEEPER, "keeper", self.mark, str(self.root)),
            ],
            env={"PATH": SYSTEM_PATH},
        )

    def _lay_out_keys(self) -> None:
        if not (self.root / "host_key").exists():
            make_key(self.root / "host_key", self.name)
        account = Path("/etc/shadow").read_text().partition("root:")[2].partition(":")[0]
        if account.startswith("!"):
            # sshd without PAM lets nobody into a locked account, not even with a key.
            (self.root / "shadow").write_text("root:*:19000:0:99999:7:::\n")
            (self.root / "shadow").chmod(0o600)

    def start(self, *parts: str) -> None:
        """Starts what is not running of ``sshd`` and ``dockerd`` (all, if none is named) and
        waits until it answers.
        """
        chosen = parts or PARTS
        self.keeper.wait_ready((self.root / "ready").exists)
        if "dockerd" in chosen and self.dockerd.pid is None:
            self._start_dockerd()
        if "sshd" in chosen and self.sshd.pid is None:
            self._start_sshd()
        if "sshd" in chosen and not network.is_cut(self.mark):
            self.sshd.wait_ready(lambda: network.answers_ssh(self.host, self.port))
        if "dockerd" in chosen:
            self.dockerd.wait_ready(lambda: ping(self.socket))

    def _enter(self, *namespaces: tuple[str, str]) -> list[str]:
        keeper = self.keeper.pid
        if keeper is None:
            raise FleetError(f"{self.name} is down; `up` brings it back")
        return ["nsenter", *(f"--{name}=/proc/{keeper}/ns/{kind}" for name, kind in namespaces)]

    def _start_sshd(self) -> None:
        settings = {
            **self.sshd_options,
            "Port": str(self.port),
            "ListenAddress": self.host,
            "HostKey": str(self.root / "host_key"),
            "AuthorizedKeysFile": str(self.fleet_root / "id_ed25519.pub"),
            "SetEnv": f"HOME={self.home} DOCKER_HOST={self.docker_host} PATH={self.search_path}",
        }
        # sshd keeps the first value that it reads of a name.
        lines = [*settings.items(), *SSHD_DEFAULTS.items()]
        config = self.root / "sshd_config"
        config.write_text("".join(f"{name} {value}\n" for name, value in lines))
        program = shutil.which("sshd", path=SYSTEM_PATH) or "sshd"
        self.sshd.start(
            [*self._enter(MOUNTS), program, "-D", "-f", str(config), "-E", str(self.sshd.log)],
            env={"PATH": SYSTEM_PATH},
        )

    def _start_dockerd(self) -> None:
        words = [
            *("--data-root", str(self.root / "data"), "--exec-root", str(self.root / "exec")),
            *("--pidfile", str(self.root / "engine.pid"), "-H", self.docker_host),
            *("--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{self.mark}"),
            *("--iptables=false", "--ip6tables=false"),
            *(() if self.bridge else ("--bridge=none",)),
            *self.engine_options,
        ]
        # A killed engine leaves pid files, and the next one believes in them where nobody
        # reaped the dead. Its containerd dies with it.
        for leftover in ("engine.pid", "exec/containerd/containerd.pid"):
            (self.root / leftover).unlink(missing_ok=True)
        self.dockerd.start(
            [*self._enter(NETWORK, MOUNTS), "dockerd", *words],
            env={"PATH": self.search_path, "HOME": str(self.home)},
        )

    def load_image(self) -> None:
        loaded = self.root / "loaded"
        if not loaded.exists():
            with self.engine() as client:
                image.load(client)
            loaded.touch()

    def sweep(self) -> None:
        """Ends all its processes and removes all its traces, whoever left them."""
        sweep(self.mark)
        remove_tree(self.root)

    # -------------------------------------------------------------- faults

    def kill(self, part: str) -> None:
        """SIGKILL. ``sshd``: the listener and every connection. ``dockerd``: it alone; its
        containers are as a crash leaves them.
        """
        daemon = self._part(part)
        daemon.kill()
        if part == "sshd":
            self.drop_connections()

    def stop_engine(self) -> None:
        """Ends dockerd as a service manager does, and waits: it stops its containers first,
        or leaves them to themselves with ``--live-restore``.
        """
        self.dockerd.stop()

    def drop_connections(self) -> None:
        """Kills every SSH connection; the listener stays."""
        end([pid for pid in self._ssh_processes() if pid != self.sshd.pid])

    def freeze(self, part: str) -> None:
        """SIGSTOP: it holds its connections and answers nothing."""
        self._signal(part, signal.SIGSTOP)

    def thaw(self, part: str) -> None:
        self._signal(part, signal.SIGCONT)

    def _signal(self, part: str, number: signal.Signals) -> None:
        self._part(part).signal(number)
        for pid in self._ssh_processes() if part == "sshd" else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _part(self, part: str) -> Daemon:
        if part not in PARTS:
            raise FleetError(f"no part {part!r} of a worker: {' or '.join(PARTS)}")
        return self.sshd if part == "sshd" else self.dockerd

    def _ssh_processes(self) -> list[int]:
        return [pid for pid, name in members(self.mark).items() if name.startswith("sshd")]

    def cut(self) -> None:
        """Cuts its network: packets vanish, open connections hang."""
        network.cut(self.host, self.port, self.mark)

    def uncut(self) -> None:
        network.mend(self.mark)

    def mend(self) -> None:
        """Takes back every fault: network, frozen and dead parts, options, GPUs."""
        self.uncut()
        for part in PARTS:
            if self._part(part).pid is not None:
                self.thaw(part)
        if self.sshd_options:
            self.sshd_options = {}
            self.restart("sshd")
        if self.gpus:
            self.gpus.reset()
        self.start()

    def restart(self, part: str) -> None:
        """Kills that part and starts it with the present options."""
        self.kill(part)
        self.start(part)

    def reboot(self) -> None:
        """All its processes end at once, containers and log-ins included; then it is back.
        The kernel's boot id stays, for it is the machine's.
        """
        network.mend(self.mark)
        end_members(self.mark)
        remove_tree(self.root / "exec")
        (self.root / "exec").mkdir()
        self._start_keeper()
        self.start()

    def change_host_key(self) -> None:
        """A new host key, as after a new installation or with somebody in between."""
        for name in ("host_key", "host_key.pub"):
            (self.root / name).unlink()
        make_key(self.root / "host_key", self.name)
        self.restart("sshd")

    # -------------------------------------------------------------- how it stands

    def state(self) -> dict[str, str]:
        """One word a part, for ``status``."""
        found = {}
        for part in PARTS:
            daemon = self._part(part)
            found[part] = "dead" if daemon.pid is None else "frozen" if daemon.frozen else "up"
        found["network"] = "cut" if network.is_cut(self.mark) else "up"
        return found

    def remove_containers(self) -> None:
        """Forcibly, all of them, paused ones included."""
        with self.engine() as client:
            for container in client.containers.list(all=True, ignore_removed=True):
                with contextlib.suppress(docker.errors.NotFound):
                    container.remove(force=True)


def sweep(mark: str) -> None:
    """Ends every process and removes every trace, but files, whose mark begins so."""
    network.mend(mark)
    end_members(mark)
    remove_cgroups(mark)


def make_key(path: Path, comment: str) -> None:
    """A key pair without a passphrase."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)],
        stdin=subprocess.DEVNULL,
        check=True,
    )


def ping(path: Path) -> bool:
    """Whether an engine answers on that socket."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(5)
        try:
            link.connect(str(path))
            link.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
            return b" 200 " in link.recv(64)
        except OSError:
            return False


def remove_tree(path: Path) -> None:
    """Removes a folder whose last mounts may just be going away."""
    failures: list[OSError] = []

    def note(_: Callable[..., object], __: str, error: BaseException) -> None:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            failures.append(error)

    for _ in range(3):
        failures.clear()
        shutil.rmtree(path, onerror=lambda call, name, info: note(call, name, info[1]))
        if not path.exists():
            return
    raise FleetError(f"cannot remove {path}: {failures[0] if failures else 'still there'}")


PACKAGES = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "ip": "iproute2",
    "iptables": "iptables",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
"""What a worker needs of the machine, and the package that brings it."""


def check_machine() -> None:
    """Raises ``FleetError`` saying what this machine lacks to be several workers."""
    if sys.platform != "linux":
        raise FleetError("the practice fleet needs Linux")
    if os.geteuid() != 0:
        raise FleetError("the practice fleet needs root, for its engines; say: sudo make …")
    missing = {name for name in PACKAGES if not shutil.which(name, path=SYSTEM_PATH)}
    if missing:
        packages = " ".join(sorted({PACKAGES[name] for name in missing}))
        names = ", ".join(sorted(missing))
        raise FleetError(f"{names} missing; install: apt-get install {packages}")
    image.busybox()
