"""Packing what is sent tighter, where that makes it arrive sooner.

An engine takes a gzip stream as well as a plain one, and such a stream may be of many members, each
packed as tightly as is wise at that moment. So nothing is needed on the worker, and a fast network
is not kept waiting for a slow processor.
"""

from __future__ import annotations

import time
import zlib

PROBE_EVERY = 32
"""Pieces after which it is looked again whether packing pays."""
PAYS = 0.9
"""Of its size, at the most, that is left of a piece worth packing."""


class Packer:
    """Decides piece by piece, from how fast packing and the network were so far."""

    def __init__(self) -> None:
        self._pack_cost = 0.0
        """Seconds that packing takes for a byte."""
        self._left = 1.0
        """What packing leaves of a byte."""
        self._wire_cost = 0.0
        """Seconds for which the network keeps us waiting, for a byte."""
        self._pieces = 0

    def pack(self, piece: bytes | bytearray) -> bytes:
        """The piece as a whole gzip member."""
        self._pieces += 1
        if self._pieces % PROBE_EVERY != 1 and not self.pays:
            return _member(piece, level=0)
        began = time.perf_counter()
        packed = _member(piece, level=1)
        self._pack_cost = (time.perf_counter() - began) / len(piece)
        self._left = len(packed) / len(piece)
        return packed

    def took(self, size: int, seconds: float) -> None:
        """So many bytes were on their way for so long, before more of them were taken."""
        self._wire_cost = 0.8 * self._wire_cost + 0.2 * seconds / size

    @property
    def pays(self) -> bool:
        """Whether a piece arrives sooner packed, where one is packed while another is sent."""
        slower = max(self._pack_cost, self._wire_cost * self._left)
        return self._left <= PAYS and slower < self._wire_cost


def _member(piece: bytes | bytearray, *, level: int) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, 31)
    return packer.compress(piece) + packer.flush()
