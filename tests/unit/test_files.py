"""What is meant of a folder, how it is kept, and what is let in of what comes back."""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai.batches import Asked, File, read_files
from cloudai.core.errors import InvalidInput, NotFound
from cloudai.core.files import (
    Download,
    check_downloads,
    check_uploads,
    download_beside,
    downloads_of,
    owner_of,
    upload_beside,
    upload_of,
    uploads_of,
)
from cloudai.core.model import TaskSpec
from cloudai.core.request import read_request
from cloudai.files import Files, Refused, Staging, place, scan, unpack
from cloudai.files import kept as kept_module

LONG_AGO = (10**9, 10**9)


def write(folder: Path, **files: str | bytes) -> None:
    """``a__b`` is the file ``b`` in the folder ``a``."""
    for name, data in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        os.utime(path, LONG_AGO)


def names(folder: Path) -> list[str]:
    return [one.path for one in scan(folder) if one.kind != "d"]


# ------------------------------------------------------------------ what may be asked


@pytest.mark.parametrize(
    ("text", "source", "to"),
    [
        ("/home/me/code", "/home/me/code", "/workspace"),
        ("/home/me/code:/src/x/", "/home/me/code", "/src/x"),
        ("/odd:name:/src", "/odd:name", "/src"),
        ("/odd:name", "/odd:name", "/workspace"),
    ],
)
def test_an_upload_says_from_where_and_where_to(text, source, to):
    (kept,) = check_uploads([text])
    assert (upload_of(kept).source, upload_of(kept).to) == (source, to)


@pytest.mark.parametrize(
    "text",
    ["code", "./code:/x", "/a:/", "/a:/proc/x", "/a:/x/../y", "/a:/tmp", "/a\x1b[m:/x", "/a:/x\n"],
)
def test_what_cannot_be_meant_by_an_upload_is_refused_with_its_place(text):
    with pytest.raises(InvalidInput, match=r"uploads\[0\]: "):
        check_uploads([text])


def test_uploads_may_not_fill_each_others_folders():
    with pytest.raises(InvalidInput, match="holds"):
        check_uploads(["/a:/code", "/b:/code/deep"])
    check_uploads(["/a:/code", "/b:/codes"])


def test_paths_are_relative_to_where_they_are_written():
    assert upload_beside("code:/x", "/home/me") == "/home/me/code:/x"
    assert upload_beside(".", "/home/me") == "/home/me"
    assert upload_beside("/abs:/x", "/home/me") == "/abs:/x"
    assert download_beside("/out", "/home/me") == "/out:/home/me/out"
    assert download_beside("/out/:../res", "/home/me") == "/out/:/home/res"


def test_a_batch_names_folders_beside_its_file(tmp_path):
    text = "tasks: [{image: x, uploads: ['code:/src'], downloads: ['/out:res/{index}']}]"
    now = datetime(2026, 1, 1, tzinfo=UTC)
    asked = Asked({}, now, "ann", "batch-1-a", lambda kind: f"{kind}-1-a")
    (planned,) = read_files([File(f"{tmp_path}/nightly.yaml", text, "yaml")], asked).tasks
    assert str(uploads_of(planned.spec)[0]) == f"{tmp_path}/code:/src"
    assert str(downloads_of(planned.spec)[0]) == f"/out:{tmp_path}/res/{{index}}"


@pytest.mark.parametrize("text", ["/out", "out:/x", "/:/x", "/out:x", "/proc/1:/x", "/o/../x:/x"])
def test_what_cannot_be_meant_by_a_download_is_refused(text):
    with pytest.raises(InvalidInput, match=r"downloads\[0\]: "):
        check_downloads([text])


def test_downloads_of_an_array_need_not_write_over_each_other():
    (kept,) = check_downloads(["/out:/res/{index}/{task}"])
    one = downloads_of(TaskSpec(image="x", downloads=(kept,)))[0]
    assert one == Download(path="/out", to="/res/{index}/{task}")
    assert one.place("task-1_7", 7) == "/res/7/task-1_7"


def test_the_command_starts_in_what_was_uploaded_unless_it_is_said_otherwise():
    body = {"docker_image": "x", "uploads": ["/code:/src"]}
    assert read_request(body, default_user="u")[0].workdir == "/src"
    assert read_request({**body, "workdir": "/w"}, default_user="u")[0].workdir == "/w"


def test_files_belong_to_whom_the_container_runs_as():
    assert owner_of(TaskSpec(image="x")) == (0, 0)
    assert owner_of(TaskSpec(image="x", run_as="1000")) == (1000, 0)
    assert owner_of(TaskSpec(image="x", run_as="1000:7")) == (1000, 7)
    assert owner_of(TaskSpec(image="x", run_as="me:us")) == (0, 0)


# ------------------------------------------------------------------ ignore files


def test_what_ignore_files_say_is_left_out(tmp_path):
    write(
        tmp_path,
        **{
            ".gitignore": "*.log\n/build/\n!keep.log\n",
            ".dockerignore": "# not here\ndata\n!data/small.csv\nweights/*.bin\n",
            ".git__config": "",
            "a.py": "",
            "a.log": "",
            "keep.log": "",
            "build__x": "",
            "sub__build__y": "",
            "sub__.gitignore": "*.tmp\n!b.log\n/only\n",
            "sub__b.log": "",
            "sub__c.tmp": "",
            "sub__only": "",
            "sub__deep__only": "",
            "sub__data": "docker's patterns are rooted",
            "data__big.csv": "",
            "data__small.csv": "",
            "weights__w.bin": "",
            "weights__deep__w.bin": "",
        },
    )
    assert names(tmp_path) == [
        ".dockerignore",
        ".gitignore",
        "a.py",
        "data/small.csv",
        "keep.log",
        "sub/.gitignore",
        "sub/b.log",
        "sub/build/y",
        "sub/data",
        "sub/deep/only",
        "weights/deep/w.bin",
    ]


def test_a_folder_that_is_left_out_is_not_even_looked_at(tmp_path):
    write(tmp_path, **{".gitignore": "secret/\n", "a": ""})
    (tmp_path / "secret").mkdir()
    os.mkfifo(tmp_path / "secret" / "pipe")
    assert names(tmp_path) == [".gitignore", "a"]


@pytest.mark.parametrize("link", ["/etc/passwd", "../x", "sub/../../x"])
def test_a_link_that_leads_out_is_refused_by_name(tmp_path, link):
    write(tmp_path, sub__a="")
    (tmp_path / "evil").symlink_to(link)
    with pytest.raises(InvalidInput, match=r"'evil': it is a link to .*, out of"):
        scan(tmp_path)


def test_devices_pipes_and_sockets_are_refused_by_name(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match=r"'pipe': it is a socket, a pipe or a device"):
        scan(tmp_path)


def test_what_is_no_folder_is_refused(tmp_path):
    write(tmp_path, a="")
    for path, words in ((tmp_path / "a", "is no folder"), (tmp_path / "b", "is not there")):
        with pytest.raises(InvalidInput, match=words):
            scan(path)


# ------------------------------------------------------------------ how it is kept


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path / "kept")


def taken(files: Files, folder: Path, **changes: object) -> TaskSpec:
    spec = TaskSpec(image="x", uploads=check_uploads([f"{folder}:/code/space"]))
    return files.with_files([replace(spec, **changes)])[0]


def stream(files: Files, spec: TaskSpec) -> bytes:
    """The tar stream that a worker makes of what it has."""
    pieces = files.parcel(spec).pieces
    whole = b"".join(
        b"".join(files.read(pack, begin))[:size]  # as `tail -c +N | head -c M` does
        for pack, begin, size in pieces
    )
    return whole + bytes(1024)


def unpacked(data: bytes, into: Path) -> Path:
    into.mkdir(parents=True)
    return unpack(io.BytesIO(data), into).root


def test_a_tree_comes_out_as_it_went_in(tmp_path, files):
    folder = tmp_path / "code"
    write(folder, **{"a.py": "1", "sub__b": b"\0" * 1000, "sub__" + "long" * 40: "x"})
    (folder / "a.py").chmod(0o755)
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("sub/b")
    odd = os.fsencode(folder) + b"/odd \xff\n name"
    Path(os.fsdecode(odd)).write_bytes(b"odd")
    data = stream(files, taken(files, folder))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {(m.uid, m.gid) for m in tar} == {(0, 0)}
        assert tar.getmembers()[0].name == "code/space"
    root = unpacked(data, tmp_path / "out") / "space"
    assert sorted(p.relative_to(root) for p in root.rglob("*")) == sorted(
        p.relative_to(folder) for p in folder.rglob("*")
    )
    assert (root / "sub/b").read_bytes() == b"\0" * 1000
    assert os.readlink(root / "link") == "sub/b"
    assert (root / "a.py").stat().st_mode & 0o111
    assert not (root / "sub/b").stat().st_mode & 0o111


def test_a_file_that_only_its_owner_may_read_can_be_read_in_the_container(tmp_path, files):
    folder = tmp_path / "code"
    write(folder, a="1")
    (folder / "a").chmod(0o600)

    def modes(**changes: object) -> list[tuple[int, int]]:
        with tarfile.open(
            fileobj=io.BytesIO(stream(files, taken(files, folder, **changes)))
        ) as tar:
            return [(member.mode, member.uid) for member in tar if member.isreg()]

    assert modes() == [(0o644, 0)]
    assert modes(run_as="1000:1000") == [(0o600, 1000)]


def sizes(files: Files, spec: TaskSpec) -> list[int]:
    return sorted(files.parcel(spec).packs.values())


def test_a_changed_file_costs_only_itself_and_the_earlier_tree_stays(tmp_path, files):
    folder = tmp_path / "code"
    write(folder, a="1", b=b"2" * 5000, c="3")
    before = taken(files, folder)
    write(folder, b=b"4" * 5000)
    os.utime(folder / "b", (2 * 10**9, 2 * 10**9))
    after = taken(files, folder)
    assert after.uploads != before.uploads
    (first,) = sizes(files, before)
    assert sizes(files, after) == sorted([512 + 5120, first])
    assert b"4" * 5000 in stream(files, after)
    assert b"4" * 5000 not in stream(files, before)
    assert b"2" * 5000 in stream(files, before)


def test_an_unchanged_file_is_not_read_again_and_a_touched_one_is_not_sent_again(
    tmp_path, files, monkeypatch
):
    folder = tmp_path / "code"
    write(folder, a="1", b="2")
    before = taken(files, folder)
    read: list[str] = []
    digest_of = kept_module.digest_of
    monkeypatch.setattr(
        kept_module, "digest_of", lambda at, one: read.append(one.path) or digest_of(at, one)
    )
    assert taken(files, folder).uploads == before.uploads
    assert read == []
    os.utime(folder / "b", (5, 5))
    assert taken(files, folder).uploads == before.uploads
    assert read == ["b"]
    assert taken(files, folder).uploads == before.uploads
    assert read == ["b"]


def test_a_change_within_the_same_moment_and_of_the_same_size_is_seen(tmp_path, files):
    folder = tmp_path / "code"
    write(folder, a="1")
    os.utime(folder / "a")  # now: it may change again before the clock of the disk moves on
    seen = (folder / "a").stat()
    before = taken(files, folder)
    (folder / "a").write_text("2")
    os.utime(folder / "a", ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert taken(files, folder).uploads != before.uploads


def test_a_file_that_changes_while_it_is_read_is_refused_by_name(tmp_path, files, monkeypatch):
    folder = tmp_path / "code"
    write(folder, a="1", b="2")
    look = kept_module.look

    def growing(at: Path, path: str) -> object:
        found = look(at, path)
        if path == "b":
            at.write_text("x" * (found.size + 1))
        return found

    monkeypatch.setattr(kept_module, "look", growing)
    original = kept_module.scan

    def scanned(at: Path) -> object:
        found = original(at)
        (at / "b").write_text("longer")
        return found

    monkeypatch.setattr(kept_module, "scan", scanned)
    with pytest.raises(InvalidInput, match=r"code/b' changes while it is read"):
        taken(files, folder)


def test_the_same_folder_is_taken_once_for_many(tmp_path, files):
    folder = tmp_path / "code"
    write(folder, a="1")
    spec = TaskSpec(image="x", uploads=check_uploads([str(folder)]))
    first, second = files.with_files([spec, replace(spec, image="y")])
    assert first.uploads == second.uploads
    assert files.with_files([first])[0] == first


def test_what_nobody_needs_is_forgotten(tmp_path, files):
    folder = tmp_path / "code"
    write(folder, a="1")
    old = taken(files, folder)
    write(folder, a="22")
    new = taken(files, folder)
    trees = [uploads_of(spec)[0].tree for spec in (old, new)]
    kept = tmp_path / "kept"
    for path in (kept / "trees").iterdir():
        os.utime(path, LONG_AGO)
    files.sweep(set)
    with pytest.raises(NotFound, match="is no longer in"):
        files.parcel(old)
    files.parcel(new)  # the newest of its folder
    assert len(list((kept / "packs").iterdir())) == len(files.parcel(new).packs)
    files.drop({trees[1]})
    assert not list((kept / "packs").iterdir())
    assert not list((kept / "latest").iterdir())
    (kept / "packs" / "left.new").write_text("by a killed one")
    files.sweep(set)
    assert not list((kept / "packs").iterdir())


def test_everything_that_is_kept_is_for_its_owner_alone(tmp_path, files):
    folder = tmp_path / "code"
    write(folder, a="1")
    taken(files, folder)
    for path in (tmp_path / "kept").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


NAMES = st.lists(
    st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=12).filter(
        lambda name: name not in (".", "..", ".git", ".gitignore", ".dockerignore")
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(NAMES.map("/".join), st.binary(max_size=1500), max_size=6), st.data())
def test_any_tree_and_any_later_one_comes_out_as_it_was(tmp_path_factory, tree, data):
    folder = tmp_path_factory.mktemp("t")
    files, code = Files(folder / "kept"), folder / "code"
    code.mkdir()
    for at in ("one", "two"):
        for name, body in tree.items():
            try:
                (code / name).parent.mkdir(parents=True, exist_ok=True)
                (code / name).write_bytes(body)
            except OSError:  # one's folder is the other's file
                continue
        root = unpacked(stream(files, taken(files, code)), folder / at) / "space"
        there = {p.relative_to(code): p.is_dir() or p.read_bytes() for p in code.rglob("*")}
        assert {p.relative_to(root): p.is_dir() or p.read_bytes() for p in root.rglob("*")} == there
        for name in data.draw(st.sets(st.sampled_from(sorted(tree)))) if tree else ():
            tree = {**tree, name: tree[name][::-1] + b"!"}


# ------------------------------------------------------------------ what comes back


def hostile(*members: tuple[str, bytes, str]) -> bytes:
    """name, type, link or data"""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind, text in (("out", tarfile.DIRTYPE, ""), *members):
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o6777
            if kind == tarfile.REGTYPE:
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
            else:
                info.linkname = text
                tar.addfile(info)
    return stream.getvalue()


F, D, L, H = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize(
    "member",
    [
        ("../evil", F, "x"),
        ("/evil", F, "x"),
        ("out/../../evil", F, "x"),
        ("out/link", L, "/etc"),
        ("out/link", L, "../../.."),
        ("out/hard", H, "/etc/passwd"),
        ("out/hard", H, "../../outside"),
        ("out/hard", H, "out"),
        ("out/dev", tarfile.CHRTYPE, ""),
        ("out/dev", tarfile.BLKTYPE, ""),
        ("out/pipe", tarfile.FIFOTYPE, ""),
    ],
)
def test_what_would_reach_out_is_left_out_and_told(tmp_path, member):
    (tmp_path / "outside").write_text("mine")
    into = tmp_path / "deep" / "into"
    into.mkdir(parents=True)
    done = unpack(io.BytesIO(hostile(member, ("out/good", F, "y"))), into)
    assert len(done.left_out) == 1
    assert [path.name for path in done.root.iterdir()] == ["good"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "outside"]
    assert (tmp_path / "outside").stat().st_nlink == 1


def test_nothing_is_written_through_a_link_that_came_with_it(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    into = tmp_path / "into"
    into.mkdir()
    members = [
        ("out/a", D, ""),
        ("out/a/up", L, ".."),
        ("out/link", L, "a/up/../../outside"),
        ("out/link/evil", F, "x"),
        ("out/a/up/evil", F, "x"),
    ]
    unpack(io.BytesIO(hostile(*members)), into)
    assert not list(outside.iterdir())
    for path in into.rglob("*"):
        assert not path.is_symlink() or str(path.resolve()).startswith(f"{into}/out")


def test_files_come_without_set_uid_and_as_the_umask_wants(tmp_path):
    before = os.umask(0o027)
    try:
        done = unpack(io.BytesIO(hostile(("out/a", F, "x"))), tmp_path)
    finally:
        os.umask(before)
    assert (done.root / "a").stat().st_mode & 0o7777 == 0o750


def test_what_is_no_tar_stream_or_cut_is_refused(tmp_path):
    whole = hostile(("out/a", F, "x" * 5000))
    for number, data in enumerate((b"", b"no tar" * 200, whole[:2000])):
        into = tmp_path / str(number)
        into.mkdir()
        with pytest.raises(Refused):
            unpack(io.BytesIO(data), into)


def arrived(tmp_path: Path, **members: str) -> Path:
    root = tmp_path / "staged" / "out"
    write(root, **members)
    return root


def test_results_go_over_what_is_there_and_the_rest_stays(tmp_path):
    to = tmp_path / "res"
    write(to, old="old", both="old", sub__old="old")
    assert place(arrived(tmp_path, both="new", sub__new="new"), to) == to
    there = {str(p.relative_to(to)): p.read_text() for p in to.rglob("*") if p.is_file()}
    assert there == {"old": "old", "both": "new", "sub/old": "old", "sub/new": "new"}


def test_results_go_through_no_link(tmp_path):
    to, mine = tmp_path / "res", tmp_path / "mine"
    mine.mkdir()
    to.mkdir()
    (to / "sub").symlink_to(mine)
    with pytest.raises(Refused, match="sub is there already"):
        place(arrived(tmp_path, a="1", sub__new="new"), to)
    assert not list(mine.iterdir())
    assert not (to / "a").exists()


@pytest.mark.parametrize(
    ("to", "makes"), [("new", "new/m.pt"), ("there", "there/m.pt"), ("deep/m.pt", "deep/m.pt")]
)
def test_a_file_goes_into_the_folder_or_under_its_own_name(tmp_path, to, makes):
    write(tmp_path, there__x="")
    write(tmp_path / "staged", **{"m.pt": "model"})
    where = place(tmp_path / "staged" / "m.pt", tmp_path / to)
    assert where == tmp_path / makes
    assert where.read_text() == "model"


def test_a_download_that_was_cut_goes_on_where_it_was(tmp_path):
    data = hostile(("out/a", F, "x" * 5000))
    staging = Staging(tmp_path / "home" / ".cloudai-x")
    assert staging.begin() == 0
    staging.append(data[:3000])
    again = Staging(tmp_path / "home" / ".cloudai-x")
    assert again.begin() == 3000
    again.append(data[3000:])
    assert (again.unpack().root / "a").read_text() == "x" * 5000
    assert again.folder.stat().st_mode & 0o077 == 0
    again.remove()
    assert not list((tmp_path / "home").iterdir())


def test_a_planted_link_is_not_taken_for_the_staging_folder(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / ".cloudai-x").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="link"):
        Staging(tmp_path / ".cloudai-x").begin()
