"""Debian's cron as it runs at night, with a crontab of its own: nothing of the machine's own
crontabs is read or run, and nothing of this is left.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .processes import Daemon, FleetError

SPOOL = "/var/spool/cron/crontabs"
PID_FILE = Path("/run/crond.pid")
# Its crontab comes in the place of root's; those of the machine are hidden from it.
SCRIPT = """
set -e
mount --bind "$1/crontabs" "$2"
mount --bind "$1/none" /etc/cron.d
mount --bind "$1/empty" /etc/crontab
mount --bind "$1/pid" /run/crond.pid
exec cron -f
"""


@contextlib.contextmanager
def crond(folder: Path, crontab: str) -> Iterator[Daemon]:
    """A cron that runs root's ``crontab``, until left. ``folder`` is made for it. Raises
    ``FleetError`` where there is no cron."""
    if shutil.which("cron", path="/usr/sbin:/usr/bin") is None:
        raise FleetError("cron missing; install: apt-get install cron")
    for name in ("crontabs", "none"):
        (folder / name).mkdir(parents=True)
    for name in ("empty", "pid"):
        (folder / name).touch()
    (folder / "crontabs").chmod(0o1730)
    table = folder / "crontabs" / "root"
    table.write_text(crontab)
    table.chmod(0o600)
    made = not PID_FILE.exists()
    PID_FILE.touch()
    daemon = Daemon("cron", folder / "cron.pid", folder / "cron.log")
    try:
        daemon.start(
            [
                *("unshare", "--mount", "--propagation", "private"),
                *("sh", "-c", SCRIPT, "cron", str(folder), SPOOL),
            ],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        yield daemon
    finally:
        daemon.stop()
        if made:
            PID_FILE.unlink(missing_ok=True)


def as_cron(home: Path, line: str, *, seconds: float = 100) -> subprocess.CompletedProcess[str]:
    """Runs one command as cron would, at once: with its environment, shell, folder and mask, no
    terminal, no agent, and nothing to read."""
    environment = {
        "HOME": str(home),
        "LOGNAME": "root",
        "PATH": "/usr/bin:/bin",
        "SHELL": "/bin/sh",
    }
    return subprocess.run(
        ["/bin/sh", "-c", line],
        env=environment,
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        umask=0o022,
        start_new_session=True,
        timeout=seconds,
        check=False,
    )
