"""What a member of a placement group is told of its group. Pure.

The names are ours, those that torch reads, and those by which torchrun takes its options, so
that a program for many machines runs as it is.
"""

from __future__ import annotations

from zlib import crc32

from cloudai.core.model import TaskSpec

from . import Order

FIRST_PORT, PORTS = 20000, 10000


def is_member(spec: TaskSpec) -> bool:
    """Whether the task is one of several that are placed together."""
    return spec.group is not None and spec.group_size > 1


def master_port(group: str) -> int:
    """Where the first of the group listens. All know it without asking; two groups on one host
    hardly ever have the same."""
    return FIRST_PORT + crc32(group.encode("utf-8", "replace")) % PORTS


def group_env(order: Order) -> dict[str, str]:
    """Variables of a member; none for a task that is alone. What the user set goes before."""
    spec = order.spec
    if spec.group is None or not is_member(spec):
        return {}
    size, rank, port = str(spec.group_size), str(spec.group_rank), str(master_port(spec.group))
    found = {
        "CLOUDAI_GROUP": spec.group,
        **dict.fromkeys(("CLOUDAI_RANK", "RANK", "PET_NODE_RANK"), rank),
        **dict.fromkeys(("CLOUDAI_WORLD_SIZE", "WORLD_SIZE", "PET_NNODES"), size),
        **dict.fromkeys(("CLOUDAI_MASTER_PORT", "MASTER_PORT", "PET_MASTER_PORT"), port),
        "LOCAL_RANK": "0",
    }
    if order.peers and order.peers[0]:
        names = ("CLOUDAI_MASTER_ADDR", "MASTER_ADDR", "PET_MASTER_ADDR")
        found |= {**dict.fromkeys(names, order.peers[0]), "CLOUDAI_PEERS": ",".join(order.peers)}
    return found
