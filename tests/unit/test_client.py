"""The client against a real HTTP server on a UNIX socket, and starting a controller."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

import cloudai
from cloudai.client import Client, ControllerFailed, Inventory, find_inventory, start, task_path
from cloudai.client.connection import NotRunning
from cloudai.client.errors import error_from_json
from cloudai.client.place import find_home
from cloudai.core import errors
from cloudai.core.errors import CloudaiError, InvalidInput, TaskNotFound
from tests.unit.stub_controller import Reply, StubController

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def stub(home: Path) -> Iterator[StubController]:
    with StubController(home) as running:
        yield running


@pytest.fixture
def client(home: Path) -> Client:
    return Client(home, Inventory(Path("/inventory/hosts.yaml")), start=False)


def every_error() -> Iterator[type[CloudaiError]]:
    waiting = [CloudaiError]
    while waiting:
        kind = waiting.pop()
        if kind.__module__ == errors.__name__:
            yield kind
            waiting += kind.__subclasses__()


@pytest.mark.parametrize("kind", list(every_error()))
def test_every_error_comes_back_as_itself(
    kind: type[CloudaiError], stub: StubController, client: Client
) -> None:
    error = kind.__new__(kind)
    CloudaiError.__init__(error, "what happened", hint="what to do", task_id="task-1")
    stub.refuse("GET /tasks/", error)

    with pytest.raises(CloudaiError) as caught:
        client.get("/tasks/")

    assert type(caught.value) is kind
    assert caught.value.as_json() == error.as_json()


def test_an_error_of_a_newer_controller_keeps_its_exit_code() -> None:
    body = {"error": {"code": "quota", "message": "no", "hint": "wait", "exit_code": 4}}
    error = error_from_json(body, status=409)
    assert (error.code, error.message, error.hint, error.exit_code) == ("quota", "no", "wait", 4)
    assert type(error_from_json({"error": {"code": "failed"}}, status=500)) is CloudaiError


def test_an_answer_that_is_not_ours_is_the_controllers_failure(
    stub: StubController, client: Client
) -> None:
    stub.on("GET /tasks/", Reply("oops", 502))
    with pytest.raises(ControllerFailed, match="HTTP 502"):
        client.get("/tasks/")


def test_query_values_and_bodies_arrive_as_meant(stub: StubController, client: Client) -> None:
    stub.on("GET /tasks/", {})
    stub.on("POST /tasks/", Reply({"task_id": "x"}, 201))
    client.get("/tasks/", status=["queued", "running"], user="ä&b", limit=5, name=None, follow=True)
    answer = client.request("POST", "/tasks/", body={"env": {"A": "ä\n$(x)'\""}})

    assert stub.asked[0].query == {
        "status": ["queued", "running"],
        "user": ["ä&b"],
        "limit": ["5"],
        "follow": ["true"],
    }
    assert stub.asked[1].body == {"env": {"A": "ä\n$(x)'\""}}
    assert (answer.status, answer.data) == (201, {"task_id": "x"})


def test_bytes_that_are_no_text_are_refused_before_they_are_sent(client: Client) -> None:
    with pytest.raises(InvalidInput, match="UTF-8"):
        client.post("/tasks/", {"argv": [os.fsdecode(b"\xff")]})


@pytest.mark.parametrize("task", ["", "stats/metrics", "../doctor"])
def test_what_can_be_no_id_is_not_sent_as_a_path(task: str) -> None:
    with pytest.raises(TaskNotFound):
        task_path(task)


def test_an_odd_name_stays_one_part_of_the_path() -> None:
    assert task_path("a?b#c d", "logs") == "/tasks/a%3Fb%23c%20d/logs"


@pytest.mark.parametrize("explicit", [True, False])
def test_the_inventory_meant_is_sent_along(
    explicit: bool, stub: StubController, home: Path
) -> None:
    stub.on("GET /health", {})
    Client(home, Inventory(Path("/ops/größe x.yaml"), explicit=explicit)).get("/health")
    headers = stub.asked[0].headers
    assert headers["x-cloudai-inventory"] == quote("/ops/größe x.yaml")
    assert headers.get("x-cloudai-inventory-explicit") == ("1" if explicit else None)


def test_who_starts_no_controller_asks_whichever_runs(stub: StubController, home: Path) -> None:
    stub.on("POST /controller/stop", {})
    named = Inventory(Path("/ops/hosts.yaml"), explicit=True)
    Client(home, named, start=False).post("/controller/stop")
    assert not any(name.startswith("x-cloudai") for name in stub.asked[0].headers)


def test_notices_are_kept_once_each(stub: StubController, client: Client) -> None:
    notice = {"X-Cloudai-Notice": quote("hosts.yaml: line 3\ndisk nearly full")}
    stub.on("GET /health", Reply({}, headers=notice))
    client.get("/health")
    client.get("/health")
    assert client.notices == ["hosts.yaml: line 3", "disk nearly full"]


def test_an_older_controller_is_named_with_its_mend(stub: StubController, client: Client) -> None:
    stub.on("GET /health", Reply({}, headers={"X-Cloudai-Version": "0.0.1"}))
    client.get("/health")
    (notice,) = client.notices
    assert "0.0.1" in notice
    assert cloudai.__version__ in notice
    assert "cloudai controller stop" in notice


def test_a_controller_that_goes_away_is_an_error_that_says_so(
    stub: StubController, client: Client
) -> None:
    stub.on("POST /tasks/", Reply(drop=True))
    with pytest.raises(ControllerFailed, match="went away before it had answered") as caught:
        client.post("/tasks/", {})
    assert "may or may not" in caught.value.hint
    assert len(stub.asked) == 1, "what changes something is never sent twice"


def test_a_question_is_asked_again_when_the_controller_was_just_leaving(
    stub: StubController, client: Client
) -> None:
    stub.on("GET /health", Reply(drop=True), {"status": "ok"})
    assert client.get("/health") == {"status": "ok"}


def test_one_that_does_not_answer_in_time(stub: StubController, client: Client) -> None:
    over = threading.Event()

    def silent(_: object) -> Reply:
        over.wait(10)
        return Reply({})

    stub.on("GET /health", silent)
    with pytest.raises(ControllerFailed, match="does not answer"):
        client.get("/health", patience=0.1)
    over.set()


def test_a_stream_is_read_as_it_comes(stub: StubController, client: Client) -> None:
    seen = threading.Event()

    def chunks() -> Iterator[bytes]:
        yield b"one\n"
        assert seen.wait(5), "the first chunk must arrive before the second is written"
        yield b"\xff\x00" * 100_000

    stub.on("GET /tasks/t/logs", Reply(chunks=chunks()))
    with client.stream("/tasks/t/logs") as stream:
        assert next(stream) == b"one\n"
        seen.set()
        assert b"".join(stream) == b"\xff\x00" * 100_000


def test_a_stream_that_is_cut_is_not_taken_for_whole(stub: StubController, client: Client) -> None:
    stub.on("GET /tasks/t/logs", Reply(chunks=[b"half"], cut=True))
    with client.stream("/tasks/t/logs") as stream:
        assert next(stream) == b"half"
        with pytest.raises(ControllerFailed):
            next(stream)


def test_a_reader_that_is_gone_is_not_the_controllers_fault(
    stub: StubController, client: Client
) -> None:
    stub.on("GET /tasks/t/logs", Reply(chunks=[b"a", b"b"]))

    def read() -> None:
        with client.stream("/tasks/t/logs") as stream:
            next(stream)
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        read()


# ------------------------------------------------------------------ where things are


def test_home_and_inventory_are_found_in_the_order_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = find_home({"CLOUDAI_HOME": "here"})
    assert home == tmp_path / "here"
    assert find_home({"CLOUDAI_HOME": ""}) == Path.home() / ".cloudai"

    assert find_inventory(None, {}, home=home) == Inventory(home / "hosts.yaml")
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory/hosts.yaml").touch()
    nearby = Inventory(tmp_path / "inventory/hosts.yaml")
    assert find_inventory(None, {}, home=home) == nearby
    named = {"CLOUDAI_INVENTORY": "ops.yaml"}
    assert find_inventory(None, named, home=home) == Inventory(tmp_path / "ops.yaml", explicit=True)
    flag = find_inventory("~/x.yaml", named, home=home)
    assert flag == Inventory(Path.home() / "x.yaml", explicit=True)


def test_a_socket_path_no_kernel_takes_is_explained(tmp_path: Path) -> None:
    home = tmp_path / ("x" * 100)
    with pytest.raises(ControllerFailed, match="too long") as caught:
        Client(home, Inventory(home)).get("/health")
    assert "CLOUDAI_HOME" in caught.value.hint


def test_a_home_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    home = tmp_path / "file" / "home"
    with pytest.raises(ControllerFailed, match="cannot be made"):
        Client(home, Inventory(home)).get("/health")


def test_without_leave_to_start_it_says_that_none_runs(client: Client) -> None:
    with pytest.raises(NotRunning):
        client.get("/health")


# ------------------------------------------------------------------ starting one


@pytest.fixture
def controller(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Chooses how the program behaves that a client starts; ends what it started."""

    def behave(how: str) -> None:
        program = str(Path(__file__).with_name("fake_controller.py"))
        monkeypatch.setattr(
            start, "controller_command", lambda *_, **__: [sys.executable, program, how]
        )

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    before = len(start._started)
    yield behave
    for process in start._started[before:]:
        process.terminate()
        process.wait(10)
    del start._started[before:]


def test_one_is_started_where_none_runs(home: Path, controller: Callable[[str], None]) -> None:
    controller("serve")
    client = Client(home, Inventory(home / "hosts.yaml"))
    health = client.get("/health")

    (line,) = (home / "starts").read_text().splitlines()
    assert line == f"{health['pid']} {home}"
    assert os.getsid(health["pid"]) == health["pid"], "it must outlive our terminal"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "controller.log").stat().st_mode) == 0o600
    assert client.get("/health")["pid"] == health["pid"]


def test_a_socket_that_a_killed_one_left_is_no_hindrance(
    home: Path, controller: Callable[[str], None]
) -> None:
    with StubController(home):
        pass
    assert (home / "controller.sock").exists()
    controller("serve")
    assert Client(home, Inventory(home / "hosts.yaml")).get("/health")["status"] == "ok"


def test_two_commands_at_once_get_one_controller(
    home: Path, controller: Callable[[str], None]
) -> None:
    controller("serve")
    pids: list[int] = []
    errors: list[Exception] = []
    together = threading.Barrier(2)

    def command() -> None:
        together.wait()
        try:
            pids.append(Client(home, Inventory(home / "hosts.yaml")).get("/health")["pid"])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=command) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(set(pids)) == 1


def test_one_that_is_just_leaving_is_waited_out(
    home: Path, controller: Callable[[str], None]
) -> None:
    """It listens no more and holds its home still: the next says that one runs, and leaves."""
    controller("leaving")
    assert Client(home, Inventory(home / "hosts.yaml")).get("/health")["status"] == "ok"
    assert len((home / "starts").read_text().splitlines()) == 3


def test_one_that_dies_is_quoted(home: Path, controller: Callable[[str], None]) -> None:
    home.mkdir()
    (home / "controller.log").write_text("old news\n")
    controller("die")
    with pytest.raises(ControllerFailed, match="could not be started") as caught:
        Client(home, Inventory(home / "hosts.yaml")).get("/health")
    assert "the disk is on fire" in caught.value.message
    assert "old news" not in caught.value.message
    assert str(home / "controller.log") in caught.value.hint


def test_what_is_quoted_is_the_error_and_not_its_hint(tmp_path: Path) -> None:
    log = tmp_path / "controller.log"
    log.write_text("❌ old\n")
    written = log.stat().st_size
    log.write_text("❌ old\n❌ No module named 'x'\n   please report it\n")
    assert start._last_line(log, written) == "; its last words: No module named 'x'"


def test_what_it_refuses_is_raised(home: Path, controller: Callable[[str], None]) -> None:
    controller("refuse")
    with pytest.raises(errors.StoreTooNew, match="newer cloudai"):
        Client(home, Inventory(home / "hosts.yaml")).get("/health")


def test_one_that_is_never_ready_is_not_waited_for_ever(
    home: Path, controller: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "READY_WITHIN", 0.3)
    controller("hang")
    with pytest.raises(ControllerFailed, match="not ready within"):
        Client(home, Inventory(home / "hosts.yaml")).get("/health")


def test_a_file_in_the_present_folder_stands_in_for_no_module() -> None:
    assert "-P" in start.controller_command(Path("/x"), stay=False)
    assert "--stay" in start.controller_command(Path("/x"), stay=True)
