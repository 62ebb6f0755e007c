"""What the home folder remembers: one SQLite file, one writer, plain dataclasses in and out."""

from .sets import Standing
from .store import Located, Store
from .story import EventRow

__all__ = ["EventRow", "Located", "Standing", "Store"]
