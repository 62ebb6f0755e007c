"""The REST API from the other side: standard library only, so that a command starts fast.

``Client`` speaks HTTP over the controller's UNIX socket and starts a controller where none
runs; answers are the API's JSON, errors are raised as the tree of ``cloudai.core.errors``.
"""

from .client import Answer, Client, batch_path, group_path, task_path, template_path, worker_path
from .errors import ControllerFailed
from .place import Inventory, find_home, find_inventory

__all__ = [
    "Answer",
    "Client",
    "ControllerFailed",
    "Inventory",
    "batch_path",
    "find_home",
    "find_inventory",
    "group_path",
    "task_path",
    "template_path",
    "worker_path",
]
