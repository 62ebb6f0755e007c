"""The files of one log, plain or compressed, and how their bytes are read.

A log is a row of parts. The first is ``1.log`` with ``1.idx``; the others bear the offset they
begin at, ``1.00000000000067108864.log``. A part ends where the next begins, at the latest: so
what is written anew takes the place of older bytes by one rename. Where a part ends before the
next begins, what was between was left out to keep the log within its limit.

A finished part may be ``1.log.gz`` instead: gzip members of 256 KiB each (any gzip reads it),
with ``1.gzi`` telling where each begins.
"""

from __future__ import annotations

import gzip
import os
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

from cloudai.disk import disk_errors, sync_folder, write_whole

CHUNK = 256 * 1024
"""Bytes read at a time, and bytes of a compressed block."""
WORTH_IT = 64 * 1024
"""Bytes below which a part stays plain."""
LEVEL = 3
"""Of gzip. Logs shrink to a tenth by it; more costs twice the time for little."""

_NAME = re.compile(r"(\d+)(?:\.(\d{20}))?\.log(?:\.gz)?")
_HEAD = struct.Struct("<QI")
_PLACE = struct.Struct("<Q")
_SUM = struct.Struct("<I")


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """One part by its name."""

    begin: int
    """Offset in the whole log."""
    stem: str
    folder: Path
    prefix: str = ""
    """``.`` while it is hidden, since it is being written anew."""

    @classmethod
    def first(cls, base: Path) -> Part:
        return cls(0, base.name, base.parent)

    @classmethod
    def at(cls, base: Path, begin: int, *, prefix: str = "") -> Part:
        return cls(begin, f"{base.name}.{begin:020d}", base.parent, prefix)

    def file(self, suffix: str) -> Path:
        return self.folder / f"{self.prefix}{self.stem}{suffix}"

    def shown(self) -> Part:
        """The same, under its own name."""
        return Part(self.begin, self.stem, self.folder)

    def remove(self) -> None:
        """The log first: a part without its index is none, one without its log is nothing."""
        for suffix in (".log", ".log.gz", ".gzi", ".idx"):
            self.file(suffix).unlink(missing_ok=True)


def parts_of(base: Path) -> list[Part]:
    """A log's parts in order; none where there is no such log."""
    try:
        names = os.listdir(base.parent)
    except FileNotFoundError:
        return []
    found = set()
    for name in names:
        match = _NAME.fullmatch(name)
        if match and match[1] == base.name:
            found.add(Part.at(base, int(match[2])) if match[2] else Part.first(base))
    return sorted(found)


def spans_of(base: Path) -> list[tuple[Part, int | None]]:
    """A log's parts in order, each with where the next begins."""
    parts = parts_of(base)
    ends = [part.begin for part in parts[1:]]
    return list(zip_longest(parts, ends))


class Body(Protocol):
    """The bytes of a part."""

    @property
    def length(self) -> int: ...

    def read(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes from an offset in the part; empty only at its end."""


class _Plain:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def length(self) -> int:
        return os.fstat(self._descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)


class _Packed:
    def __init__(self, descriptor: int, table: bytes) -> None:
        self._descriptor = descriptor
        self._length: int
        self._length, blocks = _HEAD.unpack_from(table)
        self._places = [_PLACE.unpack_from(table, _HEAD.size + 8 * n)[0] for n in range(blocks + 1)]
        self._held: tuple[int, bytes] = (-1, b"")

    @property
    def length(self) -> int:
        return self._length

    def read(self, offset: int, size: int) -> bytes:
        if offset >= self._length:
            return b""
        number, within = divmod(offset, CHUNK)
        if self._held[0] != number:
            begin, end = self._places[number : number + 2]
            data = os.pread(self._descriptor, end - begin, begin)
            try:
                self._held = (number, gzip.decompress(data))
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise OSError(f"the compressed log is damaged ({error})") from error
        return self._held[1][within : within + size]


@contextmanager
def opened(part: Part) -> Iterator[Body | None]:
    """A part's bytes; ``None`` where it is gone."""
    path = part.file(".log")
    with disk_errors(path):
        if (plain := _open(path)) is not None:
            try:
                yield _Plain(plain)
            finally:
                os.close(plain)
            return
        table = _table(part)
        packed = _open(part.file(".log.gz")) if table else None
        if table is None or packed is None:
            yield None
            return
        try:
            yield _Packed(packed, table)
        finally:
            os.close(packed)


def _table(part: Part) -> bytes | None:
    with suppress(FileNotFoundError):
        data = part.file(".gzi").read_bytes()
        if len(data) >= _SUM.size and _SUM.unpack(data[-4:])[0] == zlib.crc32(data[:-4]):
            return data[:-4]
        raise OSError("the index of a compressed log is damaged")
    return None


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None


def length_of(part: Part) -> int:
    """Bytes in a part."""
    with opened(part) as body:
        return body.length if body else 0


@contextmanager
def reading(path: Path) -> Iterator[int | None]:
    """The descriptor of a file opened for reading, ``None`` where there is no such file."""
    with disk_errors(path):
        descriptor = _open(path)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)


def compress(part: Part, end: int | None) -> None:
    """Puts the compressed form in place of the plain one, up to the offset ``end`` of the log.

    A crash at any point leaves one of the two, whole. Raises ``OSError``.
    """
    path, packed = part.file(".log"), part.file(".log.gz")
    descriptor = _open(path)
    if descriptor is None:
        return
    beside = path.with_name(f".{packed.name}.new")
    try:
        length = os.fstat(descriptor).st_size
        length = length if end is None else min(length, end - part.begin)
        if length < WORTH_IT:
            return
        places, at = [0], 0
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            for offset in range(0, length, CHUNK):
                data = os.pread(descriptor, min(CHUNK, length - offset), offset)
                at += file.write(gzip.compress(data, LEVEL, mtime=0))
                places.append(at)
            file.flush()
            os.fsync(file.fileno())
        table = _HEAD.pack(length, len(places) - 1) + b"".join(map(_PLACE.pack, places))
        write_whole(part.file(".gzi"), table + _SUM.pack(zlib.crc32(table)))
        beside.replace(packed)
        sync_folder(part.folder)
        path.unlink()
        sync_folder(part.folder)
    finally:
        os.close(descriptor)
        beside.unlink(missing_ok=True)
