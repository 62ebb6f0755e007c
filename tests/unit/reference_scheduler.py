"""A scheduler so slow and obvious that it is right: what the fast one is held against.

Order, fair shares, fit and ``spread``, without memory, heaps or columns; nobody keeps a place.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cloudai.core.model import Resources
from cloudai.core.policy import Policy
from cloudai.core.schedule import Ask

HOUR = 3600.0


@dataclass
class Machine:
    name: str
    cpus: int
    memory: int
    gpus: list[int]
    """Thousandths left of each."""
    total: tuple[int, int, int] = (0, 0, 0)
    tasks: int = 0
    held: list[tuple[Resources, list[int]]] = field(default_factory=list)

    def __post_init__(self):
        self.total = (self.cpus, self.memory, 1000 * len(self.gpus))

    def fits(self, need: Resources) -> bool:
        if need.cpu_milli > self.cpus or need.memory > self.memory:
            return False
        if need.gpu_milli >= 1000:
            return sum(left == 1000 for left in self.gpus) >= need.gpu_milli // 1000
        return any(left >= need.gpu_milli for left in self.gpus) or not need.gpu_milli

    def take(self, need: Resources) -> None:
        self.cpus -= need.cpu_milli
        self.memory -= need.memory
        self.tasks += 1
        if 0 < need.gpu_milli < 1000:
            used = [i for i, left in enumerate(self.gpus) if need.gpu_milli <= left < 1000]
            whole = [i for i, left in enumerate(self.gpus) if left == 1000]
            best = min(used, key=lambda i: self.gpus[i]) if used else whole[0]
            self.gpus[best] -= need.gpu_milli
        for _ in range(need.gpu_milli // 1000):
            self.gpus[self.gpus.index(1000)] = 0

    def key(self, need: Resources) -> float:
        cpus, memory, gpus = self.total
        parts = [self.cpus / cpus, self.memory / memory]
        if gpus:
            parts.append(sum(self.gpus) / gpus)
        busy = min(1.0, max(0.0, 1 - min(parts)))
        return self.tasks * 4.0 + (1.0 if gpus and not need.gpu_milli else 0.0) + busy


def reference(
    queue: list[Ask], machines: list[Machine], *, now: float, policy: Policy
) -> list[tuple[str, str]]:
    """(task, worker) in the order in which they are placed."""
    totals = [sum(machine.total[k] for machine in machines) or 1 for k in range(3)]
    had: dict[str, list[int]] = {}
    left, placed = list(queue), []

    def turn(ask: Ask):
        level = ask.priority + policy.lift * int(max(0.0, now - ask.since) // policy.ageing)
        held = had.get(ask.user, [0, 0, 0])
        share = max(held[k] / totals[k] for k in range(3))
        return (-level, share * HOUR / policy.weight(ask.user), ask.user, ask.position)

    while left:
        ask = min(left, key=turn)
        left.remove(ask)
        need = ask.shape.resources
        able = [machine for machine in machines if machine.fits(need)]
        if not able:
            continue
        best = min(able, key=lambda machine: machine.key(need))
        best.take(need)
        held = had.setdefault(ask.user, [0, 0, 0])
        for k, amount in enumerate((need.cpu_milli, need.memory, need.gpu_milli)):
            held[k] += amount
        placed.append((ask.id, best.name))
    return placed
