"""Logs at home: bytes in are bytes out, and a crash costs nothing that cannot be asked again."""

import errno
import gzip
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai.archive import GRANULARITY, SEGMENT, Archive, Boundary
from cloudai.core.errors import Conflict, InvalidInput, StoreFull

TASK = "task-1700000000-abc"
SECOND = 1_000_000_000

times = st.lists(
    st.one_of(
        st.just(0),  # equal timestamps occur
        st.integers(0, 3 * GRANULARITY),
        st.integers(-2 * SECOND, 0),  # clocks go back
    ),
    max_size=60,
)
payload = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"\n", b"\n\n", b"line\n", b"half", b"\xff\x00\r\n"]),
    st.integers(1, 3 * SEGMENT).map(lambda size: b"x" * size),
)
records = times.flatmap(
    lambda steps: st.tuples(
        *[payload.map(lambda data, step=step: (step, data)) for step in steps]
    ).map(_with_times)
)


def _with_times(steps):
    at, made = 1_700_000_000 * SECOND, []
    for step, data in steps:
        at += step
        made.append((at, data))
    return made


@pytest.fixture
def archive(tmp_path):
    return Archive(tmp_path / "logs")


def fresh(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "archive"
    shutil.rmtree(folder, ignore_errors=True)
    return Archive(folder)


def whole(archive, **options):
    return b"".join(archive.read(TASK, 1, **options))


def whole_bytes(made):
    return b"".join(data for _, data in made)


# ------------------------------------------------------------------ what goes in comes out


@settings(max_examples=60, deadline=None)
@given(records, st.data())
def test_bytes_in_are_bytes_out(tmp_path_factory, made, data):
    archive = fresh(tmp_path_factory)
    cut = data.draw(st.integers(0, len(made)))
    with archive.writer(TASK, 1) as writer:
        for at, chunk in made[:cut]:
            writer.append(at, chunk)
        writer.extend(made[cut:])
        writer.finish()
    assert whole(archive) == whole_bytes(made)
    assert archive.size(TASK, 1) == len(whole_bytes(made))
    assert archive.complete(TASK, 1)


@settings(max_examples=60, deadline=None)
@given(records, st.lists(st.integers(0, 12)), st.sampled_from([0, -GRANULARITY, -SECOND]))
def test_the_index_is_the_same_however_many_records_come_at_once(
    tmp_path_factory, made, cuts, back
):
    made = [*made, *((at + back, data) for at, data in made)]
    indexes = []
    for edges in (range(len(made)), sorted({cut % (len(made) + 1) for cut in cuts})):
        archive = fresh(tmp_path_factory)
        with archive.writer(TASK, 1) as writer:
            for begin, end in itertools.pairwise([0, *edges, len(made)]):
                writer.extend(made[begin:end])
        indexes.append((tmp_path_factory.getbasetemp() / f"archive/{TASK}/1.idx").read_bytes())
    assert indexes[0] == indexes[1]


@settings(max_examples=60, deadline=None)
@given(records, st.data())
def test_since_loses_nothing(tmp_path_factory, made, data):
    archive = fresh(tmp_path_factory)
    with archive.writer(TASK, 1) as writer:
        writer.extend(made)
    moments = [at for at, _ in made] or [SECOND]
    since = data.draw(st.sampled_from(moments)) + data.draw(st.integers(-1, 1))
    begin = archive.begin(TASK, 1, since=since)
    offsets = [len(whole_bytes(made[:index])) for index in range(len(made) + 1)]
    assert begin in offsets, "it begins with a whole record"
    for (at, chunk), offset in zip(made, offsets, strict=False):
        assert not (at >= since and offset < begin and chunk), "a wanted record was left out"
    assert whole(archive, since=since) == whole_bytes(made)[begin:]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, GRANULARITY), st.integers(1, SEGMENT))), st.data())
def test_since_begins_less_than_a_tenth_of_a_second_or_a_segment_too_early(
    tmp_path_factory, steps, data
):
    made = _with_times([(step, b"x" * size) for step, size in steps])
    archive = fresh(tmp_path_factory)
    with archive.writer(TASK, 1) as writer:
        writer.extend(made)
    since = data.draw(st.sampled_from([at for at, _ in made] or [1]))
    begin = archive.begin(TASK, 1, since=since)
    offset = 0
    for at, chunk in made:
        if begin <= offset and at < since:
            assert since - at < GRANULARITY
        offset += len(chunk)


def test_since_after_everything_is_nothing(archive):
    with archive.writer(TASK, 1) as writer:
        writer.append(5 * SECOND, b"old\n")
    assert whole(archive, since=6 * SECOND) == b""
    assert whole(archive, since=5 * SECOND) == b"old\n"
    assert whole(archive, since=0) == b"old\n"


# ------------------------------------------------------------------ tail

TAIL = shutil.which("tail")


def tail_of(data: bytes, lines: int) -> bytes:
    """What the ``tail -n`` of this machine says."""
    assert TAIL
    return subprocess.run(
        [TAIL, "-n", str(lines)], input=data, stdout=subprocess.PIPE, check=True
    ).stdout


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([b"\n", b"a\n", b"bb", b"", b"\r\n", b"\x00\n"]), max_size=30),
    st.integers(0, 12),
)
def test_tail_is_that_of_tail(tmp_path_factory, parts, lines):
    data = b"".join(parts)
    archive = fresh(tmp_path_factory)
    with archive.writer(TASK, 1) as writer:
        writer.append(SECOND, data)
    assert whole(archive, tail=lines) == tail_of(data, lines)


@pytest.mark.parametrize("end", [b"", b"\n", b"last, unfinished"])
@pytest.mark.parametrize("lines", [1, 2, 999, 5000, 20_000])
def test_tail_of_a_long_log_is_that_of_tail(archive, lines, end):
    data = b"".join(b"%06d %s\n" % (n, b"x" * (n % 97)) for n in range(12_000)) + end
    with archive.writer(TASK, 1) as writer:
        writer.append(SECOND, data)
    assert whole(archive, tail=lines) == tail_of(data, lines)


def test_tail_reads_only_the_end(archive, monkeypatch):
    with archive.writer(TASK, 1) as writer:
        writer.extend((SECOND, b"x" * 999 + b"\n") for _ in range(20_000))
    read = []
    real = os.pread
    monkeypatch.setattr(
        os, "pread", lambda fd, size, offset: (read.append(size), real(fd, size, offset))[1]
    )
    assert archive.begin(TASK, 1, tail=10) == 20_000_000 - 10_000
    assert sum(read) < 1_000_000


def test_tail_counts_within_since(archive):
    with archive.writer(TASK, 1) as writer:
        for second in range(1, 6):
            writer.append(second * SECOND, b"line %d\n" % second)
    assert whole(archive, since=4 * SECOND, tail=10) == b"line 4\nline 5\n"
    assert whole(archive, since=2 * SECOND, tail=1) == b"line 5\n"


# ------------------------------------------------------------------ going on after a crash


def offered(made, at):
    """What Docker answers for ``since=at``: inclusive, and then it stops filtering."""
    for index, (when, _) in enumerate(made):
        if when >= at:
            return made[index:]
    return []


def go_on(archive, made):
    with archive.writer(TASK, 1) as writer:
        size = writer.resume.size
        assert archive.size(TASK, 1) == size, "nothing is kept that is not vouched for"
        boundaries = list(writer.boundaries())
        for boundary in boundaries:
            data = whole_bytes(offered(made, boundary.since))
            assert data == whole_bytes(made)[boundary.offset :], "it can be asked for again"
        begin = boundaries[0] if boundaries else Boundary(0, 0)
        skip = size - begin.offset
        for at, data in offered(made, begin.since):
            if skip:
                assert len(data) <= skip
                skip -= len(data)
            else:
                writer.append(at, data)
        writer.finish()


@settings(max_examples=60, deadline=None)
@given(records, st.data())
def test_a_log_goes_on_where_it_stopped(tmp_path_factory, made, data):
    archive = fresh(tmp_path_factory)
    cut = data.draw(st.integers(0, len(made)))
    with archive.writer(TASK, 1) as writer:
        for record in made[:cut]:
            writer.append(*record)
        before = writer.resume
    with archive.writer(TASK, 1) as writer:
        assert writer.resume == before
        assert before.size == len(whole_bytes(made[:cut]))
    go_on(archive, made)
    assert whole(archive) == whole_bytes(made)


@settings(max_examples=60, deadline=None)
@given(records, st.data())
def test_torn_files_are_mended_consistently(tmp_path_factory, made, data):
    """Power loss: either file cut anywhere, or with zeros or noise where its end was."""
    archive = fresh(tmp_path_factory)
    with archive.writer(TASK, 1) as writer:
        for record in made:
            writer.append(*record)
    folder = tmp_path_factory.getbasetemp() / "archive" / TASK
    for name in ("1.log", "1.idx"):
        content = (folder / name).read_bytes()
        kept = data.draw(st.integers(0, len(content)), label=f"kept of {name}")
        noise = data.draw(st.sampled_from([b"", b"\0" * 40, b"\0" * 97, b"noise" * 16]))
        if kept < len(content) or noise:
            (folder / name).write_bytes(content[:kept] + noise)
    with archive.writer(TASK, 1) as writer:
        size = writer.resume.size
    assert whole(archive) == whole_bytes(made)[:size]
    go_on(archive, made)
    assert whole(archive) == whole_bytes(made)


def test_little_is_asked_again_after_a_torn_entry(archive, tmp_path):
    made = [(n * SECOND // 1000, b"%05d\n" % n) for n in range(3000)]
    with archive.writer(TASK, 1) as writer:
        writer.extend(made)
    index = tmp_path / "logs" / TASK / "1.idx"
    os.truncate(index, index.stat().st_size - 1)
    with archive.writer(TASK, 1) as writer:
        assert len(whole_bytes(made)) - writer.resume.size <= 100 * 6


KILLED = """
import sys
from pathlib import Path
from cloudai.archive import Archive
with Archive(Path(sys.argv[1])).writer(sys.argv[2], 1) as writer:
    n = 0
    while True:
        writer.extend([(n * 1_000_000 + k, b"%09d\\n" % (n + k)) for k in range(7)])
        n += 7
        if n == 7 * 200:
            print("going", flush=True)
"""


def test_a_writer_killed_in_the_middle_leaves_a_log_that_goes_on(archive, tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "logs"), TASK]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"going\n"
        process.send_signal(signal.SIGKILL)
    with archive.writer(TASK, 1) as writer:
        size = writer.resume.size
    assert size >= 7 * 200 * 10
    assert size % 10 == 0
    lines = whole(archive).split(b"\n")[:-1]
    assert lines == [b"%09d" % n for n in range(size // 10)]


def test_a_full_disk_appends_nothing_and_can_be_tried_again(archive, tmp_path, monkeypatch):
    with archive.writer(TASK, 1) as writer:
        writer.append(SECOND, b"first\n")
        before = writer.resume
        real = os.pwrite

        def full(descriptor, data, offset):
            if len(data) > 3:
                return real(descriptor, data[:3], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as broken:
            broken.setattr(os, "pwrite", full)
            with pytest.raises(StoreFull):
                writer.append(2 * SECOND, b"second")
        assert writer.resume == before
        assert whole(archive) == b"first\n"
        writer.append(2 * SECOND, b"second")
        assert whole(archive) == b"first\nsecond"
    with archive.writer(TASK, 1) as writer:
        assert writer.resume.size == len(b"first\nsecond")


# ------------------------------------------------------------------ the end of a log


def test_a_log_is_complete_only_when_finished(archive, tmp_path):
    assert not archive.complete(TASK, 1)
    with archive.writer(TASK, 1) as writer:
        writer.append(SECOND, b"bytes")
        assert not archive.complete(TASK, 1)
        assert not writer.finished
        writer.finish()
        writer.finish()
        assert writer.finished
        with pytest.raises(Conflict):
            writer.append(2 * SECOND, b"more")
    assert archive.complete(TASK, 1)
    mark = json.loads((tmp_path / "logs" / TASK / "1.done").read_text())
    assert mark == {"bytes": 5, "sha256": hashlib.sha256(b"bytes").hexdigest()}


def test_a_finished_log_stays_as_it_is_when_opened_again(archive):
    with archive.writer(TASK, 1) as writer:
        writer.append(SECOND, b"bytes")
        writer.finish()
    with archive.writer(TASK, 1) as writer:
        assert writer.finished
        assert writer.resume.size == 5
        writer.finish()
    assert whole(archive) == b"bytes"


def test_an_empty_log_can_be_complete(archive):
    with archive.writer(TASK, 1) as writer:
        writer.finish()
    assert archive.complete(TASK, 1)
    assert whole(archive, tail=5, since=7) == b""


@pytest.mark.parametrize("mark", ["", "{", "{}", "[]", '{"bytes": "many"}', '{"bytes": 4}'])
def test_a_mark_that_is_not_true_of_the_log_is_none(archive, tmp_path, mark):
    with archive.writer(TASK, 1) as writer:
        writer.append(SECOND, b"bytes")
    (tmp_path / "logs" / TASK / "1.done").write_text(mark)
    assert not archive.complete(TASK, 1)
    with archive.writer(TASK, 1) as writer:
        writer.append(2 * SECOND, b" and more")
        writer.finish()
    assert archive.complete(TASK, 1)
    assert whole(archive) == b"bytes and more"


# ------------------------------------------------------------------ the rest


def test_a_reader_sees_what_is_appended_while_it_looks(archive):
    with archive.writer(TASK, 1) as writer:
        writer.append(SECOND, b"one\n")
        begin = archive.begin(TASK, 1, tail=1)
        first = b"".join(archive.read_from(TASK, 1, begin))
        writer.append(2 * SECOND, b"two\n")
        assert b"".join(archive.read_from(TASK, 1, begin + len(first))) == b"two\n"


def test_no_log_is_no_bytes(archive, tmp_path):
    assert whole(archive, tail=3, since=9) == b""
    assert archive.size(TASK, 1) == 0
    assert list(tmp_path.iterdir()) == []


def test_assignments_have_logs_of_their_own(archive):
    for number in (1, 2, 10):
        with archive.writer(TASK, number) as writer:
            writer.append(SECOND, b"%d" % number)
    assert [b"".join(archive.read(TASK, n)) for n in (1, 2, 10)] == [b"1", b"2", b"10"]
    archive.drop(TASK)
    archive.drop(TASK)
    assert archive.size(TASK, 10) == 0


def test_only_its_user_may_look(archive, tmp_path):
    with archive.writer(TASK, 1) as writer:
        writer.append(SECOND, b"x")
        writer.finish()
    folder = tmp_path / "logs" / TASK
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "/etc", ".x", "a\0b"])
def test_a_task_id_never_leaves_the_folder(archive, tmp_path, name):
    (tmp_path / "x").mkdir()
    for use in (
        archive.drop,
        lambda name: archive.size(name, 1),
        lambda name: archive.writer(name, 1),
    ):
        with pytest.raises(InvalidInput):
            use(name)
    assert (tmp_path / "x").is_dir()


def test_files_are_closed(archive):
    descriptors = Path("/dev/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(5):
        with archive.writer(TASK, 1) as writer:
            writer.append(SECOND, b"x" * 10)
        next(iter(archive.read(TASK, 1)))
        archive.begin(TASK, 1, since=3, tail=1)
    assert len(list(descriptors.iterdir())) == before


# ------------------------------------------------------------------ kept within a limit

LIMIT = 2 * 1024 * 1024
CUT = re.compile(
    rb"\n\[cloudai: cut: (\d+) bytes are left out here, the log is longer than 2 MiB\]\n"
)


def lines_of(count, *, first=0):
    """Of 1000 bytes each, a millisecond apart."""
    return [
        ((first + n) * SECOND // 1000, b"%09d %s\n" % (first + n, b"x" * 989)) for n in range(count)
    ]


@pytest.fixture
def small(tmp_path):
    return Archive(tmp_path / "logs", limit=LIMIT)


def disk_used(tmp_path):
    return sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())


def test_a_long_log_keeps_its_head_and_its_tail(small, tmp_path):
    made = lines_of(10_000)
    with small.writer(TASK, 1) as writer:
        for at in range(0, len(made), 100):
            writer.extend(made[at : at + 100])
            assert disk_used(tmp_path) <= LIMIT + 300_000
        writer.finish()
    everything = whole_bytes(made)
    shown = whole(small)
    head, left_out, tail = CUT.split(shown)
    assert everything.startswith(head)
    assert everything.endswith(tail)
    assert len(head) + int(left_out) + len(tail) == len(everything) == small.size(TASK, 1)
    assert len(head) >= LIMIT // 4
    assert len(tail) >= LIMIT // 2
    assert len(head) + len(tail) <= LIMIT
    assert whole(small, marks=False) == head + tail
    assert small.complete(TASK, 1)
    assert whole(small, tail=100) == everything[-100_000:]
    begin = len(everything) - 100_000
    assert small.begin(TASK, 1, since=made[9_900][0]) in range(begin - 100_000, begin + 1)


def test_a_reader_that_lags_behind_is_told_what_it_missed(small):
    made = lines_of(6_000)
    with small.writer(TASK, 1) as writer:
        writer.extend(made[:10])
        reader = small.reader(TASK, 1)
        first = b"".join(reader)
        assert first == whole_bytes(made[:10])
        for at in range(10, len(made), 100):
            writer.extend(made[at : at + 100])
    head, left_out, tail = CUT.split(b"".join(reader))
    assert len(first + head) + int(left_out) + len(tail) == len(whole_bytes(made))
    assert reader.offset == small.size(TASK, 1)


def test_a_long_log_goes_on_after_a_crash_in_any_part(small):
    made = lines_of(6_000)
    for at in range(0, len(made), 500):
        with small.writer(TASK, 1) as writer:
            assert writer.resume.size == at * 1000
            writer.extend(made[at : at + 500])
    with small.writer(TASK, 1) as writer:
        nearest = next(writer.boundaries())
    assert whole_bytes(offered(made, nearest.since)) == whole_bytes(made)[nearest.offset :]
    assert CUT.sub(b"", whole(small)).endswith(whole_bytes(made)[-1_000_000:])


# ------------------------------------------------------------------ compressed once it is closed


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "logs" / TASK).iterdir())


@settings(max_examples=40, deadline=None)
@given(records, st.data())
def test_a_compressed_log_reads_as_before(tmp_path_factory, made, data):
    archive = fresh(tmp_path_factory)
    made = [*made, (made[-1][0] if made else SECOND, bytes(range(256)) * 2000)]
    with archive.writer(TASK, 1) as writer:
        writer.extend(made)
        writer.finish()
    since = data.draw(st.sampled_from([at for at, _ in made]))
    offset = data.draw(st.integers(0, archive.size(TASK, 1)))
    wishes = [{}, {"since": since}, {"tail": 3}, {"since": since, "tail": 2}]
    before = [whole(archive, **wish) for wish in wishes]
    rest = b"".join(archive.read_from(TASK, 1, offset))
    archive.compress(TASK, 1)
    folder = tmp_path_factory.getbasetemp() / "archive" / TASK
    assert not (folder / "1.log").exists()
    assert gzip.decompress((folder / "1.log.gz").read_bytes()) == whole_bytes(made)
    assert [whole(archive, **wish) for wish in wishes] == before
    assert b"".join(archive.read_from(TASK, 1, offset)) == rest == whole_bytes(made)[offset:]
    assert archive.complete(TASK, 1)
    with archive.writer(TASK, 1) as writer:
        assert writer.finished
        assert writer.resume.size == len(whole_bytes(made))
        with pytest.raises(Conflict):
            writer.append(since, b"more")


def test_the_tail_of_a_compressed_log_needs_only_its_end(archive, monkeypatch):
    with archive.writer(TASK, 1) as writer:
        writer.extend(lines_of(20_000))
        writer.finish()
    archive.compress(TASK, 1)
    unpacked = []
    real = gzip.decompress
    monkeypatch.setattr(gzip, "decompress", lambda data: unpacked.append(1) or real(data))
    assert whole(archive, tail=10) == whole_bytes(lines_of(10, first=19_990))
    assert len(unpacked) <= 4


def test_all_parts_of_a_long_log_are_compressed(small, tmp_path):
    with small.writer(TASK, 1) as writer:
        for at in range(0, 5_000, 100):
            writer.extend(lines_of(100, first=at))
        writer.finish()
    before = whole(small), whole(small, tail=1500)
    small.compress(TASK, 1)
    assert (whole(small), whole(small, tail=1500)) == before
    assert disk_used(tmp_path) < LIMIT // 4


def test_a_short_log_and_one_that_is_not_finished_stay_plain(archive, tmp_path):
    with archive.writer(TASK, 1) as writer:
        writer.extend(lines_of(500))
        archive.compress(TASK, 1)
        assert names(tmp_path) == ["1.idx", "1.log"]
    with archive.writer(TASK, 2) as writer:
        writer.append(SECOND, b"short\n")
        writer.finish()
    archive.compress(TASK, 2)
    assert "2.log" in names(tmp_path)


@pytest.mark.parametrize("stop", ["replace", "unlink", "write_whole", "sync"])
def test_a_crash_while_compressing_leaves_the_log_whole(archive, tmp_path, monkeypatch, stop):
    made = lines_of(500)
    with archive.writer(TASK, 1) as writer:
        writer.extend(made)
        writer.finish()

    class Killed(BaseException):
        pass

    def die(*args, **options):
        raise Killed

    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", die)  # nothing is cleaned up after a kill
        if stop == "replace":
            broken.setattr(Path, "replace", die)
        elif stop != "unlink":
            name = {"write_whole": "write_whole", "sync": "sync_folder"}[stop]
            broken.setattr(f"cloudai.archive.parts.{name}", die)
        with pytest.raises(Killed):
            archive.compress(TASK, 1)
    assert whole(archive) == whole_bytes(made)
    assert archive.complete(TASK, 1)
    with archive.writer(TASK, 1) as writer:
        assert writer.finished
    archive.compress(TASK, 1)
    assert names(tmp_path) == ["1.done", "1.gzi", "1.idx", "1.log.gz"]
    assert whole(archive) == whole_bytes(made)


def test_a_reader_of_a_log_that_is_being_compressed_misses_nothing(archive):
    made = lines_of(2_000)
    with archive.writer(TASK, 1) as writer:
        writer.extend(made)
        writer.finish()
    reader = archive.reader(TASK, 1)
    chunks = iter(reader)
    first = next(chunks)
    archive.compress(TASK, 1)
    assert first + b"".join(chunks) == whole_bytes(made)
    again = archive.reader(TASK, 1, len(first))
    assert first + b"".join(again) == whole_bytes(made)


# ------------------------------------------------------------------ written anew


def test_what_is_written_anew_takes_its_place_at_once_or_not_at_all(archive):
    made = [(n * SECOND, b"%d\n" % n) for n in range(1, 10)]
    holed = made[:3] + made[5:]
    with archive.writer(TASK, 1) as writer:
        writer.extend(holed)
        boundary = list(writer.boundaries())[-3]
        rewrite = writer.again(boundary)
        rewrite.extend(offered(made, boundary.since))
        assert whole(archive) == whole_bytes(holed)
    with archive.writer(TASK, 1) as writer:
        assert writer.resume.size == len(whole_bytes(holed)), "killed before it was put in place"
        rewrite = writer.again(boundary)
        rewrite.extend(offered(made, boundary.since))
        rewrite.commit()
        assert whole(archive) == whole_bytes(made)
        writer.append(10 * SECOND, b"10\n")
        writer.finish()
    assert whole(archive) == whole_bytes(made) + b"10\n"
    assert whole(archive, since=4 * SECOND) == whole_bytes(made[3:]) + b"10\n"
