"""Addresses and ports of the workers, and cutting one off."""

from __future__ import annotations

import socket
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

from .processes import FleetError

SLOTS = 1000
PORTS_PER_FLEET = 20
"""Worker K of a fleet listens on 127.0.1.K at its fleet's base port plus K."""


def address(index: int) -> str:
    return f"127.0.1.{index}"


def base_ports(root: Path, first: int | None) -> Iterator[int]:
    """Base ports to try, in order: the wished one, then from one that the root decides, so
    that several fleets on one machine seldom meet.
    """
    if first is not None:
        yield first
    start = zlib.crc32(str(root).encode()) % SLOTS
    for step in range(SLOTS):
        yield 2200 + PORTS_PER_FLEET * ((start + step) % SLOTS)


def choose_base(root: Path, *, first: int | None, workers: int) -> int:
    """A base port of which all the fleet's ports are free now."""
    for base in base_ports(root, first):
        if all(_free(address(index), base + index) for index in range(1, workers + 1)):
            return base
    raise FleetError("no free ports on loopback for the workers' sshd")


def _free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def answers_ssh(host: str, port: int) -> bool:
    """Whether an sshd greets there."""
    try:
        with socket.create_connection((host, port), timeout=1) as link:
            return link.recv(4) == b"SSH-"
    except OSError:
        return False


# ------------------------------------------------------------------ the cut


def cut(host: str, port: int, mark: str) -> None:
    """Drops every packet to and from an address, open connections included: no reset, no
    refusal, as when a cable is pulled.
    """
    mend(mark)
    for rule in (["-d", host, "--dport", str(port)], ["-s", host, "--sport", str(port)]):
        direction, end, where, number = rule
        _iptables(
            *("-I", "INPUT", direction, end, "-p", "tcp", where, number),
            *("-m", "comment", "--comment", mark, "-j", "DROP"),
        )


def is_cut(mark: str) -> bool:
    return bool(_rules(mark))


def mend(mark: str) -> None:
    """Takes back the cuts whose mark begins so, whoever made them."""
    for rule in _rules(mark):
        _iptables("-D", *rule)


def _rules(mark: str) -> list[list[str]]:
    # Ours have no word with spaces, so splitting is exact.
    rules = [line.split() for line in _iptables("-S", "INPUT").splitlines()]
    return [rule[1:] for rule in rules if any(word.startswith(mark) for word in rule)]


def _iptables(*words: str) -> str:
    try:
        done = subprocess.run(
            ["iptables", "-w", *words], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise FleetError("iptables is missing; install it: apt-get install iptables") from None
    if done.returncode:
        raise FleetError(f"iptables {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
