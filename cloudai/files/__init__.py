"""What tasks bring along and send home, as it lies on this machine's disk.

``scan`` says what of a folder is meant, ``Files`` keeps it as it was when a task was submitted,
``arrive`` unpacks what comes back and lets nothing in it reach beyond the folder it is for.
"""

from .arrive import Refused, Staging, place, unpack
from .kept import Files, Taken
from .scan import Found, scan

__all__ = ["Files", "Found", "Refused", "Staging", "Taken", "place", "scan", "unpack"]
