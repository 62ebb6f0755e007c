"""Faults of what a worker is made of: its containers, its GPUs, its disk, its clock; and of a
worker that stays away for too long.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
import time
from pathlib import Path
from random import Random

from tests.fleet_lab import image
from tests.fleet_lab.worker import Worker

from .faults import fault
from .history import Container
from .lab import HELD, Lab, Laptop, is_over, until
from .on_connections import STILL, all_complete, moved_clock, some, worker_state
from .on_engines import run_on
from .on_homes import build
from .witness import containers_of


def cut_until_ended(lab: Lab, task: str) -> str:
    """Ends a held task's job while its worker, the first, is cut off; its container's name."""
    worker = lab.fleet.workers[0]
    name = lab.container(worker, task)
    worker.cut()
    lab.release()
    until(lambda: not any(one.holds for one in containers_of(worker)), "the job ends")
    return name


@fault(
    "container started by hand",
    how="the job ends while its worker is cut off, then docker start of its container",
    expected="failed, saying so; never completed, for what the second run does is another job",
)
def started_by_hand(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    task = laptop.submit("twice", worker=worker, held=True)
    laptop.until_running(task)
    lab.history.touched.add(task)
    run_on(worker, "start", cut_until_ended(lab, task))
    lab.times = 1
    worker.uncut()
    ended = laptop.ended(task)
    assert ended["status"] == "failed", ended
    assert "restarted on the worker" in ended["reason"], ended["reason"]
    assert ended["exit_code"] is None, ended
    lab.settle()


def give_up(lab: Lab, name: str, on_lost: str) -> tuple[Laptop, Worker, str]:
    """A task whose worker was cut off for so long that it was given up there, which the worker
    knows nothing of. It says that it began, and waits for ``go``."""
    laptop = lab.laptop()
    wait = "echo began; while [ ! -e /w/go ]; do sleep 0.2; done; echo ended"
    task = laptop.post(
        {
            "docker_image": "alpine",
            "command": wait,
            "req_cpu": 0.2,
            "req_memory": "16m",
            "name": name,
            "mounts": [f"type=bind,src={lab.witnessed},dst=/w"],
            "grace": 1,
            "on_lost": on_lost,
            "lost_after": 60,
        }
    )
    laptop.until_running(task)
    worker = lab.fleet[laptop.task_of(task)["worker_id"]]
    worker.cut()
    lab.times = 1
    until(lambda: worker_state(laptop, worker) == "unreachable", "it is noticed", 90)
    assert laptop.task_of(task)["status"] == "running"
    until(lambda: laptop.task_of(task)["assignments"][0]["lost"], "it is given up", 150)
    assert any(one.holds for one in containers_of(worker)), "a worker that is cut off goes on"
    return laptop, worker, task


def until_cleared(worker: Worker) -> None:
    """Once it is back, what was given up there is stopped and removed."""
    worker.uncut()
    until(lambda: not containers_of(worker), "the given-up container is stopped and removed", 90)


@fault(
    "worker lost, --on-lost requeue",
    how="cut off for longer than --lost-after, while the others answer",
    expected="the task runs elsewhere and completes there; once the worker is back, the container"
    " that was given up is stopped and removed",
)
def lost_requeued(lab: Lab) -> None:
    laptop, worker, task = give_up(lab, "mover", "requeue")
    laptop.until_running(task)
    first, second = laptop.task_of(task)["assignments"]
    assert first["worker_id"] != second["worker_id"]
    until_cleared(worker)
    assert laptop.task_of(task)["status"] == "running", "its second run is another container"
    (lab.witnessed / "go").touch()
    assert laptop.ended(task)["status"] == "completed"
    assert laptop.log(task).decode().splitlines()[-1] == "ended"
    lab.settle()
    first, second = laptop.task_of(task)["assignments"]
    assert (first["lost"], first["harvested"], second["lost"]) == (True, True, False)


@fault(
    "worker lost, --on-lost fail",
    how="cut off for longer than --lost-after, while the others answer",
    expected="the task fails, saying so; once the worker is back, its container is stopped, its"
    " log comes home, and it is removed",
)
def lost_failed(lab: Lab) -> None:
    laptop, worker, task = give_up(lab, "loser", "fail")
    told = laptop.task_of(task)
    assert (told["status"], told["exit_code"]) == ("failed", None), told
    assert "could not be reached for" in told["reason"], told["reason"]
    until_cleared(worker)
    laptop.ended(task)
    assert laptop.log(task).startswith(b"began")
    lab.settle()
    assert len(laptop.task_of(task)["assignments"]) == 1


REFUSED = re.compile("Read-only file system|cannot be written|disk I/O error")
"""In the system's words, the product's, and SQLite's where it does not say more."""


@fault(
    "database read-only",
    how="the home is on a file system that goes read-only by an error while tasks run, and is"
    " mounted anew later",
    expected="submits are refused, saying so; running tasks are untouched; then " + STILL,
)
def database_read_only(lab: Lab) -> None:
    folder, disk = lab.folder / "h0", lab.folder / "disk"
    folder.mkdir(mode=0o700)
    call("truncate", "-s", "64M", str(disk))
    call("mkfs.ext4", "-q", str(disk))
    call("mount", "-o", "loop", str(disk), str(folder))
    try:
        laptop = lab.laptop()
        tasks = some(laptop, 2, held=True)
        laptop.until_running(*tasks)
        call("sync", "-f", str(folder))  # what this lab wrote; the product looks after its own
        call("mount", "-o", "remount,abort", str(folder))
        lab.times = 1
        for _ in range(2):  # of the controller that runs, and of the one after it
            done = laptop.ask("submit", "task", "--quiet", "alpine", "--", "true")
            assert done.code == 1, done
            assert REFUSED.search(done.error), done.error
            laptop.kill_controller()
        assert all(any(one.task_id == task for one in everywhere(lab)) for task in tasks)
        call("umount", str(folder))
        call("mount", "-o", "loop", str(disk), str(folder))
        all_complete(lab)
        lab.conclude()
    finally:
        for laptop in lab.laptops:
            laptop.close()
        call("umount", "-l", str(folder))


def everywhere(lab: Lab) -> list[Container]:
    return [one for worker in lab.fleet.workers for one in containers_of(worker)]


def call(*words: str) -> None:
    subprocess.run(words, check=True)


def post_job(lab: Lab, laptop: Laptop, command: str, **more: object) -> str:
    """A task of that shell text that leaves no word in the witness's folder, /w."""
    body = {
        "docker_image": "alpine",
        "command": command,
        "req_cpu": 0.2,
        "req_memory": "32m",
        "mounts": [f"type=bind,src={lab.witnessed},dst=/w"],
        "grace": 1,
    }
    return laptop.post(body | more)


@fault(
    "GPUs lost inside a running container",
    how="the worker's driver is gone while a job runs, whose own calls then fail as NVML's do",
    expected="it stays running while its process does; failed with its own exit code, its"
    " whole log and a hint what took its GPUs; with the driver back the next one gets its GPU",
)
def gpus_lost(lab: Lab) -> None:
    worker = lab.fleet.gpu_worker
    assert worker.gpus is not None
    laptop = lab.laptop()
    lab.hold()
    error = "Failed to initialize NVML: Unknown Error"
    script = f"echo began; {HELD}; echo '{error}'; exit 1"
    wish = {"req_gpu": float(len(worker.gpus.uuids())), "target": worker.name}
    task = post_job(lab, laptop, script, **wish)
    laptop.until_running(task)
    after = post_job(lab, laptop, "true", **wish)
    worker.gpus.scene = "mismatch"
    lab.times = 1
    until(lambda: laptop.get(f"/workers/{worker.name}")["gpu_trouble"], "the trouble is seen")
    assert laptop.task_of(task)["status"] == "running"
    lab.release()
    ended = laptop.ended(task)
    assert (ended["status"], ended["exit_code"]) == ("failed", 1), ended
    assert laptop.log(task) == f"began\n{error}\n".encode()
    assert "lost its GPUs" in laptop.task_of(task)["hint"]
    assert laptop.task_of(after)["status"] == "queued"
    worker.gpus.reset()
    assert laptop.ended(after)["status"] == "completed"
    lab.settle()


OUTSIDE = 4_000_001
"""Pids that no process has."""
OUTSIDERS_STAY = 10.0
ON_ITS_WAY = 5.0
"""Seconds that may pass from the look at a worker's GPUs to a container that is seen there."""


@fault(
    "outsiders take GPUs",
    how="processes outside cloudai take two GPUs, then two others, for ten seconds each, while two"
    " laptops have tasks for shares of a GPU, for one and for two",
    expected="no task is given a GPU that an outsider had before; " + STILL,
)
def outsiders_take_gpus(lab: Lab) -> None:
    worker = lab.fleet.gpu_worker
    gpus = worker.gpus
    assert gpus is not None
    laptops = [lab.laptop(), lab.laptop()]
    choice, over = Random(lab.random.random()), threading.Event()
    stays: list[tuple[str, float, float]] = []

    def come_and_go() -> None:
        while not over.is_set():
            began, chosen = time.monotonic(), choice.sample(gpus.uuids(), 2)
            for place, uuid in enumerate(chosen):
                gpus.occupy(uuid, pid=OUTSIDE + place)
            over.wait(OUTSIDERS_STAY)
            stays.extend((uuid, began, time.monotonic()) for uuid in chosen)
            for place, _ in enumerate(chosen):
                gpus.leave(OUTSIDE + place)
                lab.times += 1

    visitor = threading.Thread(target=come_and_go)
    visitor.start()
    try:
        for number in range(12):
            for laptop in laptops:
                wish = {"req_gpu": (0.5, 1.0, 2.0)[number % 3], "target": worker.name}
                post_job(lab, laptop, "sleep 1", **wish)
        until(lambda: all_over(laptops), "24 tasks end", 180)
    finally:
        over.set()
        visitor.join()
    all_complete(lab)
    given: dict[str, tuple[float, tuple[str, ...]]] = {}
    for sample in lab.history.samples:
        for container in sample.containers:
            given.setdefault(container.id, (sample.at, container.gpus))
    assert len(given) > len(laptops)
    for seen, uuids in given.values():
        for uuid, began, ended in stays:
            assert uuid not in uuids or not began + ON_ITS_WAY < seen < ended, (uuid, seen - began)


def all_over(laptops: list[Laptop]) -> bool:
    every = [laptop.tasks() for laptop in laptops]
    return all(tasks is not None and all(is_over(task) for task in tasks) for tasks in every)


@fault(
    "worker's clock wrong",
    how="one hour ahead, then two hours back: for want of a second clock in one kernel, what its"
    " date and stat tell; the engine's own times stay true",
    expected=STILL,
)
def clock_wrong(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    clock = worker.root / "clock"
    clock.write_text("3600")
    lab.undo.append(lambda: clock.unlink(missing_ok=True))
    lab.put_tool(
        worker,
        "date",
        f"""\
case " $*" in *" -d"*) exec /usr/bin/date "$@" ;; esac
exec /usr/bin/date -d "@$(($(/usr/bin/date +%s) + $(cat {clock})))" "$@"
""",
    )
    lab.put_tool(
        worker,
        "stat",
        f"""\
told=$(/usr/bin/stat "$@") || exit
if [ "$1 $2" = "-c %Y" ]; then told=$((told + $(cat {clock}))); fi
printf '%s\\n' "$told"
""",
    )
    laptop = lab.laptop()
    skew = f"/workers/{worker.name}"
    laptop.until_running(*some(laptop, 2, worker=worker, held=True))
    until(lambda: 3500 < laptop.get(skew)["clock_skew"] < 3700, "it is ahead")
    lab.times += 1
    laptop.submit("ahead", worker=worker, lines=3)
    laptop.ended(laptop.names["ahead"])
    clock.write_text("-3600")
    until(lambda: -3700 < laptop.get(skew)["clock_skew"] < -3500, "it is behind")
    lab.times += 1
    laptop.submit("behind", worker=worker, lines=3)
    laptop.ended(laptop.names["behind"])
    laptop.kill_controller()
    all_complete(lab)


@fault(
    "laptop's clock wrong",
    how="the controller lives an hour ahead, then an hour back, of every worker (libfaketime)",
    expected="no time limit strikes early; " + STILL,
)
def laptop_clock_wrong(lab: Lab) -> None:
    for hours in (1, -1):
        laptop = lab.laptop(**moved_clock(f"{3600 * hours:+}"))
        task = post_job(lab, laptop, "sleep 5; echo done", time_limit=1800)
        assert laptop.ended(task)["status"] == "completed", laptop.task_of(task)
        # Each limit is held all the same.
        task = post_job(lab, laptop, "sleep 600", time_limit=3, grace=1)
        assert "time limit of 3 s" in laptop.ended(task)["reason"], laptop.task_of(task)
        lab.times += 1
    lab.settle()


@fault(
    "worker's disk full",
    how="the engine's data is on a file system of 64 MB that somebody fills up while one job"
    " writes and another is to be created; later there is room again",
    expected="the running job goes on and ends as its own process did (what the engine could not"
    " keep of its log is lost); the other one waits, or fails saying so, and is never half there",
)
def disk_full(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    data = small_engine(lab, worker)
    laptop = lab.laptop()
    (lab.witnessed / "hold").touch()
    wish = {"target": worker.name, "req_storage": "1m"}
    writing = "i=0; while [ -e /w/hold ]; do i=$((i+1)); echo line $i; sleep 0.02; done; exit 7"
    running = post_job(lab, laptop, writing, **wish)
    laptop.until_running(running)
    until(lambda: b"line 20\n" in laptop.log(running), "it writes")
    filler = data / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    lab.times = 1
    late = post_job(lab, laptop, "echo late", **wish)
    until(lambda: laptop.task_of(late)["reason"], "it is said why it does not start")
    told = laptop.task_of(late)
    assert told["status"] in ("queued", "failed"), told
    time.sleep(3)  # it writes on, and nothing of it is kept
    assert laptop.task_of(running)["status"] == "running"
    filler.unlink()
    lab.release()
    ended = laptop.ended(running)
    assert (ended["status"], ended["exit_code"]) == ("failed", 7), ended
    assert laptop.log(running).startswith(b"line 1\n")
    assert laptop.ended(late)["status"] == "completed"
    assert laptop.log(late) == b"late\n"
    assert not containers_of(worker)
    lab.settle()


def small_engine(lab: Lab, worker: Worker) -> Path:
    """Puts its engine on a file system of its own, in its namespace, which takes it along
    whatever happens; answers where that is for us."""
    there = worker.root / "small"
    there.mkdir(exist_ok=True)
    enter = ["nsenter", f"--mount=/proc/{worker.keeper.pid}/ns/mnt"]
    call(*enter, "mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(there))
    options = ["--data-root", str(there)]

    def undo() -> None:
        worker.kill("dockerd")
        worker.engine_options.clear()
        call(*enter, "umount", "-l", str(there))
        worker.start("dockerd")

    lab.undo.append(undo)
    worker.engine_options.extend(options)
    worker.restart("dockerd")
    with worker.engine() as client:
        image.load(client)
    return Path(f"/proc/{worker.keeper.pid}/root{there}")


GAP = re.compile(rb"\n\[cloudai: gap: [^\n]*\]\n")


def numbers(first: int, last: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(first, last + 1))


@fault(
    "log rotated under flood",
    how="1.5 million lines as fast as they come, through several of Docker's files of 50 MiB,"
    " followed, while connections are killed",
    expected="completed, identical bytes in the archive",
)
def log_rotated(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    last = 1_500_000
    task = post_job(lab, laptop, f"seq 1 {last}; sleep 1", req_cpu=1.0, target=worker.name)
    laptop.until_running(task)
    log = Path(run_on(worker, "inspect", "-f", "{{.LogPath}}", lab.container(worker, task)))
    follower = laptop.start("logs", "-f", task, stdout=(laptop.folder / "followed").open("wb"))
    for files in (1, 2):
        until(log.with_name(f"{log.name}.{files}").exists, "it is rotated")
        worker.drop_connections()
        lab.times += 1
    assert laptop.ended(task)["status"] == "completed"
    assert laptop.log(task) == numbers(1, last)
    assert follower.wait(60) == 0
    lab.settle()


@fault(
    "log file truncated",
    how="by hand, under a running job, once its first lines are at home",
    expected="completed; what came home stays, what comes after follows, after a gap that is said"
    " where the engine may have had more",
)
def log_truncated(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    script = "seq 1 1000; while [ ! -e /w/go ]; do sleep 0.1; done; seq 1001 2000"
    task = post_job(lab, laptop, script, target=worker.name)
    until(lambda: laptop.log(task) == numbers(1, 1000), "what it wrote is at home")
    log = Path(run_on(worker, "inspect", "-f", "{{.LogPath}}", lab.container(worker, task)))
    log.write_bytes(b"")
    lab.times = 1
    (lab.witnessed / "go").touch()
    assert laptop.ended(task)["status"] == "completed"
    pieces = GAP.split(laptop.log(task))
    assert b"".join(pieces) == numbers(1, 2000)
    assert pieces in ([numbers(1, 2000)], [numbers(1, 1000), numbers(1001, 2000)])
    lab.settle()


REGISTRY = """\
version: 0.1
log: {{level: debug}}
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "127.0.0.1:5000"}}
"""


class Registry:
    """A real registry inside a worker's network, which can die and come back."""

    def __init__(self, lab: Lab, worker: Worker) -> None:
        self.worker = worker
        self.log = lab.folder / "registry.log"
        self.config = lab.folder / "registry.yml"
        self.config.write_text(REGISTRY.format(folder=lab.folder / "registry"))
        self.start()
        lab.undo.append(self.kill)

    def start(self) -> None:
        network = f"--net=/proc/{self.worker.keeper.pid}/ns/net"
        words = ["nsenter", network, "docker-registry", "serve", str(self.config)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)
        until(lambda: b"listening on" in self.log.read_bytes(), "the registry listens")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def keep(self, name: str, size: int) -> None:
        """Has an image with that many bytes that cannot be compressed, and the worker not."""
        fill = f"head -c {size} /dev/urandom >/blob"
        run_on(self.worker, "run", "--network", "none", "--name", "big", "alpine", "sh", "-c", fill)
        run_on(self.worker, "commit", "big", name)
        run_on(self.worker, "rm", "big")
        run_on(self.worker, "push", name)
        run_on(self.worker, "rmi", name)

    def until_asked_for(self, blobs: int) -> None:
        """That many layers are being sent, or were."""
        asked = b"GetBlob"
        until(lambda: self.log.read_bytes().count(asked) >= blobs, "a layer is being sent")


@fault(
    "pull cut and resumed",
    how="a registry dies in the middle of a layer and comes back; another time the connections to"
    " the worker die in the middle of one",
    expected=STILL,
)
def pull_cut(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    registry = Registry(lab, worker)
    laptop = lab.laptop()
    for number, cut in enumerate((registry.kill, worker.drop_connections)):
        name = f"127.0.0.1:5000/far:{number}"
        registry.keep(name, 150_000_000)
        registry.log.write_bytes(b"")
        task = post_job(lab, laptop, "echo done", docker_image=name, target=worker.name)
        registry.until_asked_for(2)  # its description, and the layer that is not there
        cut()
        lab.times += 1
        if registry.process.poll() is not None:
            registry.start()
            registry.until_asked_for(1)  # so it was cut
        assert laptop.ended(task)["status"] == "completed", laptop.task_of(task)
        assert laptop.log(task) == b"done\n"
        worker.docker("rmi", name)
    lab.settle()


@fault(
    "shipping cut",
    how="the connections to the worker die while an image of 150 MB is sent to it from this"
    " machine; another time the controller is killed then",
    expected=f"{STILL}; nothing of half an image stays",
)
def shipping_cut(lab: Lab) -> None:
    worker, source = lab.fleet.workers[:2]
    laptop = lab.laptop(DOCKER_HOST=source.docker_host)
    images = run_on(worker, "image", "ls", "-aq")
    name = build(source, "here:big", 150_000_000)
    for cut in (worker.drop_connections, laptop.kill_controller):
        task = post_job(
            lab, laptop, "echo done", docker_image=name, target=worker.name, ship_image=True
        )
        part = re.compile(r"shipping here:big: [1-9][0-9]? %")
        until(lambda: part.match(laptop.task_of(task)["phase"]), "a part is on its way")  # noqa: B023
        cut()
        lab.times += 1
        until(
            lambda: (
                laptop.task_of(task)["status"] != "starting"  # noqa: B023
                or run_on(worker, "image", "ls", "-aq") == images
            ),
            "half an image",
        )
        assert laptop.ended(task)["status"] == "completed", laptop.task_of(task)
        assert laptop.log(task) == b"done\n"
        worker.docker("rmi", name)
        assert run_on(worker, "image", "ls", "-aq") == images
    source.docker("rmi", name)
    lab.settle()


@fault(
    "worker's disk full, the pull",
    how="an image of 150 MB, an engine whose data is on a file system of 64 MB",
    expected="failed with the engine's word, and the space is free again; the next task runs",
)
def pull_into_full_disk(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    registry = Registry(lab, worker)
    name = "127.0.0.1:5000/far:big"
    registry.keep(name, 150_000_000)
    small_engine(lab, worker)
    laptop = lab.laptop()
    wish = {"target": worker.name, "req_storage": "1m"}
    task = post_job(lab, laptop, "echo never", docker_image=name, **wish)
    lab.times = 1
    ended = laptop.ended(task)
    assert ended["status"] == "failed", ended
    assert "no space left" in ended["reason"], ended
    after = post_job(lab, laptop, "echo done", **wish)
    assert laptop.ended(after)["status"] == "completed", laptop.task_of(after)
    lab.settle()
