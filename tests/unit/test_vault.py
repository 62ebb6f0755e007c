"""Values of environment variables stay in one private place at home."""

import errno
import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai.core.errors import InvalidInput, StoreFailed, StoreFull, StoreReadOnly
from cloudai.vault import Vault


@pytest.fixture
def vault(tmp_path):
    return Vault(tmp_path / "home" / "vault")


def test_values_come_back_as_they_were_put(vault):
    env = {"QUOTES": 'it\'s "so" $(id)', "LINES": "a\nb\n", "BIG": "x" * 100_000, "UMLAUT": "ü"}
    vault.put("task-1-a", env)
    assert vault.get("task-1-a") == env


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(min_size=1), st.text(st.characters())))
def test_any_text_survives(tmp_path_factory, env):
    vault = Vault(tmp_path_factory.getbasetemp() / "any")
    vault.drop("task-1")
    vault.put("task-1", env)
    assert vault.get("task-1") == env


def test_only_its_user_may_look(vault, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "vault").mkdir(mode=0o755)
    vault.put("task-1", {"A": "1"})
    folder = tmp_path / "home" / "vault"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()] == [0o600]


def test_folders_above_are_private_too(vault, tmp_path):
    vault.put("task-1", {"A": "1"})
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_nothing_is_written_for_no_values(vault, tmp_path):
    vault.put("task-1", {})
    assert list(tmp_path.iterdir()) == []
    assert vault.get("task-1") == {}


def test_dropped_values_are_gone_and_dropping_again_is_fine(vault):
    vault.put("task-1", {"A": "1"})
    vault.drop("task-1")
    vault.drop("task-1")
    assert vault.get("task-1") == {}


def test_sweep_keeps_what_is_wanted_and_clears_what_a_kill_left(vault, tmp_path):
    vault.sweep(set())
    vault.put("task-1", {"A": "1"})
    vault.put("task-2", {"A": "2"})
    folder = tmp_path / "home" / "vault"
    (folder / ".task-3.json.new").write_text('{"A": "hal')
    vault.sweep({"task-2", "task-9"})
    assert [file.name for file in folder.iterdir()] == ["task-2.json"]
    assert vault.get("task-2") == {"A": "2"}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc/passwd", ".hidden", "a\0b", "a\n", "x" * 300]
)
def test_a_task_id_never_leaves_the_folder(vault, name):
    for use in (vault.get, vault.drop, lambda name: vault.put(name, {"A": "1"})):
        with pytest.raises(InvalidInput):
            use(name)
    with pytest.raises(InvalidInput):
        vault.sweep({name})


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EROFS, StoreReadOnly),
        (errno.EACCES, StoreReadOnly),
        (errno.EIO, StoreFailed),
    ],
)
def test_a_disk_that_refuses_is_said_and_the_old_values_stay(
    vault, tmp_path, monkeypatch, code, error
):
    vault.put("task-1", {"A": "old"})

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse)
        with pytest.raises(error) as caught:
            vault.put("task-1", {"A": "new"})
    assert caught.value.exit_code == 1
    assert "new" not in caught.value.message
    assert vault.get("task-1") == {"A": "old"}
    assert len(list((tmp_path / "home" / "vault").iterdir())) == 1


def test_values_are_on_the_disk_before_put_returns(vault, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(stat.S_ISDIR(os.fstat(fd).st_mode)), real(fd))
    )
    vault.put("task-1", {"A": "1"})
    assert synced[-2:] == [False, True]  # the file, then the folder that names it


def test_a_damaged_file_is_said_without_showing_it(vault, tmp_path):
    vault.put("task-1", {"A": "secret"})
    (tmp_path / "home" / "vault" / "task-1.json").write_text('{"A": "secret')
    with pytest.raises(StoreFailed) as caught:
        vault.get("task-1")
    assert "secret" not in caught.value.message
    assert caught.value.__suppress_context__
