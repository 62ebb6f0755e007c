"""The labels every container of ours carries. They are what is reserved on a worker: whoever
admits a task there adds them up, so their names and units are a format between versions.
"""

from __future__ import annotations

PREFIX = "cloudai."
TASK = "cloudai.task"
ASSIGNMENT = "cloudai.assignment"
STORE = "cloudai.store"
USER = "cloudai.user"
NAME = "cloudai.name"
SPEC = "cloudai.spec"
"""SHA-256 of the spec's JSON, without values of environment variables."""
CPU_MILLI = "cloudai.cpu_milli"
MEMORY = "cloudai.memory"
"""Bytes."""
STORAGE = "cloudai.storage"
"""Bytes."""
GPU_MILLI = "cloudai.gpu_milli"
"""Thousandths: 500 is half of one GPU, 2000 is two whole ones."""
GPU_MEMORY = "cloudai.gpu_memory"
"""Bytes that it may use on each of its GPUs; not there where its owner declared nothing."""
GPUS = "cloudai.gpus"
"""UUIDs, comma-separated, chosen on the worker under its lock."""
END = "cloudai.end"
"""On the note of an end (a volume, see templates/worker/_ending.sh.j2): why, as ``Ending``."""
