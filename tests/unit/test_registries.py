"""Log-ins of registries: kept, told to the worker that pulls, and to nobody else."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from cloudai.core.errors import InvalidInput, NotFound, StoreFailed
from cloudai.core.image import check_registry, registry_of
from cloudai.core.model import State
from cloudai.engines import RegistryLogin
from cloudai.engines.docker.pulling import login_settings
from cloudai.engines.fake import FakeWorker
from cloudai.registries import Login, Registries
from cloudai.secrets import Secrets
from tests.unit.cli_case import Screen
from tests.unit.test_controller import a_bench  # noqa: F401

SECRET = "s3cret 'n$(ice)"


def kept_at(home: Path) -> Registries:
    return Registries(home, Secrets(home / "registries"))


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("alpine", "docker.io"),
        ("ann/app:1", "docker.io"),
        ("index.docker.io/ann/app", "docker.io"),
        ("reg.example.com/app", "reg.example.com"),
        ("localhost:5000/a/b@sha256:" + "0" * 64, "localhost:5000"),
    ],
)
def test_an_image_says_whose_it_is(image: str, registry: str) -> None:
    assert registry_of(image) == registry
    assert check_registry(registry) == registry


@pytest.mark.parametrize("text", ["", "nohost", "-x.y", "a/b", "http://x.y", "a b.c", "x.y:port"])
def test_what_is_no_registry_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is no registry"):
        check_registry(text)
    assert check_registry("https://reg.example.com/") == "reg.example.com"


def test_a_log_in_is_kept_for_its_registry_alone(tmp_path: Path) -> None:
    registries = kept_at(tmp_path)
    assert registries.login_for("alpine") is None
    registries.put("reg.example.com", "ann", "first")
    registries.put("reg.example.com", "bob", SECRET)
    registries.put("docker.io", "carl", "other")
    again = kept_at(tmp_path)
    assert [(one.registry, one.username) for one in again.all()] == [
        ("docker.io", "carl"),
        ("reg.example.com", "bob"),
    ]
    found = again.login_for("reg.example.com/team/app:2")
    assert found == Login(registry="reg.example.com", username="bob", password=SECRET)
    assert SECRET not in repr(found)
    assert again.login_for("other.example.com/team/app") is None
    files = [one for one in tmp_path.rglob("*") if one.is_file()]
    assert {stat.S_IMODE(one.stat().st_mode) for one in files} == {0o600}
    again.drop("reg.example.com")
    assert again.login_for("reg.example.com/team/app:2") is None
    assert not any(SECRET in one.read_text() for one in tmp_path.rglob("*") if one.is_file())
    with pytest.raises(NotFound, match=r"no log-in of reg\.example\.com"):
        again.drop("reg.example.com")


def test_what_cannot_be_kept_is_refused_without_being_quoted(tmp_path: Path) -> None:
    registries = kept_at(tmp_path)
    for username, password in (("", "x"), ("a:b", "x"), ("ann", ""), ("ann", "two\nlines")):
        with pytest.raises(InvalidInput) as refused:
            registries.put("reg.example.com", username, password)
        assert "two" not in refused.value.message
    assert registries.all() == []


def test_a_password_that_is_gone_is_said_and_not_left_out(tmp_path: Path) -> None:
    registries = kept_at(tmp_path)
    registries.put("reg.example.com", "ann", SECRET)
    for file in (tmp_path / "registries").iterdir():
        file.unlink()
    with pytest.raises(StoreFailed, match=r"password of ann at reg\.example\.com cannot be had"):
        registries.login_for("reg.example.com/app")
    (tmp_path / "registries.json").write_text("{")
    with pytest.raises(StoreFailed, match="is damaged"):
        registries.all()


def test_dockers_client_is_told_one_log_in() -> None:
    hub = login_settings(RegistryLogin(registry="docker.io", username="ann", password=SECRET))
    [(address, found)] = json.loads(hub)["auths"].items()
    assert address == "https://index.docker.io/v1/"
    assert base64.b64decode(found["auth"]).decode() == f"ann:{SECRET}"


async def test_a_pull_is_told_its_own_registrys_log_in(a_bench: Any) -> None:  # noqa: F811
    worker = FakeWorker()
    worker.images = set()
    async with a_bench(w1=worker).running() as bench:
        bench.service.registries.put("reg.example.com", "ann", SECRET)
        for image in ("reg.example.com/app", "alpine"):
            task = await bench.submit(docker_image=image)
            await bench.reach(task, State.RUNNING)
        found, none = bench.engines["w1"].logins
        assert (found.username, found.password, none) == ("ann", SECRET, None)
        await bench.service.in_thread(
            lambda: [one.unlink() for one in (bench.home / "registries").iterdir()]
        )
        task = await bench.ended(await bench.submit(docker_image="reg.example.com/other"))
        assert "the password of ann at reg.example.com cannot be had" in task.reason


def test_the_password_comes_from_a_pipe(stub: Any, cloudai: Any, monkeypatch: Any) -> None:
    import io

    kept = {"registry": "reg.example.com", "username": "ann", "set_at": "2026-01-31T12:00:00Z"}
    stub.on("POST /registries/", kept)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{SECRET}\n"))
    done = cloudai("registry", "login", "reg.example.com", "-u", "ann")
    assert done.out == "✅ Log-in of ann at reg.example.com kept\n"
    assert stub.bodies("POST /registries/") == [
        {"registry": "reg.example.com", "username": "ann", "password": SECRET}
    ]
    stub.on("GET /registries/", {"registries": [kept]})
    assert cloudai("registry", "list").out.splitlines() == [
        "REGISTRY         USERNAME  SET",
        "reg.example.com  ann       2026-01-31 12:00:00",
    ]
    stub.on("DELETE /registries/reg.example.com:5000", None)
    assert cloudai("registry", "logout", "reg.example.com:5000").code == 0


def test_at_a_terminal_the_password_is_asked_for_and_not_shown(stub: Any, home: Path) -> None:
    kept = {"registry": "reg.example.com", "username": "ann", "set_at": "2026-01-31T12:00:00Z"}
    stub.on("POST /registries/", kept)
    with Screen(home, "registry", "login", "reg.example.com", "-u", "ann") as screen:
        screen.until("Password of ann at reg.example.com")
        screen.press(f"{SECRET}\n".encode())
        assert SECRET not in screen.until("kept")
    assert stub.bodies("POST /registries/")[0]["password"] == SECRET
