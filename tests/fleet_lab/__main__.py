"""``python -m tests.fleet_lab``: the practice fleet by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .demo import put_away
from .fleet import DEFAULT_WORKERS, Fleet, default_root
from .processes import FleetError
from .standin.scenes import SCENES
from .worker import PARTS

CHECKOUT = Path(__file__).resolve().parents[2]

worker_argument = click.argument("worker")
part_argument = click.argument("part", type=click.Choice(PARTS))


@click.group(help="The practice fleet: real workers on this machine, and faults on demand.")
@click.option("--root", type=click.Path(path_type=Path), help="Its folder.")
@click.option("--workers", default=DEFAULT_WORKERS, show_default=True, help="How many, at first.")
@click.option("--bridge", is_flag=True, help="Engines with a bridge network.")
@click.pass_context
def main(context: click.Context, root: Path | None, workers: int, bridge: bool) -> None:
    root = root or default_root(CHECKOUT)
    context.obj = Fleet(root, workers=workers, bridge=bridge, base_port=2200)


@main.command(help="Bring it up, or mend it; what a killed run left is cleared first.")
@click.pass_obj
def up(fleet: Fleet) -> None:
    show(fleet.up())


@main.command(help="Take it down; nothing of it is left.")
@click.pass_obj
def down(fleet: Fleet) -> None:
    put_away(fleet)
    fleet.down()


@main.command(help="Its workers, and what is broken.")
@click.pass_obj
def status(fleet: Fleet) -> None:
    show(fleet)


@main.command(help="The fleet as an inventory for cloudai.")
@click.pass_obj
def inventory(fleet: Fleet) -> None:
    click.echo(fleet.inventory(), nl=False)


@main.command(help="SIGKILL a worker's sshd or dockerd.")
@worker_argument
@part_argument
@click.pass_obj
def kill(fleet: Fleet, worker: str, part: str) -> None:
    fleet[worker].kill(part)


@main.command(help="Start a worker's sshd or dockerd again.")
@worker_argument
@part_argument
@click.pass_obj
def start(fleet: Fleet, worker: str, part: str) -> None:
    fleet[worker].start(part)


@main.command(help="Stop a worker's sshd or dockerd in its tracks (SIGSTOP).")
@worker_argument
@part_argument
@click.pass_obj
def freeze(fleet: Fleet, worker: str, part: str) -> None:
    fleet[worker].freeze(part)


@main.command(help="Let it go on (SIGCONT).")
@worker_argument
@part_argument
@click.pass_obj
def thaw(fleet: Fleet, worker: str, part: str) -> None:
    fleet[worker].thaw(part)


@main.command(help="Cut a worker's network: packets vanish.")
@worker_argument
@click.pass_obj
def cut(fleet: Fleet, worker: str) -> None:
    fleet[worker].cut()


@main.command(help="Take back every fault of a worker.")
@worker_argument
@click.pass_obj
def mend(fleet: Fleet, worker: str) -> None:
    fleet[worker].mend()


@main.command(help="End everything on a worker at once, then bring it back.")
@worker_argument
@click.pass_obj
def reboot(fleet: Fleet, worker: str) -> None:
    fleet[worker].reboot()


@main.command(help="Add a worker.")
@click.option("--gpus", is_flag=True, help="With stand-in GPUs.")
@click.pass_obj
def add(fleet: Fleet, gpus: bool) -> None:
    click.echo(fleet.add(gpus=gpus).name)


@main.command(help="Remove a worker.")
@worker_argument
@click.pass_obj
def remove(fleet: Fleet, worker: str) -> None:
    fleet.remove(worker)


@main.command(help="Which machine the stand-in GPUs pretend to be.")
@click.argument("name", type=click.Choice(SCENES))
@click.pass_obj
def scene(fleet: Fleet, name: str) -> None:
    gpus = fleet.gpu_worker.gpus
    assert gpus is not None
    gpus.scene = name


def show(fleet: Fleet) -> None:
    if not fleet.workers:
        click.echo(f"no fleet in {fleet.root}")
    for worker in fleet.workers:
        parts = "  ".join(f"{part} {state}" for part, state in worker.state().items())
        gpus = f"  GPUs: {worker.gpus.scene}" if worker.gpus else ""
        click.echo(f"{worker.name}  {worker.host}:{worker.port}  {parts}{gpus}")


if __name__ == "__main__":
    try:
        main(prog_name="python -m tests.fleet_lab")
    except FleetError as error:
        click.echo(f"practice fleet: {error}", err=True)
        sys.exit(1)
