"""``gpus()`` of the worker scripts: recorded nvidia-smi in, lines out, in every shell and awk."""

from __future__ import annotations

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloudai.engines.docker.probe import parse_gpus
from cloudai.scripts import render

from .worker_tools import COMBINATIONS, SHELLS, Tools

DATA = Path(__file__).parent.parent / "data" / "nvidia"
SCENES = sorted(path.stem for path in DATA.glob("*.tsv"))
SCRIPT = render("_parts", docker_host="") + render("_gpus") + "\ngpus\n"
XML = '<?xml version="1.0" ?>\n<nvidia_smi_log>\n{}\n</nvidia_smi_log>\n'
PLAIN = """<attached_gpus>1</attached_gpus>
<gpu id="00000000:01:00.0">
<product_name>{model}</product_name>
<mig_mode>
<current_mig>N/A</current_mig>
</mig_mode>
<uuid>{uuid}</uuid>
<fb_memory_usage>
<total>{total}</total>
<used>{used}</used>
</fb_memory_usage>
<utilization>
<gpu_util>{use}</gpu_util>
</utilization>
<temperature>
<gpu_temp>{heat}</gpu_temp>
</temperature>
<max_clocks>
<graphics_clock>1500 MHz</graphics_clock>
<sm_clock>{clock}</sm_clock>
</max_clocks>
<processes>
{processes}
</processes>
</gpu>"""


def replay(tools: Tools, scene: str) -> None:
    tools.put(
        "nvidia-smi", f"case $1 in -L) cat {DATA / scene}.list ;; *) cat {DATA / scene}.xml ;; esac"
    )


def report(tools: Tools, text: str, status: int = 0) -> list[str]:
    (tools.folder / "report").write_text(text)
    tools.put("nvidia-smi", f"cat {tools.folder}/report; exit {status}")
    return tools.run(SCRIPT).splitlines()


def plain(**values: str) -> str:
    given = {
        "model": "M",
        "uuid": "GPU-1",
        "total": "10 MiB",
        "used": "1 MiB",
        "use": "3 %",
        "heat": "40 C",
        "clock": "1410 MHz",
        "processes": "",
        **values,
    }
    return XML.format(PLAIN.format(**given))


def process(pid: str, name: str = "x") -> str:
    return (
        f"<process_info>\n<pid>{pid}</pid>\n<type>C</type>\n<process_name>{name}</process_name>\n"
        "<used_memory>1 MiB</used_memory>\n</process_info>"
    )


@pytest.mark.parametrize(("shell", "awk"), COMBINATIONS)
@pytest.mark.parametrize("scene", SCENES)
def test_recorded_machines(tmp_path: Path, scene: str, shell: str, awk: str) -> None:
    tools = Tools(tmp_path, shell, awk)
    replay(tools, scene)
    assert tools.run(SCRIPT) == (DATA / f"{scene}.tsv").read_text()


def test_mig_instances_take_the_place_of_their_gpu(tmp_path: Path) -> None:
    gpus, trouble = parse_gpus((DATA / "mig.tsv").read_text().splitlines())
    assert trouble == ""
    assert [gpu.uuid[:3] for gpu in gpus] == ["MIG"] * 4 + ["GPU"]
    assert {gpu.mig_parent for gpu in gpus[:4]} == {"GPU-57754e8c-7b57-b54c-c0fa-b445981228bb"}
    assert [len(gpu.processes) for gpu in gpus] == [0, 1, 0, 0, 0]
    assert gpus[0].model == "NVIDIA A100-SXM4-80GB MIG 3g.40gb"
    assert gpus[0].memory == 40192 * 2**20


def test_the_clock_is_the_most_it_can_be() -> None:
    gpus, _ = parse_gpus((DATA / "mig.tsv").read_text().splitlines())
    assert [gpu.clock for gpu in gpus] == [1410] * 5
    (told,) = parse_gpus((DATA / "gb10.tsv").read_text().splitlines())[0]
    assert told.clock is not None


def test_text_of_a_process_is_text(tmp_path: Path) -> None:
    gpus, _ = parse_gpus((DATA / "a100x4.tsv").read_text().splitlines())
    assert gpus[1].processes[0].name == "/usr/bin/python3 -c 'it\"s $(id) <b>'"
    assert (gpus[1].processes[0].pid, gpus[1].processes[0].memory) == (2147483001, 30000 * 2**20)


@pytest.mark.parametrize(
    ("said", "shown"),
    [("N/A", "-"), ("[N/A]", "-"), ("[Not Supported]", "-"), ("", "-"), ("nonsense", "-")],
)
@pytest.mark.parametrize("field", ["total", "used", "use", "heat", "clock"])
def test_what_it_does_not_say(tmp_path: Path, field: str, said: str, shown: str) -> None:
    (line,) = report(Tools(tmp_path), plain(**{field: said}))
    place = {"total": 3, "used": 4, "use": 5, "heat": 6, "clock": 7}[field]
    assert line.split("\t")[place] == shown
    assert line.split("\t")[9] == "-"


@pytest.mark.parametrize("said", ["ERR!", "[Unknown Error]", "GPU is lost", "GPU requires reset"])
@pytest.mark.parametrize("field", ["total", "used", "use", "heat"])
def test_a_gpu_that_says_it_is_broken(tmp_path: Path, field: str, said: str) -> None:
    (line,) = report(Tools(tmp_path), plain(**{field: said}))
    assert said in line.split("\t")[9]


def test_large_numbers_stay_exact(tmp_path: Path) -> None:
    for awk in ("mawk", "busybox"):
        (line,) = report(Tools(tmp_path, awk=awk), plain(total="1441792 MiB"))
        assert line.split("\t")[3] == str(1441792 * 2**20)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", 9),
        ("Unable to determine the device handle for GPU0000:0B:00.0: Unknown Error", 255),
        ("No devices were found", 6),
        ("", 1),
    ],
)
def test_a_failure_is_told_and_shows_no_gpu(tmp_path: Path, said: str, status: int) -> None:
    lines = report(Tools(tmp_path), f"{said}\n", status)
    assert lines == [f"trouble\tnvidia-smi failed (status {status}): {said}"]


def test_no_nvidia_smi_is_no_trouble(tmp_path: Path) -> None:
    assert Tools(tmp_path).run(SCRIPT) == ""


def test_a_lost_gpu_leaves_the_others(tmp_path: Path) -> None:
    text = plain().replace("<attached_gpus>1<", "<attached_gpus>2<")
    gpus, trouble = parse_gpus(report(Tools(tmp_path), "Unable to read GPU 2\n" + text))
    assert [gpu.uuid for gpu in gpus] == ["GPU-1"]
    assert trouble == "nvidia-smi shows 1 of 2 GPUs: Unable to read GPU 2"


@pytest.mark.parametrize("awk", ["mawk", "busybox"])
@pytest.mark.parametrize(
    "name",
    [
        "x</process_name>\n</process_info>\n</processes>\n</gpu>\n"
        '<gpu id="1">\n<uuid>GPU-evil</uuid>\n</gpu>\n<product_name>',
        "x\n</process_info>\n</processes>\n</gpu>\n<process_info>\n",
    ],
)
def test_a_process_cannot_invent_gpus(tmp_path: Path, name: str, awk: str) -> None:
    lines = report(Tools(tmp_path, awk=awk), plain(processes=process("12", name)))
    assert lines == ["trouble\tnvidia-smi contradicts itself"]


def test_a_hostile_name_stays_in_its_field(tmp_path: Path) -> None:
    name = "a\tb $(touch never) `id` '\" \\ \x1b[31m\x01 end"
    lines = report(Tools(tmp_path), plain(processes=process("2147483000", name)))
    assert lines[1] == (
        "proc\tGPU-1\t2147483000\tC\t1048576\t-\t-\ta b $(touch never) `id` '\" \\  [31m  end"
    )
    assert not (tmp_path / "never").exists()


def test_a_pid_that_is_none_is_asked_of_nobody(tmp_path: Path) -> None:
    lines = report(Tools(tmp_path), plain(processes=process("1; touch never")))
    assert lines[1].split("\t")[2] == "-"


def test_a_process_has_its_user(tmp_path: Path) -> None:
    lines = report(Tools(tmp_path), plain(processes=process(str(os.getpid()))))
    gpus, _ = parse_gpus(lines)
    assert gpus[0].processes[0].user == Path(f"/proc/{os.getpid()}").owner()


def test_a_gpu_without_uuid_is_broken(tmp_path: Path) -> None:
    gpus, _ = parse_gpus(report(Tools(tmp_path), plain(uuid="$(id)")))
    assert gpus[0].uuid == "unknown-0"
    assert gpus[0].error == "it has no UUID"


# --- a tool that does not end


def hurried(script: str) -> str:
    """The script with one second for nvidia-smi instead of ten, and one more for its reader."""
    for pattern, change in ((r"ask xml 10 ", "ask xml 1 "), (r"part_seconds \+ 3", "1 + 1")):
        script, count = re.subn(pattern, change, script)
        assert count == 1
    return script


def in_every_shell(tmp_path: Path, nvidia_smi: str) -> dict[str, tuple[str, float, Path]]:
    """What the hurried script prints in each shell, after how long, and in which folder: all
    at once, for each takes seconds."""

    def one(shell: str) -> tuple[str, float, Path]:
        folder = tmp_path / shell
        tools = Tools(folder, shell)
        tools.put("nvidia-smi", nvidia_smi)
        before = time.monotonic()
        told = tools.run(f"cd {folder}\n{hurried(SCRIPT)}")
        return told, time.monotonic() - before, folder

    with ThreadPoolExecutor() as pool:
        return dict(zip(SHELLS, pool.map(one, SHELLS), strict=True))


def test_a_hang_that_ignores_term_ends_in_time(tmp_path: Path) -> None:
    hang = "trap '' TERM; while :; do sleep 0.2; done"
    for shell, (told, took, _) in in_every_shell(tmp_path, hang).items():
        assert told == "trouble\tnvidia-smi did not answer within 10 s\n", shell
        assert took < 4, shell


def test_one_that_cannot_be_killed_ends_in_time_too(tmp_path: Path) -> None:
    # What is left over holds the pipe, as a process stuck in the kernel would.
    hang = "trap '' TERM; setsid sleep 20 & echo $! >left; wait"
    for shell, (told, took, folder) in in_every_shell(tmp_path, hang).items():
        os.kill(int((folder / "left").read_text()), 9)
        assert told == "trouble\tnvidia-smi did not answer within 10 s\n", shell
        assert took < 5, shell


@pytest.mark.parametrize("shell", SHELLS)
def test_what_hangs_does_not_hold_the_lock(tmp_path: Path, shell: str) -> None:
    tools = Tools(tmp_path, shell)
    tools.put("nvidia-smi", "ls -l /proc/self/fd >fds")
    tools.run(f"cd {tmp_path}\nexec 9</\n{SCRIPT}")
    listed = (tmp_path / "fds").read_text()
    assert " 0 -> " in listed
    assert " 9 -> " not in listed
