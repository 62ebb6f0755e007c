"""Where a worker is and who we are there: the inventory over ``~/.ssh/config``, and the keys
that are offered.

Only reads. What ssh_config says against verifying host keys is never heeded (facts, 7).
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import asyncssh
from asyncssh.config import SSHClientConfig, SSHConfig

from cloudai.core.errors import InvalidInput
from cloudai.core.model import WorkerSpec
from cloudai.shells.hostkeys import SSH_PORT, known_name

DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")
JUMPS_AT_MOST = 8
HOP = re.compile(r"(?:ssh://)?(?:(?P<user>.+)@)?(?P<host>\[[^\]]+\]|[^:@]+)(?::(?P<port>\d+))?/?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One sshd on the way, with everything that ssh_config and the inventory say of it."""

    worker: str
    """The worker it is, or is on the way to."""
    alias: str
    """What ``ssh`` would be given."""
    host: str
    port: int
    user: str
    host_key_alias: str | None
    key_files: tuple[Path, ...]
    key_files_named: bool
    """Somebody named them; else they are the usual ones."""
    identities_only: bool
    agent: str
    """Path of the agent's socket; empty: none."""
    known_hosts: tuple[Path, ...]
    """Instead of the user's own file; empty: that one."""
    own_key_algorithms: bool
    """ssh_config names ``HostKeyAlgorithms`` for it."""
    own_ciphers: bool
    """ssh_config names ``Ciphers`` for it."""
    connect_timeout: float | None
    """Seconds, where ssh_config says."""
    keepalive: tuple[float, int] | None
    """``ServerAliveInterval`` in seconds and ``ServerAliveCountMax``, where ssh_config says."""
    asked: tuple[str | None, int | None]
    """User and port that override ssh_config."""
    jump: Destination | None
    """The jump host before it."""
    is_jump: bool
    pin_line: str = ""
    """The command that pins its host key."""

    @property
    def way(self) -> Destination:
        """The same for every worker behind it: what connections are shared by."""
        jump = self.jump.way if self.jump else None
        return replace(self, worker="", pin_line="", jump=jump)

    @property
    def known_name(self) -> str:
        return known_name(self.host, self.port, self.host_key_alias)


class SshConfig:
    """A user's ssh settings; ``folder`` is their ``~/.ssh``."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder

    @property
    def paths(self) -> list[str]:
        return [str(self.path)] if self.path.is_file() else []

    def destination(self, spec: WorkerSpec) -> Destination:
        """Reads the settings anew. Raises ``InvalidInput`` where they cannot be meant.

        May run commands (``Match exec``): not for the event loop.
        """
        target = _bare(spec.host or spec.id)
        found = self._resolve(
            spec.id,
            target,
            user=spec.user,
            port=spec.port,
            key_file=spec.identity_file,
            jump=spec.proxy_jump,
            depth=0,
        )
        return replace(found, pin_line=_register_line(spec, target))

    def _resolve(
        self,
        worker: str,
        alias: str,
        *,
        user: str | None,
        port: int | None,
        key_file: str | None,
        jump: str | None,
        depth: int,
        behind: Destination | None = None,
    ) -> Destination:
        if depth > JUMPS_AT_MOST:
            raise InvalidInput(f"{self.path}: ProxyJump of {alias} goes round in a circle")
        try:
            config = SSHClientConfig.load(
                *(None, self.paths, False, False, False),
                *(getpass.getuser(), () if user is None else user, alias),
                () if port is None else port,
            )
        except (ValueError, OSError) as error:
            raise InvalidInput(f"The ssh settings cannot be used: {error}") from error
        named = [key_file] if key_file else config.get("IdentityFile")
        chain = jump if jump is not None else config.get("ProxyJump")
        if behind is None and isinstance(chain, str) and chain.lower() != "none":
            behind = self._chain(worker, chain, depth)
        host, timeout = config.get("Hostname"), config.get("ConnectTimeout")
        key_alias = config.get("HostKeyAlias")
        here = Destination(
            worker=worker,
            alias=alias,
            host=str(host or alias),
            port=int(str(config.get("Port") or SSH_PORT)),
            user=str(config.get("User") or getpass.getuser()),
            host_key_alias=str(key_alias) if key_alias else None,
            key_files=self._default_keys() if named is None else _paths(named),
            key_files_named=named is not None,
            identities_only=bool(config.get("IdentitiesOnly")),
            agent=_agent(config.get("IdentityAgent", "SSH_AUTH_SOCK")),
            known_hosts=_paths(config.get("UserKnownHostsFile", [])),
            own_key_algorithms=config.get("HostKeyAlgorithms") is not None,
            own_ciphers=config.get("Ciphers") is not None,
            connect_timeout=float(str(timeout)) if timeout else None,
            keepalive=_keepalive(config),
            asked=(user, port),
            jump=behind,
            is_jump=depth > 0,
        )
        return replace(here, pin_line=_ssh_line(here))

    def _default_keys(self) -> tuple[Path, ...]:
        return tuple(self.folder / name for name in DEFAULT_KEYS)

    def _chain(self, worker: str, chain: str, depth: int) -> Destination:
        """A ProxyJump list: the first hop by its own settings, each next one through it."""
        last: Destination | None = None
        for text in chain.split(","):
            match = HOP.fullmatch(text.strip())
            if match is None:
                raise InvalidInput(f"{text.strip()!r} cannot be a jump host: [user@]host[:port]")
            last = self._resolve(
                worker,
                _bare(match["host"]),
                user=match["user"],
                port=int(match["port"]) if match["port"] else None,
                key_file=None,
                jump=None,
                depth=depth + 1,
                behind=last,
            )
        assert last is not None
        return last


@dataclass(frozen=True, slots=True)
class Keyring:
    """What is offered to one sshd, and what could not be."""

    pairs: tuple[object, ...] = ()
    """For asyncssh, in the order of offering."""
    shown: tuple[bytes, ...] = ()
    """Public parts of the same: while these stay, a refusal stays."""
    locked: tuple[Path, ...] = ()
    """Key files that need a passphrase, their keys in no agent."""
    unreadable: tuple[str, ...] = ()
    """Named key files that are missing or no keys, with why."""


@dataclass(slots=True)
class _KeyFile:
    stamp: tuple[tuple[int, int], ...]
    public: bytes | None = None
    offer: object | None = None
    """For asyncssh; ``None`` when only an agent can sign with it."""
    locked: bool = False
    trouble: str = ""


@dataclass(slots=True)
class KeyFiles:
    """Private keys, read once and again only when their files change."""

    _read: dict[Path, _KeyFile] = field(default_factory=dict)

    def get(self, path: Path) -> _KeyFile:
        stamp = tuple(_stamp(Path(f"{path}{end}")) for end in ("", ".pub", "-cert.pub"))
        known = self._read.get(path)
        if known is None or known.stamp != stamp:
            known = self._read[path] = _read_key(path, stamp)
        return known

    def ring(self, destination: Destination, in_agent: Sequence[asyncssh.SSHKeyPair]) -> Keyring:
        """What to offer: named key files first (by the agent where it holds them), then the
        agent's other keys unless ``IdentitiesOnly``; the usual files only after the agent."""
        others = [(pair.public_data, pair) for pair in in_agent]
        from_files: list[tuple[bytes, object]] = []
        locked, unreadable = [], []
        for path in destination.key_files:
            key = self.get(path)
            held = [entry for entry in others if entry[1].key_public_data == key.public]
            if held:
                from_files += held
                others = [entry for entry in others if entry not in held]
            elif key.offer is not None and key.public is not None:
                from_files.append((key.public, key.offer))
            elif key.locked:
                locked.append(path)
            elif key.trouble and destination.key_files_named:
                unreadable.append(f"{path}: {key.trouble}")
        ordered: list[tuple[bytes, object]] = [*from_files]
        if not destination.identities_only:
            ordered = [*from_files, *others] if destination.key_files_named else [*others, *ordered]
        return Keyring(
            tuple(pair for _, pair in ordered),
            tuple(public for public, _ in ordered),
            tuple(locked),
            tuple(unreadable),
        )


def _read_key(path: Path, stamp: tuple[tuple[int, int], ...]) -> _KeyFile:
    found = _KeyFile(stamp)
    for name in (f"{path}.pub", str(path)):
        try:
            found.public = asyncssh.read_public_key(name).public_data
            break
        except (OSError, asyncssh.KeyImportError):
            continue
    try:
        key = asyncssh.read_private_key(path)
    except OSError as error:
        found.trouble = (error.strerror or str(error)).lower()
    except asyncssh.KeyImportError as error:
        # asyncssh has no type of its own for "needs a passphrase".
        found.locked = "passphrase" in str(error).lower()
        found.trouble = "" if found.locked or found.public is not None else str(error)
    else:
        found.public = key.public_data
        found.offer = key
        with suppress(OSError, asyncssh.KeyImportError):
            found.offer = (key, asyncssh.read_certificate(f"{path}-cert.pub"))
    return found


def _register_line(spec: WorkerSpec, target: str) -> str:
    where = f"[{target}]" if ":" in target and spec.port else target
    where = f"{where}:{spec.port}" if spec.port else where
    return f"cloudai register {spec.id} {where}"


def _ssh_line(hop: Destination) -> str:
    user, port = hop.asked
    login = f"{user}@{hop.alias}" if user else hop.alias
    return f"ssh -p {port} {login}" if port else f"ssh {login}"


def _keepalive(config: SSHConfig) -> tuple[float, int] | None:
    """Never off: a dead connection must be noticed."""
    interval, times = config.get("ServerAliveInterval"), config.get("ServerAliveCountMax", 3)
    return (float(str(interval)), int(str(times))) if interval else None


def _bare(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _paths(names: object) -> tuple[Path, ...]:
    assert isinstance(names, list | tuple)
    return tuple(Path(str(name)).expanduser() for name in names)


def _agent(configured: object) -> str:
    """``IdentityAgent`` as ssh_config(5) has it: a path, ``none``, ``SSH_AUTH_SOCK``, ``$NAME``."""
    if configured is None:
        return ""
    text = str(configured)
    if text == "SSH_AUTH_SOCK":
        text = "$SSH_AUTH_SOCK"
    if text.startswith("$"):
        return os.environ.get(text[1:].strip("{}"), "")
    return str(Path(text).expanduser())


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size
