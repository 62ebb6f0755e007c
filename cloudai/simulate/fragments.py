"""Free GPUs that are of no use: how much of them a task of the trace, drawn at random among
those that want GPUs, could not be given. (The measure of FGD, USENIX ATC 2023.)"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from cloudai.core.capacity import WHOLE, Device
from cloudai.core.schedule import Board, Shape

Ints = npt.NDArray[np.int64]
MOST_SHAPES = 512
"""Only the most frequent are looked at."""


class Fragments:
    """Kept up as workers change: only those are looked at again."""

    def __init__(self, board: Board, shapes: Iterable[Shape]) -> None:
        """``shapes``: of every task of the trace."""
        self.board = board
        count = Counter(_where(shape) for shape in shapes if shape.resources.gpu_milli)
        common = count.most_common(MOST_SHAPES)
        self._needs = [board.need(shape) for shape, _ in common]
        self._cpu: Ints = np.array([need.cpu for need in self._needs], np.int64)
        self._memory: Ints = np.array([need.memory for need in self._needs], np.int64)
        self._least: Ints = np.array(
            [min(need.resources.gpu_milli, WHOLE) for need in self._needs], np.int64
        )
        """What one device must have for it."""
        self._count: Ints = np.array([max(1, need.whole) for need in self._needs], np.int64)
        """So many devices it takes."""
        weights = np.array([count for _, count in common], np.float64)
        self._weight = weights / weights.sum() if len(weights) else weights
        self._of: dict[int, float] = {}
        self.total = 0.0
        """Thousandths of GPUs, now."""
        if self._needs:
            for i in board.workers:
                self.changed(i)

    def changed(self, i: int) -> None:
        """Something came to, or left, a worker."""
        if not self._needs:
            return
        now = self._lost(i)
        self.total += now - self._of.get(i, 0.0)
        self._of[i] = now

    def _lost(self, i: int) -> float:
        free = self.board.workers.free[i]
        if free is None or not free.devices:
            return 0.0
        room = sum(device.room for device in free.devices)
        if not room:
            return 0.0
        rooms = self._rooms(free.devices)
        enough = rooms >= self._least[:, None]
        able = enough.sum(axis=1) >= self._count
        able &= (self._cpu <= free.cpu) & (self._memory <= free.memory)
        able &= np.array([need.met[i] for need in self._needs], np.bool_)
        usable = (rooms * enough).sum(axis=1) * able
        return float(room - usable @ self._weight)

    def _rooms(self, devices: list[Device]) -> Ints:
        """For each shape, what is free on each device that suits it."""
        rooms = np.array([device.room for device in devices], np.int64)
        wishes = {need.wish for need in self._needs}
        if len(wishes) == 1 and not str(next(iter(wishes))):
            return np.broadcast_to(rooms, (len(self._needs), len(rooms)))
        suits = {wish: [device.suits(wish) for device in devices] for wish in wishes}
        return rooms * np.array([suits[need.wish] for need in self._needs], np.int64)


def _where(shape: Shape) -> Shape:
    """What of a shape decides where it fits."""
    return Shape(
        resources=shape.resources,
        target=shape.target,
        nodes=shape.nodes,
        gpu_model=shape.gpu_model,
        gpu_memory=shape.gpu_memory,
        require=shape.require,
        avoid=shape.avoid,
    )
