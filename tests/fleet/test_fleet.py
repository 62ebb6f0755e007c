"""The practice fleet itself: what the other fleet tests lean on."""

from __future__ import annotations

import shutil
import socket
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet_lab import Fleet, FleetError, Worker
from tests.fleet_lab.fleet import LONGEST_ROOT, reserved_root
from tests.fleet_lab.gpus import StandIn
from tests.fleet_lab.network import answers_ssh
from tests.fleet_lab.processes import members, wait_until
from tests.fleet_lab.standin.scenes import SCENES
from tests.fleet_lab.worker import ping


def smi(worker: Worker, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [worker.root / "tools" / "nvidia-smi", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )


def log(worker: Worker) -> ElementTree.Element:
    reply = smi(worker, "-q", "-x")
    assert reply.returncode == 0, reply.stdout
    return ElementTree.fromstring(reply.stdout)


def gpus_of(worker: Worker) -> StandIn:
    assert worker.gpus is not None
    return worker.gpus


def engine_id(worker: Worker) -> str:
    with worker.engine() as client:
        return str(client.info()["ID"])


def container_states(worker: Worker) -> list[str]:
    return worker.docker("ps", "-a", "--format", "{{.State}}").stdout.split()


@pytest.fixture
def gpu_worker(mended_fleet: Fleet) -> Worker:
    return mended_fleet.gpu_worker


# ------------------------------------------------------------------ up and down


@pytest.fixture
def small_root() -> Iterator[Path]:
    with reserved_root() as root:
        yield root


def traces(mark: str, root: Path) -> dict[str, object]:
    """What a fleet could leave on a machine."""
    rules = subprocess.run(["iptables", "-S", "INPUT"], capture_output=True, text=True, check=True)
    return {
        "processes": members(mark),
        "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if mark in line],
        "mounts below": str(root) in Path("/proc/mounts").read_text(),
        "cgroups": list(Path("/sys/fs/cgroup").glob(f"*/{mark}")),
        "rules": mark in rules.stdout,
        "folder": root.exists(),
    }


NOTHING = {
    "processes": {},
    "mounts": [],
    "mounts below": False,
    "cgroups": [],
    "rules": False,
    "folder": False,
}


def test_down_leaves_nothing(small_root: Path) -> None:
    fleet = Fleet(small_root, workers=1, gpus=(1,)).up()
    worker = fleet[1]
    run = worker.docker("run", "-d", "--memory=64m", "busybox", "sleep", "1000")
    assert run.returncode == 0, run.stderr
    assert worker.docker("pause", run.stdout.strip()).returncode == 0
    assert worker.ssh("sleep 1000 >/dev/null 2>&1 & echo on").stdout == "on\n"
    worker.cut()
    worker.freeze("dockerd")

    fleet.down()

    assert traces(worker.mark, small_root) == NOTHING


def test_up_twice_is_one_fleet(small_root: Path) -> None:
    first = Fleet(small_root, workers=1, gpus=()).up()
    pids = (first[1].keeper.pid, first[1].sshd.pid, first[1].dockerd.pid)
    second = Fleet(small_root, workers=2).up()
    try:
        assert len(second.workers) == 1
        assert (second[1].keeper.pid, second[1].sshd.pid, second[1].dockerd.pid) == pids
        assert second[1].ssh("echo hello").stdout == "hello\n"
    finally:
        second.down()


def test_up_clears_what_a_killed_run_left(small_root: Path) -> None:
    left = Fleet(small_root, workers=1, gpus=()).up()[1]
    assert left.docker("run", "-d", "busybox", "sleep", "1000").returncode == 0
    before = set(members(left.mark))
    # As a crash of the machine or a hard hand leaves it: some parts gone, others not.
    left.keeper.kill()
    left.sshd.pid_file.unlink()

    fleet = Fleet(small_root, workers=1, gpus=()).up()
    try:
        assert not before & set(members(fleet[1].mark))
        assert container_states(fleet[1]) == []
        assert fleet[1].ssh("echo hello").stdout == "hello\n"
    finally:
        fleet.down()
    assert traces(left.mark, small_root) == NOTHING


def test_up_clears_a_fleet_whose_folder_was_removed_by_hand(small_root: Path) -> None:
    left = Fleet(small_root, workers=1, gpus=()).up()[1]
    before = set(members(left.mark))
    assert before
    shutil.rmtree(small_root)

    with Fleet(small_root, workers=1, gpus=()) as fleet:
        assert not before & set(members(left.mark))
        assert fleet[1].ssh("echo hello").stdout == "hello\n"
    assert traces(left.mark, small_root) == NOTHING


def test_a_root_too_deep_for_sockets_is_refused() -> None:
    with pytest.raises(FleetError, match="too long a path for UNIX sockets"):
        Fleet("/tmp/" + "x" * LONGEST_ROOT)


def test_what_does_not_start_says_why(small_root: Path) -> None:
    fleet = Fleet(small_root, workers=1, gpus=()).up()
    try:
        fleet[1].engine_options = ["--no-such-option"]
        fleet[1].kill("dockerd")
        with pytest.raises(
            FleetError, match=r"dockerd of worker-1 ended at once[^$]*no-such-option"
        ):
            fleet[1].start("dockerd")
    finally:
        fleet.down()


# ------------------------------------------------------------------ three real workers


def test_every_worker_is_a_machine_of_its_own(fleet: Fleet) -> None:
    assert len(fleet.workers) == 3
    assert len({engine_id(worker) for worker in fleet.workers}) == 3
    assert len({worker.host_key for worker in fleet.workers}) == 3
    machines = {worker.ssh("cat /etc/machine-id").stdout for worker in fleet.workers}
    assert len(machines) == 1


def test_a_login_reaches_the_workers_own_engine(fleet: Fleet) -> None:
    for worker in fleet.workers:
        reply = worker.ssh('docker info --format "{{.ID}}"; echo "$HOME"')
        assert reply.stdout.split() == [engine_id(worker), str(worker.home)], reply.stderr


def test_the_image_runs_under_both_names(mended_fleet: Fleet) -> None:
    for name in ("busybox", "alpine"):
        run = mended_fleet[1].docker("run", "--rm", name, "sh", "-c", "echo hello | tr a-z A-Z")
        assert (run.stdout, run.returncode) == ("HELLO\n", 0), run.stderr


def test_fingerprints_are_those_of_openssh(fleet: Fleet) -> None:
    worker = fleet[1]
    listed = subprocess.run(
        ["ssh-keygen", "-l", "-f", worker.root / "host_key.pub"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.split()[1] == worker.fingerprint


def test_workers_come_and_go(mended_fleet: Fleet) -> None:
    added = mended_fleet.add(gpus=True)
    assert added.name in mended_fleet.inventory()
    assert added.known_hosts_line in mended_fleet.known_hosts()
    assert added.ssh("nvidia-smi -L").stdout.count("GPU-") == 4
    mended_fleet.remove(added.name)
    assert not answers_ssh(added.host, added.port)
    assert added.name not in mended_fleet.inventory()
    assert not added.root.exists()


# ------------------------------------------------------------------ faults


def test_killed_sshd_refuses_and_comes_back(mended_fleet: Fleet) -> None:
    worker = mended_fleet[1]
    with socket.create_connection((worker.host, worker.port)) as link:
        assert link.recv(4) == b"SSH-"
        worker.kill("sshd")
        link.settimeout(10)
        while link.recv(4096):
            pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((worker.host, worker.port), timeout=5)
    assert worker.state()["sshd"] == "dead"
    worker.start("sshd")
    assert worker.ssh("echo back").stdout == "back\n"
    assert mended_fleet[2].ssh("echo other").stdout == "other\n"


def test_dropped_connections_leave_the_listener(mended_fleet: Fleet) -> None:
    worker = mended_fleet[1]
    with socket.create_connection((worker.host, worker.port)) as link:
        assert link.recv(4) == b"SSH-"
        worker.drop_connections()
        link.settimeout(10)
        while link.recv(4096):
            pass
    assert worker.ssh("echo still").stdout == "still\n"


def test_frozen_sshd_holds_its_connections_in_silence(mended_fleet: Fleet) -> None:
    worker = mended_fleet[1]
    with socket.create_connection((worker.host, worker.port)) as link:
        assert link.recv(1024).startswith(b"SSH-")
        worker.freeze("sshd")
        wait_until(lambda: worker.state()["sshd"] == "frozen", "it is frozen")
        link.sendall(b"SSH-2.0-test\r\n")
        link.settimeout(0.3)
        with pytest.raises(TimeoutError):
            link.recv(1024)
        worker.thaw("sshd")
        link.settimeout(10)
        assert link.recv(1024)
    assert worker.ssh("echo thawed").stdout == "thawed\n"


def test_cut_network_is_silence_for_old_and_new_connections(mended_fleet: Fleet) -> None:
    worker = mended_fleet[1]
    with socket.create_connection((worker.host, worker.port)) as link:
        assert link.recv(1024).startswith(b"SSH-")
        worker.cut()
        with pytest.raises(TimeoutError):
            socket.create_connection((worker.host, worker.port), timeout=0.3)
        link.sendall(b"SSH-2.0-test\r\n")
        link.settimeout(0.3)
        with pytest.raises(TimeoutError):
            link.recv(1024)
        assert mended_fleet[2].ssh("echo other").stdout == "other\n"
        worker.uncut()
        link.settimeout(20)
        assert link.recv(1024), "the old connection goes on after the cut"
    assert worker.state()["network"] == "up"


def test_killed_dockerd_comes_back_with_its_containers(mended_fleet: Fleet) -> None:
    worker = mended_fleet[1]
    before = engine_id(worker)
    # The next engine stops what the killed one left running, politely unless told otherwise.
    run = worker.docker("run", "-d", "--stop-signal=KILL", "busybox", "sleep", "1000")
    assert run.returncode == 0, run.stderr
    worker.kill("dockerd")
    assert not ping(worker.socket)
    worker.start("dockerd")
    assert engine_id(worker) == before
    assert container_states(worker) == ["exited"]


def test_live_restore_keeps_the_job_through_a_killed_dockerd(mended_fleet: Fleet) -> None:
    worker = mended_fleet[1]
    worker.engine_options = ["--live-restore"]
    try:
        worker.restart("dockerd")
        run = worker.docker("run", "-d", "busybox", "sleep", "1000")
        pid = worker.docker("inspect", "-f", "{{.State.Pid}}", run.stdout.strip()).stdout
        worker.restart("dockerd")
        again = worker.docker("inspect", "-f", "{{.State.Pid}}", run.stdout.strip()).stdout
        assert pid == again
        assert container_states(worker) == ["running"]
    finally:
        worker.engine_options = []
        worker.remove_containers()
        worker.restart("dockerd")


def test_frozen_dockerd_hangs_and_thaws(mended_fleet: Fleet) -> None:
    worker = mended_fleet[1]
    worker.freeze("dockerd")
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(0.3)
        link.connect(str(worker.socket))
        link.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        with pytest.raises(TimeoutError):
            link.recv(100)
        worker.thaw("dockerd")
        link.settimeout(10)
        assert link.recv(100).startswith(b"HTTP/1.0 200")


def test_reboot_ends_every_process(mended_fleet: Fleet) -> None:
    worker = mended_fleet[1]
    assert worker.docker("run", "-d", "busybox", "sleep", "1000").returncode == 0
    before = set(members(worker.mark))
    worker.reboot()
    assert not before & set(members(worker.mark))
    assert container_states(worker) == ["exited"]
    assert worker.ssh("echo back").stdout == "back\n"


def test_changed_host_key_is_noticed(mended_fleet: Fleet) -> None:
    worker = mended_fleet[1]
    known, old = mended_fleet.known_hosts(), worker.fingerprint
    worker.change_host_key()
    assert worker.fingerprint != old
    refused = worker.ssh("echo never")
    assert (refused.returncode, refused.stdout) == (255, "")
    assert "Host key verification failed" in refused.stderr
    mended_fleet.up()
    assert mended_fleet.known_hosts() != known
    assert worker.ssh("echo known").stdout == "known\n"


def test_sshd_options_take_effect_and_are_taken_back(mended_fleet: Fleet) -> None:
    worker = mended_fleet[1]
    worker.sshd_options = {"ForceCommand": "echo forced"}
    worker.restart("sshd")
    assert worker.ssh("echo asked").stdout == "forced\n"
    worker.mend()
    assert worker.ssh("echo asked").stdout == "asked\n"


def test_an_engine_with_a_bridge(small_root: Path) -> None:
    with Fleet(small_root, workers=1, gpus=(), bridge=True) as fleet:
        run = fleet[1].docker("run", "--rm", "busybox", "ip", "addr", "show", "eth0")
        assert "inet 172." in run.stdout, run.stderr


# ------------------------------------------------------------------ stand-in GPUs


WORKING = ["a100x4", "h100", "rtx4090", "mig", "gb10", "broken"]


@pytest.mark.parametrize("scene", WORKING)
def test_every_scene_answers_alike_in_xml_csv_and_list(gpu_worker: Worker, scene: str) -> None:
    gpus_of(gpu_worker).scene = scene
    root = log(gpu_worker)
    uuids = [gpu.findtext("uuid") for gpu in root.findall("gpu")]
    assert root.findtext("attached_gpus") == str(len(uuids))
    fields = "uuid,name,memory.total,memory.used"
    reply = smi(gpu_worker, f"--query-gpu={fields}", "--format=csv,noheader,nounits")
    rows = [line.split(", ") for line in reply.stdout.splitlines()]
    assert [row[0] for row in rows] == uuids
    assert [row[1] for row in rows] == [gpu.findtext("product_name") for gpu in root.findall("gpu")]
    for gpu, row in zip(root.findall("gpu"), rows, strict=True):
        for text, name in zip(row[2:], ("total", "used"), strict=True):
            in_xml = gpu.findtext(f"fb_memory_usage/{name}")
            assert in_xml in (f"{text} MiB", text.strip("[]"))
    listed = smi(gpu_worker, "-L").stdout
    assert listed.count("(UUID: GPU-") == len(uuids)
    instances = root.findall("gpu/mig_devices/mig_device")
    assert listed.count("(UUID: MIG-") == len(instances)


def test_xml_stands_line_by_line_as_the_real_one(gpu_worker: Worker) -> None:
    lines = smi(gpu_worker, "-q", "-x").stdout.splitlines()
    assert lines[0] == '<?xml version="1.0" ?>'
    assert lines[1] == '<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">'
    assert "\t\t<product_name>NVIDIA A100-SXM4-80GB</product_name>" in lines
    assert lines[lines.index("\t\t<mig_devices>") + 1] == "\t\t\tNone"
    assert lines[-1] == "</nvidia_smi_log>"


def test_memory_is_not_known_where_it_is_shared(gpu_worker: Worker) -> None:
    gpus_of(gpu_worker).scene = "gb10"
    reply = smi(gpu_worker, "--query-gpu=memory.total,memory.used", "--format=csv,noheader")
    assert reply.stdout == "[N/A], [N/A]\n"
    assert log(gpu_worker).findtext("gpu/fb_memory_usage/total") == "N/A"


def test_mig_instances_have_their_own_memory_and_processes(gpu_worker: Worker) -> None:
    gpus = gpus_of(gpu_worker)
    gpus.scene = "mig"
    instance = gpus.uuids()[0]
    assert f"  MIG 3g.40gb     Device  0: (UUID: {instance})" in smi(gpu_worker, "-L").stdout
    gpus.occupy(instance, pid=4711, memory=3000)
    gpu = log(gpu_worker).find("gpu")
    assert gpu is not None
    assert gpu.findtext("mig_mode/current_mig") == "Enabled"
    assert gpu.findtext("mig_devices/mig_device/fb_memory_usage/used") == "3037 MiB"
    number = gpu.findtext("mig_devices/mig_device/gpu_instance_id")
    assert gpu.findtext("processes/process_info/gpu_instance_id") == number


def test_outsiders_show_in_processes_and_memory_and_leave(gpu_worker: Worker) -> None:
    gpus = gpus_of(gpu_worker)
    uuid = gpus.uuids()[1]
    gpus.occupy(uuid, pid=4711, name="python <train>.py", memory=12000)
    gpus.occupy(2, pid=4712, name="blender", memory=500, kind="G")

    second = log(gpu_worker).findall("gpu")[1]
    assert second.findtext("uuid") == uuid
    assert second.findtext("processes/process_info/pid") == "4711"
    assert second.findtext("processes/process_info/process_name") == "python <train>.py"
    assert second.findtext("processes/process_info/used_memory") == "12000 MiB"
    assert second.findtext("fb_memory_usage/used") == "12004 MiB"
    apps = smi(
        gpu_worker,
        "--query-compute-apps=gpu_uuid,pid,process_name,used_memory",
        "--format=csv,noheader,nounits",
    )
    assert apps.stdout == f"{uuid}, 4711, python <train>.py, 12000\n"

    gpus.leave(4711)
    assert log(gpu_worker).findall("gpu")[1].findtext("fb_memory_usage/used") == "4 MiB"


@pytest.mark.parametrize(
    ("scene", "status", "text"),
    [
        ("mismatch", 18, "Failed to initialize NVML: Driver/library version mismatch"),
        ("no-driver", 9, "couldn't communicate with the NVIDIA driver"),
        ("lost", 255, "Unknown Error"),
        ("none", 6, "No devices were found"),
    ],
)
def test_failures_are_those_of_the_real_tool(
    gpu_worker: Worker, scene: str, status: int, text: str
) -> None:
    gpus_of(gpu_worker).scene = scene
    reply = smi(gpu_worker, "-q", "-x")
    assert reply.returncode == status
    assert text in reply.stdout


def test_a_broken_gpu_says_so_beside_a_good_one(gpu_worker: Worker) -> None:
    gpus_of(gpu_worker).scene = "broken"
    good, bad = log(gpu_worker).findall("gpu")
    assert good.findtext("temperature/gpu_temp") == "31 C"
    assert bad.findtext("temperature/gpu_temp") == "Unknown Error"
    assert bad.findtext("gpu_power_readings/instant_power_draw") == "ERR!"


def test_a_hang_ignores_a_polite_end(gpu_worker: Worker) -> None:
    gpus_of(gpu_worker).scene = "hang"
    hung = subprocess.Popen([gpu_worker.root / "tools" / "nvidia-smi", "-L"])
    try:
        status = Path(f"/proc/{hung.pid}/status")
        ignored = "SigIgn:\t"
        wait_until(
            lambda: bool(int(status.read_text().split(ignored)[1].split()[0], 16) & 1 << 14),
            "nvidia-smi hangs",
        )
        hung.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            hung.wait(0.3)
    finally:
        hung.kill()
        hung.wait()


def test_every_scene_is_covered_here() -> None:
    assert {*WORKING, "mismatch", "no-driver", "lost", "none", "hang"} == set(SCENES)


def test_a_container_sees_the_gpus_it_was_given(gpu_worker: Worker) -> None:
    first, _, third, _ = gpus_of(gpu_worker).uuids()
    run = gpu_worker.docker(
        *("run", "--rm", "--gpus", f'"device={first},{third}"', "busybox", "env"),
    )
    assert f"NVIDIA_VISIBLE_DEVICES={first},{third}\n" in run.stdout, run.stderr


def test_the_engine_refuses_a_gpu_that_is_not_there(gpu_worker: Worker) -> None:
    run = gpu_worker.docker("run", "--rm", "--gpus", '"device=GPU-no-such"', "busybox", "env")
    assert run.returncode == 125
    assert "GPU-no-such: unknown device" in run.stderr


def test_an_engine_without_gpus_refuses_them(fleet: Fleet) -> None:
    run = fleet[1].docker("create", "--gpus", "all", "busybox")
    assert run.returncode == 0, run.stderr
    started = fleet[1].docker("start", run.stdout.strip())
    assert "could not select device driver" in started.stderr
    fleet[1].remove_containers()


def test_only_the_gpu_worker_has_nvidia_smi(fleet: Fleet) -> None:
    assert fleet[1].ssh("command -v nvidia-smi").returncode != 0
    assert fleet[3].ssh("nvidia-smi -L").stdout.count("GPU-") == 4
