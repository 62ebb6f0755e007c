"""What the home folder remembers: one SQLite file, one writer, plain dataclasses in and out."""

from .changes import Changes
from .sets import Standing
from .store import Located, Store
from .story import EventRow

__all__ = ["Changes", "EventRow", "Located", "Standing", "Store"]
