"""A worker made of stub programs: a folder on PATH, one awk, one shell."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}
AWKS = {"mawk": "exec /usr/bin/mawk", "busybox": "exec busybox awk"}
COMBINATIONS = [(shell, awk) for shell in SHELLS for awk in AWKS]


class Tools:
    """``put`` programs, ``run`` script text. busybox sh may prefer its own small programs."""

    def __init__(self, folder: Path, shell: str = "dash", awk: str = "mawk") -> None:
        self.folder, self.shell = folder, SHELLS[shell]
        self.path = "/usr/bin:/bin"
        folder.mkdir(exist_ok=True)
        self.put("awk", f'{AWKS[awk]} "$@"')

    def put(self, name: str, body: str) -> Path:
        """A program of that name, in sh."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    def only(self, *names: str) -> None:
        """From the system, these programs and no others."""
        private = self.folder / "system"
        private.mkdir()
        for name in names:
            found = shutil.which(name, path="/usr/bin:/bin")
            assert found, name
            (private / name).symlink_to(found)
        self.path = str(private)

    def run(self, script: str, *, stdin: str = "", timeout: float = 30, **env: str) -> str:
        """What it prints. Fails on anything on stderr: a script of ours is silent there."""
        done = subprocess.run(
            [shutil.which(self.shell[0]) or self.shell[0], *self.shell[1:], "-c", script],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={"PATH": f"{self.folder}:{self.path}", "HOME": str(self.folder), **env},
        )
        # busybox says that of a program which a deadline ended.
        assert done.stderr.replace("Terminated\n", "") == ""
        return done.stdout
