"""A host is who it says it is, or no byte of a task is sent."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from cloudai.core.errors import (
    CloudaiError,
    HostKeyChanged,
    HostKeyUnknown,
    StoreReadOnly,
    WorkerUnreachable,
)
from cloudai.shells.hostkeys import KnownHosts, known_name
from cloudai.shells.ssh import SshNetwork
from tests.ssh.sshd import Lab, Sshd, make_key


def fingerprint(key: Path) -> str:
    return subprocess.run(
        ["ssh-keygen", "-l", "-f", key], capture_output=True, text=True, check=True
    ).stdout.split()[1]


async def hello(lab: Lab, server: Sshd, **spec: object) -> str:
    """One call over a network of its own."""
    network = lab.network()
    shell = network.shell(lab.spec(server, **spec))
    try:
        return (await shell.run("echo hello", timeout=20)).text
    finally:
        await shell.close()
        await network.close()


def logins(server: Sshd) -> int:
    return server.log.count("Accepted publickey") + server.log.count("Failed publickey")


async def test_an_unknown_host_is_named_with_its_fingerprint_and_the_mend(lab: Lab) -> None:
    server = lab.sshd(known=False)
    with pytest.raises(HostKeyUnknown) as refused:
        await hello(lab, server)
    shown = fingerprint(server.host_key())
    assert refused.value.details == {
        "worker": "worker-1",
        "fingerprint": shown,
        "key_type": "ssh-ed25519",
        "host": "127.0.0.1",
        "port": server.port,
    }
    assert shown in refused.value.message
    assert f"cloudai register worker-1 127.0.0.1:{server.port}" in refused.value.hint
    assert logins(server) == 0


async def test_a_changed_host_stops_with_both_fingerprints_and_a_mend_that_works(lab: Lab) -> None:
    server = lab.sshd()
    assert await hello(lab, server) == "hello\n"
    before = fingerprint(server.host_key())
    server.stop()
    for path in (server.host_key(), server.host_key().with_suffix(".pub")):
        path.unlink()
    server.start()
    with pytest.raises(HostKeyChanged) as refused:
        await hello(lab, server)
    after = fingerprint(server.host_key())
    assert before in refused.value.message
    assert after in refused.value.message
    assert refused.value.details["expected"] == [before]
    assert refused.value.details["fingerprint"] == after
    mend = re.search(r"ssh-keygen -R \S+ -f \S+", refused.value.hint)
    assert mend
    subprocess.run(mend[0].replace(";", ""), shell=True, check=True, capture_output=True)
    with pytest.raises(HostKeyUnknown):
        await hello(lab, server)


async def test_a_host_known_by_one_key_is_not_changed_because_it_prefers_another(lab: Lab) -> None:
    server = lab.sshd(known=False, host_key_types=("rsa", "ecdsa", "ed25519"))
    lab.know(server.host_key_line("ecdsa"))
    assert await hello(lab, server) == "hello\n"


async def test_a_host_that_no_longer_has_its_known_type_of_key_is_changed(lab: Lab) -> None:
    server = lab.sshd(known=False, host_key_types=("ed25519",))
    make_key(lab.folder / "old", "rsa")
    public = (lab.folder / "old.pub").read_text().split()
    lab.know(f"[127.0.0.1]:{server.port} {public[0]} {public[1]}\n")
    with pytest.raises(HostKeyChanged) as refused:
        await hello(lab, server)
    assert refused.value.details["expected"] == [fingerprint(lab.folder / "old")]


async def test_a_revoked_key_is_refused_though_it_is_known(lab: Lab) -> None:
    server = lab.sshd()
    lab.know("@revoked * " + server.host_key_line().split(" ", 1)[1])
    with pytest.raises(HostKeyChanged, match="@revoked"):
        await hello(lab, server)
    assert logins(server) == 0


async def test_hashed_names_among_three_thousand_others_are_found(lab: Lab) -> None:
    server = lab.sshd(known=False)
    public = server.host_key_line().split(" ", 1)[1]
    lab.know("".join(f"host{n}.example,10.0.{n // 250}.{n % 250} {public}" for n in range(3000)))
    with pytest.raises(HostKeyUnknown):
        await hello(lab, server)
    lab.know(server.host_key_line())
    subprocess.run(["ssh-keygen", "-H", "-f", lab.known_hosts], check=True, capture_output=True)
    lab.know("this line is broken\n@nonsense too\n")
    assert "127.0.0.1" not in lab.known_hosts.read_text()
    assert await hello(lab, server) == "hello\n"


async def test_a_host_known_on_every_port_may_use_any_and_contradicts_none(lab: Lab) -> None:
    first, second = lab.sshd(known=False), lab.sshd(known=False)
    lab.know(first.host_key_line(name="127.0.0.1"))
    assert await hello(lab, first) == "hello\n"
    with pytest.raises(HostKeyUnknown):
        await hello(lab, second)


async def test_a_certificate_of_a_known_authority_is_enough(lab: Lab) -> None:
    server = lab.sshd(known=False)
    server.stop()
    make_key(lab.folder / "authority")
    subprocess.run(
        [
            *("ssh-keygen", "-q", "-s", lab.folder / "authority", "-I", "host", "-h"),
            *("-n", "127.0.0.1", server.host_key().with_suffix(".pub")),
        ],
        check=True,
    )
    server.settings = {"HostCertificate": f"{server.host_key()}-cert.pub"}
    server.start()
    with pytest.raises(HostKeyUnknown):
        await hello(lab, server)
    authority = (lab.folder / "authority.pub").read_text()
    lab.know(f"@cert-authority [127.0.0.1]:{server.port} {authority}")
    assert await hello(lab, server) == "hello\n"


@pytest.mark.parametrize(
    "settings",
    [
        "StrictHostKeyChecking no",
        "UserKnownHostsFile none",
        "UserKnownHostsFile /dev/null\nStrictHostKeyChecking accept-new",
        "NoHostAuthenticationForLocalhost yes",
    ],
)
async def test_ssh_config_cannot_turn_verification_off(lab: Lab, settings: str) -> None:
    server = lab.sshd(known=False)
    lab.config.write_text(settings)
    with pytest.raises(HostKeyUnknown):
        await hello(lab, server)


async def test_a_known_hosts_file_named_in_ssh_config_is_read(lab: Lab) -> None:
    server = lab.sshd(known=False)
    (lab.folder / "others").write_text(server.host_key_line())
    lab.config.write_text(f"UserKnownHostsFile {lab.folder / 'others'}\n")
    assert await hello(lab, server) == "hello\n"


# ------------------------------------------------------------------ pinning


async def test_a_shown_key_can_be_pinned_and_counts_at_once(lab: Lab) -> None:
    server = lab.sshd(known=False)
    network = lab.network()
    spec = lab.spec(server)
    shell = network.shell(spec)
    with pytest.raises(HostKeyUnknown):
        await shell.run("true", timeout=10)
    key = await network.show_key(spec)
    assert key.fingerprint == fingerprint(server.host_key())
    assert key.key_type == "ssh-ed25519"
    line = await network.pin(spec, key.fingerprint)
    assert line == key.line == server.host_key_line().strip()
    assert await network.pin(spec, key.fingerprint + "=") == line
    own = lab.home / "known_hosts"
    assert own.read_text() == line + "\n"
    assert own.stat().st_mode & 0o777 == 0o600
    assert lab.home.stat().st_mode & 0o777 == 0o700
    assert (await shell.run("echo in", timeout=10)).text == "in\n"
    assert logins(server) == 1
    await shell.close()
    await network.close()


async def test_another_fingerprint_than_shown_is_not_pinned(lab: Lab) -> None:
    server = lab.sshd(known=False)
    network = lab.network()
    with pytest.raises(HostKeyChanged, match=re.escape(fingerprint(server.host_key()))):
        await network.pin(lab.spec(server), "SHA256:" + "A" * 43)
    assert not (lab.home / "known_hosts").exists()
    await network.close()


async def test_a_changed_key_is_not_pinned_beside_the_known_one(lab: Lab) -> None:
    server = lab.sshd(known=False)
    make_key(lab.folder / "old")
    public = (lab.folder / "old.pub").read_text().split()
    lab.know(f"[127.0.0.1]:{server.port} {public[0]} {public[1]}\n")
    network = lab.network()
    with pytest.raises(HostKeyChanged, match="changed: known is"):
        await network.pin(lab.spec(server), fingerprint(server.host_key()))
    await network.close()


def test_pinned_lines_are_kept_with_what_stood_there(tmp_path: Path) -> None:
    own = tmp_path / "home" / "known_hosts"
    own.parent.mkdir()
    own.write_bytes(b"# mine \xff\nother ssh-ed25519 AAAA")
    hosts = KnownHosts(own, user=tmp_path / "none", system=tmp_path / "none")
    make_key(tmp_path / "key")
    import asyncssh

    key = asyncssh.read_public_key(tmp_path / "key.pub")
    line = hosts.add(key, known_name("fe80::1", 2222))
    assert line.startswith("[fe80::1]:2222 ssh-ed25519 ")
    assert own.read_bytes() == b"# mine \xff\nother ssh-ed25519 AAAA\n" + line.encode() + b"\n"
    own.unlink()
    own.mkdir()
    with pytest.raises(CloudaiError):
        hosts.add(key, "x")


@pytest.mark.parametrize(
    ("host", "port", "name"),
    [("Host.Example", 22, "host.example"), ("::1", 22, "::1"), ("::1", 23, "[::1]:23")],
)
def test_names_are_written_as_openssh_writes_them(host: str, port: int, name: str) -> None:
    assert known_name(host, port) == name


async def test_the_files_are_parsed_once_until_they_change(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncssh

    parsed = 0
    load = asyncssh.SSHKnownHosts.load

    def counted(self: object, text: str) -> None:
        nonlocal parsed
        parsed += 1
        load(self, text)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncssh.SSHKnownHosts, "load", counted)
    server = lab.sshd()
    network: SshNetwork = lab.network()
    for _ in range(3):
        shell = network.shell(lab.spec(server))
        assert (await shell.run("true", timeout=10)).ok
        await shell.close()
    assert parsed == 1
    lab.know(server.host_key_line(name="other"))
    os.utime(lab.known_hosts, ns=(1, 1))
    shell = network.shell(lab.spec(server))
    assert (await shell.run("true", timeout=10)).ok
    assert parsed == 3
    await shell.close()
    await network.close()


async def test_a_jump_host_is_verified_too(lab: Lab) -> None:
    target, jump = lab.sshd(), lab.sshd(known=False)
    with pytest.raises(HostKeyUnknown, match="jump host") as refused:
        await hello(lab, target, proxy_jump=f"root@127.0.0.1:{jump.port}")
    assert "ssh -p" in refused.value.hint
    assert isinstance(refused.value, WorkerUnreachable)
    assert not isinstance(refused.value, StoreReadOnly)
