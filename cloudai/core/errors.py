"""Every error a person can meet, and how it is shown.

::

    CloudaiError                 exit 1   something was refused or failed
    ├── InvalidInput             exit 2   what was typed or sent cannot be meant
    ├── NotFound                 exit 3   no such worker, task, ...
    │   ├── WorkerNotFound
    │   └── TaskNotFound
    ├── Conflict                 exit 1   true, but not now (state, name taken, ambiguous prefix)
    │   └── WorkerNotActive
    ├── Insufficient             exit 4   more asked than there is
    ├── WorkerUnreachable        exit 5   nothing is known about the worker at present
    │   ├── AuthenticationFailed          final until a person acts (facts, 4)
    │   ├── HostKeyUnknown                never connected before: ``register`` pins it
    │   ├── HostKeyChanged                stops that worker only
    │   └── Indeterminate                 a reply was cut: nothing is known of what it was about
    ├── EngineFailed             exit 1   the worker answered, whole: that cannot be done
    │   └── ContainerGone                 ... for there is no such container any more
    └── StoreFailed              exit 1   the database or the disk at home
        ├── StoreBusy
        ├── StoreReadOnly
        ├── StoreFull
        ├── StoreTooNew
        └── SecretUnreadable          a secret is set, and its value cannot be had now

An error carries what happened (``message``), what to do now (``hint``, may be empty) and a
stable ``code`` for programs. Raise the leaf that fits; the API and the CLI translate once.
"""

from __future__ import annotations

from typing import Any, ClassVar


class CloudaiError(Exception):
    """Something was refused or failed."""

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details
        """Facts for programs (plain JSON values), such as ``task_id`` or ``fingerprint``."""

    def as_json(self) -> dict[str, Any]:
        """The body every front door answers with: code, message, hint, exit_code, details."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "exit_code": self.exit_code,
            "details": self.details,
        }


class InvalidInput(CloudaiError):
    """What was typed or sent cannot be meant."""

    code = "invalid"
    exit_code = 2
    http_status = 422


class NotFound(CloudaiError):
    """No such thing."""

    code = "not_found"
    exit_code = 3
    http_status = 404


class WorkerNotFound(NotFound):
    """No such worker in the inventory."""

    code = "worker_not_found"

    def __init__(self, worker_id: str) -> None:
        # The words of seed 000, to the letter.
        super().__init__(
            f"Worker {worker_id} not found", hint="`cloudai workers` lists them", worker=worker_id
        )


class TaskNotFound(NotFound):
    """No such task in the store."""

    code = "task_not_found"

    def __init__(self, wanted: str) -> None:
        super().__init__(f"Task {wanted} not found", hint="`cloudai tasks` lists them", task=wanted)


class Conflict(CloudaiError):
    """True, but not now."""

    code = "conflict"
    http_status = 409


class WorkerNotActive(Conflict):
    """The worker is known, and takes no tasks at present."""

    code = "worker_not_active"

    def __init__(self, worker_id: str, *, why: str = "") -> None:
        super().__init__(f"Worker {worker_id} is not active", hint=why, worker=worker_id)


class Insufficient(CloudaiError):
    """More was asked than there is."""

    code = "insufficient"
    exit_code = 4
    http_status = 409


class WorkerUnreachable(CloudaiError):
    """Nothing is known about the worker at present. Never a statement about its tasks."""

    code = "unreachable"
    exit_code = 5
    http_status = 503


class AuthenticationFailed(WorkerUnreachable):
    """The worker's sshd knows us not. Never tried again by itself: sshd bans for that."""

    code = "authentication_failed"


class HostKeyUnknown(WorkerUnreachable):
    """The host was never seen before; ``details['fingerprint']`` is what it showed."""

    code = "host_key_unknown"


class HostKeyChanged(WorkerUnreachable):
    """The host is known under another key. Stops that worker; no byte of a task is sent."""

    code = "host_key_changed"


class Indeterminate(WorkerUnreachable):
    """A reply was cut or never came: ask again, conclude nothing (facts, 1)."""

    code = "indeterminate"


class EngineFailed(CloudaiError):
    """The worker answered, whole, that it cannot be done."""

    code = "engine_failed"
    http_status = 502


class ContainerGone(EngineFailed):
    """The worker answered, whole, that there is no such container."""

    code = "container_gone"


class LogUnreadable(EngineFailed):
    """The engine says itself that it cannot read a container's log (any further)."""

    code = "log_unreadable"


class Leaving(CloudaiError):
    """The controller leaves, and what was asked has not changed anything: ask the next one."""

    code = "leaving"
    http_status = 503

    def __init__(self) -> None:
        super().__init__(
            "The controller is leaving", hint="ask again: a command that needs one starts it"
        )


class StoreFailed(CloudaiError):
    """The database or the disk at home."""

    code = "store_failed"
    http_status = 503


class StoreBusy(StoreFailed):
    """Another process holds the database."""

    code = "store_busy"


class StoreReadOnly(StoreFailed):
    """The database cannot be written."""

    code = "store_read_only"


class StoreFull(StoreFailed):
    """No space left at home."""

    code = "store_full"


class StoreTooNew(StoreFailed):
    """A newer cloudai wrote this database."""

    code = "store_too_new"


class SecretUnreadable(StoreFailed):
    """A secret is set, and its value cannot be had now: a locked keyring, a damaged file."""

    code = "secret_unreadable"
