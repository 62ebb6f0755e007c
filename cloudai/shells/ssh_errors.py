"""What goes wrong on the way to a worker, in our words. The one place that translates."""

from __future__ import annotations

import errno
import os
import re
import socket

import asyncssh

from cloudai.core.errors import (
    AuthenticationFailed,
    CloudaiError,
    EngineFailed,
    Indeterminate,
    WorkerUnreachable,
)
from cloudai.shells.ssh_config import Destination, Keyring

ERRNO = re.compile(r"\[Errno (-?\d+)\]")
NO_WAY = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
NO_SUCH_NAME = "host name {} not found"
TOO_MANY = "Too many authentication failures"
NO_AGENT = (
    "and the controller has no ssh agent, as when cron started it: set its identity_file to a key"
    " without a passphrase, or in a login that has an agent: ssh-add {} && cloudai controller stop"
    " && cloudai controller start"
)


class HandshakeDropped(WorkerUnreachable):
    """The connection closed before anything was said: sshd does so when many knock at once
    (MaxStartups; facts, 13). The one failure that is tried again within a call."""


def cannot_connect(why: str, destination: Destination, *, hint: str = "") -> WorkerUnreachable:
    """In the words of seed 000."""
    hint = hint or _mend(why, destination)
    if destination.is_jump:
        why = f"its jump host {destination.alias}: {why}"
    return WorkerUnreachable(
        f"Failed to connect to worker: {why}", hint=hint, **_where(destination)
    )


def _mend(why: str, destination: Destination) -> str:
    """What a person may do about it; empty where the words say all there is."""
    host, port = destination.host, destination.port
    if why == "connection refused":
        return (
            f"nothing listens on port {port} of {host}: is that its sshd's port, and does sshd"
            " run there (`systemctl status ssh`)?"
        )
    if why in ("timed out", "no route to host"):
        return f"is {host} on, and is there a way to its port {port}: network, VPN, firewall?"
    if why == NO_SUCH_NAME.format(host):
        return "is its host in the inventory, or its HostName in ~/.ssh/config, spelt right?"
    return ""


def connect_error(error: Exception, destination: Destination, ring: Keyring) -> CloudaiError:
    """What a failed connect means, host keys apart (``hostkeys``)."""
    if isinstance(error, CloudaiError):
        return error
    if isinstance(error, asyncssh.PermissionDenied) or TOO_MANY in str(error):
        return _not_let_in(destination, ring, str(error))
    if _dropped(error):
        return HandshakeDropped(
            "Failed to connect to worker: connection closed during the handshake",
            hint="sshd drops connections when many come at once (MaxStartups), or refuses this "
            "machine; its log tells",
            **_where(destination),
        )
    if isinstance(error, asyncssh.ChannelOpenError):
        return _jump_refused(error, destination)
    if isinstance(error, asyncssh.DisconnectError):
        return cannot_connect(error.reason, destination)
    if isinstance(error, OSError):
        return cannot_connect(_why(error, destination), destination)
    if isinstance(error, ValueError | asyncssh.Error):
        return cannot_connect(f"ssh settings: {error}", destination)
    raise error


def call_error(error: Exception) -> CloudaiError:
    """What a connection that fails during a call means: nothing is known."""
    if isinstance(error, CloudaiError):
        return error
    return Indeterminate(f"The connection to the worker ended during the call: {error}")


def socket_refused(path: str, reason: str, destination: Destination) -> EngineFailed:
    """The worker's sshd opened no channel to that socket."""
    return EngineFailed(
        f"Cannot reach the socket {path} on the worker: {reason}",
        hint="membership of the docker group, and AllowStreamLocalForwarding in sshd_config",
        path=path,
        **_where(destination),
    )


def _dropped(error: Exception) -> bool:
    if isinstance(error, asyncssh.ChannelOpenError):
        # The connection to the jump host died, and nobody had noticed yet.
        return error.reason == "SSH connection closed"
    if isinstance(error, asyncssh.DisconnectError):
        return error.code == asyncssh.DISC_CONNECTION_LOST
    return isinstance(error, ConnectionResetError | BrokenPipeError)


def _not_let_in(destination: Destination, ring: Keyring, said: str) -> AuthenticationFailed:
    place = f"jump host {destination.alias}" if destination.is_jump else "worker"
    no_agent = not destination.agent
    if ring.locked and no_agent:
        hint = f"the key {ring.locked[0]} needs its passphrase, {NO_AGENT.format(ring.locked[0])}"
    elif ring.locked:
        hint = f"the key needs its passphrase: ssh-add {ring.locked[0]}"
    elif ring.unreadable:
        hint = f"the key file cannot be used: {ring.unreadable[0]}"
    elif not ring.pairs and no_agent:
        hint = f"no key was found to offer, {NO_AGENT.format('KEY')}"
    elif not ring.pairs:
        hint = "no key was found to offer: set identity_file, or load one with ssh-add"
    else:
        hint = f"put a public key of yours into authorized_keys of {destination.user} there"
    offered = len(ring.pairs)
    return AuthenticationFailed(
        f"Failed to connect to worker: {place} refuses {destination.user}: "
        f"{_plain(said)} ({offered} key{'' if offered == 1 else 's'} offered)",
        hint=hint,
        user=destination.user,
        **_where(destination),
    )


def _plain(said: str) -> str:
    if said.startswith("Permission denied") or not said:
        return "permission denied"
    return said[0].lower() + said[1:]


def _jump_refused(error: asyncssh.ChannelOpenError, destination: Destination) -> WorkerUnreachable:
    """The last jump host could not, or would not, open a way to the next sshd."""
    jump = destination.jump
    via = f" (from jump host {jump.alias})" if jump else ""
    if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
        return cannot_connect(
            f"forwarding is refused{via}",
            destination,
            hint="AllowTcpForwarding and PermitOpen in the jump host's sshd_config",
        )
    reason = error.reason.lower().removeprefix("connect failed: ").strip() or "open failed"
    if "refused" in reason:
        return cannot_connect("connection refused", destination, hint=f"seen{via}" if jump else "")
    return cannot_connect(f"{reason}{via}", destination)


def _why(error: OSError, destination: Destination) -> str:
    if isinstance(error, socket.gaierror):
        return NO_SUCH_NAME.format(destination.host)
    number = error.errno
    if number is None:
        # With several addresses asyncio puts all failures into one text; the last one tells.
        numbers = ERRNO.findall(str(error))
        number = int(numbers[-1]) if numbers else None
    if number == errno.ECONNREFUSED:
        return "connection refused"
    if number in NO_WAY:
        return "no route to host"
    if number == errno.ETIMEDOUT:
        return "timed out"
    if isinstance(error, FileNotFoundError):
        return f"cannot run its ProxyCommand: {error.filename}"
    return os.strerror(number).lower() if number else str(error)


def _where(destination: Destination) -> dict[str, str | int]:
    return {
        "worker": destination.worker,
        "host": destination.host,
        "port": destination.port,
    }
