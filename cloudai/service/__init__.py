"""What a user can do about tasks, and the only way anything is written."""

from cloudai.store import Standing

from .batches import Batches
from .service import Service, log_limit, new_id, now

__all__ = ["Batches", "Service", "Standing", "log_limit", "new_id", "now"]
