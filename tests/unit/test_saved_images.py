"""What is left out of an archive of an image, and what may never be."""

from __future__ import annotations

import gzip
import io
import random
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai.engines.docker import packing
from cloudai.engines.docker.packing import Packer
from cloudai.engines.docker.saved import Torn, files_of, placeholder, shared, without

# An image of engine 20.10, and what its `docker save` called the folders of the first two layers.
LAYERS = (
    "sha256:ec93a8f4e8291ed5d7dd571c8e04715421d842fc0acf7d63c1eef259a104aab7",
    "sha256:53755dff407f8b41427cbfc476bb83ff07b2a02d7319d9d5c6869359671db623",
    "sha256:c4b4adcab10aaa0c9bac27616642cae4a4a57e77232c95610ce8b47c6df663bb",
)
FOLDERS = (
    "30d3f54c0594b5f6ab41a14a13aa4b0cdfc167739146c1f01c88b2679c8b18cc",
    "41d739a606c2e4e97463d86e6a5e69d9a7b432d3ed642751e5af52c9c2b229f2",
)


def blob(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def test_a_layers_file_is_known_by_the_names_of_both_layouts() -> None:
    assert files_of(LAYERS, 0) == frozenset()
    assert files_of(LAYERS, 1) == {blob(LAYERS[0]), f"{FOLDERS[0]}/layer.tar"}
    assert files_of(LAYERS, 2) == {
        *map(blob, LAYERS[:2]),
        *(f"{folder}/layer.tar" for folder in FOLDERS),
    }
    # The uppermost has a name that the whole image decides: it goes, though it is there.
    assert files_of(LAYERS, 3) == files_of(LAYERS, 2) | {blob(LAYERS[2])}


def test_a_layer_that_stands_twice_in_an_image_goes_while_one_of_them_does() -> None:
    """In the archive one is a link to the other."""
    a, b, _ = LAYERS
    assert files_of((a, b, a), 1) == frozenset()
    assert blob(a) in files_of((a, b, a), 3)


def test_only_what_lies_on_the_same_layers_counts_as_there() -> None:
    a, b, c = LAYERS
    assert shared((a, b, c), []) == 0
    assert shared((a, b, c), [(a,), (b, c), (a, c)]) == 1
    assert shared((a, b, c), [(), (a, b), (a, b, c, a)]) == 3


names = st.text("abc/.", min_size=1, max_size=12).filter(lambda name: name.strip("/"))
long_names = names.map(lambda name: f"{'d' * 90}/{name}/{'f' * 120}")
entries = st.lists(
    st.tuples(st.one_of(names, long_names), st.binary(max_size=1500)),
    unique_by=lambda entry: tarfile.TarInfo(entry[0].rstrip("/")).name,
    max_size=8,
)
formats = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])


def archive(found: list[tuple[str, bytes]], form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as made:
        for name, content in found:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def content_of(data: bytes) -> list[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        return [(one.name, found.extractfile(one).read()) for one in found]  # type: ignore[union-attr]


def cut(data: bytes, seed: int) -> list[bytes]:
    """In pieces of any length."""
    draw, pieces, at = random.Random(seed), [], 0
    while at < len(data):
        size = draw.choice([0, 1, 7, 511, 512, 513, 4096])
        pieces.append(data[at : at + size])
        at += size
    return pieces


@settings(max_examples=60, deadline=None)
@given(entries, formats, st.integers(0, 255), st.integers(0, 9))
def test_what_is_left_out_is_gone_and_all_else_is_as_it_was(
    found: list[tuple[str, bytes]], form: int, chosen: int, seed: int
) -> None:
    try:
        data = archive(found, form)
    except ValueError:
        return  # no such name in the oldest format
    stored = content_of(data)
    left_out = frozenset(name for at, (name, _) in enumerate(stored) if chosen >> at & 1)
    lean = b"".join(without(cut(data, seed), left_out))
    assert content_of(lean) == [one for one in stored if one[0] not in left_out]
    assert lean.endswith(bytes(1024))


@settings(max_examples=30, deadline=None)
@given(entries, st.integers(0, 10**6))
def test_an_archive_that_ends_early_never_comes_to_an_end(
    found: list[tuple[str, bytes]], at: int
) -> None:
    data = archive(found, tarfile.PAX_FORMAT)
    with tarfile.open(fileobj=io.BytesIO(data)) as members:
        end = max((one.offset_data + -(-one.size // 512) * 512 for one in members), default=0)
    with pytest.raises(Torn):
        list(without([data[: at % (end + 1)]], frozenset()))


def test_a_layer_larger_than_a_header_can_say_goes_by_its_records() -> None:
    entry = tarfile.TarInfo("huge")
    entry.size = 9 * 1024**3
    head = entry.tobuf(tarfile.PAX_FORMAT)
    passed = without([head, b"x" * 4096], frozenset())
    assert b"".join(next(passed) for _ in range(2)) == head + b"x" * 4096
    assert tarfile.TarInfo.frombuf(head[-512:], "utf-8", "strict").size == 0
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with pytest.raises(Torn):
            list(without([entry.tobuf(form), b"x" * 4096], frozenset({"huge"})))


def test_what_is_no_archive_is_refused() -> None:
    with pytest.raises(Torn):
        list(without([b"<html>" * 1000], frozenset()))


def test_the_first_entry_says_that_there_are_no_images() -> None:
    data = placeholder() + archive([("manifest.json", b"[1]")], tarfile.PAX_FORMAT)
    assert content_of(data) == [("manifest.json", b"[]\n"), ("manifest.json", b"[1]")]


def test_what_is_packed_is_one_gzip_stream() -> None:
    packer = Packer()
    pieces = [b"a" * 100_000, random.Random(1).randbytes(50_000), b"", b"end"]
    packed = []
    for piece in filter(None, pieces):
        packed.append(packer.pack(piece))
        packer.took(len(packed[-1]), 0.0)
    assert gzip.decompress(b"".join(packed)) == b"".join(pieces)


@pytest.mark.parametrize(
    ("piece", "wire", "pays"),
    [
        (b"a" * 1_000_000, 1e-6, True),  # 1 MB/s: packing is faster by far
        (b"a" * 1_000_000, 1e-9, False),  # 1 GB/s: nothing packs so fast
        (random.Random(2).randbytes(1_000_000), 1e-6, False),  # nothing is gained
    ],
)
def test_packing_is_for_networks_slower_than_it(
    piece: bytes, wire: float, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(packing.time, "perf_counter", lambda: next(clock) * 0.01)  # 100 MB/s
    packer = Packer()
    for _ in range(40):
        size = len(packer.pack(piece))
        packer.took(size, wire * size)
    assert packer.pays == pays
    assert (len(packer.pack(piece)) < len(piece)) == pays
