"""``cron`` and what cron itself needs of ``batch``, against a stub controller."""

from __future__ import annotations

import pytest

from cloudai.core.errors import InvalidInput, NotFound
from tests.unit.cli_case import Screen
from tests.unit.stub_controller import Reply


def make_schedule(**changes):
    return {
        "schedule_id": "nightly",
        "user_id": "ann",
        "line": "0 2 * * *",
        "zone": "Europe/Berlin",
        "files": ["/home/ann/nightly.yaml"],
        "set": {"epochs": "5"},
        "missed": "skip",
        "overlap": False,
        "created_at": "2026-01-30T12:00:00.000000Z",
        "due_at": "2026-01-31T01:00:00.000000Z",
        "last_at": None,
        "last_batch": None,
        "last_outcome": "",
        **changes,
    }


NEXT = ["2026-01-31T01:00:00.000000Z", "2026-02-01T01:00:00.000000Z"]


def test_add_sends_whole_paths_and_shows_the_next_times_there(cloudai, stub, tmp_path):
    stub.on("POST /schedules/", Reply(make_schedule(next=NEXT, size=4), 201))
    words = ("cron", "add", "0 2 * * *", "nightly.yaml", "--name", "nightly", "--user", "ann")
    done = cloudai(*words, "--zone", "Europe/Berlin", "--set", "epochs=5", "--missed", "once")
    [body] = stub.bodies("POST /schedules/")
    assert body == {
        "line": "0 2 * * *",
        "files": [str(tmp_path / "nightly.yaml")],
        "set": {"epochs": "5"},
        "id": "nightly",
        "zone": "Europe/Berlin",
        "missed": "once",
        "user_id": "ann",
    }
    assert done.out.splitlines()[:3] == [
        "✅ nightly: 4 tasks at 0 2 * * * (Europe/Berlin)",
        "   next: Sat 2026-01-31 02:00",
        "   next: Sun 2026-02-01 02:00",
    ]
    assert "@reboot" in done.out
    assert cloudai(*words, "--quiet").out == "nightly\n"


def test_a_refusal_names_what_was_typed(cloudai, stub):
    stub.refuse("POST /schedules/", InvalidInput("line: its hour is '25'; give 0 to 23"))
    done = cloudai("cron", "add", "0 25 * * *", "a.yaml")
    assert (done.code, done.err) == (2, "❌ LINE: its hour is '25'; give 0 to 23\n")
    assert cloudai("cron", "add", "0 2 * * *", "-").code == 2
    assert cloudai("cron", "add", "0 2 * * *", "a.yaml", "--missed", "all").code == 2


def test_the_list_says_when_and_what_came_of_it(cloudai, stub):
    ran = make_schedule(last_outcome="submitted", last_batch="batch-1-a", last_at=NEXT[0])
    broken = make_schedule(schedule_id="b", last_outcome="failed: /x.yaml: \x1b[31mgone")
    stub.on("GET /schedules/", {"schedules": [ran, broken, make_schedule(schedule_id="c")]})
    head, *lines = cloudai("cron", "list").out.splitlines()
    assert head.split() == ["SCHEDULE", "LINE", "NEXT", "LAST", "OUTCOME"]
    assert lines[0].endswith("submitted: batch-1-a")
    assert "\x1b" not in lines[1]
    assert lines[1].endswith("gone")
    assert cloudai("cron", "list", "--quiet").out == "nightly\nb\nc\n"


def test_the_list_fits_eighty_columns(stub, home):
    long = "failed: /home/ann/projects/vision/nightly.yaml:3:12: key 'imgae'; did you mean 'image'?"
    named = make_schedule(schedule_id="cron-1731629400-k3f9x2ab", last_outcome=long)
    stub.on("GET /schedules/", {"schedules": [named]})
    with Screen(home, "cron", "list", NO_COLOR="1") as screen:
        assert screen.end() == 0
        assert all(len(line.rstrip()) <= 80 for line in screen.text.decode().split("\r\n"))


def test_show_rm_and_run(cloudai, stub):
    stub.on("GET /schedules/nightly", make_schedule(next=NEXT))
    shown = cloudai("cron", "show", "nightly").out
    assert "Line      0 2 * * * (Europe/Berlin)" in shown
    assert "Next      Sat 2026-01-31 02:00" in shown
    stub.on("DELETE /schedules/nightly", Reply(None, 204))
    stub.refuse("DELETE /schedules/other", NotFound("Schedule other not found"))
    done = cloudai("cron", "rm", "other", "nightly")
    assert (done.code, done.out) == (3, "✅ nightly removed\n")
    assert "Schedule other not found" in done.err
    stub.on("POST /schedules/nightly/run", Reply({"batch_id": "batch-1-a", "submitted": 4}, 201))
    assert cloudai("cron", "run", "nightly").out == "✅ Batch batch-1-a queued: 4 tasks\n"
    assert cloudai("cron", "run", "nightly", "--overlap", "-q").out == "batch-1-a\n"
    assert stub.bodies("POST /schedules/nightly/run")[1] == {"overlap": True}


def test_a_controller_that_keeps_schedules_says_so_when_it_is_stopped(cloudai, stub, home):
    def leave(_):
        (home / "controller.sock").unlink()
        return Reply({"stopping": True, "schedules": 2})

    stub.on("POST /controller/stop", leave)
    assert cloudai("controller", "stop").out.splitlines() == [
        "✅ The controller has left; tasks on workers go on",
        "   2 schedules will miss what is due until it is back",
    ]


# ------------------------------------------------------------------ batch, for a crontab

BATCH = {"batch_id": "batch-1-a", "name": None, "submitted": 4, "known": False}


@pytest.mark.parametrize("known", [False, True])
def test_a_quiet_batch_says_nothing(cloudai, stub, tmp_path, known):
    (tmp_path / "a.yaml").write_text("tasks: []")
    stub.on("POST /batches/", Reply({**BATCH, "known": known}, 201))
    stub.on("GET /health", {"status": "ok"})
    done = cloudai("batch", "a.yaml", "--once-key", "k", "--no-overlap", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert stub.bodies("POST /batches/")[0]["no_overlap"] is True
    assert [one.query for one in stub.asked if str(one) == "GET /health"] == [{"settled": ["true"]}]


def test_a_quiet_batch_tells_what_wants_a_persons_eye(cloudai, stub, tmp_path):
    (tmp_path / "a.yaml").write_text("tasks: []")
    stub.on("POST /batches/", Reply(BATCH, 201))
    stub.on("GET /health", Reply({}, headers={"X-Cloudai-Notice": "no%20worker%20lets%20us%20in"}))
    done = cloudai("batch", "a.yaml", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "⚠ no worker lets us in\n")
    # Queued is queued, also where the controller dies a moment later.
    stub.on("GET /health", Reply(drop=True))
    assert cloudai("batch", "a.yaml", "--quiet").code == 0


def test_a_batch_that_no_worker_would_take_is_not_waited_for(cloudai, stub, tmp_path):
    (tmp_path / "a.yaml").write_text("tasks: []")
    stub.on("POST /batches/", Reply(BATCH, 201))
    told = {"X-Cloudai-Notice": "no%20worker%20lets%20us%20in"}
    stub.on("GET /health", Reply({"shut_out": True}, headers=told))
    done = cloudai("batch", "a.yaml", "--quiet", "--wait")
    assert (done.code, done.out) == (5, "")
    first, _, last = done.err.splitlines()
    assert first.startswith("❌ Batch batch-1-a is queued, but no worker lets us in")
    assert last == "⚠ no worker lets us in"
