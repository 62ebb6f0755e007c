"""Container logs come out as they went in, however the bytes are cut on their way."""

from __future__ import annotations

import itertools
import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.core.errors import EngineFailed, Indeterminate, LogUnreadable
from cloudai.engines import LogRecord
from cloudai.engines.docker.log_records import AROUND, Decoder, Frames, Lines, LogPlace

SECOND = 1_000_000_000


def stamp(at: int) -> bytes:
    """As engines write it: RFC 3339 with nine digits."""
    whole = datetime.fromtimestamp(at // SECOND, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{at % SECOND:09d}Z ".encode()


def frame(record: LogRecord) -> bytes:
    content = stamp(record.at) + record.data
    return struct.pack(">BxxxL", record.stream, len(content)) + content


def decoded(decoder: Decoder, data: bytes, cuts: list[int]) -> list[LogRecord]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    records = []
    for start, end in itertools.pairwise(edges):
        records += decoder.feed(data[start:end])
    records += decoder.finish()
    return records


moments = st.integers(0, 4_000_000_000 * SECOND)
records = st.builds(
    LogRecord, at=moments, data=st.binary(max_size=80), stream=st.sampled_from([1, 2])
)
CUTS = st.lists(st.integers(0, 10_000), max_size=8)


@given(st.lists(records, max_size=8), CUTS)
def test_frames_give_back_every_record_wherever_the_bytes_are_cut(
    sent: list[LogRecord], cuts: list[int]
) -> None:
    assert decoded(Frames(), b"".join(map(frame, sent)), cuts) == sent


@given(
    st.lists(
        st.tuples(moments, st.lists(st.binary(min_size=1, max_size=40), max_size=3)),
        max_size=5,
        unique_by=lambda line: line[0],
    ),
    CUTS,
)
def test_lines_give_back_every_chunk_of_a_terminals_log(
    lines: list[tuple[int, list[bytes]]], cuts: list[int]
) -> None:
    sent = []
    for at, chunks in lines:
        clean = [chunk.replace(b"\n", b"_").replace(stamp(at), b"") or b"x" for chunk in chunks]
        sent += [LogRecord(at=at, data=chunk) for chunk in clean]
        sent.append(LogRecord(at=at, data=b"the end\r\n"))
    data = b"".join(stamp(record.at) + record.data for record in sent)
    assert decoded(Lines(), data, cuts) == sent


def test_the_last_line_of_a_terminal_may_lack_its_newline() -> None:
    assert decoded(Lines(), stamp(5) + b"a\r\n" + stamp(6) + b"$ ", []) == [
        LogRecord(5, b"a\r\n"),
        LogRecord(6, b"$ "),
    ]


def test_a_stamp_inside_a_line_is_text() -> None:
    inner = LogRecord(7, b"at " + stamp(6) + b"it broke\n")
    assert decoded(Frames(), frame(inner), []) == [inner]
    assert decoded(Lines(), stamp(7) + inner.data, []) == [inner]


@pytest.mark.parametrize("kept", [1, 7, 8, 20, 45])
def test_a_log_that_ends_inside_a_record_is_cut(kept: int) -> None:
    data = frame(LogRecord(5, b"0123456789\n"))
    assert kept < len(data)
    with pytest.raises(Indeterminate):
        decoded(Frames(), data[:kept], [])


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        struct.pack(">BxxxL", 1, 2**31) + b"x",
        struct.pack(">BxxxL", 9, 4) + b"text",
        struct.pack(">BxxxL", 1, 4) + b"text",
        struct.pack(">BxxxL", 1, 31) + b"2026-99-31T12:00:00.000000000Z ",
    ],
)
def test_what_is_no_log_is_refused(data: bytes) -> None:
    with pytest.raises(EngineFailed, match="no container log"):
        decoded(Frames(), data, [])


def test_what_the_engine_says_of_the_log_itself_is_raised_not_shown_as_output() -> None:
    words = b"error reading: unexpected end of JSON\n"
    with pytest.raises(EngineFailed, match="unexpected end of JSON"):
        decoded(Frames(), struct.pack(">BxxxL", 3, len(words)) + words, [])


def test_what_came_before_the_engine_failed_to_read_on_is_handed_over() -> None:
    one, words = LogRecord(5, b"one\n"), b"error reading: unexpected end of JSON\n"
    frames = Frames()
    assert list(frames.feed(frame(one) + struct.pack(">BxxxL", 3, len(words)) + words)) == [one]
    with pytest.raises(LogUnreadable, match="unexpected end of JSON"):
        frames.feed(b"")


def test_a_batch_tells_what_its_records_take_in_the_engines_file() -> None:
    batch = Frames().feed(frame(LogRecord(5, b"plain\n")) + frame(LogRecord(6, b'<\x1b"\n')))
    first = AROUND + len(r"plain\n")
    assert batch[:1].cost == first
    assert batch.cost == first + AROUND + len(r"\u003c\u001b\"\n")


def test_stamps_of_other_zones_and_precisions_are_understood() -> None:
    content = b"1970-01-01T01:00:01.5+01:00 x\n"
    data = struct.pack(">BxxxL", 2, len(content)) + content
    assert decoded(Frames(), data, []) == [LogRecord(1_500_000_000, b"x\n", 2)]


def sent_from(log: list[LogRecord], since: int) -> list[LogRecord]:
    """As engines do: from the first record at or after a moment, unfiltered after that."""
    first = next((i for i, record in enumerate(log) if record.at >= since), len(log))
    return log[first:]


@given(
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from([b"a\n", b"b\n"])), max_size=20),
    st.lists(st.integers(0, 20), max_size=4),
    st.integers(0, 7),
)
def test_a_reader_goes_on_where_it_stood_whatever_the_stamps(
    entries: list[tuple[int, bytes]], cuts: list[int], since: int
) -> None:
    log = [LogRecord(at=at, data=data) for at, data in entries]
    place, read = LogPlace(since), []
    for written in [*sorted(cuts), len(log)]:
        rejoin = place.rejoin()
        for record in sent_from(log[:written], place.since):
            if rejoin.is_new(record):
                place.passed(record)
                read.append(record)
        assert rejoin.found
    assert read == sent_from(log, since)


def test_a_reader_knows_when_its_place_is_gone() -> None:
    place = LogPlace()
    place.passed(LogRecord(5, b"rotated away\n"))
    rejoin = place.rejoin()
    assert not rejoin.is_new(LogRecord(9, b"later\n"))
    assert not rejoin.found
