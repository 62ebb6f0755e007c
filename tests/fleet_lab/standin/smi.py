"""The stand-in ``nvidia-smi``: ``-L``, ``-q -x``, ``--query-gpu``, ``--query-compute-apps`` and
the plain table, from the scene of the moment.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from .log import document
from .scenes import Device, Process, Scene, load

Row = TypeVar("Row")

HANG_SECONDS = 3600


def main(folder: str, argv: Sequence[str]) -> int:
    """Prints what was asked for and returns the exit status of the real tool."""
    scene = load(folder)
    if scene.hangs:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(HANG_SECONDS)
    if scene.failure:
        print(scene.failure)
        return scene.exit_code
    options = _options(argv)
    if options is None:
        print("Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.")
        return 2
    devices = scene.devices
    if wanted := options.get("id"):
        devices = tuple(device for device in devices if _is(device, wanted.split(",")))
        if not devices:
            print(f"No devices were found for {wanted}")
            return 6
    return _answer(scene, devices, options)


def _answer(scene: Scene, devices: Sequence[Device], options: dict[str, str]) -> int:
    if "list" in options:
        sys.stdout.write(listing(devices))
    elif "gpu" in options:
        return _csv(options["gpu"], options, _gpu_columns(scene), devices)
    elif "apps" in options:
        rows = [(device, one) for device in devices for one in device.processes if "C" in one.kind]
        return _csv(options["apps"], options, _app_columns(), rows)
    elif "query" in options and "xml" in options:
        sys.stdout.write(document(scene, devices))
    elif "query" in options or "xml" in options:
        print("The stand-in answers -q only together with -x.", file=sys.stderr)
        return 2
    else:
        sys.stdout.write(table(scene, devices))
    return 0


def _options(argv: Sequence[str]) -> dict[str, str] | None:
    """The options by one-word names; ``None`` for something the tool does not know."""
    flags = {"-L": "list", "--list-gpus": "list", "-q": "query", "--query": "query"}
    flags |= {"-x": "xml", "--xml-format": "xml", "-qx": "query xml", "-xq": "query xml"}
    valued = {"-i": "id", "--id": "id", "--format": "format", "--query-gpu": "gpu"}
    valued |= {"--query-compute-apps": "apps"}
    found: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if word in flags:
            found.update(dict.fromkeys(flags[word].split(), ""))
        elif name in valued:
            found[valued[name]] = value if equals else next(words, "")
        else:
            return None
    return found


def _is(device: Device, wanted: Sequence[str]) -> bool:
    return any(text in (device.uuid, str(device.number)) for text in wanted)


# ------------------------------------------------------------------ lists and CSV


def listing(devices: Sequence[Device]) -> str:
    """What ``-L`` prints."""
    lines = []
    for device in devices:
        lines.append(f"GPU {device.number}: {device.model} (UUID: {device.uuid})")
        for place, one in enumerate(device.instances):
            lines.append(f"  MIG {one.profile:<11} Device {place:>2}: (UUID: {one.uuid})")
    return "\n".join(lines) + "\n"


def _gpu_columns(scene: Scene) -> dict[str, tuple[str, Callable[[Device], str]]]:
    """Unit and value of each field. A value that is not a number carries no unit."""

    def memory(value: Callable[[Device], int]) -> Callable[[Device], str]:
        return lambda device: (
            "[N/A]"
            if device.unified
            else "[Unknown Error]"
            if device.broken
            else str(value(device))
        )

    def reading(value: Callable[[Device], str]) -> Callable[[Device], str]:
        return lambda device: "[Unknown Error]" if device.broken else value(device)

    def busy(device: Device) -> str:
        return "[N/A]" if device.mig else str(device.utilisation)

    def mig(device: Device) -> str:
        return {None: "[N/A]", True: "Enabled", False: "Disabled"}[device.mig]

    def limit(device: Device) -> str:
        return "[N/A]" if device.unified else f"{device.power_limit:.2f}"

    return {
        "index": ("", lambda device: str(device.number)),
        "name": ("", lambda device: device.model),
        "uuid": ("", lambda device: device.uuid),
        "count": ("", lambda _: str(len(scene.devices))),
        "driver_version": ("", lambda _: scene.driver),
        "pci.bus_id": ("", lambda device: f"00000000:{device.bus}:00.0"),
        "compute_cap": ("", lambda device: device.capability),
        "compute_mode": ("", lambda _: "Default"),
        "pstate": ("", reading(lambda _: "P0")),
        "mig.mode.current": ("", mig),
        "memory.total": ("MiB", memory(lambda device: device.total)),
        "memory.reserved": ("MiB", memory(lambda device: device.reserved)),
        "memory.used": ("MiB", memory(lambda device: device.used)),
        "memory.free": ("MiB", memory(lambda one: one.total - one.used - one.reserved)),
        "utilization.gpu": ("%", reading(busy)),
        "utilization.memory": ("%", reading(busy)),
        "temperature.gpu": ("", reading(lambda device: str(device.temperature))),
        "power.draw": ("W", reading(lambda device: f"{device.power:.2f}")),
        "power.limit": ("W", reading(limit)),
    }


def _app_columns() -> dict[str, tuple[str, Callable[[tuple[Device, Process]], str]]]:
    def uuid(row: tuple[Device, Process]) -> str:
        device, process = row
        inside = [one.uuid for one in device.instances if one.gpu_instance == process.instance]
        return inside[0] if inside else device.uuid

    return {
        "gpu_uuid": ("", uuid),
        "gpu_name": ("", lambda row: row[0].model),
        "pid": ("", lambda row: str(row[1].pid)),
        "process_name": ("", lambda row: row[1].name),
        "used_memory": ("MiB", lambda row: str(row[1].memory)),
    }


ALIASES = {"gpu_name": "name", "gpu_uuid": "uuid", "used_gpu_memory": "used_memory"}


def _csv(
    asked: str,
    options: dict[str, str],
    columns: dict[str, tuple[str, Callable[[Row], str]]],
    rows: Sequence[Row],
) -> int:
    shape = options.get("format", "").split(",")
    if shape[0] != "csv":
        print('"--format=" switch is missing. Please run "nvidia-smi --help" for help.')
        return 2
    fields = [name.strip() for name in asked.split(",")]
    fields = [name if name in columns else ALIASES.get(name, name) for name in fields]
    for name in fields:
        if name not in columns:
            print(f'Field "{name}" is not a valid field to query.\n')
            return 2
    units = "nounits" not in shape
    if "noheader" not in shape:
        heads = [name + (f" [{columns[name][0]}]" if columns[name][0] else "") for name in fields]
        print(", ".join(heads))
    for row in rows:
        print(", ".join(_cell(*columns[name], row, units=units) for name in fields))
    return 0


def _cell(unit: str, value: Callable[[Row], str], row: Row, *, units: bool) -> str:
    text = value(row)
    return f"{text} {unit}" if units and unit and not text.startswith("[") else text


# ------------------------------------------------------------------ the table


def table(scene: Scene, devices: Sequence[Device]) -> str:
    """The plain overview for people, narrower than the real one."""
    rule = "+" + "-" * 79 + "+"
    title = (
        f"NVIDIA-SMI {scene.driver}   Driver Version: {scene.driver}   CUDA Version: {scene.cuda}"
    )
    lines = [time.strftime("%a %b %e %H:%M:%S %Y"), rule, f"| {title:<77} |", rule]
    for device in devices:
        memory = f"{device.used}MiB / {device.total}MiB"
        if device.unified:
            memory = "Not Supported"
        heat, power = f"{device.temperature}C", f"{device.power:.0f}W"
        if device.broken:
            heat = power = memory = "ERR!"
        text = f"{device.number:>3}  {device.model:<26} {heat:>5} {power:>6} {memory:>22}"
        lines.append(f"| {text:<77} |")
    lines += [rule, f"| {'Processes:':<77} |"]
    for device in devices:
        for one in device.processes:
            who = f"{device.number:>3} {one.pid:>9} {one.kind:>4}"
            text = f"{who}  {one.name[:36]:<36} {one.memory:>7}MiB"
            lines.append(f"| {text:<77} |")
    return "\n".join([*lines, rule]) + "\n"
