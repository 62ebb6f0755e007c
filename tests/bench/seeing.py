"""Workers seen for the first time, and again: next to what runs a command everywhere.

Two hundred of them, for client and workers share this machine, whose cores need 0.15 s for each
log-in and probe; a ``crowd`` of a thousand is in ``resting``.

All of it happens in a network namespace of its own, where one real sshd answers on every address
of 127.0.0.0/8; its login has a stand-in for ``docker`` that answers like an engine, and everybody
runs the same probe. Host keys are checked by all, against a known_hosts of their own.

``python -m tests.bench.seeing FOLDER COUNT ROUNDS WHO,…`` measures inside and prints JSON.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh

from cloudai.scripts import render
from tests.fleet.cloudai_home import Home, a_home
from tests.fleet_lab.processes import end, wait_until

from .crowd import ENGINE, PROBE
from .figures import CPU_MS_EACH, SECONDS, Aim, Group, Series, growth
from .lab import Lab
from .results import CHECKOUT, FOLDER
from .timing import BenchFailed, cpu_of

PORT = 2200
RIVALS = FOLDER.parent / "rivals"
"""A virtual environment with parallel-ssh, pyinfra and ansible, see rivals.txt."""
OURS, HASHED = "cloudai controller", "cloudai controller, hashed known_hosts of 3,000 lines"
AT_ONCE = 100
SEEN_WITHIN = 300.0
SCALED = {"pdsh": 0.25, "GNU parallel": 0.25, "ansible raw": 0.25, "pyinfra": 0.25}
"""Which part of the hosts those that take long are given; their times are scaled up."""


def measure(lab: Lab) -> Iterator[Group]:
    """Row 4, and its growth."""
    count = 30 if lab.short else 200
    found = inside(lab, count, ["parallel-ssh"] if lab.short else ["parallel-ssh", *SCALED])
    first, cpu = found["first"], found["cpu"]
    rivals = [one for one in first if one not in (OURS, HASHED)]
    yield Group(
        4,
        f"first sight of {count:,} workers",
        tuple(Series(name, tuple(each)) for name, each in first.items()),
        SECONDS,
        tuple(Aim(f"no longer than {rival}", against=rival, at_most=1) for rival in rivals),
        (
            "Those that take long were given a part of the hosts, and their times scaled up: "
            + ", ".join(f"{one} {part:.0%}" for one, part in SCALED.items() if one in first)
            + "."
            if not lab.short
            else "One round.",
        ),
    )
    yield Group(
        4,
        f"first sight of {count:,} workers, client",
        tuple(Series(name, tuple(one / count for one in each)) for name, each in cpu.items()),
        CPU_MS_EACH,
    )
    if not lab.short:
        costs = {count: min(first[OURS])}
        for part in (10, 5, 2):
            costs[count // part] = inside(lab, count // part, [])["first"][OURS][0]
        yield growth("first sight", SECONDS, dict(sorted(costs.items())), of="workers")


def inside(lab: Lab, count: int, rivals: list[str]) -> dict[str, Any]:
    """What was measured in a network namespace of its own."""
    folder = lab.folder / f"seeing-{time.monotonic_ns()}"
    folder.mkdir()
    words = [sys.executable, "-m", __name__, str(folder), str(count), ",".join(rivals)]
    script = f"ip link set lo up && exec {shlex.join(words)}"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script], cwd=CHECKOUT, stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise BenchFailed(f"nothing was measured with {count} workers")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# ------------------------------------------------------------------ inside


def main(folder: Path, count: int, rivals: list[str]) -> dict[str, Any]:
    hosts = [f"127.{88 + n // 62500}.{n // 250 % 250}.{n % 250 + 1}" for n in range(count)]
    with sshd(folder):
        ways = Ways(folder, hosts)
        first: dict[str, list[float]] = {}
        cpu: dict[str, list[float]] = {}
        for hashed in (False, True):
            name = HASHED if hashed else OURS
            with a_home(folder / f"home-{int(hashed)}", Known(folder, hosts, hashed)) as home:
                seconds, used = ours(home, count)
                first[name], cpu[name] = [seconds], [used]
        for rival in rivals:
            seconds, used = ways.run(rival)
            first[rival], cpu[rival] = [seconds], [used]
    return {"first": first, "cpu": cpu}


class Known:
    """An inventory of those hosts, and a known_hosts in which they stand."""

    def __init__(self, folder: Path, hosts: list[str], hashed: bool) -> None:
        self.folder, self.hosts, self.hashed = folder, hosts, hashed

    def inventory(self) -> str:
        key = self.folder / "user"
        lines = [f"defaults: {{user: root, identity_file: {key}, port: {PORT}}}", "workers:"]
        lines += [f"  w{n:04d}: {{host: {host}}}" for n, host in enumerate(self.hosts)]
        return "\n".join(lines) + "\n"

    def known_hosts(self) -> str:
        text = known_hosts(self.folder, self.hosts)
        if not self.hashed:
            return text
        more = [f"10.{n // 250}.{n % 250}.1" for n in range(3000 - len(self.hosts))]
        path = self.folder / "hashed"
        path.write_text(text + known_hosts(self.folder, more))
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", path], check=True, capture_output=True)
        return path.read_text()


def known_hosts(folder: Path, hosts: list[str]) -> str:
    kind, key, *_ = (folder / "host.pub").read_text().split()
    return "".join(f"[{host}]:{PORT} {kind} {key}\n" for host in hosts)


@contextmanager
def sshd(folder: Path) -> Iterator[None]:
    """One sshd on every address, whose logins find the stand-in."""
    for which in ("host", "user"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(folder / which)
        (folder / which).chmod(0o600)
        key.write_public_key(folder / f"{which}.pub")
    (folder / "user.pub").chmod(0o600)
    tools = folder / "tools"
    tools.mkdir()
    info = next(one for one in PROBE.read_text().splitlines() if one.startswith("info {"))
    (folder / "info").write_text(info.removeprefix("info ") + "\n")
    docker = tools / "docker"
    # Each address is an engine of its own: they would be one machine otherwise.
    docker.write_text(
        "#!/bin/sh\n"
        "set -- $1 $SSH_CONNECTION\n"
        f'[ "$1" = info ] && sed "s/{ENGINE[:4]}/$4/" {folder / "info"}\n'
        "exit 0\n"
    )
    docker.chmod(0o755)
    config = folder / "sshd_config"
    config.write_text(
        f"Port {PORT}\nListenAddress 0.0.0.0\nHostKey {folder / 'host'}\n"
        f"AuthorizedKeysFile {folder / 'user.pub'}\nStrictModes no\nPidFile {folder / 'pid'}\n"
        "PermitRootLogin yes\nUsePAM no\nMaxStartups 4000\nPerSourceMaxStartups none\n"
        "MaxSessions 20\nUseDNS no\nPrintMotd no\nLogLevel ERROR\n"
        f"SetEnv PATH={tools}:/usr/sbin:/usr/bin:/sbin:/bin"
        f" DOCKER_HOST=unix://{folder / 'engine.sock'}\n"
    )
    os.makedirs("/run/sshd", exist_ok=True)
    subprocess.run(["/usr/sbin/sshd", "-f", config], check=True)
    pid = folder / "pid"
    wait_until(pid.exists, "sshd is up")
    engine = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.quiet_engine", str(folder / "engine.sock")],
        cwd=CHECKOUT,
    )
    wait_until((folder / "engine.sock").exists, "the engine's stand-in is up")
    try:
        yield
    finally:
        end([int(pid.read_text()), engine.pid])


def ours(home: Home, count: int) -> tuple[float, float]:
    """Seconds from the controller's start until all were seen, and its CPU."""
    began = time.monotonic()
    home.run("controller", "start")
    while (seen := home.ask("/tasks/workers/health")["online_workers"]) < count:
        if time.monotonic() - began > SEEN_WITHIN:
            log = (home.folder / "controller.log").read_text()
            raise BenchFailed(f"{seen} of {count} were seen: {log[-400:]}")
        time.sleep(0.1)
    return time.monotonic() - began, cpu_of(home.controller_pid)


class Ways:
    """The same probe by what others would take."""

    def __init__(self, folder: Path, hosts: list[str]) -> None:
        self.folder, self.hosts = folder, hosts
        self.script = folder / "probe.sh"
        self.script.write_text(render("probe", docker_host="", held_format="{{.ID}}"))
        home = folder / "rival"
        (home / ".ssh").mkdir(parents=True)
        (home / ".ssh" / "known_hosts").write_text(known_hosts(folder, hosts))
        (home / ".ssh" / "config").write_text(
            f"Host *\n  Port {PORT}\n  User root\n  IdentityFile {folder / 'user'}\n"
            f"  UserKnownHostsFile {home / '.ssh' / 'known_hosts'}\n  BatchMode yes\n"
        )
        tools = home / "tools"
        tools.mkdir()
        ssh = tools / "ssh"
        ssh.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {home}/.ssh/config "$@"\n')
        ssh.chmod(0o755)
        self.env = {
            **os.environ,
            "HOME": str(home),
            "PATH": f"{tools}:{RIVALS / 'bin'}:{os.environ['PATH']}",
            "PDSH_RCMD_TYPE": "ssh",
            "ANSIBLE_SSH_ARGS": f"-F {home}/.ssh/config",
        }

    def _inventory(self, hosts: list[str]) -> Path:
        path = self.folder / "inventory.py"
        path.write_text(f"hosts = {hosts!r}\n")
        return path

    def run(self, rival: str) -> tuple[float, float]:
        """Seconds and CPU for all hosts, scaled where only a part was asked."""
        part = SCALED.get(rival, 1.0)
        hosts = self.hosts[: max(20, round(len(self.hosts) * part))]
        names = self.folder / "hosts"
        names.write_text("".join(f"{host}\n" for host in hosts))
        script, quoted = str(self.script), shlex.quote(self.script.read_text())
        python = str(RIVALS / "bin" / "python")
        one = f"ssh {{}} sh -s <{script}"
        ways: dict[str, Callable[[], list[str]]] = {
            "parallel-ssh": lambda: [python, "-c", PSSH, str(self.folder), script],
            "pyinfra": lambda: [
                *(str(RIVALS / "bin" / "pyinfra"), "-y", "-vvv", "--parallel", str(AT_ONCE)),
                *("--data", f"ssh_port={PORT}", "--data", "ssh_user=root"),
                *("--data", f"ssh_key={self.folder / 'user'}"),
                *("--data", "ssh_strict_host_key_checking=yes"),
                *(str(self._inventory(hosts)), "exec", "--", f"sh -c {quoted}"),
            ],
            "pdsh": lambda: [
                *("pdsh", "-f", str(AT_ONCE), "-w", f"^{names}", f"sh -c {quoted}"),
            ],
            "GNU parallel": lambda: ["parallel", "--will-cite", "-j", "32", "-a", str(names), one],
            "ansible raw": lambda: [
                *(str(RIVALS / "bin" / "ansible"), "all", "-i", str(names), "-f", "50"),
                *("-m", "raw", "-a", f"exec {{% raw %}}sh -c {quoted}{{% endraw %}}"),
            ],
        }
        before, began = os.times(), time.monotonic()
        done = subprocess.run(
            ways[rival](),
            env=self.env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SEEN_WITHIN,
            check=False,
        )
        seconds, after = time.monotonic() - began, os.times()
        seen = (done.stdout + done.stderr).count("fact login root")
        if done.returncode or seen < len(hosts):
            raise BenchFailed(f"{rival} saw {seen} of {len(hosts)}: {done.stderr[-600:]}")
        used = sum(after[2:4]) - sum(before[2:4])
        scale = len(self.hosts) / len(hosts)
        return seconds * scale, used * scale


PSSH = f"""
import sys
from pssh.clients import ParallelSSHClient
folder, script = sys.argv[1:]
hosts = open(folder + "/hosts").read().split()
key = folder + "/user"
client = ParallelSSHClient(hosts, user="root", port={PORT}, pkey=key, pool_size={AT_ONCE})
import shlex
command = "sh -c " + shlex.quote(open(script).read())
for one in client.run_command(command):
    sys.stdout.write("\\n".join(one.stdout) + "\\n")
"""


if __name__ == "__main__":
    where, many, who = sys.argv[1:]
    found = main(Path(where), int(many), who.split(",") if who else [])
    print(json.dumps(found))
