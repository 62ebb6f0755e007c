"""A probe's whole answer, recorded, and what it means."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloudai.core.errors import EngineFailed, Indeterminate
from cloudai.core.model import WorkerSight, WorkerSpec
from cloudai.engines.docker.doctor import Examination, clock_skew, judge
from cloudai.engines.docker.parts import Parts
from cloudai.engines.docker.probe import learn, parse_probe, storage_limit

DATA = Path(__file__).parent.parent / "data" / "probe"
SPEC = WorkerSpec(id="gpu1")
WHOLE = sorted(path.stem for path in DATA.glob("*.json"))


def recorded(name: str) -> str:
    return (DATA / f"{name}.txt").read_text()


def as_json(sight: WorkerSight) -> str:
    def told(value: object) -> object:
        return sorted(value) if isinstance(value, frozenset) else str(value)

    return json.dumps(asdict(sight), indent=1, default=told) + "\n"


@pytest.mark.parametrize("name", WHOLE)
def test_recorded_answers(name: str) -> None:
    assert as_json(parse_probe(recorded(name), SPEC)) == (DATA / f"{name}.json").read_text()


def test_there_are_recorded_answers() -> None:
    assert {"cpu", "a100x4", "mig", "broken", "hang", "late", "mac"} == set(WHOLE)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("docker-down", "Docker does not answer on gpu1: Cannot connect to", "systemctl start"),
        ("docker-hung", "Docker does not answer on gpu1: no answer within 15 s", "systemctl"),
        (
            "docker-denied",
            "Docker on gpu1 does not let ops in: permission denied",
            "-aG docker ops",
        ),
        ("docker-missing", "Docker is not installed on gpu1", "install Docker Engine"),
    ],
)
def test_a_docker_that_does_not_answer(name: str, message: str, hint: str) -> None:
    with pytest.raises(EngineFailed) as caught:
        parse_probe(recorded(name), SPEC)
    assert caught.value.message.startswith(message)
    assert hint in caught.value.hint


def test_containers_not_listed_are_not_none() -> None:
    text = recorded("cpu")
    for cut in ("ids status 0\n", "container status 0\n"):
        with pytest.raises(Indeterminate):
            parse_probe(text.replace(cut, ""), SPEC)


def test_one_removed_meanwhile_is_left_out() -> None:
    text = recorded("cpu")
    start = text.index("container {")
    end = text.index("\n", start)
    gone = text[:start] + "container Error: No such container: 0\ncontainer status 1"
    rest = text[end + 1 :].removeprefix("container status 0")
    assert parse_probe(gone + rest, SPEC).containers == ()


def test_no_line_can_pose_as_another_part() -> None:
    text = recorded("a100x4").replace("gpus status 0", "gpus fact cpus 999\ngpus status 0")
    assert parse_probe(text, SPEC).cpus == 16


def test_what_a_start_needs() -> None:
    text = recorded("a100x4")
    learned = learn(text, parse_probe(text, SPEC))
    assert (learned.data_root, learned.open_files) == ("/var/lib/docker", 20000)
    assert (learned.endpoint, learned.gpu_by) == ("unix:///var/run/docker.sock", "gpus")
    mac = recorded("mac")
    assert learn(mac, parse_probe(mac, SPEC)).open_files == 65536


def test_images_by_the_names_they_are_run_by() -> None:
    text = recorded("cpu")
    names = {"busybox", "busybox:latest", "registry.example.com:5000/team/train:1.2"}
    assert parse_probe(text, SPEC).images == names
    strange = "images <none>:<none>\nimages --rm:1\nimages no tag:1\nimages \x1b[2J:1\n"
    assert parse_probe(text.replace("images b", f"{strange}images b"), SPEC).images == names
    many = "".join(f"images x{number}:1\n" for number in range(1000))
    assert len(parse_probe(text.replace("images b", f"{many}images b"), SPEC).images) == 500
    assert parse_probe(recorded("mac"), SPEC).images == frozenset()
    podmans = text.replace("images b", "images docker.io/library/alpine:latest\nimages b")
    assert {"alpine", "alpine:latest"} < parse_probe(podmans, SPEC).images


def test_cdi_is_named_device_by_device_before_engine_29() -> None:
    text = recorded("a100x4").replace("fact gpu_hook nvidia-container-runtime-hook", "")
    text = text.replace('"CDISpecDirs":null', '"CDISpecDirs":["/etc/cdi"]')
    text = text.replace("fact login", "fact gpu_cdi /etc/cdi\nfact login")
    for version, by in (("28.2.2", "cdi"), ("29.0.1", "gpus")):
        told = text.replace("20.10.24+dfsg1", version)
        sight = parse_probe(told, SPEC)
        assert sight.engine.gpu_runtime == "cdi"
        assert learn(told, sight).gpu_by == by


@pytest.mark.parametrize(
    ("driver", "status", "mount", "limit"),
    [
        ("overlay2", [["Backing Filesystem", "extfs"]], "ext4 rw", "watch"),
        ("overlay2", [["Backing Filesystem", "xfs"]], "xfs rw,relatime,prjquota", "quota"),
        ("overlay2", [["Backing Filesystem", "xfs"]], "xfs rw,pquota", "quota"),
        ("overlay2", [["Backing Filesystem", "xfs"]], "xfs rw,noquota", "watch"),
        ("overlay2", [["Backing Filesystem", "xfs"]], "", "watch"),
        ("btrfs", [], "btrfs rw", "quota"),
        ("zfs", None, "zfs rw", "quota"),
        ("overlayfs", [["driver-type", "io.containerd.snapshotter.v1"]], "xfs rw,pquota", "watch"),
        ("btrfs", [["driver-type", "io.containerd.snapshotter.v1"]], "btrfs rw", "watch"),
    ],
)
def test_storage_is_a_quota_only_where_it_is_enforced(
    driver: str, status: object, mount: str, limit: str
) -> None:
    assert storage_limit({"Driver": driver, "DriverStatus": status}, mount) == limit


def test_parts_keep_what_they_do_not_know() -> None:
    parts = Parts('a one\na status 3\nb {"x": 1}\nb {broken\nb status 0\nfact k v w\n\nc x')
    assert (parts.lines("a"), parts.status("a")) == (["one"], 3)
    assert parts.documents("b") == [{"x": 1}]
    assert (parts.status("c"), parts.status("nothing"), parts.lines("nothing")) == (None, None, [])
    assert parts.facts() == {"k": "v w"}


# --- the doctor

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
FACTS = {
    "deadlines": "/usr/bin/timeout",
    "flock": "/usr/bin/flock",
    "lock_place": "/run",
    "lock_readable": "yes",
    "secrets_place": "/dev/shm",
    "login": "ops",
}


def examine(
    sight: WorkerSight | None = None, facts: dict[str, str] | None = None, **engine: object
) -> dict[str, tuple[bool, bool, str, str]]:
    sight = sight or replace(parse_probe(recorded("cpu"), SPEC), clock=NOW)
    sight = replace(sight, engine=replace(sight.engine, **engine))
    found = judge(
        Examination(
            worker_id="gpu1",
            sight=sight,
            facts=FACTS if facts is None else facts,
            asked_at=NOW - timedelta(seconds=1),
            answered_at=NOW + timedelta(seconds=1),
        )
    )
    return {one.check: (one.ok, one.warning, one.found, one.mend) for one in found}


def test_a_healthy_worker() -> None:
    assert all(ok for ok, *_ in examine().values())


@pytest.mark.parametrize(
    ("engine", "check", "warning"),
    [
        ({"memory_limit": False}, "memory limit", False),
        ({"cpu_limit": False}, "cpu limit", False),
        ({"swap_limit": False}, "swap limit", True),
        ({"pids_limit": False}, "pids limit", True),
        ({"version": "19.3.1"}, "engine", True),
    ],
)
def test_what_is_not_enforced_is_said(engine: dict[str, object], check: str, warning: bool) -> None:
    findings = examine(**engine)
    ok, warned, found, mend = findings[check]
    assert (ok, warned) == (False, warning)
    assert found
    assert mend
    assert sum(not one[0] for one in findings.values()) == 1


def test_gpus_that_docker_cannot_give() -> None:
    sight = replace(parse_probe(recorded("a100x4"), SPEC), clock=NOW)
    assert examine(sight)["gpus"][0]
    ok, warned, found, mend = examine(sight, gpu_runtime="")["gpus"]
    assert (ok, warned) == (False, False)
    assert "4 seen" in found
    assert "nvidia-ctk" in mend


def test_a_noisy_login_and_no_lock() -> None:
    findings = examine(facts={"noise": "Welcome!", "login": "ops"})
    assert findings["login"][1]
    assert "Welcome!" in findings["login"][2]
    assert not findings["lock"][0]
    assert "util-linux" in findings["lock"][3]
    assert findings["secrets"][:2] == (False, True)
    assert "/dev/shm" in findings["secrets"][3]


def test_no_docker_is_a_finding() -> None:
    trouble = EngineFailed("Docker does not answer on gpu1: down", hint="start it")
    found = judge(
        Examination(
            worker_id="gpu1",
            sight=None,
            trouble=trouble,
            asked_at=NOW,
            answered_at=NOW,
            facts=FACTS,
        )
    )
    docker = next(one for one in found if one.check == "docker")
    assert (docker.ok, docker.found, docker.mend) == (False, trouble.message, "start it")


@pytest.mark.parametrize(("seconds", "skew"), [(0, 0), (1, 0), (-1, 0), (61, 60), (-3601, -3600)])
def test_skew_is_what_the_round_trip_does_not_explain(seconds: int, skew: int) -> None:
    second = timedelta(seconds=1)
    assert clock_skew(NOW + seconds * second, NOW - second, NOW + second) == skew
