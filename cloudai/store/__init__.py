"""What the home folder remembers: one SQLite file, one writer, plain dataclasses in and out."""

from .changes import Changes
from .schedules import not_found as schedule_not_found
from .sets import Standing, has_files
from .store import Located, Store, task_rows
from .story import EventRow

__all__ = [
    "Changes",
    "EventRow",
    "Located",
    "Standing",
    "Store",
    "has_files",
    "schedule_not_found",
    "task_rows",
]
