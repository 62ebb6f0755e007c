"""One pack: a file of tar entries, each a header and its data, written once and never changed.

A pack's name is the SHA-256 of its bytes, so that both sides can tell whether it is whole. Any
choice of entries, from any packs, put one after another is a tar stream.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from cloudai.disk import sync_folder

from .scan import Found

BLOCK = 512
CHUNK = 1024**2
"""Bytes read at once."""
NEW = ".new"
KINDS = {"f": tarfile.REGTYPE, "d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE}


class Changed(Exception):
    """The file is not what it was when it was looked at."""


def header(one: Found, name: str, owner: tuple[int, int]) -> bytes:
    """The head of a tar entry; GNU's form, which carries any bytes and any size."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname = KINDS[one.kind], one.mode, one.link
    info.size, info.mtime = one.size, max(0, one.mtime // 10**9)
    info.uid, info.gid = owner
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def digest_of(place: Path, one: Found) -> str:
    """The SHA-256 of a file's data. Raises ``Changed``, ``OSError``."""
    digest = hashlib.sha256()
    with open(place, "rb", buffering=0) as source:
        for chunk in _exactly(source, one):
            digest.update(chunk)
    return digest.hexdigest()


class PackWriter:
    """Writes a pack; nothing of it is there until ``close``, which answers its name and size."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / f"{secrets.token_hex(8)}{NEW}"
        self._digest = hashlib.sha256()
        self._file: IO[bytes] | None = None
        self.size = 0

    def add(self, one: Found, place: Path, head: bytes) -> tuple[int, int, str]:
        """One entry: where it begins, how long it is, and the digest of its data. Raises
        ``Changed`` for a file that is being written, after which the pack is as before."""
        begin, before, data = self.size, self._digest.copy(), hashlib.sha256()
        try:
            self._write(head)
            if one.kind == "f":
                with open(place, "rb", buffering=0) as source:
                    for chunk in _exactly(source, one):
                        data.update(chunk)
                        self._write(chunk)
                self._write(bytes(-one.size % BLOCK))
        except (Changed, OSError):
            self._digest, self.size = before, begin
            if self._file is not None:
                self._file.flush()
                self._file.seek(begin)
                self._file.truncate()
            raise
        return begin, self.size - begin, data.hexdigest() if one.kind == "f" else ""

    def _write(self, data: bytes) -> None:
        if self._file is None:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._file = open(descriptor, "wb", buffering=CHUNK)  # noqa: SIM115 - closed below
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def close(self) -> str:
        """Puts it under its name, on the disk; empty where nothing was added."""
        if self._file is None or not self.size:
            self.abandon()
            return ""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        name = self._digest.hexdigest()
        self._path.replace(self._folder / name)
        sync_folder(self._folder)
        return name

    def abandon(self) -> None:
        """Leaves nothing of it."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._path.unlink(missing_ok=True)


def _exactly(source: IO[bytes], one: Found) -> Iterator[bytes]:
    """All of a file, if it is still the one that was looked at."""
    left = one.size
    while left:
        chunk = source.read(min(left, CHUNK))
        if not chunk:
            raise Changed
        left -= len(chunk)
        yield chunk
    seen = os.fstat(source.fileno())
    if (seen.st_size, seen.st_mtime_ns) != (one.size, one.mtime):
        raise Changed
