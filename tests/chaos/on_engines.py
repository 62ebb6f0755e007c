"""Faults of engines, hosts and containers."""

from __future__ import annotations

import time

from tests.fleet_lab.worker import Worker

from .faults import fault
from .lab import Lab, Laptop, until
from .on_connections import STILL, all_complete, some, worker_state
from .witness import containers_of


def run_on(worker: Worker, *words: str) -> str:
    done = worker.docker(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@fault(
    "dockerd killed and started again",
    how="SIGKILL; without live-restore the new one ends the containers it finds",
    expected="each task ends once, as its own container ended; none is started twice",
    short=True,
)
def dockerd_killed(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    tasks = some(laptop, 2, worker=worker, held=True)
    laptop.until_running(*tasks)
    worker.kill("dockerd")
    lab.times = 1
    late = laptop.submit("late", worker=worker, lines=3)
    worker.start("dockerd")
    outcome = lab.settle()
    assert laptop.task_of(late)["status"] == "completed"
    assert sum(outcome.values()) == 3


@fault(
    "dockerd killed, with live-restore",
    how="SIGKILL of an engine with --live-restore, started again",
    expected=STILL,
)
def dockerd_killed_live(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    worker.engine_options.append("--live-restore")
    lab.undo.append(lambda: worker.engine_options.remove("--live-restore"))
    worker.restart("dockerd")
    laptop = lab.laptop()
    laptop.until_running(*some(laptop, 2, worker=worker, held=True))
    worker.kill("dockerd")
    lab.times = 1
    time.sleep(1)  # jobs go on without their engine
    worker.start("dockerd")
    all_complete(lab)


@fault(
    "dockerd stopped",
    how="SIGTERM; without live-restore it stops its containers first. It stays away until that"
    " is noticed, and is started again",
    expected="nothing is decided while it is away; then each task ends once, failed, with the"
    " code its own container ended with; a waiting one completes",
)
def dockerd_stopped(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    tasks = some(laptop, 2, worker=worker, held=True)
    laptop.until_running(*tasks)
    worker.stop_engine()
    lab.times = 1
    late = laptop.submit("late", worker=worker, lines=3)
    until(lambda: worker_state(laptop, worker) != "active", "it is noticed")
    time.sleep(3)  # to see that nothing is made of it
    # What it told on its way down is true; more than that nobody knows yet.
    assert {laptop.task_of(one)["status"] for one in tasks} <= {"running", "failed"}
    assert laptop.task_of(late)["status"] == "queued"
    worker.start("dockerd")
    for task in tasks:
        ended = laptop.ended(task)
        assert (ended["status"], ended["exit_code"]) in (("failed", 137), ("failed", 143)), ended
    lab.settle()
    assert laptop.task_of(late)["status"] == "completed"


@fault(
    "dockerd restarted, with live-restore",
    how="SIGTERM of an engine with --live-restore, started again at once, twice",
    expected=STILL,
)
def dockerd_restarted_live(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    worker.engine_options.append("--live-restore")
    lab.undo.append(lambda: worker.engine_options.remove("--live-restore"))
    worker.restart("dockerd")
    laptop = lab.laptop()
    laptop.until_running(*some(laptop, 2, worker=worker, held=True))
    for number in range(2):
        worker.stop_engine()
        worker.start("dockerd")
        lab.times += 1
        laptop.submit(f"late{number}", worker=worker, lines=3)
    all_complete(lab)


@fault(
    "dockerd hung",
    how="SIGSTOP, for longer than a probe waits; then SIGCONT",
    expected=STILL,
)
def dockerd_hung(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    laptop.until_running(laptop.submit("before", worker=worker, held=True))
    worker.freeze("dockerd")
    lab.times = 1
    laptop.submit("during", worker=worker, lines=3)
    time.sleep(12)  # it is silence that is tested
    worker.thaw("dockerd")
    all_complete(lab)


@fault(
    "host rebooted",
    how="every process of the worker ends at once; then engine and sshd are back",
    expected="running tasks fail, with the code that the engine gives; waiting ones complete",
    short=True,
)
def rebooted(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    tasks = some(laptop, 2, worker=worker, held=True)
    laptop.until_running(*tasks)
    worker.reboot()
    lab.times = 1
    late = laptop.submit("late", worker=worker, lines=3)
    lab.settle()
    assert laptop.task_of(late)["status"] == "completed"
    assert {laptop.task_of(one)["status"] for one in tasks} == {"failed"}


@fault(
    "out of memory, the job",
    how="the job's own shell grows beyond its limit",
    expected="failed: out of memory",
)
def oom_of_the_job(lab: Lab) -> None:
    laptop = lab.laptop()
    task = laptop.submit("greedy", tail="x=$(yes | head -c 100000000); echo $x", lines=1)
    lab.times = 1
    assert "out of memory" in laptop.ended(task)["reason"]
    lab.settle()


@fault(
    "out of memory, a child of it",
    how="a child is killed; the job goes on and ends with 0",
    expected="completed: the job's own code is what counts",
)
def oom_of_a_child(lab: Lab) -> None:
    laptop = lab.laptop()
    task = laptop.submit(
        "parent", lines=1, tail="sh -c 'x=$(yes | head -c 100000000); echo $x'; exit 0"
    )
    lab.times = 1
    ended = laptop.ended(task)
    assert (ended["status"], ended["exit_code"]) == ("completed", 0), ended["reason"]
    lab.settle()


@fault(
    "a start that fails",
    how="no such command",
    expected="failed with the engine's word, nothing left behind",
)
def start_fails(lab: Lab) -> None:
    laptop = lab.laptop()
    for number in range(3):
        done = laptop.ask("submit", "task", "--quiet", "alpine", "--", f"/nosuch{number}")
        lab.times += 1
        assert laptop.ended(done.text.strip())["exit_code"] == 127
    lab.settle()


@fault(
    "no GPU runtime",
    how="GPUs that nvidia-smi shows, on an engine that knows no runtime for them; later with it",
    expected="nothing is started and nothing left behind; the task says what is missing; the"
    " next one runs once the runtime is there",
)
def no_gpu_runtime(lab: Lab) -> None:
    worker = lab.fleet.gpu_worker
    hook = worker.root / "tools" / "nvidia-container-runtime-hook"
    away = hook.with_name("away")

    def give_back() -> None:
        if away.exists():
            away.rename(hook)
            worker.restart("dockerd")

    hook.rename(away)
    lab.undo.append(give_back)
    worker.restart("dockerd")
    laptop = lab.laptop()
    task = post_gpu_job(laptop, worker)
    lab.times = 1
    ended = laptop.ended(task)
    assert (ended["status"], ended["started_at"]) == ("failed", None), ended
    assert "GPU" in ended["reason"], ended
    assert not containers_of(worker)
    give_back()
    after = post_gpu_job(laptop, worker)
    assert laptop.ended(after)["status"] == "completed", laptop.task_of(after)
    lab.settle()


def post_gpu_job(laptop: Laptop, worker: Worker) -> str:
    return laptop.post(
        {
            "docker_image": "alpine",
            "argv": ["true"],
            "req_cpu": 0.2,
            "req_memory": "16m",
            "req_gpu": 1.0,
            "target": worker.name,
        }
    )


@fault(
    "name taken by a stranger",
    how="docker create of the assignment's name before it starts",
    expected="failed, saying so; the stranger's container is untouched",
    short=True,
)
def name_taken(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    laptop.run("drain", worker.name)
    task = laptop.submit("unlucky", worker=worker, lines=1)
    stranger = run_on(worker, "create", "--name", f"{task}.1", "busybox", "true")
    lab.times = 1
    laptop.run("resume", worker.name)
    ended = laptop.ended(task)
    assert ended["status"] == "failed", ended
    assert "not cloudai's" in ended["reason"], ended["reason"]
    lab.settle()
    assert run_on(worker, "ps", "-aq", "--no-trunc") == stranger
    worker.docker("rm", stranger)


@fault(
    "two controllers, two stores",
    how="two laptops fill the same workers at once",
    expected="reservations never exceed what there is; " + STILL,
    short=True,
)
def two_stores(lab: Lab) -> None:
    one, two = lab.laptop(), lab.laptop()
    for number in range(5):
        for name, laptop in (("one", one), ("two", two)):
            laptop.submit(f"{name}{number}", cpus=1.0, lines=5)
    lab.times = 2
    all_complete(lab)


@fault(
    "container removed by hand",
    how="docker rm -f of a running one",
    expected="failed, as removed or as killed",
    short=True,
)
def removed_by_hand(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    task = laptop.submit("victim", worker=worker, held=True)
    laptop.until_running(task)
    lab.history.meddled.add(task)
    run_on(worker, "rm", "-f", lab.container(worker, task))
    lab.times = 1
    ended = laptop.ended(task)
    assert ended["status"] == "failed", ended
    # Docker kills it first: which of the two is seen is a matter of moments, and both are true.
    assert "removed" in ended["reason"] or ended["exit_code"] == 137, ended["reason"]
    lab.settle()


@fault(
    "container paused by hand",
    how="docker pause, and unpause later",
    expected="it stays running; " + STILL,
)
def paused_by_hand(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    task = laptop.submit("sleeper", worker=worker, held=True)
    laptop.until_running(task)
    name = lab.container(worker, task)
    run_on(worker, "pause", name)
    lab.times = 1
    laptop.run("workers", "--json")
    assert laptop.task_of(task)["status"] == "running"
    run_on(worker, "unpause", name)
    all_complete(lab)


@fault(
    "container stopped by hand",
    how="docker stop of a running one",
    expected="failed with the code it ended with",
)
def stopped_by_hand(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    task = laptop.submit("victim", worker=worker, held=True)
    laptop.until_running(task)
    run_on(worker, "stop", "-t", "1", lab.container(worker, task))
    lab.times = 1
    ended = laptop.ended(task)
    assert ended["status"] == "failed", ended
    assert ended["exit_code"] in (137, 143), ended
    lab.settle()


@fault(
    "pruned before harvest",
    how="the job ends while its worker is cut off, then docker container prune",
    expected="failed, for its end cannot be known; never completed",
    short=True,
)
def pruned(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    task = laptop.submit("victim", worker=worker, held=True)
    laptop.until_running(task)
    lab.history.meddled.add(task)
    worker.cut()
    lab.release()
    until(lambda: not any(one.holds for one in containers_of(worker)), "the job ends")
    run_on(worker, "container", "prune", "-f")
    lab.times = 1
    worker.uncut()
    assert laptop.ended(task)["status"] == "failed"
    lab.settle()
