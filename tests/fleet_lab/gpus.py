"""A worker's stand-in GPUs, and what tests may do to them while it runs."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from .standin import scenes

HERE = Path(__file__).resolve().parent

PROGRAM = """#!{python} -IS
import sys
sys.path.insert(0, {here!r})
from standin.{module} import main
sys.exit(main({folder!r}, sys.argv[1:]))
"""


class StandIn:
    """The GPUs of one worker. Every change shows in the next call of its nvidia-smi."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, tools: Path, *, seed: str) -> None:
        """Puts nvidia-smi and the runtime hook into a folder that log-ins and the engine have
        on their PATH. ``seed``: what makes its UUIDs different from other workers'.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "seed").write_text(seed)
        if not (self.folder / "scene").exists():
            self.reset()
        for program, module in (
            (tools / "nvidia-smi", "smi"),
            (tools / "nvidia-container-runtime-hook", "hook"),
        ):
            text = PROGRAM.format(
                python=sys.executable, here=str(HERE), module=module, folder=str(self.folder)
            )
            if len(sys.executable) > 100:  # the kernel cuts a long first line
                command = shlex.quote(sys.executable)
                text = text.replace(f"#!{sys.executable} -IS\n", "", 1)
                text = f'#!/bin/sh\nexec {command} -IS -c {shlex.quote(text)} "$@"\n'
            program.write_text(text)
            program.chmod(0o755)

    @property
    def scene(self) -> str:
        """Which machine it pretends to be: one of ``standin.scenes.SCENES``."""
        return (self.folder / "scene").read_text().strip()

    @scene.setter
    def scene(self, name: str) -> None:
        if name not in scenes.SCENES:
            raise ValueError(f"no scene {name!r}; there are {', '.join(scenes.SCENES)}")
        self._write("scene", name + "\n")

    def reset(self) -> None:
        """Back to the default machine with nobody on it."""
        self.scene = scenes.DEFAULT
        self._write("processes", "")

    def devices(self) -> tuple[scenes.Device, ...]:
        """Its GPUs as they stand, outsiders counted."""
        return scenes.load(str(self.folder)).devices

    def uuids(self) -> list[str]:
        """What can be given to a container: GPUs, and MIG instances instead of their GPU."""
        found: list[str] = []
        for device in self.devices():
            found += [one.uuid for one in device.instances] or [device.uuid]
        return found

    def occupy(
        self, gpu: str | int, *, pid: int, name: str = "python", memory: int = 2000, kind: str = "C"
    ) -> None:
        """Puts an outsider's process on a GPU (index or UUID, of a MIG instance too), with
        ``memory`` MiB; ``kind`` is ``C``, ``G`` or ``C+G``.
        """
        line = "\t".join([str(gpu), str(pid), kind, str(memory), name])
        self._write("processes", self._processes() + line + "\n")

    def leave(self, pid: int) -> None:
        """Takes that process off every GPU."""
        lines = self._processes().splitlines(keepends=True)
        self._write("processes", "".join(line for line in lines if line.split("\t")[1] != str(pid)))

    def _processes(self) -> str:
        try:
            return (self.folder / "processes").read_text()
        except FileNotFoundError:
            return ""

    def _write(self, name: str, text: str) -> None:
        # Renamed into place: nvidia-smi may read at any moment.
        fresh = self.folder / f".{name}.{os.getpid()}"
        fresh.write_text(text)
        fresh.replace(self.folder / name)
