"""Batches as cron submits them: its environment, its silence, and what it must say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fleet.cloudai_home import Home, until
from tests.fleet_lab.crond import as_cron

CLOUDAI = Path(sys.executable).parent / "cloudai"
NIGHTLY = """
name: nightly-{{ date }}
defaults: {image: alpine, cpus: 0.1, memory: 16m, storage: 16m}
tasks:
- {name: prepare, command: "echo ready"}
- id: train
  name: train-{{ seed }}
  matrix: {seed: range(4)}
  command: "echo {{ seed }}"
  after: prepare
- {name: report, command: "echo done", after: train}
"""


@pytest.fixture
def user(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home directory whose ``.cloudai`` is the test's home."""
    folder = tmp_path_factory.mktemp("user")
    (folder / ".cloudai").symlink_to(home.folder)
    (folder / "nightly.yaml").write_text(NIGHTLY)
    home.environment["CLOUDAI_HOME"] = str(folder / ".cloudai")
    home.environment["CLOUDAI_INVENTORY"] = str(folder / ".cloudai" / "hosts.yaml")
    return folder


def nightly(more: str = "") -> str:
    return f"{CLOUDAI} batch nightly.yaml --once-key 'nightly-{{{{ date }}}}' --quiet {more}"


def test_a_nightly_batch_says_nothing_and_runs_once(home: Home, user: Path) -> None:
    both = [
        subprocess.Popen(
            ["env", "-i", f"HOME={user}", "PATH=/usr/bin:/bin", "/bin/sh", "-c", nightly()],
            cwd=user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]
    said = [one.communicate(timeout=60)[0].decode() for one in both]
    assert (said, [one.returncode for one in both]) == (["", ""], [0, 0])
    later = as_cron(user, nightly())
    assert (later.stdout, later.stderr, later.returncode) == ("", "", 0)
    (batch,) = home.ask("/batches/")["batches"]
    assert batch["size"] == 6
    until(lambda: home.ask(f"/batches/{batch['batch_id']}")["ended"], "it ends")
    assert home.ask(f"/batches/{batch['batch_id']}")["counts"]["completed"] == 6


def test_an_earlier_one_that_goes_on_keeps_the_next_from_starting(home: Home, user: Path) -> None:
    (user / "nightly.yaml").write_text(NIGHTLY.replace("echo ready", "sleep 600"))
    line = f"{CLOUDAI} batch nightly.yaml --no-overlap --quiet"
    assert as_cron(user, line).returncode == 0
    second = as_cron(user, line)
    assert (second.returncode, second.stdout) == (1, "")
    (batch,) = home.ask("/batches/")["batches"]
    assert f"{batch['batch_id']} of the same name or files has not ended" in second.stderr
    home.run("cancel", batch["batch_id"])
    until(lambda: home.ask(f"/batches/{batch['batch_id']}")["ended"], "it ends")
    assert as_cron(user, line).returncode == 0
    assert home.ask("/batches/")["total"] == 2


def test_a_mistake_in_the_file_is_told_with_its_place(home: Home, user: Path) -> None:
    (user / "nightly.yaml").write_text(NIGHTLY.replace("memory", "memroy"))
    done = as_cron(user, nightly())
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{user}/nightly.yaml:3:" in done.stderr
    assert "Traceback" not in done.stderr
    assert home.ask("/batches/")["total"] == 0


def test_a_key_that_needs_an_agent_is_told_with_what_to_do(home: Home, user: Path) -> None:
    """The batch is accepted, and waits; but nobody would hear of it all night."""
    home.run("controller", "stop")
    key = user / "locked"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "sesame", "-f", str(key)]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    text = home.inventory.read_text()
    rest = text.partition("\n")[2]
    home.inventory.write_text(f"defaults: {{user: root, identity_file: {key}}}\n{rest}")
    done = as_cron(user, nightly())
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert "worker-1, worker-2, worker-3: " in line
    assert f"the key {key} needs its passphrase, and the controller has no ssh agent" in line
    assert f"ssh-add {key} && cloudai controller stop && cloudai controller start" in line
    home.inventory.write_text(text)
    (batch,) = home.ask("/batches/")["batches"]
    until(lambda: home.ask(f"/batches/{batch['batch_id']}")["ended"], "it runs once mended")
