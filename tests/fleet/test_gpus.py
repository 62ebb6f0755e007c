"""GPUs on a real worker whose nvidia-smi and runtime hook are stand-ins: who gets which."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cloudai.engines.docker import labels
from tests.fleet.cloudai_home import Home, a_home, counted_starts, until
from tests.fleet_lab import Fleet, Worker
from tests.fleet_lab.gpus import StandIn

TELL = 'echo "$NVIDIA_VISIBLE_DEVICES"'
HOLD = ("--", "sleep", "600")
LITTLE = ("--cpus", "0.1", "--memory", "16m", "--storage", "16m")


@pytest.fixture
def worker(mended_fleet: Fleet) -> Worker:
    return mended_fleet.gpu_worker


@pytest.fixture
def gpus(worker: Worker) -> StandIn:
    assert worker.gpus is not None
    return worker.gpus


@pytest.fixture
def home(home: Home, worker: Worker) -> Home:
    """A laptop that knows this one worker."""
    home.know_only(worker)
    return home


def told(home: Home, task_id: str) -> str:
    """What a task that ran TELL saw."""
    home.ended(task_id)
    return home.run("logs", task_id).text.strip()


def given(home: Home, task_id: str) -> list[str]:
    uuids: list[str] = home.ask(f"/tasks/{task_id}")["gpus"]
    return uuids


def held(home: Home, worker: Worker, gpus: str) -> str:
    """The device that a task got and keeps."""
    [uuid] = given(home, home.dispatch(worker, "alpine", *LITTLE, "--gpus", gpus, *HOLD))
    return uuid


def uses(seen: Any) -> list[str]:
    return [gpu["use"] for gpu in seen["gpus"]]


def refused(home: Home, worker: Worker, gpus: str) -> str:
    """The words with which a dispatch was not taken."""
    done = home.run("dispatch", worker.name, "alpine", "--gpus", gpus, "--", "true", code=4)
    return done.error.splitlines()[0].removeprefix("❌ Failed to dispatch task: ")


# ------------------------------------------------------------------ what a container sees


def test_whole_gpus_are_given_by_uuid_and_no_other_is_seen(home, worker, gpus):
    first, second, third, fourth = gpus.uuids()
    pair = home.dispatch(worker, "alpine", "-gpu_cores", "2.0", "-c", f"{TELL}; sleep 600")
    assert given(home, pair) == [first, second]
    until(lambda: home.run("logs", pair).text == f"{first},{second}\n", "it sees its two")
    other = home.task("alpine", *LITTLE, "--gpus", "1", "-c", TELL)
    assert told(home, other) == third
    assert given(home, other) == [third]
    seen = home.worker(worker)
    assert uses(seen) == ["task", "task", "free", "free"]
    assert [gpu["tasks"] for gpu in seen["gpus"]][:2] == [[pair], [pair]]
    assert refused(home, worker, "3") == (
        "Insufficient GPU: worker has 2.0 available, task requires 3.0"
    )
    home.run("cancel", pair)
    home.ended(pair)
    assert given(home, home.dispatch(worker, "alpine", "--gpus", "4", *HOLD)) == gpus.uuids()
    assert fourth in gpus.uuids()


def test_a_task_without_gpus_sees_none(home, worker):
    assert told(home, home.dispatch(worker, "alpine", "-c", TELL)) == "void"


def test_shares_meet_on_one_device_and_whole_ones_stay_alone(home, worker, gpus):
    first, second, third, fourth = gpus.uuids()
    assert held(home, worker, "0.5") == first
    assert held(home, worker, "1") == second
    assert held(home, worker, "0.25") == first
    assert held(home, worker, "0.5") == third  # a quarter is left on the first: too little
    assert held(home, worker, "0.25") == first  # the fullest that has the room
    assert held(home, worker, "1") == fourth
    seen = home.worker(worker)
    assert [gpu["held"] for gpu in seen["gpus"]] == [1.0, 1.0, 0.5, 1.0]
    assert [len(gpu["tasks"]) for gpu in seen["gpus"]] == [3, 1, 1, 1]
    assert refused(home, worker, "1") == (
        "Insufficient GPU: worker has 0.0 available, task requires 1.0"
    )
    assert refused(home, worker, "0.75") == (
        "Insufficient GPU: worker has 0.5 available, task requires 0.75"
    )
    assert "." not in home.run("workers").text.splitlines()[1].split()[5]


# ------------------------------------------------------------------ outsiders


def test_a_gpu_that_an_outsider_uses_is_not_given_and_shown(home, worker, gpus):
    first, second, third, fourth = gpus.uuids()
    gpus.occupy(first, pid=os.getpid(), name="python3 train.py", memory=3000)
    # Memory in use and no process to see, as from inside somebody's container.
    gpus.occupy(third, pid=999_999, name="", memory=9000, kind="G")
    seen = home.worker(worker)
    assert uses(seen) == ["outside", "free", "outside", "free"]
    [process] = seen["gpus"][0]["processes"]
    assert process == {
        "pid": os.getpid(),
        "name": "python3 train.py",
        "user": "root",
        "memory": round(3000 / 1024, 3),
        "task_id": None,
    }
    assert seen["gpus"][0]["memory_used"] > 2.9
    shown = home.run("stats", worker.name).text
    assert f"process {os.getpid()} python3 train.py of root, 2.9 GB: outside cloudai" in shown
    assert "x.x." in home.run("workers").text
    assert refused(home, worker, "3") == (
        "Insufficient GPU: worker has 2.0 available, task requires 3.0"
    )
    pair = home.task("alpine", *LITTLE, "--gpus", "2", "-c", TELL)
    assert told(home, pair) == f"{second},{fourth}"
    waiting = home.task("alpine", *LITTLE, "--gpus", "3", "-c", TELL)
    until(lambda: "Insufficient GPU" in home.ask(f"/tasks/{waiting}")["reason"], "why it waits")
    gpus.leave(os.getpid())
    assert told(home, waiting) == f"{first},{second},{fourth}"


def test_a_desktop_on_a_gpu_does_not_block_it(home, worker, gpus):
    gpus.scene = "rtx4090"
    seen = home.worker(worker)
    assert uses(seen) == ["free"]
    assert [one["name"] for one in seen["gpus"][0]["processes"]] == [
        "/usr/lib/xorg/Xorg",
        "/usr/bin/gnome-shell",
    ]
    # Through the queue: the scheduler and the worker must agree.
    assert told(home, home.task("alpine", "--gpus", "1", "-c", TELL)) == gpus.uuids()[0]
    assert told(home, home.task("alpine", "--gpus", "0.5", "-c", TELL)) == gpus.uuids()[0]
    gpus.occupy(0, pid=4711, name="game", memory=6000)
    assert uses(home.worker(worker)) == ["outside"]


# ------------------------------------------------------------------ other machines


def test_mig_instances_are_given_as_devices_of_their_own(home, worker, gpus):
    gpus.scene = "mig"
    *slices, whole = gpus.uuids()
    gpus.occupy(slices[1], pid=os.getpid(), memory=3000)
    seen = home.worker(worker)
    assert uses(seen) == ["free", "outside", "free", "free", "free"]
    assert [bool(gpu["mig_parent"]) for gpu in seen["gpus"]] == [True] * 4 + [False]
    task = home.task("alpine", "--gpus", "1", "-c", f"{TELL}; sleep 600")
    # The first of the smallest: larger ones are kept for who asks for them.
    until(lambda: given(home, task) == [slices[2]], "the first of the smallest is given")
    until(lambda: home.run("logs", task).text == f"{slices[2]}\n", "and seen")
    rest = home.dispatch(worker, "alpine", *LITTLE, "--gpus", "3", "-c", TELL)
    assert told(home, rest) == ",".join([slices[3], slices[0], whole])


def test_a_gpu_that_shares_the_hosts_memory_is_given(home, worker, gpus):
    gpus.scene = "gb10"
    seen = home.worker(worker)
    assert uses(seen) == ["free"]
    assert (seen["gpus"][0]["memory"], seen["gpus"][0]["memory_used"]) == (None, None)
    assert told(home, home.task("alpine", "--gpus", "1", "-c", TELL)) == gpus.uuids()[0]


def test_a_broken_gpu_is_never_given(home, worker, gpus):
    gpus.scene = "broken"
    good, _ = gpus.uuids()
    seen = home.worker(worker)
    assert uses(seen) == ["free", "broken"]
    assert "Unknown Error" in seen["gpus"][1]["error"] or "ERR!" in seen["gpus"][1]["error"]
    assert refused(home, worker, "2") == (
        "Insufficient GPU: worker has 1.0 available, task requires 2.0"
    )
    for _ in range(2):
        assert told(home, home.task("alpine", "--gpus", "1", "-c", TELL)) == good
    assert ".!" in home.run("workers").text


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        ("mismatch", "Driver/library version mismatch"),
        ("hang", "nvidia-smi did not answer within 10 s"),
    ],
)
def test_gpus_that_cannot_be_read_leave_the_rest_of_the_worker(home, worker, gpus, scene, words):
    gpus.scene = scene
    assert told(home, home.dispatch(worker, "alpine", "-c", TELL)) == "void"
    until(lambda: words in home.seen(worker)["gpu_trouble"], "the trouble is seen")
    seen = home.seen(worker)
    assert (seen["state"], seen["gpus"]) == ("active", [])
    assert words in home.run("workers").text
    if scene == "hang":
        return  # what follows asks nvidia-smi again, ten seconds
    told_why = refused(home, worker, "1")
    assert told_why.startswith("Insufficient GPU: worker has 0.0 available, task requires 1.0")
    assert words in told_why


def test_what_the_inventory_keeps_back_is_not_given(home, worker, gpus):
    first, second, *_ = gpus.uuids()
    line = f"  {worker.name}: {{host: {worker.host}, port: {worker.port}"
    text = home.inventory.read_text()
    home.inventory.write_text(text.replace(line, f"{line}, gpus: {{max: 2}}"))
    pair = home.dispatch(worker, "alpine", *LITTLE, "--gpus", "2", *HOLD)
    assert given(home, pair) == [first, second]
    assert refused(home, worker, "1") == (
        "Insufficient GPU: worker has 0.0 available, task requires 1.0"
    )
    home.inventory.write_text(text.replace(line, f"{line}, reserve: {{gpus: 1}}"))
    until(lambda: home.run("workers", code=None).code == 0, "the edit is taken")
    assert refused(home, worker, "2") == (
        "Insufficient GPU: worker has 1.0 available, task requires 2.0"
    )
    assert held(home, worker, "1") == gpus.uuids()[2]
    waiting = home.task("alpine", *LITTLE, "--gpus", "1", "--", "true")
    until(lambda: "Insufficient GPU" in home.ask(f"/tasks/{waiting}")["reason"], "why it waits")
    home.inventory.write_text(text)
    home.ended(waiting)


# ------------------------------------------------------------------ two laptops, one worker


@pytest.fixture
def laptops(
    tmp_path_factory: pytest.TempPathFactory, mended_fleet: Fleet
) -> Iterator[tuple[Home, Home]]:
    """Two people who know nothing of each other but the worker."""
    folder = tmp_path_factory.mktemp("laptops")
    with (
        a_home(folder / "a", mended_fleet, CLOUDAI_USER="ann") as ann,
        a_home(folder / "b", mended_fleet, CLOUDAI_USER="bob") as bob,
    ):
        for home in (ann, bob):
            home.know_only(mended_fleet.gpu_worker)
        yield ann, bob


def test_each_laptop_sees_what_the_other_holds(laptops, worker, gpus):
    ann, bob = laptops
    task = ann.dispatch(worker, "alpine", "--cpus", "0.5", "--gpus", "3", "--name", "big", *HOLD)
    [mine] = ann.worker(worker)["reservations"]
    bob.run("workers")
    [other] = bob.worker(worker)["reservations"]
    assert (mine["mine"], other["mine"]) == (True, False)
    assert (other["task_id"], other["user_id"], other["name"]) == (task, "ann", "big")
    assert (other["cpus"], other["gpus"]) == (0.5, gpus.uuids()[:3])
    assert [gpu["users"] for gpu in bob.worker(worker)["gpus"]][:3] == [["ann"]] * 3
    assert "another cloudai's" in bob.run("stats", worker.name).text
    waiting = bob.task("alpine", *LITTLE, "--gpus", "2", "-c", TELL)
    reason = "Insufficient GPU: worker has 1.0 available, task requires 2.0"
    until(lambda: reason in bob.ask(f"/tasks/{waiting}")["reason"], "why it waits")
    assert bob.json("tasks")["total"] == 1
    ann.run("cancel", task)
    assert told(bob, waiting) == ",".join(gpus.uuids()[:2])


class Sampler:
    """What is reserved by labels on an engine, looked at all the time."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.samples: list[dict[str, dict[str, str]]] = []
        self._over = threading.Event()

    @contextmanager
    def looking(self) -> Iterator[None]:
        thread = threading.Thread(target=self._look)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _look(self) -> None:
        with self.worker.engine() as client:
            while not self._over.is_set():
                holding = ["created", "running", "paused", "restarting"]
                found = client.api.containers(all=True, filters={"status": holding})
                self.samples.append({one["Id"]: one["Labels"] for one in found})
                time.sleep(0.02)


def check_capacity(sample: dict[str, dict[str, str]], *, cpus: int, memory: int) -> None:
    """No more is reserved than there is, and no GPU is held twice."""
    containers = sample.values()
    assert sum(int(one[labels.CPU_MILLI]) for one in containers) <= cpus * 1000
    assert sum(int(one[labels.MEMORY]) for one in containers) <= memory
    shares: Counter[str] = Counter()
    for one in containers:
        milli = int(one[labels.GPU_MILLI])
        for uuid in filter(None, one.get(labels.GPUS, "").split(",")):
            shares[uuid] += min(1000, milli)
    assert all(share <= 1000 for share in shares.values()), shares


SIZES = [
    ("--cpus", "0.25", "--gpus", "0.5"),
    ("--cpus", "0.25", "--gpus", "2"),
    ("--cpus", "0.5", "--gpus", "1"),
    ("--cpus", "1"),
    ("--cpus", "0.25", "--gpus", "0.75"),
]


def submit_all(home: Home, worker: Worker, count: int) -> list[str]:
    return [
        home.task(
            *(worker.name, "alpine", "--memory", "16m", "--storage", "16m"),
            *(*SIZES[number % len(SIZES)], "-c", "sleep 2; echo $NVIDIA_VISIBLE_DEVICES"),
        )
        for number in range(count)
    ]


def at_once(*actions: Callable[[], list[str]]) -> list[list[str]]:
    results: list[list[str]] = [[] for _ in actions]

    def run(place: int) -> None:
        results[place] = actions[place]()

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_two_laptops_hammering_one_worker_never_take_more_than_there_is(laptops, worker, gpus):
    # Somebody outside has one of the four, so that the whole ones meet.
    gpus.occupy(3, pid=os.getpid(), memory=20_000)
    for home in laptops:
        home.run("workers")
    total = laptops[0].worker(worker)
    sampler = Sampler(worker)
    with counted_starts(worker) as starts, sampler.looking():
        tasks = at_once(*(lambda home=home: submit_all(home, worker, 15) for home in laptops))
        ended = [home.ended(*ids, seconds=120) for home, ids in zip(laptops, tasks, strict=True)]
    for sample in sampler.samples:
        check_capacity(
            sample, cpus=int(total["cpus"]["total"]), memory=int(total["memory"]["total"] * 2**30)
        )
    assert max(len(sample) for sample in sampler.samples) > 1
    assert {task["status"] for mine in ended for task in mine} == {"completed"}
    names = [
        one["assignment_id"]
        for mine in ended
        for task in mine
        for one in task["assignments"]
        if one["container_id"]
    ]
    assert sorted(starts.items()) == sorted((name, 1) for name in names)
    assert len(names) == 30
    for home, mine in zip(laptops, ended, strict=True):
        for task in mine:
            seen = home.run("logs", task["task_id"]).text.strip() if task["req_gpu"] else ""
            assert seen == ",".join(task["gpus"])
            assert gpus.uuids()[3] not in task["gpus"]
    assert worker.docker("ps", "-aq").stdout == ""
