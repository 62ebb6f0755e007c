"""The box of seed 001 that shows a task as it is sent."""

from __future__ import annotations

from typing import Any

from .output import THICK, THIN, folded
from .terminal import clean


def preview(task: dict[str, Any]) -> str:
    """The box, without a line end after it. The command is folded on a terminal only."""
    return "\n".join(
        (
            THICK,
            "  📤 SENDING TASK TO WORKER",
            THICK,
            f"  Task ID:           {clean(task['task_id'])}",
            f"  Target Worker:     {clean(task['target'] or '(scheduler decides)')}",
            f"  Docker Image:      {clean(task['docker_image'])}",
            folded("  Command:           ", task.get("docker_run") or task.get("command")),
            *(folded("  Brings along:      ", one) for one in task.get("uploads", ())),
            *(folded("  Sends home:        ", one) for one in task.get("downloads", ())),
            THIN,
            "  Resource Requirements:",
            f"    • CPU Cores:     {task['req_cpu']:.2f} cores",
            f"    • Memory:        {task['req_memory']:.2f} GB",
            f"    • Storage:       {task['req_storage']:.2f} GB",
            f"    • GPU Cores:     {task['req_gpu']:.2f} cores",
            THICK,
        )
    )
