"""What a user can do about tasks, and the only way anything is written."""

from cloudai.store import Standing

from .batches import Batches
from .ids import new_id
from .service import Service, log_limit, now

__all__ = ["Batches", "Service", "Standing", "log_limit", "new_id", "now"]
