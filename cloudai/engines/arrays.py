"""What an element of an array is told of its array. Pure.

The names are ours, and those by which Slurm tells the same, so that a script runs as it is.
"""

from __future__ import annotations

from cloudai.core.arrays import INDEX
from cloudai.core.model import TaskSpec


def array_env(spec: TaskSpec) -> dict[str, str]:
    """Variables of an element; none for a task that is in no array. What the user set goes
    before."""
    if spec.array is None:
        return {}
    index, size = str(spec.array_index), str(spec.array_size)
    return {
        **dict.fromkeys((INDEX, "SLURM_ARRAY_TASK_ID"), index),
        **dict.fromkeys(("CLOUDAI_ARRAY_SIZE", "SLURM_ARRAY_TASK_COUNT"), size),
        **dict.fromkeys(("CLOUDAI_ARRAY_ID", "SLURM_ARRAY_JOB_ID"), spec.array),
    }
