"""What every shell promises, over a real sshd and on this machine alike."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cloudai.core.errors import EngineFailed, Indeterminate
from cloudai.shells import Reply, Shell, Terminal
from cloudai.shells.local import LocalShell
from tests.ssh.sshd import Lab, alive, until


@pytest.fixture
async def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lab]:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    made = Lab(tmp_path)
    yield made
    await made.close()


@pytest.fixture(params=["local", "ssh"])
async def shell(request: pytest.FixtureRequest, lab: Lab) -> AsyncIterator[Shell]:
    if request.param == "local":
        local = LocalShell()
        yield local
        await local.close()
        return
    network = lab.network()
    over_ssh = network.shell(lab.spec(lab.sshd()))
    yield over_ssh
    await over_ssh.close()


def a_mark() -> str:
    """Seconds to sleep that no other process sleeps, so that a process can be found by it."""
    return f"{100 + secrets.randbelow(900)}.{secrets.randbelow(10**9):09}"


async def eventually(condition: object, otherwise: str, seconds: float = 6) -> None:
    await asyncio.to_thread(until, condition, otherwise, seconds=seconds)  # type: ignore[arg-type]


# ------------------------------------------------------------------ run


@pytest.mark.parametrize(
    ("script", "reply"),
    [
        ("echo hello", Reply(0, b"hello\n")),
        ("echo out; exit 9", Reply(9, b"out\n")),
        ("printf 'a\\377\\n\\n\\n'", Reply(0, b"a\xff\n\n\n")),
        ("printf 'a\\000b'", Reply(0, b"ab")),  # NUL is the one byte that does not survive
        ("echo no >&2; echo yes", Reply(0, b"yes\n")),
        ('cat; read -r line; echo "[$line]"', Reply(0, b"[]\n")),
        ('f() { exec 9<"$1"; flock 9; }; f /bin/sh; echo locked', Reply(0, b"locked\n")),
        ("echo 'don'\\''t \"$HOME\"'", Reply(0, b'don\'t "$HOME"\n')),
    ],
)
async def test_run_answers_with_status_and_bytes(shell: Shell, script: str, reply: Reply) -> None:
    assert await shell.run(script, timeout=10) == reply


async def test_a_script_of_a_quarter_megabyte_arrives(shell: Shell) -> None:
    value = "x" * 250_000
    reply = await shell.run(f"v={value}; echo ${{#v}}", timeout=10)
    assert reply == Reply(0, b"250000\n")


async def test_five_megabytes_come_back_whole(shell: Shell, tmp_path: Path) -> None:
    big = os.urandom(3_000_000).replace(b"\0", b"\n") + b"z" * 2_000_000
    (tmp_path / "big").write_bytes(big)
    reply = await shell.run(f"cat {tmp_path / 'big'}", timeout=10)
    assert reply.body == big


async def test_a_flood_on_stderr_harms_nothing(shell: Shell) -> None:
    script = "head -c 20000000 /dev/zero | tr '\\0' e >&2; echo done"
    assert await shell.run(script, timeout=20) == Reply(0, b"done\n")


async def test_a_child_left_behind_holds_nothing_up(shell: Shell) -> None:
    mark = a_mark()
    reply = await shell.run(f"sleep {mark} & echo $!", timeout=5)
    os.kill(int(reply.text), signal.SIGKILL)


async def test_many_at_once_each_get_their_own_answer(shell: Shell) -> None:
    replies = await asyncio.gather(
        *(shell.run(f"sleep 0.05; echo {n}", timeout=30) for n in range(30))
    )
    assert [reply.text for reply in replies] == [f"{n}\n" for n in range(30)]


async def test_a_hundred_ends_are_all_known(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(20):
        await asyncio.gather(*(shell.run("exit 3", timeout=30) for _ in range(5)))
    await shell.close()
    # Where its transport reaps a process itself, asyncio makes up a status and warns.
    assert [one.getMessage() for one in caplog.records if one.name == "asyncio"] == []


async def test_a_timeout_says_nothing_and_leaves_nothing(shell: Shell) -> None:
    mark = a_mark()
    with pytest.raises(Indeterminate, match="within 1 s"):
        await shell.run(f"(trap '' TERM; sleep {mark}; sleep {mark}) & sleep {mark}", timeout=1)
    await eventually(lambda: not alive(mark), "what ran there goes on", seconds=8)
    assert (await shell.run("echo next", timeout=10)).text == "next\n"


async def test_a_cancelled_call_leaves_nothing(shell: Shell) -> None:
    mark = a_mark()
    call = asyncio.create_task(shell.run(f"sleep {mark}", timeout=60))
    await eventually(lambda: alive(mark), "it does not start")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(lambda: not alive(mark), "what ran there goes on", seconds=8)


# ------------------------------------------------------------------ feed


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
        await asyncio.sleep(0)


async def sent(shell: Shell, script: str, *chunks: bytes) -> Reply:
    return await shell.feed(script, pieces(*chunks), idle_timeout=10, timeout=10)


async def test_what_is_sent_is_the_scripts_stdin_to_the_byte(shell: Shell, tmp_path: Path) -> None:
    data = os.urandom(3_000_000) + b"\0\r\n\xff no end of line"
    cuts = [data[:1], data[1:70_000], b"", data[70_000:]]
    reply = await sent(shell, f"cat >{tmp_path / 'it'} && echo ok; exit 3", *cuts)
    assert reply == Reply(3, b"ok\n")
    assert (tmp_path / "it").read_bytes() == data


async def test_no_shell_reads_a_byte_of_what_is_meant_for_its_script(shell: Shell) -> None:
    assert await sent(shell, "read -r a; read -r b; echo $b$a; cat", b"x\ny\nz") == (
        Reply(0, b"yx\nz")
    )
    assert await sent(shell, "cat", b"") == Reply(0, b"")


async def test_an_early_answer_ends_the_sending(shell: Shell) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    reply = await shell.feed("head -c 5; exit 7", endless(), idle_timeout=10, timeout=10)
    assert reply == Reply(7, b"xxxxx")
    assert (await shell.run("echo next", timeout=10)).text == "next\n"


async def test_a_worker_that_takes_nothing_is_waited_for_so_long(shell: Shell) -> None:
    plenty = [b"x" * 1_000_000] * 40
    with pytest.raises(Indeterminate, match="took no more"):
        await shell.feed("sleep 3", pieces(*plenty), idle_timeout=0.5, timeout=10)
    with pytest.raises(Indeterminate, match="after all was sent"):
        await shell.feed("cat; sleep 2", pieces(b"x"), idle_timeout=10, timeout=0.5)


async def test_whoever_sends_may_fail_and_the_input_ends_there(
    shell: Shell, tmp_path: Path
) -> None:
    async def torn() -> AsyncIterator[bytes]:
        yield b"half"
        raise ValueError("the source is gone")

    there, gate = tmp_path / "there", tmp_path / "gate"
    slow = f"until [ -e {gate} ]; do sleep 0.05; done; kill -0 $$"
    with pytest.raises(ValueError, match="source is gone"):
        await shell.feed(
            f"cat >{there}.part; {slow} && mv {there}.part {there}",
            torn(),
            idle_timeout=9,
            timeout=9,
        )
    # What it does about the end of its input, it may finish: its shell is left alive.
    gate.touch()
    await eventually(there.exists, "its input never ends")
    assert there.read_bytes() == b"half"


# ------------------------------------------------------------------ stream


async def test_a_stream_is_the_scripts_stdout_as_it_comes(shell: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = f"printf 'a\\000\\377'; until [ -e {gate} ]; do sleep 0.05; done; echo b; echo e >&2"
    seen = b""
    async with shell.stream(script) as chunks:
        async for chunk in chunks:
            seen += chunk
            if seen == b"a\0\xff":
                gate.touch()
    assert seen == b"a\0\xffb\n"


async def test_a_stream_of_20_megabytes_waits_for_its_reader(shell: Shell) -> None:
    total = 0
    async with shell.stream("head -c 20000000 /dev/zero") as chunks:
        async for chunk in chunks:
            total += len(chunk)
            await asyncio.sleep(0)
    assert total == 20_000_000


async def test_a_failed_stream_says_the_scripts_own_words(shell: Shell) -> None:
    async with shell.stream("echo some; echo 'No such container' >&2; exit 4") as chunks:
        assert await anext(chunks) == b"some\n"
        with pytest.raises(EngineFailed, match="No such container") as failure:
            await anext(chunks)
    assert failure.value.details["status"] == 4


async def test_a_silent_stream_ends_after_its_idle_timeout(shell: Shell) -> None:
    mark = a_mark()
    async with shell.stream(f"echo one; sleep {mark}", idle_timeout=0.5) as chunks:
        assert await anext(chunks) == b"one\n"
        with pytest.raises(Indeterminate, match="no output"):
            await anext(chunks)
    await eventually(lambda: not alive(mark), "the follower goes on")


async def test_leaving_a_stream_ends_what_it_runs(shell: Shell) -> None:
    mark = a_mark()
    async with shell.stream(f"echo one; (trap '' TERM; sleep {mark}) & sleep {mark}") as chunks:
        assert await anext(chunks) == b"one\n"
        await eventually(lambda: alive(mark), "it does not start")
    await eventually(lambda: not alive(mark), "the follower goes on")


async def test_a_streaming_script_may_watch_descriptor_3_itself(
    shell: Shell, tmp_path: Path
) -> None:
    """The connection's stdin: it ends when the reader leaves."""
    note = tmp_path / "note"
    script = f"trap '' TERM; echo one; cat <&3 >/dev/null; echo gone >{note}"
    async with shell.stream(script) as chunks:
        assert await anext(chunks) == b"one\n"
    await eventually(lambda: note.exists() and note.read_text() == "gone\n", "it saw no end")


@pytest.mark.parametrize("kind", ["local", "ssh"])
async def test_nothing_outlives_a_controller_killed_by_9(kind: str, lab: Lab) -> None:
    """The whole client process goes; the quiet follower on the worker goes with it."""
    mark = a_mark()
    port = lab.sshd().port
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.contract.streaming_client"),
        *(kind, str(lab.home), str(lab.ssh), str(port), f"echo one; sleep {mark}"),
        stdout=subprocess.PIPE,
    )
    assert client.stdout is not None
    assert await client.stdout.readline() == b"one\n"
    await eventually(lambda: alive(mark), "it does not start")
    client.kill()
    await client.wait()
    client._transport.close()  # type: ignore[attr-defined]
    await eventually(lambda: not alive(mark), "the follower goes on")


# ------------------------------------------------------------------ terminal


async def read_all(terminal: Terminal) -> tuple[bytes, bytes]:
    out = {1: b"", 2: b""}
    while (chunk := await terminal.read())[0]:
        out[chunk[0]] += chunk[1]
    return out[1], out[2]


async def read_until(terminal: Terminal, wanted: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(10):
        while wanted not in seen:
            fd, data = await terminal.read()
            assert fd, seen
            seen += data
    return seen


async def test_without_a_tty_the_streams_stay_apart_and_exact(shell: Shell) -> None:
    async with shell.terminal("cat; printf 'e\\377' >&2; exit 5", tty=False) as terminal:
        await terminal.write(b"in\0\xff\r\n")
        await terminal.write(b"")
        assert await read_all(terminal) == (b"in\0\xff\r\n", b"e\xff")
        assert await terminal.wait() == 5


async def test_a_tty_echoes_and_has_a_size(shell: Shell) -> None:
    command = "stty size; test -t 0 && test -t 1 && test -t 2 && echo all; read -r x; echo [$x]"
    async with shell.terminal(command, tty=True, columns=132, rows=43) as terminal:
        assert b"all\r\n" in (seen := await read_until(terminal, b"all\r\n"))
        assert seen.startswith(b"43 132\r\n")
        await terminal.write(b"hello\n")
        assert await read_until(terminal, b"[hello]\r\n") == b"hello\r\n[hello]\r\n"
        assert await terminal.wait() == 0


async def test_a_tty_learns_its_new_size(shell: Shell) -> None:
    command = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"
    async with shell.terminal(command, tty=True) as terminal:
        await read_until(terminal, b"ready")
        await terminal.resize(99, 33)
        await read_until(terminal, b"33 99")


async def test_ctrl_c_on_a_tty_interrupts(shell: Shell) -> None:
    mark = a_mark()
    async with shell.terminal(f"echo ready; exec sleep {mark}", tty=True) as terminal:
        await read_until(terminal, b"ready")
        await eventually(lambda: alive(mark), "it does not start")
        await terminal.write(b"\x03")
        assert await terminal.wait() == 128 + signal.SIGINT


@pytest.mark.parametrize("tty", [True, False])
async def test_an_end_by_signal_is_128_and_its_number(shell: Shell, tty: bool) -> None:
    async with shell.terminal("kill -TERM $$", tty=tty) as terminal:
        assert await terminal.wait() == 128 + signal.SIGTERM


@pytest.mark.parametrize("tty", [True, False])
async def test_leaving_a_terminal_ends_what_it_runs(shell: Shell, tty: bool) -> None:
    mark = a_mark()
    async with shell.terminal(f"sleep {mark}", tty=tty):
        await eventually(lambda: alive(mark), "it does not start")
    await eventually(lambda: not alive(mark), "what ran there goes on")


async def test_a_large_paste_arrives(shell: Shell) -> None:
    async with shell.terminal("cat | wc -c", tty=False) as terminal:
        for _ in range(50):
            await terminal.write(b"x" * 100_000)
        await terminal.write(b"")
        assert (await read_all(terminal))[0].strip() == b"5000000"


# ------------------------------------------------------------------ socket


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data)
        await writer.drain()
    writer.close()


async def test_a_socket_reaches_the_workers_own(shell: Shell, tmp_path: Path) -> None:
    there = str(tmp_path / "service.sock")
    server = await asyncio.start_unix_server(echo, there)
    async with server, shell.socket(there) as path:
        assert Path(path).stat().st_mode & 0o077 == 0 or path == there
        connections = [await asyncio.open_unix_connection(path) for _ in range(30)]
        for number, (reader, writer) in enumerate(connections):
            writer.write(b"%d\0\xff" % number)
            assert await reader.readexactly(len(b"%d\0\xff" % number)) == b"%d\0\xff" % number
        assert (await shell.run("echo beside", timeout=10)).text == "beside\n"
        for _, writer in connections:
            writer.close()
            await writer.wait_closed()


@pytest.mark.parametrize(
    ("name", "why"), [("missing.sock", "no|such"), ("a-file", "not a socket"), ("dead.sock", "")]
)
async def test_a_socket_that_does_not_answer_is_refused_on_entering(
    shell: Shell, tmp_path: Path, name: str, why: str
) -> None:
    (tmp_path / "a-file").touch()
    dead = await asyncio.start_unix_server(echo, tmp_path / "dead.sock")
    dead.close()
    await dead.wait_closed()
    with pytest.raises(EngineFailed, match=f"(?i){why}"):
        async with shell.socket(str(tmp_path / name)):
            pass
    assert (await shell.run("echo fine", timeout=10)).text == "fine\n"


async def test_it_tells_where_it_is(shell: Shell) -> None:
    await shell.run(":", timeout=10)
    assert shell.address == "127.0.0.1"


async def test_a_closed_shell_serves_again(shell: Shell) -> None:
    assert (await shell.run("echo 1", timeout=10)).ok
    await shell.close()
    assert (await shell.run("echo 2", timeout=10)).text == "2\n"
