"""Secrets from the front doors to the container: REST, the loop over fake engines, the command."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudai.controller import effects as effects_module
from cloudai.core.errors import InvalidInput, NotFound
from cloudai.core.model import State
from cloudai.core.secrets import LARGEST
from cloudai.engines.docker import command
from cloudai.engines.fake import FakeWorker, Fault
from cloudai.service.batches import Batches
from tests.unit.cli_case import Cloudai, Screen, process
from tests.unit.stub_controller import Reply, StubController, make_task
from tests.unit.test_api_scheduler import ask
from tests.unit.test_controller import Bench, until

VALUE = b"s3cr3t-\0\xff"
CODED = base64.b64encode(VALUE).decode()


@pytest.fixture
def a_bench(tmp_path: Path) -> Callable[..., Bench]:
    return lambda **workers: Bench(tmp_path, workers)


async def put(bench: Bench, name: str = "TOKEN", value: bytes = VALUE) -> None:
    bench.service.secrets.put(name, value, in_file=True)


# ------------------------------------------------------------------ the loop


async def test_a_container_has_them_and_nothing_at_home_does_in_plain(a_bench, caplog):
    caplog.set_level(logging.DEBUG)
    worker = FakeWorker()
    async with a_bench(w1=worker).running() as bench:
        await put(bench)
        task = await bench.submit(secrets=["TOKEN", "TOKEN=/etc/key"], name="t")
        task = await bench.reach(task, State.RUNNING)
        held = worker.containers[task.assignment.id].secrets
        assert held == {"/run/secrets/TOKEN": VALUE, "/etc/key": VALUE}
        assert task.spec.secrets == ("TOKEN=/run/secrets/TOKEN", "TOKEN=/etc/key")
        paths = [path for path in bench.home.rglob("*") if path.is_file()]
        holding = [path for path in paths if CODED.encode() in path.read_bytes()]
        assert holding == [bench.home / "secrets" / "TOKEN.json"]
        assert not any(VALUE in path.read_bytes() for path in paths)
        _, shown = await ask(bench, "GET", f"/tasks/{task.id}")
        assert shown["secrets"] == list(task.spec.secrets)
        line = command.preview(task.spec)
        assert "--mount type=bind,src=/dev/shm/TOKEN,dst=/etc/key,readonly" in line
    assert "s3cr3t" not in caplog.text
    assert CODED not in caplog.text


async def test_one_that_is_not_set_is_refused_and_nothing_is_stored(a_bench):
    async with a_bench(w1=FakeWorker()).running() as bench:
        await put(bench)
        for send in (bench.submit, lambda **body: bench.dispatch("w1", **body)):
            with pytest.raises(InvalidInput, match=r"secrets\[1\]: no secret 'OTHER' is set"):
                await send(secrets=["TOKEN", "OTHER"])
        group = {"tasks": [{"docker_image": "x", "secrets": ["OTHER"]}], "replicas": 2}
        with pytest.raises(InvalidInput, match="OTHER"):
            await bench.service.submit_group(group, default_user="ann")
        array = {"docker_image": "x", "secrets": ["OTHER"], "array": "0-3"}
        with pytest.raises(InvalidInput, match="OTHER"):
            await Batches(bench.service).submit_array(array, default_user="ann")
        text = "tasks:\n- {id: first, image: x}\n- {id: second, image: x, secrets: [OTHER]}\n"
        files = [{"name": "/x/nightly.yaml", "text": text, "format": "yaml"}]
        with pytest.raises(InvalidInput) as caught:
            await Batches(bench.service).submit({"files": files}, default_user="ann")
        assert caught.value.message == "second: secrets[0]: no secret 'OTHER' is set"
        assert await bench.service.tasks() == ([], 0)


async def test_one_removed_meanwhile_fails_its_task_with_that_reason(a_bench):
    worker = FakeWorker(cpus=1)
    async with a_bench(w1=worker).running() as bench:
        await put(bench)
        first = await bench.reach(await bench.submit(), State.RUNNING)
        waits = await bench.submit(secrets=["TOKEN"])
        bench.service.secrets.drop("TOKEN")
        worker.finish(first.assignment.id)
        failed = await bench.reach(waits, State.FAILED)
        assert failed.reason.startswith("No secret TOKEN is set; `cloudai secret set TOKEN`")
        assert list(worker.starts) == [first.assignment.id]


async def test_a_new_value_is_what_a_start_reads(a_bench):
    worker = FakeWorker(cpus=1)
    async with a_bench(w1=worker).running() as bench:
        await put(bench)
        first = await bench.reach(await bench.submit(), State.RUNNING)
        waits = await bench.submit(secrets=["TOKEN"])
        await put(bench, value=b"new")
        worker.finish(first.assignment.id)
        task = await bench.reach(waits, State.RUNNING)
        assert worker.containers[task.assignment.id].secrets == {"/run/secrets/TOKEN": b"new"}


async def test_a_container_that_runs_already_is_not_failed_for_its_secret(a_bench, monkeypatch):
    """A start whose answer was lost, a secret removed, and the start comes again."""
    monkeypatch.setattr(effects_module, "LATE", 0.05)
    worker = FakeWorker()
    async with a_bench(w1=worker).running() as bench:
        await put(bench)
        await until(lambda: "w1" in bench.engines, "the link")
        bench.engines["w1"].plan("start", Fault.LOST_AFTER)
        gate = bench.engines["w1"].hold("start", after=True)
        task = await bench.submit(secrets=["TOKEN"])
        await gate.reached.wait()
        bench.service.secrets.drop("TOKEN")
        gate.open()
        task = await bench.reach(task, State.RUNNING)
        assert worker.starts == {task.assignment.id: 1}


async def test_one_created_and_not_started_is_removed_where_its_secret_is_gone(
    a_bench, monkeypatch
):
    monkeypatch.setattr(effects_module, "LATE", 0.05)
    worker = FakeWorker()
    async with a_bench(w1=worker).running() as bench:
        await put(bench)
        await until(lambda: "w1" in bench.engines, "the link")
        bench.engines["w1"].plan("start", Fault.LOST_HALF)
        gate = bench.engines["w1"].hold("start", after=True)
        task = await bench.submit(secrets=["TOKEN"])
        await gate.reached.wait()
        bench.service.secrets.drop("TOKEN")
        gate.open()
        await bench.reach(task, State.FAILED)
        assert (dict(worker.starts), worker.containers) == ({}, {})


# ------------------------------------------------------------------ REST


async def test_rest_takes_values_and_answers_none(a_bench):
    async with a_bench().running() as bench:
        body = {"base64": CODED, "in_file": True}
        status, made = await ask(bench, "PUT", "/secrets/TOKEN", body)
        assert (status, made["name"], made["size"]) == (200, "TOKEN", len(VALUE))
        assert (made["kept"], made["note"]) == ("file", "")
        status, _ = await ask(bench, "PUT", "/secrets/T2", {"value": "ü", "in_file": True})
        assert (status, bench.service.secrets.get("T2")) == (200, "ü".encode())
        assert bench.service.secrets.get("TOKEN") == VALUE
        _, listed = await ask(bench, "GET", "/secrets/")
        assert [one["name"] for one in listed["secrets"]] == ["T2", "TOKEN"]
        _, one = await ask(bench, "GET", "/secrets/TOKEN")
        assert set(one) == {"name", "set_at", "kept", "size"}
        assert (await ask(bench, "DELETE", "/secrets/TOKEN"))[0] == 204
        assert (await ask(bench, "DELETE", "/secrets/TOKEN"))[0] == 404
        with pytest.raises(NotFound):
            bench.service.secrets.get("TOKEN")


@pytest.mark.parametrize(
    "body",
    [
        "s3cr3t",
        ["s3cr3t"],
        {"value": ["s3cr3t"]},
        {"value": "s3cr3t", "base64": "s3cr3t"},
        {"base64": "s3cr3t!"},
        {"base64": "ss3cr3t"},
        {"value": "s3cr3t\ud800"},
        {"value": "s3cr3t", "in_file": "s3cr3t"},
        {"value": "", "in_file": True},
        {"value": "s3cr3t" * LARGEST, "in_file": True},
        {},
    ],
)
async def test_a_refusal_shows_nothing_of_the_value(a_bench, body: Any, caplog):
    async with a_bench().running() as bench:
        status, answer = await ask(bench, "PUT", "/secrets/TOKEN", body)
        assert status == 422
        assert "s3cr3t" not in str(answer)
        assert (await ask(bench, "GET", "/secrets/"))[1] == {"secrets": []}
    assert "s3cr3t" not in caplog.text


# ------------------------------------------------------------------ the command

SET = {"name": "TOKEN", "set_at": "2026-01-31T12:00:00.000000Z", "kept": "file", "size": 9}


def test_set_reads_stdin_byte_by_byte(home: Path, stub: StubController) -> None:
    stub.on("PUT /secrets/TOKEN", {**SET, "note": "there is none here"})
    with process(home, "secret", "set", "TOKEN", stdin=-1) as running:
        out, err = running.communicate(VALUE + b"\n", timeout=15)
    assert running.returncode == 0
    assert out.decode() == (
        "✅ Secret TOKEN is set: 9 bytes, kept in a file that only you can read\n"
        "   not in the system's keyring: there is none here\n"
    )
    assert "ends with a line end" in err.decode()
    coded = base64.b64encode(VALUE + b"\n").decode()
    assert stub.bodies("PUT /secrets/TOKEN") == [{"base64": coded, "in_file": False}]


def test_set_asks_unseen_on_a_terminal(home: Path, stub: StubController) -> None:
    stub.on("PUT /secrets/TOKEN", {**SET, "kept": "keyring", "note": ""})
    with Screen(home, "secret", "set", "TOKEN") as screen:
        screen.until("Value of TOKEN (is not shown): ")
        screen.press(b"hunter2\n")
        assert screen.end() == 0
    assert b"hunter2" not in screen.text
    assert b"--in-file" in screen.text
    coded = base64.b64encode(b"hunter2").decode()
    assert stub.bodies("PUT /secrets/TOKEN") == [{"base64": coded, "in_file": False}]


def test_a_name_that_cannot_be_is_refused_before_a_value_is_read(cloudai: Cloudai) -> None:
    result = cloudai("secret", "set", "a/b")
    assert (result.code, result.out) == (2, "")
    assert "NAME: 'a/b' cannot be the name of a secret" in result.err


def test_list_and_rm(cloudai: Cloudai, stub: StubController) -> None:
    stub.on("GET /secrets/", {"secrets": [SET, {**SET, "name": "K", "kept": "keyring"}]})
    lines = cloudai("secret", "list").out.splitlines()
    assert lines[0].split() == ["SECRET", "SET", "KEPT_IN", "BYTES"]
    assert [line.split()[0] for line in lines[1:]] == ["TOKEN", "K"]
    assert cloudai("secret", "list", "-q").out == "TOKEN\nK\n"
    assert cloudai("secret", "list", "--json").json["secrets"][0] == SET
    stub.on("DELETE /secrets/TOKEN", Reply(status=204))
    stub.refuse("DELETE /secrets/K", NotFound("No secret K is set"))
    result = cloudai("secret", "rm", "TOKEN", "K")
    assert (result.code, result.out) == (3, "✅ Secret TOKEN forgotten\n")
    assert result.err == "❌ No secret K is set\n"
    both = cloudai("secret", "rm", "TOKEN", "K", "--json").json
    assert (both["removed"], both["errors"][0]["secret"]) == (["TOKEN"], "K")


def test_a_task_asks_by_name(cloudai: Cloudai, stub: StubController) -> None:
    stub.on("POST /tasks/", Reply(make_task(), 201))
    cloudai("task", "alpine", "--secret", "TOKEN", "--secret", "K=/etc/key", "-q")
    assert stub.bodies("POST /tasks/")[0]["secrets"] == ["TOKEN", "K=/etc/key"]
    stub.refuse("POST /tasks/", InvalidInput("secrets[1]: no secret 'K' is set", hint="set it"))
    result = cloudai("task", "alpine", "--secret", "TOKEN", "--secret", "K")
    assert (result.code, result.err) == (2, "❌ --secret: no secret 'K' is set\n   set it\n")
