"""``make demo``: the main job on the practice fleet, with the real ``cloudai`` command.

Each command is shown as a person would type it, then run; the tour stops at the first one that
does not end as it should.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .fleet import Fleet, default_root
from .processes import FleetError, alive, wait_until

CHECKOUT = Path(__file__).resolve().parents[2]
CLOUDAI = Path(sys.executable).parent / "cloudai"
COMMAND_SECONDS = 120


class DemoFailed(Exception):
    """A command of the tour did not do what it should."""


@dataclass(frozen=True)
class Step:
    """What is said, what is typed, and how it must end."""

    text: str
    commands: tuple[str, ...]


def home_of(fleet: Fleet) -> Path:
    return fleet.root / "home"


def inventory_of(fleet: Fleet) -> Path:
    return fleet.root / "hosts.yaml"


def settings(fleet: Fleet) -> dict[str, str]:
    """The environment that makes ``cloudai`` use the practice fleet and a home of its own."""
    return {"CLOUDAI_HOME": str(home_of(fleet)), "CLOUDAI_INVENTORY": str(inventory_of(fleet))}


def put_away(fleet: Fleet) -> None:
    """Stops the tour's controller and removes its home and inventory."""
    if home_of(fleet).exists() and CLOUDAI.exists():
        pid = controller_pid(fleet)
        if pid is not None:
            ask(fleet, "controller", "stop")
            wait_until(lambda: not alive(pid), f"the tour's controller, pid {pid}, leaves")
    shutil.rmtree(home_of(fleet), ignore_errors=True)
    inventory_of(fleet).unlink(missing_ok=True)


def controller_pid(fleet: Fleet) -> int | None:
    """The pid of the tour's controller while it runs."""
    try:
        return int(json.loads(ask(fleet, "controller", "status", "--json"))["pid"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return None


def ask(fleet: Fleet, *words: str) -> str:
    """What ``cloudai`` prints, unseen."""
    done = subprocess.run(
        [CLOUDAI, *words],
        env={**os.environ, **settings(fleet)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    return done.stdout


def tour(fleet: Fleet) -> Iterator[Step]:
    """The steps, in order."""
    first, *others = fleet.workers
    pins = [f"--fingerprint {first.fingerprint}", *("--yes" for _ in others)]
    key = os.path.relpath(fleet.identity_file, CHECKOUT)
    cores = os.cpu_count() or 1
    yield Step(
        "Register the workers: connect, pin the host key, check the machine, write the inventory.",
        tuple(
            f"register {worker.name} {worker.user}@{worker.host}:{worker.port}"
            f" --identity-file {shlex.quote(key)} {pin}"
            for worker, pin in zip(fleet.workers, pins, strict=True)
        ),
    )
    yield Step("What there is.", ("workers",))
    yield Step(
        "Queue a task: the controller finds a worker for it. Then read what it wrote.",
        (
            "task alpine --name hello --wait -c 'echo Hello from $(hostname), $(nproc) cores'",
            "logs hello",
        ),
    )
    yield Step(
        "Send one straight to a worker, past the queue, and watch it live.",
        (
            f"dispatch {others[0].name} alpine --name count -cpu_cores 0.5 -mem 0.25"
            " -c 'for i in 1 2 3; do echo step $i of 3; sleep 1; done'",
            "monitor count",
        ),
    )
    yield Step(
        f"Fill {first.name}: what does not fit waits in the queue, with the reason.",
        (
            f"dispatch {first.name} alpine --name long --cpus {cores} -- sleep 600",
            f"task {first.name} alpine --name next --cpus {cores} -- echo my turn at last",
            "queue",
        ),
    )
    yield Step("Make room; the waiting task runs.", ("cancel long", "wait next", "logs next"))
    gpus = fleet.gpu_worker.gpus
    assert gpus is not None
    gpus.occupy(0, pid=os.getpid(), name="python3 finetune.py", memory=61_000)
    yield Step(
        "GPUs, picked on the worker by UUID; not the one that somebody outside cloudai uses."
        "\n      (Stand-ins here: the worker believes in them.)",
        (
            "task alpine --name train -gpu_cores 2 --wait -c 'echo I see $NVIDIA_VISIBLE_DEVICES'",
            "logs train",
            f"stats {fleet.gpu_worker.name}",
            "workers",
        ),
    )
    yield Step("All of it, newest first.", ("tasks",))


# ------------------------------------------------------------------ running it


def run(command: str, fleet: Fleet) -> None:
    """Shows a command as typed and runs it. Raises ``DemoFailed``."""
    print(f"\n$ cloudai {command}", flush=True)
    # Through a pipe: on a terminal, monitor would clear away what came before.
    width = str(shutil.get_terminal_size().columns)
    process = subprocess.Popen(
        [CLOUDAI, *shlex.split(command)],
        cwd=CHECKOUT,
        env={**os.environ, "COLUMNS": width, **settings(fleet)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    alarm = threading.Timer(COMMAND_SECONDS, process.kill)
    alarm.start()
    assert process.stdout is not None
    with process.stdout as output:
        while piece := os.read(output.fileno(), 65536):
            sys.stdout.buffer.write(piece)
            sys.stdout.flush()
    alarm.cancel()
    status = process.wait()
    if status:
        raise DemoFailed(f"`cloudai {command}` should have succeeded; it ended with {status}")


def main() -> None:
    fleet = Fleet(default_root(CHECKOUT), base_port=2200)
    began = time.monotonic()
    fleet.up()
    put_away(fleet)
    home_of(fleet).mkdir(mode=0o700)
    seconds = time.monotonic() - began
    print(f"Practice fleet: {len(fleet.workers)} real workers (an sshd and a Docker engine each)")
    print(f"on this machine, up in {seconds:.1f} s.\n")
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings(fleet).items())
    print(f"$ export {exports}")
    for number, step in enumerate(tour(fleet), 1):
        print(f"\n── {number}. {step.text}")
        for command in step.commands:
            run(command, fleet)
    print(f"""
── Go on by hand:

  export {exports}
  export PATH={shlex.quote(str(CLOUDAI.parent))}:$PATH

  cloudai workers --watch
  cloudai task alpine --follow -- echo hello
  cloudai task alpine -gpu_cores 0.5 -c 'env | grep NVIDIA'
  cloudai doctor
  .venv/bin/python -m tests.fleet_lab cut worker-2     # pull its cable; then: mend worker-2

The fleet stays up until you say:  make fleet-down""")


if __name__ == "__main__":
    try:
        main()
    except (DemoFailed, FleetError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\ndemo: interrupted; the fleet is still up: make fleet-down", file=sys.stderr)
        sys.exit(130)
