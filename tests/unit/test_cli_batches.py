"""Following, summing up and recording batches from the command line."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from cloudai.cli.progress import Screen as View
from cloudai.cli.progress import shares
from cloudai.cli.report import readable
from cloudai.records.reading import moment
from tests.unit.cli_case import Cloudai, Screen, process
from tests.unit.stub_controller import (
    Asked,
    Reply,
    StubController,
    make_running,
    make_task,
)

BATCH_ID = "batch-1795788445-ab12cd34"
ONE, CHANGES = f"GET /batches/{BATCH_ID}", f"GET /batches/{BATCH_ID}/changes"
STATES = ("queued", "starting", "running", "stopping", "completed", "failed", "cancelled")


def member(number: int, **changes: Any) -> dict[str, Any]:
    extra = {
        "task_id": f"task-1795788445-{number:08}",
        "name": f"train-{number}",
        "entry": "train",
        "batch": BATCH_ID,
        "array": None,
        "array_index": None,
        "array_size": None,
        "array_limit": None,
        "after": [],
        "on_unmet": "cancel",
        "skipped": False,
        "fingerprint": f"{number:016x}",
    }
    status = changes.get("status", "queued")
    if status == "queued":
        return make_task(**{**extra, **changes})
    over = {} if status == "running" else {"completed_at": "2026-01-31T12:00:14.000000Z"}
    return make_running(**{**over, **extra, **changes})


def ended(number: int, **changes: Any) -> dict[str, Any]:
    return member(number, status="completed", exit_code=0, **changes)


def failed(number: int, code: int = 3, **changes: Any) -> dict[str, Any]:
    reason = f"exit code {code}"
    return member(number, status="failed", exit_code=code, reason=reason, **changes)


def left_out(number: int, **changes: Any) -> dict[str, Any]:
    why = {"reason": "it needs train to end well", "entry": "evaluate", "name": "evaluate"}
    never = {"started_at": None, "worker_id": None, "exit_code": None, "skipped": True}
    return member(number, status="cancelled", **why, **never, **changes)


def as_batch(tasks: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    counts = dict.fromkeys((*STATES, "skipped"), 0)
    for task in tasks:
        counts["skipped" if task["skipped"] else task["status"]] += 1
    over = not any(counts[state] for state in STATES[:4])
    return {
        "batch_id": BATCH_ID,
        "name": "nightly",
        "user_id": "ann",
        "once_key": None,
        "created_at": "2026-01-31T12:00:00.000000Z",
        "files": ["/home/ann/nightly.yaml"],
        "submitted": len(tasks),
        "size": len(tasks),
        "counts": counts,
        "ended": over,
        "status": ("failed" if counts["failed"] + counts["cancelled"] else "completed")
        if over
        else "running",
        "started_at": "2026-01-31T12:00:02.000000Z",
        "completed_at": "2026-01-31T12:00:14.000000Z" if over else None,
        **changes,
    }


class Going:
    """A batch that moves on by one step with each look that waits."""

    def __init__(self, stub: StubController, *steps: list[dict[str, Any]]) -> None:
        self.steps, self.at, self.told = steps, 0, 0
        stub.on(ONE, self.batch)
        stub.on(CHANGES, self.changes)
        stub.on("GET /tasks/", self.tasks)

    @property
    def now(self) -> list[dict[str, Any]]:
        return self.steps[self.at]

    def batch(self, asked: Asked) -> Reply:
        if "until" in asked.query and self.at + 1 < len(self.steps):
            self.at += 1
        return Reply(as_batch(self.now))

    def changes(self, asked: Asked) -> Reply:
        if "since" not in asked.query:
            return Reply({"tasks": [], "cursor": self.at, "more": False})
        before = self.steps[int(asked.query["since"][0])]
        fresh = [one for one in self.now if one not in before]
        return Reply({"tasks": fresh, "cursor": self.at, "more": False})

    def tasks(self, asked: Asked) -> Reply:
        wanted = asked.query.get("status")
        found = [one for one in self.now if not wanted or one["status"] in wanted]
        offset, limit = (int(asked.query.get(key, ["0"])[0]) for key in ("offset", "limit"))
        page = found[::-1][offset : offset + limit]
        return Reply({"tasks": page, "total": len(found)})


FIRST = [member(1, status="running"), member(2), member(3), left_out(4) | {"skipped": False}]
FIRST[3] = member(4, name="evaluate", entry="evaluate")
DONE = ended(1, completed_at="2026-01-31T12:00:05.000000Z")
SECOND = [DONE, member(2, status="running"), member(3, status="running"), FIRST[3]]
LAST = [
    DONE,
    failed(2, completed_at="2026-01-31T12:00:11.000000Z"),
    failed(3, 4, completed_at="2026-01-31T12:00:12.000000Z"),
    left_out(4, completed_at="2026-01-31T12:00:14.000000Z"),
]


@pytest.fixture
def going(stub: StubController) -> Going:
    return Going(stub, FIRST, SECOND, LAST)


# ------------------------------------------------------------------ following


def test_in_a_pipe_a_line_for_each_task_as_it_ends_and_a_summary(
    cloudai: Cloudai, going: Going
) -> None:
    result = cloudai("batch", "follow", BATCH_ID)
    lines, summary = result.out.split("\n\n", 1)
    assert lines.split("\n") == [
        "task-1795788445-00000001 completed 0 worker-1 3s train-1",
        "task-1795788445-00000002 failed 3 worker-1 9s train-2",
        "task-1795788445-00000003 failed 4 worker-1 10s train-3",
        "task-1795788445-00000004 skipped - - - evaluate",
    ]
    assert summary.startswith(f"❌ Batch nightly ({BATCH_ID}) ended in 12 s: 2 failed of 4\n")
    assert "Exit codes   0: 1, 3: 1, 4: 1\n" in summary
    assert "Workers      worker-1: 3 (2 failed)\n" in summary
    assert (
        "✗ train-2 (task-1795788445-00000002) failed on worker-1 after 9s: exit code 3" in summary
    )
    assert "– 1 skipped: evaluate: it needs train to end well" in summary
    assert result.code == 4  # of the last that failed
    assert result.err == ""


def test_each_task_is_told_once_and_all_are_asked_for_once(
    cloudai: Cloudai, going: Going, stub: StubController
) -> None:
    cloudai("batch", "follow", BATCH_ID)
    asked = [one for one in stub.asked if str(one) == "GET /tasks/"]
    assert len(asked) == 2  # how many there are, and all of them


def test_news_that_was_lost_is_asked_for_again(
    cloudai: Cloudai, going: Going, stub: StubController
) -> None:
    stub.on(CHANGES, {"tasks": [], "cursor": 0, "more": False})
    result = cloudai("batch", "follow", BATCH_ID)
    assert result.out.count("task-1795788445-00000003 failed 4") == 1
    assert result.code == 4


def test_json_is_a_line_a_task_and_last_the_batch(cloudai: Cloudai, going: Going) -> None:
    result = cloudai("batch", "follow", BATCH_ID, "--json")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [line.get("task_id", "")[-1:] for line in lines] == ["1", "2", "3", "4", ""]
    assert lines[-1]["batch_id"] == BATCH_ID


def test_quiet_says_it_by_its_exit_code(cloudai: Cloudai, going: Going) -> None:
    result = cloudai("batch", "follow", BATCH_ID, "-q")
    assert (result.out, result.err, result.code) == ("", "", 4)


def test_waiting_for_a_batch(cloudai: Cloudai, going: Going) -> None:
    result = cloudai("wait", BATCH_ID)
    assert result.out.splitlines() == [
        "task-1795788445-00000001 completed 0",
        "task-1795788445-00000002 failed 3",
        "task-1795788445-00000003 failed 4",
        "task-1795788445-00000004 skipped -",
    ]
    assert result.code == 4


def test_what_was_skipped_counts_for_nothing(cloudai: Cloudai, stub: StubController) -> None:
    Going(stub, [ended(1), left_out(2)])
    assert cloudai("wait", BATCH_ID).code == 0
    assert cloudai("batch", "follow", BATCH_ID).code == 0


def test_waiting_for_an_array(cloudai: Cloudai, stub: StubController) -> None:
    array = "task-1795788445-arr"
    elements = [
        ended(0, task_id=f"{array}_0", array=array, array_index=0),
        failed(1, task_id=f"{array}_1", array=array, array_index=1),
    ]
    whole = as_batch(elements)
    stub.on(
        f"GET /tasks/{array}",
        {"task_id": array, "array": array, "counts": whole["counts"], "ended": False},
        {"task_id": array, "array": array, "counts": whole["counts"], "ended": False},
        {"task_id": array, "array": array, "counts": whole["counts"], "ended": True},
    )
    stub.on("GET /tasks/", {"tasks": elements[::-1], "total": 2})
    result = cloudai("wait", array, "--json")
    assert result.code == 3
    assert [one["task_id"] for one in result.json["tasks"]] == [f"{array}_0", f"{array}_1"]


def test_on_a_terminal_it_is_drawn_within_80_columns_and_gone_at_the_end(
    home: Path, going: Going
) -> None:
    with Screen(home, "batch", "follow", BATCH_ID) as screen:
        shown = screen.until("ended in 12 s")
        assert screen.end() == 4
    assert "tasks/min · end —" in shown
    assert "1 running" in shown
    assert "train-1" in shown
    for drawn in shown.split("\x1b[2K"):
        for line in drawn.splitlines():
            assert len(_bare(line)) <= 80, line


def _bare(line: str) -> str:
    import re

    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)


def test_ctrl_c_leaves_the_batch_running_and_says_how_to_come_back(
    home: Path, stub: StubController
) -> None:
    Going(stub, FIRST)
    with process(home, "batch", "follow", BATCH_ID) as running:
        while not any("until" in one.query for one in stub.asked):
            pass
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=15)
    assert running.returncode == 130
    assert f"Batch {BATCH_ID} goes on.\n  cloudai batch follow {BATCH_ID}".encode() in err
    assert b"Traceback" not in err
    assert not [one for one in stub.asked if one.method != "GET"]


# ------------------------------------------------------------------ the view


def view(**how: Any) -> View:
    return View(**{"width": 79, "height": 24, "ascii_only": False, "colours": False, **how})


def lines_of(screen: View, tasks: list[Any], running: list[Any], at: str) -> list[str]:
    now = moment(at)
    assert now is not None
    return [line.plain for line in screen.lines(as_batch(tasks), tasks, running, now)]


def test_a_task_keeps_its_line_and_the_next_one_takes_a_free_one() -> None:
    at = "2026-01-31T12:00:10Z"
    held = [member(n, status="running") for n in range(5)]
    screen = view()

    def rows(*numbers: int) -> list[str]:
        lines = lines_of(screen, held, [held[n] for n in numbers], at)[5:]
        return [line.split()[0] if line.strip() else "" for line in lines]

    assert rows(0, 1, 2) == ["train-0", "train-1", "train-2"]
    assert rows(0, 2) == ["train-0", "", "train-2"]
    assert rows(0, 2, 3) == ["train-0", "train-3", "train-2"]
    assert rows(2) == ["", "", "train-2"]
    assert rows(4, 2, 1) == ["train-1", "train-4", "train-2"]


def test_many_that_run_are_cut_and_counted() -> None:
    held = [member(n, status="running") for n in range(50)]
    lines = lines_of(view(height=20), held, held, "2026-01-31T12:00:10Z")
    assert len(lines) == 5 + 12 + 1
    assert lines[-1] == "  and 38 more"


def test_rate_and_end_are_estimated_once_there_is_something_to_go_by() -> None:
    tasks = [*(ended(n) for n in range(4)), member(8, status="running"), member(9)]
    lines = lines_of(view(), tasks, [tasks[4]], "2026-01-31T12:00:14Z")
    assert lines[3].split() == ["20", "tasks/min", "·", "about", "12s", "left,", "until", "12:00"]
    lines = lines_of(view(), tasks[4:], [tasks[4]], "2026-01-31T12:00:14Z")
    assert lines[3].split() == ["—", "tasks/min", "·", "end", "—"]


def test_hostile_names_move_nothing_and_fit() -> None:
    evil = "\x1b[2J\r\n" + "x" * 300
    held = [member(1, status="running", name=evil, worker_id=evil, phase=evil)]
    for line in lines_of(view(), held, held, "2026-01-31T12:00:10Z"):
        assert len(line) <= 79
        assert line.isprintable()


def test_without_unicode_it_is_ascii() -> None:
    held = [member(1, status="running"), ended(2), member(3)]
    for line in lines_of(view(ascii_only=True), held, held[:1], "2026-01-31T12:00:10Z"):
        assert line.isascii()


@pytest.mark.parametrize("parts", [{}, {"a": 1}, {"a": 1, "b": 999}, {"a": 3, "b": 3, "c": 1}])
def test_the_bar_is_as_wide_as_it_is(parts: dict[str, int]) -> None:
    found = shares(parts, 50)
    assert sum(found.values()) == 50
    assert all(found[word] for word, count in parts.items() if count)


# ------------------------------------------------------------------ the job log, resuming


SUBMIT = "POST /batches/"
FILE = "- {image: alpine, command: 'true'}\n"


@pytest.fixture
def file(home: Path) -> str:
    Path("nightly.yaml").write_text(FILE)
    return "nightly.yaml"


def test_the_job_log_grows_as_tasks_end_and_the_next_run_leaves_out_what_completed(
    cloudai: Cloudai, going: Going, stub: StubController, file: str
) -> None:
    stub.on(SUBMIT, Reply({**as_batch(FIRST), "known": False}, 201))
    result = cloudai("batch", file, "--joblog", "log", "-q")
    assert result.code == 4
    lines = Path("log").read_text().splitlines()
    assert lines[0].split("\t")[0] == "Seq"
    assert [line.split("\t")[6] for line in lines[1:]] == ["0", "3", "4"]
    assert lines[1].endswith("echo hello # cloudai:0000000000000001")
    cloudai("batch", file, "--joblog", "log", "--resume", "-q")
    assert stub.bodies(SUBMIT)[-1]["done"] == {"0000000000000001": 1}
    assert "done" not in stub.bodies(SUBMIT)[0]
    assert Path("log").read_text().splitlines() == lines  # the same batch: nothing twice


def test_the_job_log_afterwards_is_the_same(cloudai: Cloudai, going: Going, file: str) -> None:
    cloudai("batch", "follow", BATCH_ID, "--joblog", "one", "-q")
    result = cloudai("batch", "joblog", BATCH_ID, "two")
    assert result.out == "✅ two: 3 lines more\n"
    assert Path("two").read_text() == Path("one").read_text()
    assert cloudai("batch", "joblog", BATCH_ID, "two", "--json").json["written"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--joblog", "no/such/log"], "there is no folder"),
        (["--resume"], "--resume needs --joblog"),
        (["--report", "report.pdf"], "says not what it is to be"),
        (["--report", "no/such/r.html"], "there is no folder"),
    ],
)
def test_what_could_not_be_written_is_refused_before_anything_is_submitted(
    cloudai: Cloudai, stub: StubController, file: str, words: list[str], said: str
) -> None:
    result = cloudai("batch", file, *words)
    assert result.code == 2
    assert said in result.err
    assert not stub.asked


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_a_full_disk_ends_no_waiting_and_is_told(cloudai: Cloudai, going: Going) -> None:
    result = cloudai("batch", "follow", BATCH_ID, "--joblog", "/dev/full")
    assert "task-1795788445-00000003 failed 4" in result.out
    assert result.code == 1
    assert "❌ --joblog: /dev/full cannot be written: No space left on device" in result.err
    assert f"`cloudai batch joblog {BATCH_ID} /dev/full` writes what is missing" in result.err


# ------------------------------------------------------------------ reports


def test_reports_are_written_at_the_end_each_in_its_own_form(
    cloudai: Cloudai, going: Going, stub: StubController, home: Path
) -> None:
    output = Reply(chunks=[b"epoch 1\rloss \x1b[31m<nan>\x1b[0m\n", b"bye\n"])
    stub.on("GET /tasks/task-1795788445-00000002/logs", output)
    names = ("r.html", "r.json", "r.xml")
    cloudai("batch", "follow", BATCH_ID, "-q", *(w for n in names for w in ("--report", n)))
    page, document, junit = (Path(name).read_text() for name in names)
    assert "loss &lt;nan&gt;\nbye" in page
    assert json.loads(document)["figures"]["counts"]["failed"] == 2
    suite = ElementTree.fromstring(junit)[0]
    assert suite.attrib["failures"] == "2"
    failure = suite.find(".//failure")
    assert failure is not None
    assert failure.text == "loss <nan>\nbye"
    assert not [one for one in Path().iterdir() if one.name.startswith(".r")]


def test_a_report_of_what_still_runs(cloudai: Cloudai, stub: StubController) -> None:
    Going(stub, SECOND)
    result = cloudai("batch", "report", BATCH_ID, "--report", "r", "--report-format", "junit")
    assert f"Batch nightly ({BATCH_ID}): 1 of 4 ended" in result.out
    assert ElementTree.parse("r").getroot()[0].attrib["skipped"] == "3"
    document = cloudai("batch", "report", BATCH_ID, "--json").json
    assert (document["report"], document["size"]) == (1, 4)


def test_output_that_writes_over_itself_is_what_stood_last() -> None:
    data = b"\rloading  10%\rloading 100%\r\n\x1b]0;title\x07caf\xc3\xa9 \xff\x1b[1mbold"
    assert readable(data) == "loading 100%\ncafé \ufffdbold"


# ------------------------------------------------------------------ status, graph


def test_the_table_of_batches(cloudai: Cloudai, stub: StubController) -> None:
    listed = [as_batch(SECOND), as_batch(LAST, name=None)]
    stub.on("GET /batches/", {"batches": listed, "total": 2})
    head, one, other = cloudai("batch", "status").out.splitlines()
    assert head.split() == ["BATCH", "STATUS", "DONE", "FAILED", "RUNS", "AGE", "NAME"]
    assert one.split()[:5] == [BATCH_ID, "running", "1/4", "-", "2"]
    assert other.split()[:5] == [BATCH_ID, "failed", "2/4", "2", "-"]
    assert max(map(len, (head, one, other))) <= 80
    assert cloudai("batch", "status", "-q").out.split() == [BATCH_ID, BATCH_ID]


def test_one_in_depth_says_what_waits_and_why(cloudai: Cloudai, stub: StubController) -> None:
    waits = SECOND[3] | {"reason": "after train (1 of 3 ended)"}
    Going(stub, [*SECOND[:3], waits])
    out = cloudai("batch", "status", BATCH_ID).out
    rows = [line.split(maxsplit=6) for line in out.splitlines()]
    assert ["train", "3", "1", "-", "2", "-", "-"] in rows
    assert ["evaluate", "1", "-", "-", "-", "1", "after train (1 of 3 ended)"] in [
        ["-" if cell == "0" else cell for cell in row] for row in rows
    ]


def test_one_that_has_ended_is_summed_up(cloudai: Cloudai, stub: StubController) -> None:
    Going(stub, LAST)
    out = cloudai("batch", "status", BATCH_ID).out
    assert f"❌ Batch nightly ({BATCH_ID}) ended in 12 s: 2 failed of 4" in out
    figures = cloudai("batch", "status", BATCH_ID, "--json").json["figures"]
    assert figures["by_exit_code"] == {"0": 1, "3": 1, "4": 1}


def test_the_graph(cloudai: Cloudai, stub: StubController) -> None:
    tasks = [*LAST[:3], left_out(4, after=[f"{BATCH_ID}/train:ok"])]
    Going(stub, tasks)
    out = cloudai("graph", BATCH_ID).out
    assert "✗ train" in out
    assert "╎" in out
    assert "\x1b" not in out
    answer = cloudai("graph", BATCH_ID, "--json").json
    assert answer["edges"] == [{"from": "train", "to": "evaluate", "how": "ok", "state": "unmet"}]
    assert cloudai("graph", BATCH_ID, "--svg", "g.svg").out == ""
    assert ElementTree.parse("g.svg").getroot().tag.endswith("svg")
    assert cloudai("graph", BATCH_ID, "--svg", "no/g.svg").code == 1
