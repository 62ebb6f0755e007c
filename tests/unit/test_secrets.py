"""Secrets at home: kept whole in a keyring or a private file, told by name, shown to nobody."""

from __future__ import annotations

import base64
import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai.core.errors import Conflict, InvalidInput, NotFound, SecretUnreadable, StoreFull
from cloudai.core.request import read_request
from cloudai.core.secrets import LARGEST, MOST, check_secret
from cloudai.engines.docker.secret_files import secret_files
from cloudai.secrets import Kept, Secrets, ask_keyring, keyrings
from cloudai.secrets.keyrings import KeyringUnusable, SystemKeyring, with_session_bus

VALUE = b"s3cr3t\0\xff\n"
FORGED = "tests.unit.file_keyring."


class NoKeyring(SystemKeyring):
    """As on a server: none."""

    def __init__(self) -> None:
        super().__init__("test")

    def _ask(self, question: dict[str, str], *, within: float) -> dict[str, Any]:
        raise KeyringUnusable("there is none here")


class QuickKeyring(SystemKeyring):
    """The real question and answer, without a process of its own."""

    def __init__(self) -> None:
        super().__init__("test")
        self.asked: list[str] = []

    def _ask(self, question: dict[str, str], *, within: float) -> dict[str, Any]:
        self.asked.append(question["verb"])
        try:
            answer = ask_keyring.ask({**question, "service": "test"})
        except Exception as error:
            answer = {"why": ask_keyring._words(error, question.get("value"))}
        if "why" in answer:
            raise KeyringUnusable(answer["why"])
        return answer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "secrets"


@pytest.fixture
def secrets(folder: Path) -> Secrets:
    return Secrets(folder, NoKeyring())


@pytest.fixture
def in_keyring(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Secrets:
    import keyring

    from tests.unit.file_keyring import FileKeyring

    monkeypatch.setenv("FILE_KEYRING", str(tmp_path / "ring"))
    monkeypatch.setattr(keyring, "get_keyring", FileKeyring)
    return Secrets(folder, QuickKeyring())


# ------------------------------------------------------------------ what a task asks for


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("TOKEN", "TOKEN=/run/secrets/TOKEN"),
        ("a.b-c_d", "a.b-c_d=/run/secrets/a.b-c_d"),
        ("T=/etc//x/../key", "T=/etc/key"),
        ('T=/a, b"c/d=e', 'T=/a, b"c/d=e'),
    ],
)
def test_a_secret_has_one_spelling(given: str, kept: str) -> None:
    assert check_secret(given) == kept
    assert check_secret(kept) == kept


@pytest.mark.parametrize(
    "text",
    ["", "=", "=/x", "-T", "a b", "a/b", ".x", "x" * 64, "T=", "T=x", "T=/", "T=/x/", "T=/a\nb",
     "T=//", "T=/..", "T=/var/run/nvidia-container-devices/all", "T=/" + "x" * 9000],
)  # fmt: skip
def test_what_cannot_be_a_secret_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_secret(text, what="secrets[0]")
    assert caught.value.message.startswith("secrets[0]: ")


def ask(*wanted: object, mounts: tuple[str, ...] = ()) -> tuple[str, ...]:
    body = {"docker_image": "alpine", "secrets": list(wanted), "mounts": list(mounts)}
    return read_request(body, default_user="ann")[0].secrets


def test_names_and_places_are_the_task_s_and_nothing_else() -> None:
    assert ask("A", "A=/b") == ("A=/run/secrets/A", "A=/b")


@pytest.mark.parametrize(
    ("wanted", "mounts", "words"),
    [
        (["A", "A"], (), "secrets[1]: 'A=/run/secrets/A'; another secret has the same place"),
        (["A=/x", "B=/x/y"], (), "secrets[0]: 'A=/x'; that is a file, and /x/y cannot be below"),
        (["A=/x"], ("type=tmpfs,dst=/x/",), "secrets[0]: 'A=/x'; a mount has the same dst"),
        (["A=/x"], ("type=tmpfs,dst=/x/y",), "and /x/y cannot be below it"),
        ([3], (), "secrets[0]: 3; give text"),
        (["A"] * (MOST + 1), (), "secrets: 65 of them; at most 64"),
    ],
)
def test_two_things_in_one_place_are_refused(
    wanted: list[object], mounts: tuple[str, ...], words: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        ask(*wanted, mounts=mounts)
    assert words in caught.value.message


def test_the_limits_are_what_the_page_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "secrets.md").read_text()
    assert f"Up to {MOST} a task, each of any bytes up to {LARGEST // 1024} KiB." in page
    assert f"within {keyrings.READ_WITHIN:g} s" in page


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=1, max_size=9000))
def test_formats_say_every_byte(value: bytes) -> None:
    size, pieces, rest = secret_files({"/a,b": value})[0]
    assert (size, rest) == (len(value), ',"dst=/a,b",readonly')
    assert all(piece.isascii() and not piece.startswith("-") for piece in pieces)
    told = "".join(pieces).encode().decode("unicode_escape").encode("latin-1")
    assert (told, "%" in "".join(pieces)) == (value, False)


# ------------------------------------------------------------------ in a file


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=1))
def test_any_bytes_survive(tmp_path_factory: pytest.TempPathFactory, value: bytes) -> None:
    secrets = Secrets(tmp_path_factory.getbasetemp() / "any", NoKeyring())
    secrets.put("T", value)
    assert secrets.get("T") == value


def test_only_its_user_may_look_and_the_reason_is_told(secrets: Secrets, folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o755)
    secret, why = secrets.put("T", VALUE)
    assert (secret.name, secret.size, secret.kept) == ("T", len(VALUE), Kept.FILE)
    assert why == "there is none here"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o600]
    assert secrets.all() == [secret] == [secrets.one("T")]


@pytest.mark.parametrize("value", [b"", b"x" * (LARGEST + 1)])
def test_an_empty_or_too_large_value_is_refused(secrets: Secrets, value: bytes) -> None:
    with pytest.raises(InvalidInput):
        secrets.put("T", value)
    assert secrets.all() == []


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\0b", ".T", "x" * 64])
def test_a_name_never_leaves_the_folder(secrets: Secrets, name: str) -> None:
    for use in (lambda: secrets.put(name, VALUE), lambda: secrets.drop(name)):
        with pytest.raises(InvalidInput):
            use()


def test_a_disk_that_refuses_keeps_the_old_value(
    secrets: Secrets, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets.put("T", b"old")

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse)
        with pytest.raises(StoreFull):
            secrets.put("T", b"new")
    assert secrets.get("T") == b"old"
    assert len(list(folder.iterdir())) == 1


def test_what_a_kill_left_is_swept(secrets: Secrets, folder: Path) -> None:
    secrets.sweep()
    secrets.put("T", VALUE)
    (folder / ".U.json.new").write_text("half")
    secrets.sweep()
    assert [path.name for path in folder.iterdir()] == ["T.json"]


def test_removed_is_gone(secrets: Secrets, folder: Path) -> None:
    secrets.put("T", VALUE)
    secrets.drop("T")
    assert list(folder.iterdir()) == []
    for use in (secrets.drop, secrets.get, secrets.one):
        with pytest.raises(NotFound):
            use("T")


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "T"}', "cut"])
def test_a_damaged_file_is_said_without_showing_it(
    secrets: Secrets, folder: Path, text: str
) -> None:
    secrets.put("T", VALUE)
    whole = (folder / "T.json").read_text()
    (folder / "T.json").write_text(
        json.dumps({**json.loads(whole), "value": "c2Vj"}) if text == "cut" else text
    )
    with pytest.raises(SecretUnreadable) as caught:
        secrets.get("T")
    assert "c2Vj" not in caught.value.message
    assert caught.value.__suppress_context__


def test_names_that_differ_in_their_case_alone_never_share_a_file(
    secrets: Secrets, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that takes them for the same."""
    secrets.put("Token", VALUE)
    real = Path.read_bytes
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(Path, "read_bytes", lambda _: real(folder / "Token.json"))
    with pytest.raises(NotFound):
        secrets.get("TOKEN")
    with pytest.raises(Conflict):
        secrets.put("TOKEN", b"x")


def test_a_task_s_secrets_are_checked_by_name(secrets: Secrets) -> None:
    secrets.put("HF_TOKEN", VALUE)
    secrets.check(["HF_TOKEN=/run/secrets/HF_TOKEN"])
    with pytest.raises(InvalidInput) as caught:
        secrets.check(["HF_TOKEN=/a", "HF_TOKENS=/b"])
    assert caught.value.message == (
        "secrets[1]: no secret 'HF_TOKENS' is set; did you mean 'HF_TOKEN'?"
    )
    assert "cloudai secret set HF_TOKENS" in caught.value.hint


# ------------------------------------------------------------------ in a keyring


def test_in_the_keyring_no_file_has_it(in_keyring: Secrets, folder: Path, tmp_path: Path) -> None:
    secret, why = in_keyring.put("T", VALUE)
    assert (secret.kept, why) == (Kept.KEYRING, "")
    assert in_keyring.get("T") == VALUE
    coded = base64.b64encode(VALUE)
    assert coded not in (folder / "T.json").read_bytes()
    assert coded in (tmp_path / "ring").read_bytes()
    in_keyring.drop("T")
    assert coded not in (tmp_path / "ring").read_bytes()
    assert in_keyring.all() == []


def test_into_a_file_on_demand_and_the_keyring_forgets_it(
    in_keyring: Secrets, tmp_path: Path
) -> None:
    in_keyring.put("T", VALUE)
    secret, why = in_keyring.put("T", b"new", in_file=True)
    assert (secret.kept, why, in_keyring.get("T")) == (Kept.FILE, "", b"new")
    assert json.loads((tmp_path / "ring").read_text()) == {}


def test_a_locked_keyring_is_said_and_what_was_read_holds_a_while(
    in_keyring: Secrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_keyring.put("T", VALUE)
    in_keyring.put("U", VALUE)
    in_keyring.get("T")
    (tmp_path / "ring.locked").touch()
    assert in_keyring.get("T") == VALUE
    with pytest.raises(SecretUnreadable) as caught:
        in_keyring.check(["U=/x"])
    assert "does not give it: Failed to unlock the collection! (KeyringLocked)" in (
        caught.value.message
    )
    assert "--in-file" in caught.value.hint
    asked = len(in_keyring._keyring.asked)  # type: ignore[attr-defined]
    with pytest.raises(SecretUnreadable, match="Failed to unlock"):
        in_keyring.get("U")
    assert len(in_keyring._keyring.asked) == asked, "a no is remembered for a moment"  # type: ignore[attr-defined]
    with pytest.raises(SecretUnreadable):
        in_keyring.drop("U")
    assert len(in_keyring.all()) == 2, "it is told as long as it is there"
    monkeypatch.setattr("cloudai.secrets.time.monotonic", lambda: 1e12)
    with pytest.raises(SecretUnreadable):
        in_keyring.get("T")
    secret, why = in_keyring.put("T", b"new")
    assert (secret.kept, why) == (
        Kept.FILE,
        "Failed to unlock the collection! (KeyringLocked)",
    )


def test_a_value_removed_in_the_keyring_itself_is_missed(
    in_keyring: Secrets, tmp_path: Path
) -> None:
    in_keyring.put("T", VALUE)
    (tmp_path / "ring").write_text("{}")
    with pytest.raises(SecretUnreadable, match="removed from the keyring"):
        in_keyring.get("T")
    in_keyring.drop("T")
    assert in_keyring.all() == []


@pytest.mark.parametrize(
    ("backend", "why"),
    [
        ("keyring.backends.fail.Keyring", "there is none here"),
        ("keyring.backends.null.Keyring", "there is none here"),
        (f"{FORGED}PlainKeyring", "there is none here"),
        (f"{FORGED}ForgetfulKeyring", "it did not keep the value"),
        (f"{FORGED}WaitingKeyring", "it is locked, or did not answer within 1 s"),
        (f"{FORGED}FileKeyring", ""),
    ],
)
def test_what_keeps_nothing_is_no_keyring(
    backend: str, why: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked as the controller does, by a process."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", backend)
    monkeypatch.setenv("FILE_KEYRING", str(tmp_path / "ring"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setattr(keyrings, "SET_WITHIN", 1 if "Waiting" in backend else 30)
    secrets = Secrets(folder)
    secret, said = secrets.put("T", VALUE)
    assert said == why
    assert secret.kept is (Kept.FILE if why else Kept.KEYRING)
    assert secrets.get("T") == VALUE


def test_no_message_of_a_keyring_holds_the_value() -> None:
    assert ask_keyring._words(ValueError("cannot keep c2VjcmV0"), "c2VjcmV0") == "ValueError"
    assert ask_keyring._words(ValueError(""), None) == "ValueError"


def test_the_bus_of_somebody_who_is_logged_in_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "bus"
    monkeypatch.setattr(keyrings, "Path", lambda _: place)
    assert with_session_bus({"A": "1"}, os.getuid()) == {"A": "1"}
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(place))
        found = {"A": "1", "DBUS_SESSION_BUS_ADDRESS": f"unix:path={place}"}
        assert with_session_bus({"A": "1"}, os.getuid()) == found
        assert with_session_bus({"A": "1"}, os.getuid() + 1) == {"A": "1"}
        set_already = {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/x"}
        assert with_session_bus(set_already, os.getuid()) == set_already
