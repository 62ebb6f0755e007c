"""The stand-in ``nvidia-container-runtime-hook``: gives no device, but refuses what the real
one refuses, so that a task asking for a GPU that is not there fails to start.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from .scenes import load

NOTHING = ("", "void", "none", "all")


def main(folder: str, argv: Sequence[str]) -> int:
    """Called with ``prestart`` and the container's state as JSON on stdin."""
    if list(argv) != ["prestart"]:
        return 0
    bundle = json.load(sys.stdin)["bundle"]
    with open(os.path.join(bundle, "config.json"), encoding="utf-8") as file:
        environment = json.load(file)["process"]["env"]
    asked = ""
    for entry in environment:
        name, _, value = entry.partition("=")
        if name == "NVIDIA_VISIBLE_DEVICES":
            asked = value
    scene = load(folder)
    if scene.failure and asked not in ("", "void"):
        first = scene.failure.splitlines()[0].rsplit(": ", 1)[-1].lower()
        print(f"nvidia-container-cli: initialization error: nvml error: {first}", file=sys.stderr)
        return 1
    known = {str(device.number) for device in scene.devices}
    known |= {device.uuid for device in scene.devices}
    known |= {one.uuid for device in scene.devices for one in device.instances}
    for device in () if asked in NOTHING else asked.split(","):
        if device not in known:
            print(f"nvidia-container-cli: device error: {device}: unknown device", file=sys.stderr)
            return 1
    return 0
