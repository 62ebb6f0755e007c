"""What ``docker save`` writes, read as it comes, so that layers a worker has can be left out.
Pure: bytes in, bytes out; nothing is held but one piece.

``docker load`` does not open a layer's file where the engine has that layer on top of the same
ones already (its chain id), so the file need not be there at all. Engines before 25 name the file
by an id that they derive from the chain, later ones by the layer's own digest. A file whose name
says neither is never left out.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence

BLOCK = 512
PIECE = 256 * 1024
LONGEST_RECORD = 1024 * 1024
"""Bytes of what may stand before an entry: a long name, records of its own."""
_END = bytes(BLOCK)
_NO_IMAGES = b"[]\n"
_NO_CONTAINER = {
    **{"Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False},
    **{"AttachStderr": False, "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None},
    **{"Cmd": None, "Image": "", "Volumes": None, "WorkingDir": "", "Entrypoint": None},
    **{"OnBuild": None, "Labels": None},
}
"""A container's settings as engines before 25 write those of a layer that has none."""


class Torn(ValueError):
    """The archive ended before its end, or is none."""


def shared(ours: Sequence[str], theirs: Iterable[Sequence[str]]) -> int:
    """How many layers, from the base on, another engine has in just that order.

    ``ours``: the diff ids of an image, base first; ``theirs``: those of each image over there.
    """
    most = 0
    for layers in theirs:
        count = 0
        for mine, other in zip(ours, layers, strict=False):
            if mine != other:
                break
            count += 1
        most = max(most, count)
    return most


def files_of(layers: Sequence[str], count: int) -> frozenset[str]:
    """The files in which the first ``count`` layers stand, by every layout whose names say so,
    without those in which a later one stands as well. ``layers``: diff ids, base first."""
    later = set(layers[count:])
    found = set()
    names = _ids_before_25(layers)
    for digest, name in zip(layers[:count], names, strict=False):
        if digest in later:
            continue  # one may be a link to the other
        found.add(f"blobs/{digest.replace(':', '/', 1)}")
        if name is not None:
            found.add(f"{name}/layer.tar")
    return frozenset(found)


def _ids_before_25(layers: Sequence[str]) -> list[str | None]:
    """The names of layers' folders; none for the uppermost, which the whole image decides."""
    names: list[str | None] = []
    chain, parent = "", ""
    for digest in layers[:-1]:
        chain = f"sha256:{_sha256(f'{chain} {digest}')}" if chain else digest
        facts = {
            "container_config": _NO_CONTAINER,
            "created": "1970-01-01T00:00:00Z",
            "layer_id": chain,
            **({"parent": f"sha256:{parent}"} if parent else {}),
        }
        parent = _sha256(json.dumps(facts, separators=(",", ":")))
        names.append(parent)
    return [*names, None]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def placeholder() -> bytes:
    """What stands first in an archive for an engine of the classic kind: a list of no images,
    in place of which the real one comes, last. Without it, an engine before 25 takes an archive
    that ends early for one of the oldest layout and keeps what it finds as images of their own.
    """
    entry = tarfile.TarInfo("manifest.json")
    entry.size = len(_NO_IMAGES)
    return entry.tobuf(tarfile.USTAR_FORMAT) + _NO_IMAGES.ljust(BLOCK, b"\0")


def without(archive: Iterable[bytes], left_out: frozenset[str]) -> Iterator[bytes]:
    """The archive without the files of those names, entry by entry.

    Raises ``Torn`` where it does not come whole: whoever reads the rest must not get an end.
    """
    pieces = _Pieces(archive)
    before = bytearray()
    name: str | None = None
    size: int | None = None
    while (head := pieces.exactly(BLOCK)) != _END:
        kind, length = head[156:157], _number(head[124:136])
        if kind in b"xgLK":
            if length > LONGEST_RECORD:
                raise Torn("an entry's own records have no end")
            record = pieces.exactly(_padded(length))
            before += head + record
            if kind == b"L":
                name = _text(record[:length])
            elif kind == b"x":
                found = _records(record[:length])
                name = found.get("path", name)
                size = int(found["size"]) if found.get("size", "").isdigit() else size
            continue
        length = _padded(length if size is None else size)
        if (name or _name(head)) in left_out and kind in (b"0", b"\0"):
            for _ in pieces.next(length):
                pass
        else:
            yield bytes(before) + head
            yield from pieces.next(length)
        before.clear()
        name = size = None
    yield bytes(before) + _END + _END
    for _ in pieces.rest():
        pass


class _Pieces:
    """Bytes by number, from pieces of any length."""

    def __init__(self, source: Iterable[bytes]) -> None:
        self._source = iter(source)
        self._held = memoryview(b"")

    def exactly(self, size: int) -> bytes:
        return b"".join(self.next(size))

    def next(self, size: int) -> Iterator[bytes]:
        """So many bytes, in pieces. Raises ``Torn`` where there are fewer."""
        while size:
            if not self._held:
                piece = next(self._source, None)
                if piece is None:
                    raise Torn("it ended before its end")
                self._held = memoryview(piece)
                continue
            taken = self._held[:size]
            self._held = self._held[len(taken) :]
            size -= len(taken)
            yield bytes(taken)

    def rest(self) -> Iterator[bytes]:
        yield from self._source


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _number(field: bytes) -> int:
    """A number of a tar header: octal digits, or base 256 for large ones."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.replace(b"\0", b" ").strip()
    if not digits:
        return 0
    try:
        return int(digits, 8)
    except ValueError:
        raise Torn("that is no tar archive") from None


def _name(head: bytes) -> str:
    name = _text(head[:100])
    prefix = _text(head[345:500]) if head[257:262] == b"ustar" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _records(body: bytes) -> dict[str, str]:
    """The records of a PAX header: ``LENGTH KEY=VALUE`` and a line feed, each."""
    found = {}
    while body:
        digits, space, _ = body.partition(b" ")
        if not space or not digits.isdigit() or not 0 < int(digits) <= len(body):
            raise Torn("an entry's own records cannot be read")
        record, body = body[len(digits) + 1 : int(digits) - 1], body[int(digits) :]
        key, _, value = record.partition(b"=")
        found[_text(key)] = value.decode("utf-8", "surrogateescape")
    return found
