"""The big ones: minutes each, only in a full run."""

from __future__ import annotations

import threading
import time
from functools import partial

from .faults import fault
from .lab import Lab, Laptop, until
from .on_connections import STILL, all_complete, connections_of


@fault(
    "controller killed a hundred times",
    how="SIGKILL at random during 60 tasks on three workers",
    expected="60 results, each container started once, the same process ids throughout",
    full=True,
)
def killed_a_hundred_times(lab: Lab) -> None:
    laptop = lab.laptop()
    over = threading.Event()

    def kill() -> None:
        while not over.is_set() and lab.times < 100:
            time.sleep(lab.random.uniform(0.1, 1.5))
            if laptop.controller is not None:
                laptop.kill_controller()
                lab.times += 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        for number in range(60):
            laptop.submit(f"t{number}", lines=20, cpus=0.1)
        while killer.is_alive():
            laptop.run("tasks", code=None)
    finally:
        over.set()
        killer.join()
    all_complete(lab)
    assert len(laptop.names) == 60


@fault(
    "eight controllers on one worker",
    how="eight stores, 400 tasks, fractions of GPUs and whole ones, all on one worker",
    expected="at every sample reservations fit, and no GPU is held twice; " + STILL,
    full=True,
)
def eight_controllers(lab: Lab) -> None:
    worker = lab.fleet.gpu_worker
    laptops = [lab.laptop() for _ in range(8)]
    lab.times = len(laptops)

    def submit(laptop: Laptop, mine: int) -> None:
        for number in range(50):
            body = {
                "docker_image": "alpine",
                "argv": ["true"],
                "req_cpu": 0.1,
                "req_memory": "16m",
                "req_gpu": (0.0, 0.5, 1.0, 2.0)[(mine + number) % 4],
                "target": worker.name,
                "idempotency_key": str(number),
            }
            until(partial(laptop.post, body), "it is acknowledged")

    threads = [
        threading.Thread(target=submit, args=(laptop, mine)) for mine, laptop in enumerate(laptops)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def left() -> int:
        return sum(
            task["status"] not in ("completed", "failed", "cancelled")
            for laptop in laptops
            for task in laptop.tasks() or [{"status": "unknown"}]
        )

    until(lambda: not left(), "400 tasks end", 1200)
    all_complete(lab)


@fault(
    "a log of 200 MB through 20 cut connections",
    how="numbered lines, followed while every connection is killed again and again",
    expected="identical bytes in the archive",
    full=True,
)
def long_log(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    last, filler = 200_000, "x" * 1000
    program = f'BEGIN {{ s = "{filler}"; for (i = 1; i <= {last}; i++) print i, s }}'  # 1 KB a line
    made = laptop.post(
        {
            "docker_image": "alpine",
            "argv": ["awk", program],
            "req_memory": "64m",
            "target": worker.name,
        }
    )
    laptop.until_running(made)
    follower = laptop.start("logs", "-f", made, stdout=(laptop.folder / "followed").open("wb"))
    while lab.times < 20:
        until(lambda: connections_of(worker), "it is connected again")
        time.sleep(lab.random.uniform(0.2, 1.0))
        worker.drop_connections()
        lab.times += 1
    assert laptop.ended(made)["status"] == "completed"
    assert follower.wait(300) == 0
    whole = "".join(f"{number} {filler}\n" for number in range(1, last + 1)).encode()
    assert laptop.log(made) == whole
    assert (laptop.folder / "followed").read_bytes() == whole
    lab.settle()
