"""What the home folder remembers: one SQLite file, one writer, plain dataclasses in and out."""

from .store import Store
from .story import EventRow

__all__ = ["EventRow", "Store"]
