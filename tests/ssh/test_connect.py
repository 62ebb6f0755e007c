"""How a worker is reached, and what is said when it cannot be."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import asyncssh
import pytest

from cloudai.core.errors import (
    AuthenticationFailed,
    CloudaiError,
    EngineFailed,
    Indeterminate,
    InvalidInput,
    WorkerUnreachable,
)
from cloudai.core.model import WorkerSpec
from cloudai.shells.ssh import SshNetwork
from tests.ssh.sshd import Lab, Sshd, add_to_agent, agent, free_port, make_key, until


async def answer(network: SshNetwork, spec: WorkerSpec, script: str = "echo hello") -> str:
    shell = network.shell(spec)
    try:
        return (await shell.run(script, timeout=30)).text
    finally:
        await shell.close()


@pytest.fixture
async def network(lab: Lab) -> SshNetwork:
    return lab.network(connect=5, login=5, command=5)


# ------------------------------------------------------------------ out of reach


async def test_connection_refused_in_the_words_of_the_seed(lab: Lab, network: SshNetwork) -> None:
    spec = WorkerSpec(id="w", host="127.0.0.1", port=free_port())
    with pytest.raises(WorkerUnreachable) as refused:
        await answer(network, spec)
    assert refused.value.message == "Failed to connect to worker: connection refused"
    assert refused.value.exit_code == 5
    assert f"nothing listens on port {spec.port} of 127.0.0.1" in refused.value.hint
    spec = WorkerSpec(id="w", host="localhost", port=free_port())  # several addresses
    with pytest.raises(WorkerUnreachable) as refused:
        await answer(network, spec)
    assert refused.value.message == "Failed to connect to worker: connection refused"


async def test_a_name_that_is_none(network: SshNetwork) -> None:
    with pytest.raises(
        WorkerUnreachable, match=r"^Failed to connect to worker: host name .* not found"
    ) as unknown:
        await answer(network, WorkerSpec(id="w", host="no-such-host.invalid"))
    assert "spelt right" in unknown.value.hint


async def test_a_host_that_accepts_and_says_nothing_is_given_up(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        network = lab.network(connect=1, login=1)
        spec = WorkerSpec(id="w", host="127.0.0.1", port=silent.getsockname()[1])
        with pytest.raises(WorkerUnreachable, match=r"^Failed to connect to worker: .*timed out"):
            await answer(network, spec)


async def test_a_call_that_waits_no_longer_leaves_the_connect_to_others(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        network = lab.network(connect=3, login=3)
        spec = WorkerSpec(id="w", host="127.0.0.1", port=silent.getsockname()[1])
        shell = network.shell(spec)
        with pytest.raises(WorkerUnreachable, match="timed out"):
            await shell.run("true", timeout=0.2)
        await shell.close()


async def test_something_else_than_sshd(network: SshNetwork) -> None:
    async def http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100)
        writer.close()

    server = await asyncio.start_server(http, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(WorkerUnreachable, match=r"^Failed to connect to worker: "):
            await answer(network, WorkerSpec(id="w", host="127.0.0.1", port=port))


async def test_a_worker_that_asks_for_our_agent_or_a_way_into_our_network_gets_none(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compromised sshd may ask for channels that nobody offered."""
    answers: list[str] = []

    async def greedy(process: asyncssh.SSHServerProcess[str]) -> None:
        there = process.channel.get_connection()
        for ask in (
            there.open_agent_connection(),
            there.open_connection("127.0.0.1", port, "", 0),
            there.open_unix_connection(str(path)),
        ):
            try:
                await ask
            except asyncssh.ChannelOpenError as error:
                answers.append(f"refused: {error}")
            else:
                answers.append("granted")
        process.exit(0)

    host_key = asyncssh.generate_private_key("ssh-ed25519")
    with agent(lab.folder) as path:
        add_to_agent(path, lab.key, "")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        async with asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[host_key],
            authorized_client_keys=str(lab.key.with_suffix(".pub")),
            process_factory=greedy,
        ) as server:
            port = server.get_port()
            public = host_key.export_public_key().decode().strip()
            lab.know(f"[127.0.0.1]:{port} {public}\n")
            network = lab.network(connect=5, login=5, command=5)
            with pytest.raises(CloudaiError):
                await answer(network, WorkerSpec(id="w", host="127.0.0.1", port=port, user="root"))
            await network.close()
    assert len(answers) == 3
    assert all(one.startswith("refused: ") for one in answers), answers


# ------------------------------------------------------------------ who we are


async def test_a_refused_key_is_offered_once_until_something_changes(
    lab: Lab, network: SshNetwork
) -> None:
    server = lab.sshd()
    server.authorized_keys.write_text("")
    shell = network.shell(lab.spec(server))
    for _ in range(3):
        with pytest.raises(
            AuthenticationFailed, match="refuses root: permission denied"
        ) as failure:
            await shell.run("true", timeout=10)
    assert "authorized_keys" in failure.value.hint
    assert server.log.count("Failed publickey") == 1
    assert server.log.count("Connection from") == 2  # ours, and the fixture's own knock
    assert shell.state == "unreachable"
    assert shell.reason is failure.value
    # Somebody puts the key there, and says so.
    server.authorized_keys.write_text(lab.key.with_suffix(".pub").read_text())
    with pytest.raises(AuthenticationFailed):
        await shell.run("true", timeout=10)
    await shell.retry()
    assert (await shell.run("echo in", timeout=10)).text == "in\n"
    assert shell.state == "connected"
    await shell.close()


async def test_a_new_key_file_is_tried_at_once(lab: Lab, network: SshNetwork) -> None:
    server = lab.sshd()
    make_key(lab.folder / "right")
    server.authorized_keys.write_text((lab.folder / "right.pub").read_text())
    with pytest.raises(AuthenticationFailed):
        await answer(network, lab.spec(server))
    for end in ("", ".pub"):
        shutil.copy(f"{lab.folder / 'right'}{end}", f"{lab.key}{end}")
    assert await answer(network, lab.spec(server)) == "hello\n"


async def test_a_missing_key_file_is_named(lab: Lab, network: SshNetwork) -> None:
    server = lab.sshd()
    server.authorized_keys.write_text("")
    spec = lab.spec(server, identity_file=str(lab.ssh / "nope"))
    with pytest.raises(AuthenticationFailed) as failure:
        await answer(network, spec)
    assert "nope: no such file" in failure.value.hint


async def test_a_passphrase_needs_the_agent_and_with_it_is_enough(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = lab.sshd()
    locked = lab.ssh / "locked"
    make_key(locked, passphrase="sesame")
    server.authorized_keys.write_text(locked.with_suffix(".pub").read_text())
    spec = lab.spec(server, identity_file=str(locked))
    network = lab.network()
    with pytest.raises(AuthenticationFailed) as failure:
        await answer(network, spec)
    assert f"ssh-add {locked}" in failure.value.hint
    with agent(lab.folder) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        with pytest.raises(AuthenticationFailed):
            await answer(network, spec)
        add_to_agent(path, locked, "sesame")
        # Noticed by itself: what can be offered is another thing now.
        assert await answer(network, spec) == "hello\n"


async def test_a_named_key_goes_before_an_agent_full_of_others(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = lab.sshd(MaxAuthTries="3")
    with agent(lab.folder) as path:
        for number in range(5):
            make_key(lab.folder / f"other{number}")
            add_to_agent(path, lab.folder / f"other{number}", "")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        network = lab.network()
        with pytest.raises(AuthenticationFailed):
            await answer(network, lab.spec(server))
        spec = lab.spec(server, identity_file=str(lab.key))
        assert await answer(network, spec) == "hello\n"
        assert server.log.count("Failed publickey") == 3


async def test_identities_only_and_identity_agent_of_ssh_config(lab: Lab) -> None:
    server = lab.sshd(MaxAuthTries="2")
    locked = lab.ssh / "locked"
    make_key(locked, passphrase="sesame")
    server.authorized_keys.write_text(locked.with_suffix(".pub").read_text())
    with agent(lab.folder) as path:
        for number in range(3):
            make_key(lab.folder / f"other{number}")
            add_to_agent(path, lab.folder / f"other{number}", "")
        add_to_agent(path, locked, "sesame")
        lab.config.write_text(
            f"IdentityAgent {path}\nIdentityFile {locked}\nIdentitiesOnly yes\nForwardAgent yes\n"
        )
        script = "echo agent=$SSH_AUTH_SOCK"
        assert await answer(lab.network(), lab.spec(server), script) == "agent=\n"
    assert "Failed publickey" not in server.log


# ------------------------------------------------------------------ ssh_config


async def test_an_alias_of_ssh_config_is_all_it_takes(lab: Lab, network: SshNetwork) -> None:
    server = lab.sshd()
    other = lab.ssh / "another key"
    make_key(other)
    server.authorized_keys.write_text(other.with_suffix(".pub").read_text())
    (lab.ssh / "conf.d").mkdir()
    (lab.ssh / "conf.d" / "lab").write_text(
        f'Host lab-*\n  Port {server.port}\n  User root\n  IdentityFile "{other}"\n'
        "  RemoteCommand echo not this\n  RequestTTY force\n"
    )
    lab.config.write_text(
        f"Include {lab.ssh}/conf.d/*\nHost lab-box\n  HostName 127.0.0.1\n"
        "Match host 127.0.0.1\n  SetEnv LAB=here\n"
    )
    shell = network.shell(WorkerSpec(id="lab-box"))
    assert (await shell.run("echo hello", timeout=30)).text == "hello\n"
    assert shell.address == "127.0.0.1"
    await shell.close()
    other_name = WorkerSpec(id="w", host="lab-box", user="nobody-here")
    with pytest.raises(AuthenticationFailed, match="nobody-here"):
        await answer(network, other_name)


@pytest.mark.parametrize(
    ("theirs", "ours", "used"),
    [
        (None, None, "aes128-gcm@openssh.com"),
        ("chacha20-poly1305@openssh.com,aes256-ctr", None, "chacha20-poly1305@openssh.com"),
        (None, "aes256-ctr", "aes256-ctr"),
    ],
)
async def test_the_cheapest_cipher_is_used_unless_sshd_or_ssh_config_has_another(
    lab: Lab, theirs: str | None, ours: str | None, used: str
) -> None:
    server = lab.sshd(LogLevel="DEBUG1", **({"Ciphers": theirs} if theirs else {}))
    lab.config.write_text(f"Host *\n  Ciphers {ours}\n" if ours else "")
    shell = lab.network().shell(lab.spec(server))
    assert (await shell.run("echo in", timeout=10)).text == "in\n"
    assert f"kex: server->client cipher: {used}" in server.log
    await shell.close()


async def test_broken_ssh_settings_are_said_with_their_line(lab: Lab, network: SshNetwork) -> None:
    lab.config.write_text("Host x\n  Port many\n")
    with pytest.raises(InvalidInput, match="line 2"):
        await answer(network, WorkerSpec(id="x"))


async def test_a_way_in_a_circle_is_refused(lab: Lab, network: SshNetwork) -> None:
    lab.config.write_text("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
    with pytest.raises(InvalidInput, match="circle"):
        await answer(network, WorkerSpec(id="a"))


# ------------------------------------------------------------------ jump hosts


async def test_workers_behind_a_jump_host_share_one_connection_to_it(
    lab: Lab, network: SshNetwork
) -> None:
    jump, inner = lab.sshd(MaxStartups="2:100:2"), lab.sshd()
    targets = [lab.sshd() for _ in range(3)]
    lab.config.write_text(
        f"Host inner\n HostName 127.0.0.1\n Port {inner.port}\n User root\n ProxyJump outer\n"
        f"Host outer\n HostName 127.0.0.1\n Port {jump.port}\n User root\n"
    )
    specs = [lab.spec(server, id=f"w{n}", proxy_jump="inner") for n, server in enumerate(targets)]
    shells = [network.shell(spec) for spec in specs]
    replies = await asyncio.gather(*(shell.run("echo hello", timeout=30) for shell in shells))
    assert [reply.text for reply in replies] == ["hello\n"] * 3
    assert jump.log.count("Accepted publickey") == 1
    assert inner.log.count("Accepted publickey") == 1
    # The jump host dies: everything behind is unreachable, and comes back with it.
    inner.drop_connections()
    until(lambda: not inner.connections(), "they stay")
    await asyncio.sleep(0)
    for shell in shells:
        await shell.close()
    assert (await shells[0].run("echo again", timeout=30)).text == "again\n"
    for shell in shells:
        await shell.close()
    await network.close()


async def test_what_a_jump_host_says_is_passed_on(lab: Lab, network: SshNetwork) -> None:
    jump = lab.sshd()
    hop = f"ssh://root@127.0.0.1:{jump.port}"
    spec = WorkerSpec(id="w", host="127.0.0.1", port=free_port(), proxy_jump=hop)
    with pytest.raises(WorkerUnreachable) as refused:
        await answer(network, spec)
    assert refused.value.message == "Failed to connect to worker: connection refused"
    jump.stop()
    with pytest.raises(WorkerUnreachable, match=r"jump host .*: connection refused"):
        await answer(network, spec)


async def test_a_jump_host_that_forwards_nothing(lab: Lab, network: SshNetwork) -> None:
    jump, target = lab.sshd(AllowTcpForwarding="no"), lab.sshd()
    spec = lab.spec(target, proxy_jump=f"root@127.0.0.1:{jump.port}")
    with pytest.raises(WorkerUnreachable, match="forwarding is refused") as refused:
        await answer(network, spec)
    assert "AllowTcpForwarding" in refused.value.hint


# ------------------------------------------------------------------ many, and few places


async def test_eight_at_once_pass_an_sshd_that_lets_one_knock(lab: Lab) -> None:
    server = lab.sshd(MaxStartups="1:100:1")
    network = lab.network()
    shells = [network.shell(lab.spec(server, id=f"w{n}")) for n in range(8)]
    replies = await asyncio.gather(*(shell.run("echo in", timeout=60) for shell in shells))
    assert [reply.text for reply in replies] == ["in\n"] * 8
    for shell in shells:
        await shell.close()


@pytest.mark.parametrize("sessions", ["1", "2", "10"])
async def test_many_calls_and_followers_pass_few_sessions(lab: Lab, sessions: str) -> None:
    server = lab.sshd(MaxSessions=sessions)
    network = lab.network()
    shell = network.shell(lab.spec(server))
    async with shell.stream("echo 1; sleep 60") as one, shell.stream("echo 2; sleep 60") as two:
        assert await anext(one) == b"1\n"
        assert await anext(two) == b"2\n"
        replies = await asyncio.gather(*(shell.run(f"echo {n}", timeout=40) for n in range(20)))
        assert [reply.text for reply in replies] == [f"{n}\n" for n in range(20)]
    assert server.log.count("Accepted publickey") <= {"1": 4, "2": 3, "10": 1}[sessions]
    await shell.close()


# ------------------------------------------------------------------ dying


async def test_a_connection_that_dies_during_a_call_says_nothing_is_known(
    lab: Lab, network: SshNetwork
) -> None:
    server = lab.sshd()
    shell = network.shell(lab.spec(server))
    gate = lab.folder / "gate"
    call = asyncio.create_task(shell.run(f"echo half; touch {gate}; sleep 60", timeout=60))
    await asyncio.to_thread(until, gate.exists, "it does not start")
    server.drop_connections()
    with pytest.raises(Indeterminate):
        await call
    assert (await shell.run("echo back", timeout=20)).text == "back\n"
    await shell.close()


async def test_a_script_goes_on_when_only_its_connection_dies(
    lab: Lab, network: SshNetwork
) -> None:
    """As starting a container must: begun is carried through."""
    server = lab.sshd()
    shell = network.shell(lab.spec(server))
    gate, done = lab.folder / "gate", lab.folder / "done"
    script = f"touch {gate}; while [ -e {gate} ]; do sleep 0.05; done; echo x; touch {done}"
    call = asyncio.create_task(shell.run(script, timeout=60))
    await asyncio.to_thread(until, gate.exists, "it does not start")
    for pid in server.connections():
        if program(pid) == "sshd":
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(Indeterminate):
        await call
    gate.unlink()
    await asyncio.to_thread(until, done.exists, "it was not carried through")
    await shell.close()


async def test_a_stream_whose_connection_dies_says_so_and_leaves_nothing(
    lab: Lab, network: SshNetwork
) -> None:
    server = lab.sshd()
    shell = network.shell(lab.spec(server))
    pid = lab.folder / "pid"
    async with shell.stream(f"echo one; sleep 321 & echo $! >{pid}; wait") as chunks:
        assert await anext(chunks) == b"one\n"
        await asyncio.to_thread(until, lambda: pid.exists() and pid.read_text(), "no pid")
        for child in server.connections():
            if program(child) == "sshd":
                os.kill(child, signal.SIGKILL)
        with pytest.raises(Indeterminate):
            await anext(chunks)
    number = int(pid.read_text())
    await asyncio.to_thread(until, lambda: not runs(number), "the follower goes on")
    await shell.close()


def program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("by_config", [False, True])
async def test_a_worker_that_freezes_during_a_call_is_noticed_by_keepalive(
    lab: Lab, by_config: bool
) -> None:
    server = lab.sshd()
    network = lab.network(keepalive=60 if by_config else 0.3)
    if by_config:
        lab.config.write_text("Host *\n  ServerAliveInterval 1\n  ServerAliveCountMax 1\n")
    shell = network.shell(lab.spec(server))
    gate = lab.folder / "gate"
    call = asyncio.create_task(shell.run(f"touch {gate}; sleep 60", timeout=60))
    await asyncio.to_thread(until, gate.exists, "it does not start")
    frozen = server.connections()
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(Indeterminate):
            await asyncio.wait_for(call, 10)
        # Others of that worker are not bound to the frozen connection.
        assert (await shell.run("echo anew", timeout=10)).text == "anew\n"
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGKILL)
    await shell.close()


# ------------------------------------------------------------------ login shells


def login_shell(server: Sshd, path: str) -> None:
    """sshd takes the shell from the account; a forced command puts another one before it."""
    server.stop()
    server.settings = dict(server.settings) | {"ForceCommand": f'{path} -c "$SSH_ORIGINAL_COMMAND"'}
    server.start()


@pytest.mark.parametrize("name", ["fish", "csh", "zsh", "bash", "dash"])
async def test_every_login_shell_runs_the_same(lab: Lab, name: str) -> None:
    path = shutil.which(name)
    assert path, f"{name} is not installed: apt-get install {name}"
    server = lab.sshd()
    login_shell(server, path)
    network = lab.network()
    shell = network.shell(lab.spec(server))
    assert (await shell.run("echo 'a b'  $((1+1)); exit 3", timeout=20)).body == b"a b 2\n"
    async with shell.stream("printf 'a\\000b'") as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"a\0b"
    command = "printf '%s|' \"$((1+1))\" 'it'\\''s' `echo b` ! \\\\ 'é' ; echo \"a\nb\" % ~root '#'"
    expected = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=True).stdout
    async with shell.terminal(command, tty=False) as terminal:
        seen = b""
        while (chunk := await terminal.read())[0]:
            assert chunk[0] == 1, chunk
            seen += chunk[1]
        assert seen == expected
        assert await terminal.wait() == 0
    await shell.close()


async def test_a_noisy_login_shell_spoils_nothing(lab: Lab, network: SshNetwork) -> None:
    server = lab.sshd()
    (server.home / ".bashrc").write_text(
        "echo Welcome; printf 'no newline \\377'; echo problem >&2; (sleep 0.02; echo late) &\n"
    )
    shell = network.shell(lab.spec(server))
    assert (await shell.run("sleep 0.1; echo mine", timeout=10)).text == "mine\n"
    async with shell.stream("sleep 0.1; echo mine") as chunks:
        assert b"mine\n" in b"".join([chunk async for chunk in chunks])
    for tty in (True, False):
        async with shell.terminal("echo mine", tty=tty) as terminal:
            assert b"Welcome" not in (await terminal.read())[1]
    await shell.close()


async def test_a_login_that_hangs_is_bounded_and_nothing_runs_later(
    lab: Lab, network: SshNetwork
) -> None:
    server = lab.sshd()
    gate = lab.folder / "gate"
    (server.home / ".bashrc").write_text(f"touch {gate}; while [ -e {gate} ]; do sleep 0.05; done")
    shell = network.shell(lab.spec(server))
    with pytest.raises(Indeterminate):
        await shell.run(f"touch {lab.folder / 'ran'}", timeout=1)
    login = [pid for pid in server.connections() if program(pid) == "bash"]
    assert login
    await shell.close()
    (server.home / ".bashrc").unlink()
    gate.unlink()
    await asyncio.to_thread(until, lambda: not any(map(runs, login)), "the login goes on")
    assert (await shell.run("echo fine", timeout=10)).text == "fine\n"
    assert not (lab.folder / "ran").exists()
    await shell.close()


async def test_an_account_without_a_login_shows_what_it_says(lab: Lab, network: SshNetwork) -> None:
    server = lab.sshd(ForceCommand="/usr/sbin/nologin")
    shell = network.shell(lab.spec(server))
    with pytest.raises(WorkerUnreachable, match="This account is currently not available"):
        await shell.run("echo in", timeout=10)
    await shell.close()


# ------------------------------------------------------------------ sockets


async def test_a_forbidden_forwarding_says_which_setting(lab: Lab, network: SshNetwork) -> None:
    server = lab.sshd(AllowStreamLocalForwarding="no")
    there = lab.folder / "service.sock"
    service = await asyncio.start_unix_server(lambda *_: None, there)
    shell = network.shell(lab.spec(server))
    async with service:
        with pytest.raises(EngineFailed, match=r"AllowStreamLocalForwarding|forbids"):
            async with shell.socket(str(there)):
                pass
    await shell.close()


async def test_a_home_too_long_for_a_socket_is_no_trouble(lab: Lab) -> None:
    server = lab.sshd()
    lab.home = lab.folder / ("long" * 30)
    there = lab.folder / "service.sock"
    service = await asyncio.start_unix_server(lambda _, writer: writer.close(), there)
    network = lab.network()
    shell = network.shell(lab.spec(server))
    async with service, shell.socket(str(there)) as path:
        assert len(path) < 100
        assert Path(path).stat().st_mode & 0o777 == 0o600
        assert Path(path).parent.stat().st_mode & 0o777 == 0o700
        _, writer = await asyncio.open_unix_connection(path)
        writer.close()
        await writer.wait_closed()
    await shell.close()
    await network.close()
    assert not Path(path).parent.exists()


async def test_local_ends_of_a_killed_controller_are_swept_away(lab: Lab) -> None:
    """Its name begins with its process id; those of the living stay."""
    server = lab.sshd()
    folder = lab.home / "sockets"
    folder.mkdir(parents=True)
    gone = subprocess.Popen(["true"])
    gone.wait()
    (folder / f"{gone.pid}-0a").touch()
    (folder / f"{os.getppid()}-0b").touch()
    there = lab.folder / "service.sock"
    service = await asyncio.start_unix_server(lambda _, writer: writer.close(), there)
    shell = lab.network().shell(lab.spec(server))
    async with service, shell.socket(str(there)) as path:
        assert {entry.name for entry in folder.iterdir()} == {
            f"{os.getppid()}-0b",
            Path(path).name,
        }
    await shell.close()
