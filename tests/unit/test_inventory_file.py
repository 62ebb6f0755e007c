"""The inventory on disk: re-read when it changes, kept through mistakes, edited by the line."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai.core.errors import Conflict, InvalidInput, StoreFull, WorkerNotFound
from cloudai.core.model import GIB, MIB, Resources, WorkerSpec
from cloudai.inventory import (
    FileInvalid,
    InventoryFile,
    Snapshot,
    add_worker,
    parse,
    plan_worker,
    remove_worker,
)
from cloudai.inventory.file import KEPT_NAME

NEW = WorkerSpec(id="new", host="10.1.1.1", port=2222)
LINE = "new: {host: 10.1.1.1, port: 2222}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hosts.yaml"


# ------------------------------------------------------------------ reading


def test_no_file_is_no_worker() -> None:
    snapshot = InventoryFile(None).read()
    assert (snapshot.workers, snapshot.error, snapshot.path) == ({}, None, None)


def test_a_file_that_comes_changes_and_goes(path: Path) -> None:
    file = InventoryFile(path)
    assert (file.read().workers, file.read().error) == ({}, None)
    path.write_text("workers: {a: {}}")
    first = file.read()
    assert (list(first.workers), first.changed) == (["a"], True)
    assert not file.read().changed
    path.write_text("workers: {b: {}}")  # as long as before, within the same tick of the clock
    assert list(file.read().workers) == ["b"]
    path.unlink()
    gone = file.read()
    assert list(gone.workers) == ["b"]
    assert gone.error == f"{path}: the file is gone"
    path.write_text("workers: {b: {}}")
    assert (file.read().error, file.read().changed) == (None, False)


def test_a_bad_edit_keeps_the_last_good_one_until_it_is_mended(path: Path) -> None:
    path.write_text("workers: {a: {}}")
    file = InventoryFile(path)
    good = file.read().workers
    path.write_text("workers: {a: {}, b: {prot: 22}}")
    for _ in range(3):
        snapshot = file.read()
        assert snapshot.workers == good
        assert not snapshot.changed
        assert snapshot.error is not None
        assert snapshot.error.startswith(f"{path}:1:22: unknown key 'prot'; did you mean 'port'?")
    path.write_text("workers: {a: {}, b: {port: 22}}")
    snapshot = file.read()
    assert (list(snapshot.workers), snapshot.error, snapshot.changed) == (["a", "b"], None, True)


def test_the_last_good_one_is_known_after_a_restart(path: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    path.write_text("workers: {a: {}}")
    good = InventoryFile(path, home=home).read().workers
    for bad in ("workers: {a: {}, b: {prot: 22}}", "", "workers: [", "\xff"):
        path.write_text(bad, encoding="latin-1")
        snapshot = InventoryFile(path, home=home).read()
        assert snapshot.workers == good
        assert snapshot.error is not None
    other = tmp_path / "other.yaml"
    other.write_text("workers: [")
    assert InventoryFile(other, home=home).read().workers == {}
    path.unlink()
    assert InventoryFile(path, home=home).read() == Snapshot({}, None, path, True)


def test_a_memory_that_is_damaged_or_cannot_be_written_harms_nothing(
    path: Path, tmp_path: Path
) -> None:
    (tmp_path / KEPT_NAME).write_text("{")
    path.write_text("workers: [")
    assert InventoryFile(path, home=tmp_path).read().workers == {}
    path.write_text("workers: {a: {}}")
    assert list(InventoryFile(path, home=tmp_path / "gone").read().workers) == ["a"]


def test_a_bad_file_at_first_is_no_worker_and_told(path: Path) -> None:
    path.write_text("workers: [")
    file = InventoryFile(path)
    assert file.read().workers == {}
    assert "not YAML" in (file.read().error or "")


def test_a_file_emptied_all_of_a_sudden_is_a_mistake(path: Path) -> None:
    path.write_text("workers: {a: {}}")
    file = InventoryFile(path)
    file.read()
    path.write_text("")
    assert list(file.read().workers) == ["a"]
    assert "is empty" in (file.read().error or "")
    path.write_text("workers: {}")
    assert (file.read().workers, file.read().error) == ({}, None)


def test_what_is_not_a_readable_text_file(path: Path) -> None:
    path.write_bytes(b"workers: {a: {}}\n# caf\xe9")
    file = InventoryFile(path)
    assert file.read().error == f"{path}:2:6: is not UTF-8; save it as such"
    path.unlink()
    os.mkfifo(path)
    assert file.read().error == f"{path}: is not a file"
    path.unlink()
    path.mkdir()
    assert file.read().error == f"{path}: is not a file"
    path.rmdir()
    path.write_bytes(b"\xef\xbb\xbfworkers: {a: {}}")
    assert list(file.read().workers) == ["a"]


def test_a_file_that_rests_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("workers: {a: {}}")
    file = InventoryFile(path)
    hour = 3_600_000_000_000
    # Its times are an hour past: nobody can change it within the same tick any more.
    monkeypatch.setattr("time.time_ns", lambda: path.stat().st_mtime_ns + hour)
    file.read()
    monkeypatch.setattr("cloudai.inventory.file.read_bytes", lambda path: pytest.fail("read"))
    assert list(file.read().workers) == ["a"]


# ------------------------------------------------------------------ adding


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# mine\n", f"# mine\nworkers:\n  {LINE}\n"),
        ("# mine", f"# mine\nworkers:\n  {LINE}\n"),
        ("defaults: {user: ops}\n", f"defaults: {{user: ops}}\nworkers:\n  {LINE}\n"),
        ("workers:\n", f"workers:\n  {LINE}\n"),
        ("workers:", f"workers:\n  {LINE}\n"),
        ("workers: # all\n# end\n", f"workers: # all\n  {LINE}\n# end\n"),
        ("workers: ~\n", f"workers:\n  {LINE}\n"),
        ("workers: {}  # none\n", f"workers: {{{LINE}}}  # none\n"),
        ("workers: {a: {}}", f"workers: {{a: {{}}, {LINE}}}"),
        ("workers: {a: {}, b: }", f"workers: {{a: {{}}, b: , {LINE} }}"),
        ("workers: {\n  a: {},  # first\n}\n", f"workers: {{\n  a: {{}}, {LINE},  # first\n}}\n"),
        ("{}", f"{{workers: {{{LINE}}}}}"),
        ("{defaults: {}}", f"{{defaults: {{}}, workers: {{{LINE}}}}}"),
        (
            "workers:\n    a: {}   # keep   me\n    'b':\n        host: x  # b's\n\n# end\n",
            "workers:\n    a: {}   # keep   me\n    'b':\n        host: x  # b's\n"
            f"    {LINE}\n\n# end\n",
        ),
        (
            "workers:\n  a: {host: x,\n      port: 3}  # two lines\ngroups: {}\n",
            f"workers:\n  a: {{host: x,\n      port: 3}}  # two lines\n  {LINE}\ngroups: {{}}\n",
        ),
        ("workers:\n  a:\n", f"workers:\n  a:\n  {LINE}\n"),
        ("workers:\r\n  a: {}\r\n", f"workers:\r\n  a: {{}}\r\n  {LINE}\r\n"),
        ("\ufeffworkers:\n  a: {}\n", f"\ufeffworkers:\n  a: {{}}\n  {LINE}\n"),
        ("workers:\n  a: {host: é}\n".replace("é", "e"), f"workers:\n  a: {{host: e}}\n  {LINE}\n"),
        ("workers:\n- x\n", None),
    ],
)
def test_adding_changes_one_line(path: Path, before: str, after: str | None) -> None:
    path.write_bytes(before.encode())
    if after is None:
        with pytest.raises(FileInvalid):
            add_worker(path, NEW)
        after = before
    else:
        add_worker(path, NEW)
    assert path.read_bytes().decode() == after


def test_a_new_file_has_a_header_and_is_private_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".cloudai" / "fleet" / "hosts.yaml"
    add_worker(path, NEW)
    header, *rest = path.read_text().splitlines()
    assert header.startswith("# The workers of cloudai")
    assert rest == ["workers:", f"  {LINE}"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700


def test_a_new_file_elsewhere_follows_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    umask = os.umask(0o022)
    try:
        add_worker(tmp_path / "project" / "hosts.yaml", NEW)
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "project" / "hosts.yaml").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "project").stat().st_mode) == 0o755


def test_only_what_is_given_and_not_inherited_is_written(path: Path) -> None:
    path.write_text("defaults: {user: ops, reserve: {cpus: 1}}\nworkers:\n")
    spec = WorkerSpec(
        id="x",
        host="no",
        user="ops",
        identity_file="~/k: #1",
        labels={"zone": "1.0", "note": "a, b: {c}"},
        reserve=Resources(cpu_milli=1500, memory=512 * MIB, storage=10 * GIB, gpu_milli=2000),
        max_gpus=0,
        gpu_idle_memory=MIB + 1,
        engine_socket="unix:///run/x.sock",
    )
    add_worker(path, spec)
    text = path.read_text()
    assert "user" not in text.splitlines()[2]
    read = parse(text, source=str(path))["x"]
    assert read == WorkerSpec(
        **{name: getattr(spec, name) for name in WorkerSpec.__slots__ if name != "place"},
        place=f"{path}:3",
    )


def test_a_planned_worker_is_what_will_be_read_back(path: Path) -> None:
    assert plan_worker(path, NEW).port == 2222
    assert not path.exists()
    path.write_text("defaults: {user: ops, labels: {zone: lab}}")
    planned = plan_worker(path, NEW)
    assert (planned.user, planned.labels) == ("ops", {"zone": "lab"})
    assert path.read_text() == "defaults: {user: ops, labels: {zone: lab}}"
    add_worker(path, NEW)
    assert parse(path.read_text(), source=str(path))["new"] == planned


def test_an_alias_of_ssh_config_is_a_bare_entry(path: Path) -> None:
    path.write_text("defaults: {user: ops}\nworkers:\n  a: {}\n")
    add_worker(path, WorkerSpec(id="lab-box"))
    assert path.read_text().splitlines()[-1] == "  lab-box: {}"


def test_an_id_that_is_taken(path: Path) -> None:
    path.write_text("workers:\n  ne[w:w]: {}\n".replace("[w:w]", "w"))
    with pytest.raises(Conflict, match=f"Worker new is in the inventory already, at {path}:2"):
        add_worker(path, NEW)


def test_a_file_with_a_mistake_is_not_edited(path: Path) -> None:
    path.write_text("workers:\n  a: {prot: 1}\n")
    with pytest.raises(FileInvalid, match=r":2:7: unknown key 'prot'"):
        add_worker(path, NEW)
    with pytest.raises(FileInvalid):
        remove_worker(path, "a")
    assert path.read_text() == "workers:\n  a: {prot: 1}\n"


def test_a_worker_that_cannot_be_meant_is_not_written(path: Path) -> None:
    for spec in (WorkerSpec(id="task-1"), WorkerSpec(id="x", host="-x")):
        with pytest.raises(InvalidInput):
            add_worker(path, spec)
    assert not path.exists()


# ------------------------------------------------------------------ removing


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("workers:\n  # box\n  a: {}  # a\n  b: {}\n", "workers:\n  # box\n  b: {}\n"),
        ("workers:\n  b: {}\n  a:\n    host: x  # here\n    port: 1\n\n# end\n",
         "workers:\n  b: {}\n\n# end\n"),
        ("workers:\n  a: {}", "workers:\n"),
        ("workers:\n  a:\n  # between\n  b: {}\n", "workers:\n  # between\n  b: {}\n"),
        ("workers: {a: {}, b: {}}", "workers: {b: {}}"),
        ("workers: {b: {}, a: {}}", "workers: {b: {}}"),
        ("workers: {b: {}, a: , c: {}}", "workers: {b: {}, c: {}}"),
        ("workers: { a: {} }", "workers: { }"),
        ("workers: {b: {}, a: {host: x},}", "workers: {b: {},}"),
        ("groups:\n  g:\n    workers:\n      a: {}\n      b: {}\n",
         "groups:\n  g:\n    workers:\n      b: {}\n"),
        ('workers:\n  "a": {}\n  b: {}\n', "workers:\n  b: {}\n"),
        ("workers:\r\n  a: {}\r\n  b: {}\r\n", "workers:\r\n  b: {}\r\n"),
    ],
)  # fmt: skip
def test_removing_takes_one_entry(path: Path, before: str, after: str) -> None:
    path.write_bytes(before.encode())
    remove_worker(path, "a")
    assert path.read_bytes().decode() == after


def test_a_worker_of_a_range_says_what_to_write_instead(path: Path) -> None:
    path.write_text("workers:\n  gpu[01:08]: {}\n  x[1:1]: {}\n")
    with pytest.raises(
        Conflict, match=r"gpu02 comes from the range gpu\[01:08\] at .*:2"
    ) as caught:
        remove_worker(path, "gpu02")
    assert caught.value.hint == "write gpu01 and gpu[03:08] there instead"
    with pytest.raises(Conflict) as caught:
        remove_worker(path, "x1")
    assert caught.value.hint == "take that line out"


def test_an_unknown_worker(path: Path) -> None:
    with pytest.raises(WorkerNotFound):
        remove_worker(path, "a")
    assert not path.exists()


# ------------------------------------------------------------------ the file itself


def test_permissions_and_links_stay(path: Path, tmp_path: Path) -> None:
    real = tmp_path / "git" / "fleet.yaml"
    real.parent.mkdir()
    real.write_text("workers: {}\n")
    real.chmod(0o640)
    path.symlink_to(real)
    add_worker(path, NEW)
    assert path.is_symlink()
    assert real.read_text() == f"workers: {{{LINE}}}\n"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert sorted(os.listdir(real.parent)) == ["fleet.yaml"]


def test_a_full_disk_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("workers: {}\n")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreFull):
        add_worker(path, NEW)
    assert path.read_text() == "workers: {}\n"
    assert os.listdir(path.parent) == ["hosts.yaml"]


def test_someone_else_saves_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("workers: {}\n")
    from cloudai.inventory import writing

    real, reads = writing.read_bytes, []

    def slow(at: Path) -> bytes:
        reads.append(at)
        if len(reads) == 2:
            path.write_text("workers: {other: {}}\n")
        return real(at)

    monkeypatch.setattr(writing, "read_bytes", slow)
    add_worker(path, NEW)
    assert path.read_text() == f"workers: {{other: {{}}, {LINE}}}\n"


# ------------------------------------------------------------------ any file

comment = st.sampled_from(["", "", "  # why", "   #  é: {x}"])
above = st.sampled_from(["", "", "\n", "# note\n", "   # note: {a}\n\n"])
body = st.sampled_from(
    (
        *("", " {}", " {host: h}", ' { host: "h" , port: 22 }', " {host: h,\n        port: 7}"),
        *("\n{i}  host: h{c}\n{i}  labels:\n{i}    a: 'b'", "\n{i}  # inside\n{i}  port: 22"),
    )
)


@st.composite
def fleets(draw: st.DrawFn) -> str:
    indent = " " * draw(st.integers(1, 5))
    text = draw(above) + draw(
        st.sampled_from(["", "defaults: {user: ops}\n", "defaults:\n  port: 1\n"])
    )
    if draw(st.booleans()):
        text += f"groups:\n  g:\n    workers:{draw(comment)}\n      g[1:3]: {{}}\n{draw(above)}"
    text += f"workers:{draw(comment)}\n"
    for number in range(draw(st.integers(1, 4))):
        entry = draw(body).replace("{i}", indent).replace("{c}", draw(comment))
        text += f"{draw(above)}{indent}w{number}:{entry}{draw(comment)}\n"
    text += draw(above) + draw(st.sampled_from(["", "# end\n", "# end"]))
    return text


@settings(deadline=None, max_examples=40)
@given(fleets(), st.data())
def test_adding_and_removing_leaves_the_file_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, text: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("fleet") / "hosts.yaml"
    path.write_text(text)
    add_worker(path, NEW)
    added = path.read_text()
    lines = added.splitlines()
    lines.remove(next(line for line in lines if line.strip() == LINE))
    assert lines == text.splitlines(), "one line more, and nothing else"
    remove_worker(path, "new")
    assert path.read_text().splitlines() == text.splitlines()

    before = parse(path.read_text(), source="x")
    gone = data.draw(st.sampled_from([name for name in before if name.startswith("w")]))
    remove_worker(path, gone)
    assert set(parse(path.read_text(), source="x")) == set(before) - {gone}
    assert not set(path.read_text().splitlines()) - set(text.splitlines()), "no line is changed"


def test_the_policy_is_kept_as_the_workers_are(path: Path, tmp_path: Path) -> None:
    path.write_text("scheduling: {heads: 3}\nworkers: {x: {}}\n")
    file = InventoryFile(path, home=tmp_path)
    assert file.read().policy.heads == 3
    path.write_text("scheduling: {heads: -}\n")
    assert (file.read().policy.heads, bool(file.read().error)) == (3, True)
    again = InventoryFile(path, home=tmp_path).read()
    assert (again.policy.heads, list(again.workers)) == (3, ["x"])


def test_edits_leave_the_policy_alone(path: Path) -> None:
    before = "scheduling:\n  heads: 3  # few\n  quotas: {'*': {gpus: 4}}\n"
    path.write_text(before)
    add_worker(path, WorkerSpec(id="x", host="h", min_free_gpus=2, tasks_per_gpu=3))
    edited = path.read_text()
    assert edited == before + "workers:\n  x: {host: h, gpus: {min_free: 2, share: 3}}\n"
    add_worker(path, WorkerSpec(id="y", host="h"))
    remove_worker(path, "y")
    assert path.read_text() == edited
