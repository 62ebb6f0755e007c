"""Stands in until packing lands."""

from __future__ import annotations

from .snapshot import Shape
from .workers import Indexes, Need, Workers


class Packing:
    def __init__(self, workers: Workers) -> None:
        self.workers = workers

    def learn(self, shape: Shape) -> None: ...

    def best(self, need: Need, candidates: Indexes) -> int:
        return int(candidates[0])
