"""The practice fleet: several real workers on one Linux machine, each with its own sshd and its
own Docker engine, and faults on demand. Tests, the demo and benchmarks share it.
"""

from __future__ import annotations

from .fleet import Fleet
from .processes import FleetError
from .worker import Worker

__all__ = ["Fleet", "FleetError", "Worker"]
