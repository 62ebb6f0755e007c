"""``nvidia-smi -q -x``: the same elements in the same order and line by line, with tabs."""

from __future__ import annotations

import time
from collections.abc import Iterable

from .scenes import Device, Instance, Scene

Node = tuple[str, "str | list[Node]"]

UNKNOWN = "Unknown Error"
NONE = "N/A"


def document(scene: Scene, chosen: Iterable[Device]) -> str:
    """The whole document for some of the scene's devices."""
    devices = list(chosen)
    head: list[Node] = [
        ("timestamp", time.strftime("%a %b %e %H:%M:%S %Y")),
        ("driver_version", scene.driver),
        ("cuda_version", scene.cuda),
        ("attached_gpus", str(len(scene.devices))),
    ]
    lines = [
        '<?xml version="1.0" ?>',
        '<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">',
        "<nvidia_smi_log>",
        *_lines(head, 1),
    ]
    for device in devices:
        domain = "0000000F" if device.unified else "00000000"
        lines.append(f'\t<gpu id="{domain}:{device.bus}:00.0">')
        lines += _lines(_gpu(device), 2)
        lines.append("\t</gpu>\n")
    lines.append("</nvidia_smi_log>")
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    # xml.sax.saxutils would import urllib: a third of the whole running time.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _lines(nodes: Iterable[Node], depth: int) -> list[str]:
    tabs = "\t" * depth
    lines = []
    for name, value in nodes:
        if isinstance(value, str):
            lines.append(f"{tabs}<{name}>{escape(value)}</{name}>")
        else:
            lines += [f"{tabs}<{name}>", *_lines(value, depth + 1), f"{tabs}</{name}>"]
    return lines


def _gpu(device: Device) -> list[Node]:
    return [
        *_identity(device),
        *_hardware(device),
        *_load(device),
        *_health(device),
        *_readings(device),
        ("supported_clocks", NONE),
        ("processes", _processes(device)),
        ("accounted_processes", []),
        ("capabilities", [("egm", "disabled")]),
    ]


def _identity(device: Device) -> list[Node]:
    yes = "Enabled" if device.display else "Disabled"
    mode = {None: NONE, True: "Enabled", False: "Disabled"}[device.mig]
    instances: list[Node] = [
        ("mig_device", _instance(place, one)) for place, one in enumerate(device.instances)
    ]
    return [
        ("product_name", device.model),
        ("product_brand", device.brand),
        ("product_architecture", device.architecture),
        ("display_mode", yes),
        ("display_active", yes),
        ("persistence_mode", "Enabled"),
        ("addressing_mode", "ATS" if device.unified else "None"),
        ("mig_mode", [("current_mig", mode), ("pending_mig", mode)]),
        ("mig_devices", instances or "\n\t\t\tNone\n\t\t"),
        ("accounting_mode", "Disabled"),
        ("accounting_mode_buffer_size", "4000"),
        ("driver_model", [("current_dm", NONE), ("pending_dm", NONE)]),
        ("serial", NONE),
        ("uuid", device.uuid),
        ("minor_number", str(device.minor)),
    ]


def _instance(place: int, one: Instance) -> list[Node]:
    shared: list[Node] = [
        ("multiprocessor_count", str(one.processors)),
        ("copy_engine_count", str(max(1, one.processors // 14))),
        ("encoder_count", "0"),
        ("decoder_count", str(one.processors // 20)),
        ("ofa_count", "0"),
        ("jpg_count", "0"),
    ]
    return [
        ("index", str(place)),
        ("gpu_instance_id", str(one.gpu_instance)),
        ("compute_instance_id", str(one.compute_instance)),
        ("device_attributes", [("shared", shared)]),
        ("ecc_error_count", [("volatile_count", [("sram_uncorrectable", "0")])]),
        ("fb_memory_usage", _memory(one.total, one.used)),
        ("bar1_memory_usage", _memory(65535, 0, reserved=None)),
    ]


def _memory(total: int, used: int, reserved: int | None = 0) -> list[Node]:
    rest: list[Node] = [("used", f"{used} MiB"), ("free", f"{total - used - (reserved or 0)} MiB")]
    kept: list[Node] = [] if reserved is None else [("reserved", f"{reserved} MiB")]
    return [("total", f"{total} MiB"), *kept, *rest]


def _hardware(device: Device) -> list[Node]:
    pci: list[Node] = [
        ("pci_bus", device.bus),
        ("pci_device", "00"),
        ("pci_domain", "0000"),
        ("pci_bus_id", f"00000000:{device.bus}:00.0"),
        ("replay_counter", "0"),
        ("tx_util", "0 KB/s"),
        ("rx_util", "0 KB/s"),
    ]
    return [
        ("vbios_version", "92.00.45.00.05"),
        ("multigpu_board", "No"),
        ("board_id", f"0x{device.bus.lower()}00"),
        ("gpu_reset_status", [("reset_required", "Yes" if device.broken else "No")]),
        ("gpu_recovery_action", "Reset" if device.broken else "None"),
        ("gsp_firmware_version", "550.163.01"),
        ("pci", pci),
        ("fan_speed", "ERR!" if device.broken else NONE),
        ("performance_state", UNKNOWN if device.broken else "P0"),
    ]


def _load(device: Device) -> list[Node]:
    def all_of(value: str, *names: str) -> list[Node]:
        return [(name, value) for name in names]

    bar: list[Node] = _memory(131072, 4, reserved=None)
    if device.unified:
        memory = all_of(NONE, "total", "reserved", "used", "free")
        bar = all_of(NONE, "total", "used", "free")
    elif device.broken:
        memory = all_of(UNKNOWN, "total", "reserved", "used", "free")
    else:
        memory = _memory(device.total, device.used, device.reserved)
    busy = f"{device.utilisation} %"
    if device.mig:
        busy = NONE
    if device.broken:
        busy = UNKNOWN
    return [
        ("fb_memory_usage", memory),
        ("bar1_memory_usage", bar),
        ("cc_protected_memory_usage", all_of("0 MiB", "total", "used", "free")),
        ("compute_mode", "Default"),
        (
            "utilization",
            [
                ("gpu_util", busy),
                ("memory_util", busy),
                ("encoder_util", NONE if device.mig else "0 %"),
            ],
        ),
    ]


def _health(device: Device) -> list[Node]:
    has_ecc = device.mig is not None
    state = "Enabled" if has_ecc else NONE
    count = UNKNOWN if device.broken else ("0" if has_ecc else NONE)
    counts: list[Node] = [("sram_correctable", count), ("dram_uncorrectable", count)]
    return [
        ("ecc_mode", [("current_ecc", state), ("pending_ecc", state)]),
        ("ecc_errors", [("volatile", counts), ("aggregate", counts)]),
        (
            "remapped_rows",
            [
                ("remapped_row_corr", count),
                ("remapped_row_unc", count),
                ("remapped_row_pending", "No"),
            ],
        ),
    ]


def _readings(device: Device) -> list[Node]:
    draw, limit = f"{device.power:.2f} W", f"{device.power_limit:.2f} W"
    heat = f"{device.temperature} C"
    if device.broken:
        draw, limit, heat = "ERR!", "ERR!", UNKNOWN
    if device.unified:
        limit = NONE
    return [
        (
            "temperature",
            [("gpu_temp", heat), ("gpu_temp_max_threshold", NONE if device.unified else "92 C")],
        ),
        (
            "gpu_power_readings",
            [
                ("power_state", "P0"),
                ("average_power_draw", draw),
                ("instant_power_draw", draw),
                ("current_power_limit", limit),
            ],
        ),
        ("clocks", [("graphics_clock", "1410 MHz"), ("sm_clock", "1410 MHz"), ("mem_clock", NONE)]),
        ("max_clocks", [("graphics_clock", "1410 MHz"), ("sm_clock", "1410 MHz")]),
    ]


def _processes(device: Device) -> list[Node]:
    found: list[Node] = []
    for process in device.processes:
        inside = process.instance is not None
        info: list[Node] = [
            ("gpu_instance_id", str(process.instance) if inside else NONE),
            ("compute_instance_id", "0" if inside else NONE),
            ("pid", str(process.pid)),
            ("type", process.kind),
            ("process_name", process.name),
            ("used_memory", f"{process.memory} MiB"),
        ]
        found.append(("process_info", info))
    return found
