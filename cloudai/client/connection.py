"""The controller's UNIX socket, and foreign errors translated once."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import ControllerFailed

CONNECT_WITHIN = 5.0
"""Seconds in which a busy controller takes the connection."""


class NotRunning(Exception):
    """Nobody listens on the socket."""


def connect(path: str, *, within: float = CONNECT_WITHIN) -> socket.socket:
    """A connected socket. Raises ``NotRunning``, or ``OSError`` where it is there but refuses."""
    deadline = time.monotonic() + within
    while True:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.settimeout(within)
            link.connect(path)
            return link
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
            link.close()
            raise NotRunning from error
        except BlockingIOError:
            # Its queue of waiting connections is full: Linux says so at once.
            link.close()
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
        except BaseException:
            link.close()
            raise


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Whatever breaks between us and the controller, as ``ControllerFailed``."""
    try:
        yield
    except TimeoutError as error:
        raise ControllerFailed(
            "The controller does not answer",
            hint="`cloudai controller status` shows it, controller.log in its home says more",
        ) from error
    except ConnectionError as error:
        raise ControllerFailed(
            "The controller went away before it had answered",
            hint="what was asked may or may not have been done: look with `cloudai tasks`;"
            " controller.log in its home says why it ended",
        ) from error
    except OSError as error:
        raise ControllerFailed(
            f"The controller's socket {path} cannot be used: {error.strerror or error}",
            hint="see that CLOUDAI_HOME is yours",
        ) from error
