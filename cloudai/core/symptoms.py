"""What the end of a failed task's log says about its worker. Pure.

Some failures are the host's, and only the job's own output tells. Each is known by words that
one library prints, and only in tasks that had a GPU.
"""

from __future__ import annotations

from .model import State, Task

TELLING = 64 * 1024
"""Bytes at a log's end that are looked at."""

GPU_SIGNS = (
    (
        # facts, 29: the host's systemd writes the container's device rules anew, without them.
        b"Failed to initialize NVML: Unknown Error",
        "its container lost its GPUs while it ran, as `systemctl daemon-reload` on a worker makes"
        " happen; submit it again, and have the worker's Docker use CDI or the cgroupfs driver",
    ),
    (
        b"Driver/library version mismatch",
        "the GPU driver of its worker was updated and is not loaded yet: that needs a reboot there",
    ),
)


def symptom(task: Task, end: bytes) -> str:
    """What ailed a failed task's worker, by the last bytes of its log; empty for all others."""
    held = task.assignment
    if task.state is not State.FAILED or held is None or not held.gpus:
        return ""
    return next((meaning for sign, meaning in GPU_SIGNS if sign in end), "")
