"""A script arrives whole or runs nothing; an answer is whole or counts for nothing."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.shells import Reply
from cloudai.shells.framing import began, command_line, frame, frame_stream, unframe

SHELLS = [["dash", "-s"], ["bash", "--posix", "-s"], ["busybox", "sh", "-s"]]
each_shell = pytest.mark.parametrize("shell", SHELLS, ids=["dash", "bash", "busybox"])


def sh(shell: list[str], text: bytes, **more: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(shell, input=text, capture_output=True, timeout=60, **more)


def run(shell: list[str], script: str) -> Reply | None:
    framed = frame(script)
    return unframe(framed.nonce, sh(shell, framed.sent).stdout)


@each_shell
@pytest.mark.parametrize(
    ("script", "reply"),
    [
        ("echo hello", Reply(0, b"hello\n")),
        ("", Reply(0, b"")),
        ("# only a remark", Reply(0, b"")),
        ("printf 'a\\377b\\n\\n\\n'; exit 7", Reply(7, b"a\xffb\n\n\n")),
        ("printf 'no newline'", Reply(0, b"no newline")),
        ("set -eu; false; echo not here", Reply(1, b"")),
        ("echo to stderr >&2; echo out", Reply(0, b"out\n")),
        ("cat; echo after", Reply(0, b"after\n")),
        ("kill -9 $$; echo unreached", None),
        (
            "exec 9</bin/sh; flock 9; echo locked; flock -n 9; echo again",
            Reply(0, b"locked\nagain\n"),
        ),
        ("cat <<'END'\n$(not run) `nor this`\nEND", Reply(0, b"$(not run) `nor this`\n")),
        ("echo 'grüße — 好'", Reply(0, "grüße — 好\n".encode())),
        ("printf 'a\\000b'", Reply(0, b"ab")),
        ("main() { echo mine; }; main", Reply(0, b"mine\n")),
    ],
)
def test_a_script_answers_with_status_and_bytes(
    shell: list[str], script: str, reply: Reply | None
) -> None:
    assert run(shell, script) == reply


@each_shell
def test_five_megabytes_come_back_whole_and_soon(shell: list[str], tmp_path: Path) -> None:
    lines = b"".join(b"%d \xfe %s\n" % (n, b"x" * 80) for n in range(55_000))
    (tmp_path / "big").write_bytes(lines + b"y" * 500_000)
    begun = time.monotonic()
    reply = run(shell, f"cat {tmp_path / 'big'}")
    assert reply is not None
    assert reply.body == lines + b"y" * 500_000
    assert time.monotonic() - begun < 5


@each_shell
def test_children_left_behind_hold_no_answer_up(shell: list[str]) -> None:
    begun = time.monotonic()
    framed = frame("echo out; (sleep 3; echo late) & echo $?")
    with subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(framed.sent)
        process.stdin.close()
        out = process.stdout.read()
    assert unframe(framed.nonce, out) == Reply(0, b"out\n0\n")
    assert time.monotonic() - begun < 2


@each_shell
@pytest.mark.parametrize("wrap", [frame, frame_stream], ids=["call", "stream"])
def test_a_script_cut_anywhere_runs_nothing(shell: list[str], wrap: object, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    framed = wrap(f"echo x >>{mark}\necho y >>{mark}")  # type: ignore[operator]
    text = framed.sent
    # A process each: every single byte for one shell only.
    step = 1 if shell[0] == "dash" and wrap is frame else 7
    for cut in range(0, len(text) - 2, step):
        sh(shell, text[:cut], start_new_session=True)
        assert not mark.exists(), text[:cut]
    with subprocess.Popen(
        shell, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.flush()
        process.wait(timeout=10)
    assert mark.read_text() == "x\ny\n"


@each_shell
def test_noise_around_an_answer_is_no_part_of_it(shell: list[str]) -> None:
    framed = frame("echo hello")
    out = sh(shell, framed.sent).stdout
    assert unframe(framed.nonce, b"Welcome!\n\xff" + out + b"\nbye") == Reply(0, b"hello\n")


@given(cut=st.integers(min_value=0), body=st.binary(max_size=200))
def test_an_answer_cut_anywhere_is_none(cut: int, body: bytes) -> None:
    whole = answer_of(body)
    assert unframe("N", whole) == Reply(0, body)
    assert unframe("N", whole[: cut % len(whole)]) is None


@given(at=st.integers(min_value=0), noise=st.binary(min_size=1, max_size=20))
def test_noise_within_an_answer_spoils_it(at: int, noise: bytes) -> None:
    """A job that a login shell left behind may print at any time."""
    whole = answer_of(b"[1, 2, 3]")
    body = whole.index(b"[")
    at = body + at % 9
    assert unframe("N", whole[:at] + noise + whole[at:]) is None


@given(st.binary(max_size=300))
def test_other_output_is_no_answer(out: bytes) -> None:
    assert unframe("N-1", out) is None
    assert began("N-1", out) == -1


def test_every_call_has_a_word_of_its_own() -> None:
    assert frame("echo").nonce != frame("echo").nonce


def test_a_nul_byte_is_no_script() -> None:
    for wrap in (frame, frame_stream, command_line):
        with pytest.raises(ValueError, match="NUL"):
            wrap("echo a\x00b")


@each_shell
def test_a_stream_is_raw_after_its_mark_and_reads_nothing(shell: list[str]) -> None:
    framed = frame_stream("cat; printf 'a\\000\\377'; exit 3")
    with subprocess.Popen(
        shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(framed.sent)
        process.stdin.flush()
        out = process.stdout.read()
        assert process.wait() == 3
    assert out[began(framed.nonce, out) :] == b"a\x00\xff"


@each_shell
def test_a_stream_ends_with_its_stdin_whatever_it_runs(shell: list[str]) -> None:
    framed = frame_stream("echo ready; (trap '' TERM; sleep 100) & sleep 100; echo unreached")
    with subprocess.Popen(
        shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(framed.sent)
        process.stdin.flush()
        while process.stdout.readline() != b"ready\n":
            pass
        process.stdin.close()
        # Its end comes once nothing holds the pipe: also the one that heeds no SIGTERM is gone.
        begun = time.monotonic()
        assert process.stdout.read() == b""
        assert time.monotonic() - begun < 5


def answer_of(body: bytes) -> bytes:
    sent = body + b"\nN status 0"
    return b"\nN begin\n\nN reply %d\n%s\nN end\n" % (len(sent), sent)
