"""Which keys a host may show. Host keys are verified always, for jump hosts too.

asyncssh tells neither an unknown key from a changed one nor where a line stands, and turns
verification off where ssh_config says so (facts, 7). So the files are read here, the verdict is
ours, and asyncssh only asks for it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import asyncssh
from asyncssh.public_key import get_default_certificate_algs, get_default_public_key_algs

from cloudai.core.errors import HostKeyChanged, HostKeyUnknown
from cloudai.disk import disk_errors, make_private_folder, write_whole

SSH_PORT = 22
PREFERRED = [b"ssh-ed25519", b"ecdsa-sha2-nistp256", b"ecdsa-sha2-nistp384"]
"""What a host that was never seen is asked for first, as OpenSSH does."""


def known_name(host: str, port: int, alias: str | None = None) -> str:
    """A host as OpenSSH writes it into known_hosts: ``host``, or ``[host]:port``."""
    if alias:
        return alias.lower()
    return host.lower() if port == SSH_PORT else f"[{host.lower()}]:{port}"


@dataclass(frozen=True, slots=True)
class HostKey:
    """A key as a host showed it."""

    fingerprint: str
    """``SHA256:...``"""
    key_type: str
    line: str
    """As it stands, or would stand, in known_hosts."""

    @classmethod
    def of(cls, key: asyncssh.SSHKey, name: str) -> HostKey:
        return cls(
            fingerprint(key),
            key.get_algorithm(),
            f"{name} {' '.join(key.export_public_key().decode().split()[:2])}",
        )


@dataclass(slots=True)
class Known:
    """All that known_hosts files say of one name."""

    keys: list[tuple[asyncssh.SSHKey, Path]] = field(default_factory=list)
    authorities: list[asyncssh.SSHKey] = field(default_factory=list)
    revoked: list[asyncssh.SSHKey] = field(default_factory=list)

    def has(self, key: asyncssh.SSHKey) -> bool:
        return any(key == known for known, _ in self.keys)


class Verdict(Enum):
    """What is made of a key that a host shows."""

    TRUSTED = "trusted"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


class KnownHosts:
    """Parsed known_hosts files; each is read again only when it changed.

    ``own`` is the one we write to; the user's and the system's are only read.
    """

    def __init__(self, own: Path, *, user: Path, system: Path) -> None:
        self.own = own
        self.user = user
        self.system = system
        self._files: dict[Path, _File] = {}

    def files(self, configured: Sequence[Path] = ()) -> tuple[Path, ...]:
        """Where keys are looked up; ``configured``: what ssh_config names in place of the
        user's own file."""
        return (*(configured or (self.user,)), self.system, self.own)

    def about(self, name: str, files: Iterable[Path]) -> Known:
        """All that these files say of a name."""
        known = Known()
        for path in files:
            self._files.setdefault(path, _File(path)).add_to(known, name)
        return known

    def judge(self, key: asyncssh.SSHKey, name: str, files: Sequence[Path]) -> Verdict:
        """What is made of a key shown by the host of that name."""
        known = self.about(name, files)
        # A host known without a port vouches for any of its ports; it cannot contradict one.
        portless = self.about(_without_port(name), files) if name.startswith("[") else Known()
        if key in known.revoked or key in portless.revoked:
            return Verdict.REVOKED
        if known.has(key):
            return Verdict.TRUSTED
        if known.keys:
            return Verdict.CHANGED
        return Verdict.TRUSTED if portless.has(key) else Verdict.UNKNOWN

    def algorithms(self, name: str, files: Sequence[Path]) -> list[str]:
        """Key types to ask a host for: first those it is known by, so that a host known by one
        key is not taken for changed because it prefers another; then all others, so that a
        changed host is seen."""
        known = self.about(name, files)
        if not (known.keys or known.authorities) and name.startswith("["):
            known = self.about(_without_port(name), files)
        first = [algorithm for key, _ in known.keys for algorithm in key.sig_algorithms]
        if known.authorities:
            first = get_default_certificate_algs() + first
        ordered = dict.fromkeys(first + PREFERRED + get_default_public_key_algs())
        return [algorithm.decode() for algorithm in ordered]

    def add(self, key: asyncssh.SSHKey, name: str) -> str:
        """Pins a key in our own file (0600, replaced whole). Returns its line.

        Raises ``StoreFailed`` where it cannot be written.
        """
        line = HostKey.of(key, name).line
        with disk_errors(self.own):
            make_private_folder(self.own.parent)
            before = self.own.read_bytes() if self.own.exists() else b""
            if line.encode() not in before.splitlines():
                if before and not before.endswith(b"\n"):
                    before += b"\n"
                write_whole(self.own, before + line.encode() + b"\n")
        return line


class _File:
    """One known_hosts file as it was when last read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int, int] | None = None
        self._parsed = asyncssh.SSHKnownHosts()
        self._found: dict[str, tuple[list[asyncssh.SSHKey], ...]] = {}

    def add_to(self, known: Known, name: str) -> None:
        self._refresh()
        if name not in self._found:
            # Given as a whole, with its port, the name is compared as OpenSSH writes it.
            matches = self._parsed.match(name, "", None)
            self._found[name] = tuple(list(keys) for keys in matches[:3])
        keys, authorities, revoked = self._found[name]
        known.keys += [(key, self.path) for key in keys]
        known.authorities += authorities
        known.revoked += revoked

    def _refresh(self) -> None:
        try:
            stat = self.path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stamp == self._stamp:
                return
            text = self.path.read_text("utf-8", "replace")
        except OSError:
            stamp, text = (0, 0, 0), ""
        self._stamp, self._found = stamp, {}
        self._parsed = asyncssh.SSHKnownHosts()
        for line in text.splitlines():
            try:
                self._parsed.load(line)
            except ValueError:
                # As OpenSSH does: a line that cannot be read speaks for no host.
                continue


def fingerprint(key: asyncssh.SSHKey) -> str:
    """As ``ssh-keygen -l`` prints it: ``SHA256:...``"""
    return key.get_fingerprint("sha256")


def same_fingerprint(one: str, other: str) -> bool:
    """People paste them with and without the padding."""
    return one.strip().rstrip("=") == other.strip().rstrip("=")


@dataclass(frozen=True, slots=True)
class Shown:
    """A key that was not accepted, and who showed it; made into the error a person meets."""

    key: HostKey
    name: str
    """As known_hosts has it."""
    host: str
    port: int
    worker: str
    """The worker we were on the way to."""
    jump: bool
    """Whether it is a jump host on that way."""
    pin_line: str
    """The command that pins its key."""

    @property
    def whose(self) -> str:
        return f"its jump host {self.name}" if self.jump else self.name

    def _details(self) -> dict[str, str | int]:
        return {
            "worker": self.worker,
            "fingerprint": self.key.fingerprint,
            "key_type": self.key.key_type,
            "host": self.host,
            "port": self.port,
        }

    def unknown(self) -> HostKeyUnknown:
        return HostKeyUnknown(
            f"Failed to connect to worker: the host key of {self.whose} is not known "
            f"({self.key.key_type} {self.key.fingerprint})",
            hint=f"compare that fingerprint with the host's own, then: {self.pin_line}",
            **self._details(),
        )

    def changed(self, known: Known) -> HostKeyChanged:
        """Both fingerprints, and for each file that holds an old one the line that mends it."""
        expected = sorted({fingerprint(key) for key, _ in known.keys})
        files = list(dict.fromkeys(str(path) for _, path in known.keys))
        mends = [f"ssh-keygen -R {shlex.quote(self.name)} -f {shlex.quote(path)}" for path in files]
        return HostKeyChanged(
            f"Failed to connect to worker: the host key of {self.whose} changed: known is "
            f"{', '.join(expected)}, it shows {self.key.fingerprint} ({self.key.key_type})",
            hint="if the host was set up anew, and only then: "
            + "; ".join([*mends, self.pin_line]),
            expected=expected,
            files=files,
            **self._details(),
        )

    def revoked(self) -> HostKeyChanged:
        """A line marked ``@revoked``: nothing mends that but another key on the host."""
        return HostKeyChanged(
            f"Failed to connect to worker: the host key of {self.whose} is marked @revoked in "
            f"known_hosts ({self.key.key_type} {self.key.fingerprint})",
            hint="the host needs a new key; do not use it until its owner says why",
            expected=[],
            files=[],
            **self._details(),
        )


def _without_port(name: str) -> str:
    return name[1:].rpartition("]")[0] or name
