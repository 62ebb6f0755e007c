"""The worker that is there with no inventory at all: this machine's own engine. The only place
where the docker SDK speaks, to this machine's engine alone.
"""

from __future__ import annotations

import contextlib
import os
import time

from cloudai.core.model import WorkerSpec

ASK_AGAIN = 30.0
"""Seconds for which the answer is kept: an engine may be started meanwhile."""


class EmbeddedWorker:
    """``local``, while this machine has an engine that answers."""

    def __init__(self) -> None:
        self._asked = float("-inf")
        self._spec: WorkerSpec | None = None

    def __call__(self) -> WorkerSpec | None:
        at = time.monotonic()
        if at - self._asked > ASK_AGAIN or (self._spec is None and at - self._asked > 2):
            self._asked = at
            self._spec = find_local_engine()
        return self._spec


def find_local_engine() -> WorkerSpec | None:
    """This machine's engine as DOCKER_HOST or the docker context names it, else none.

    Blocks for at most a few milliseconds: only UNIX sockets are asked.
    """
    import docker
    from docker.context import ContextAPI
    from docker.errors import DockerException

    endpoint = os.environ.get("DOCKER_HOST", "")
    if not endpoint:
        with contextlib.suppress(Exception):  # a damaged ~/.docker/config.json is not ours
            context = ContextAPI.get_current_context()
            endpoint = (context.Host if context else "") or ""
    endpoint = endpoint or "unix:///var/run/docker.sock"
    if not endpoint.startswith("unix://"):
        return None
    endpoint = endpoint.removeprefix("unix://")
    client = None
    try:
        client = docker.DockerClient(base_url=f"unix://{endpoint}", timeout=2)
        client.ping()
    except (DockerException, OSError):
        return None
    finally:
        if client is not None:
            client.close()
    return WorkerSpec(
        id="local", connection="local", engine_socket=f"unix://{endpoint}", place="this machine"
    )
