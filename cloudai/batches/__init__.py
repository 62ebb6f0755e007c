"""Batches: files of tasks, read, expanded and checked as a whole. ``docs/batches.md``."""

from .linking import link
from .planned import Asked, File, Planned, Read
from .reading import read_files

__all__ = ["Asked", "File", "Planned", "Read", "link", "read_files"]
