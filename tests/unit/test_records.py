"""What a batch comes to: figures that add up, and reports that say the same of any names."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai.records import figures_of
from cloudai.records.document import as_document
from cloudai.records.html import as_html
from cloudai.records.junit import as_junit
from cloudai.records.pace import Pending, rate, remaining

BEGAN = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOSTILE = "</script><img src=x onerror=alert(1)>&\"'\x00\x1b[31m\u202e\ufffe<![CDATA[ ]]> {{ 7*7 }}"


def task(number: int, status: str = "completed", **changes: Any) -> dict[str, Any]:
    code = {"completed": 0, "failed": 3}.get(status)
    begin = BEGAN + timedelta(seconds=number)
    ran = status in ("completed", "failed", "running")
    return {
        "task_id": f"task-1-{number}",
        "name": None,
        "entry": "train",
        "array": None,
        "status": "cancelled" if status == "skipped" else status,
        "skipped": status == "skipped",
        "reason": f"exit code {code}" if status == "failed" else "",
        "worker_id": f"w{number % 2}" if ran else None,
        "exit_code": code,
        "failures": 0,
        "docker_image": "alpine",
        "command": "true",
        "fingerprint": "aa",
        "created_at": BEGAN.isoformat(),
        "started_at": begin.isoformat() if ran else None,
        "completed_at": None
        if status in ("queued", "running")
        else (begin + timedelta(seconds=number)).isoformat(),
        **changes,
    }


def batch(**changes: Any) -> dict[str, Any]:
    return {
        "batch_id": "batch-1-a",
        "name": "nightly",
        "user_id": "ann",
        "once_key": None,
        "files": ["/home/ann/nightly.yaml"],
        "status": "failed",
        "ended": True,
        "created_at": BEGAN.isoformat(),
        "started_at": BEGAN.isoformat(),
        "completed_at": (BEGAN + timedelta(minutes=1)).isoformat(),
        **changes,
    }


MIXED = [
    *(task(n) for n in range(1, 8)),
    task(8, "failed", failures=2),
    task(9, "failed", exit_code=None, reason="its worker was given up"),
    task(10, "cancelled"),
    task(11, "skipped", entry="evaluate", reason="it needs train to end well"),
    task(12, "skipped", entry="publish", reason="it needs train to end well"),
]


def test_the_figures_of_a_mixed_batch() -> None:
    found = figures_of(MIXED)
    assert found.counts == {"completed": 7, "failed": 2, "cancelled": 1, "skipped": 2}
    assert found.by_exit_code == {"0": 7, "3": 1, "none": 1}
    assert [one.name for one in found.entries] == ["train", "evaluate", "publish"]
    assert [(one.name, one.tasks, one.failed) for one in found.workers] == [
        ("w1", 5, 1),
        ("w0", 4, 1),
    ]
    assert [one["task_id"] for one in found.slowest][:2] == ["task-1-9", "task-1-8"]
    assert (found.tries, found.tried_again) == (2, 1)
    assert found.whole.seconds == sum(range(1, 10))
    assert found.mean == 5.0
    assert found.elapsed == 23.0  # from the second 1 to 12 + 12
    assert found.left_out == {"it needs train to end well": ["evaluate", "publish"]}


STATUSES = ("completed", "failed", "cancelled", "skipped", "queued", "running")


@settings(max_examples=50)
@given(st.lists(st.sampled_from(STATUSES), max_size=30))
def test_every_way_of_counting_comes_to_the_same(statuses: list[str]) -> None:
    tasks = [task(n, status, entry=f"e{n % 3}") for n, status in enumerate(statuses, 1)]
    now = BEGAN + timedelta(minutes=5)
    found = figures_of(tasks, now)
    assert sum(found.counts.values()) == found.tasks == len(tasks)
    assert {word: n for word, n in found.counts.items() if n} == Counter(statuses)
    assert sum(one.tasks for one in found.entries) == found.tasks
    ran = sum(1 for status in statuses if status in ("completed", "failed", "running"))
    assert sum(one.tasks for one in found.workers) == found.whole.ran == ran
    assert sum(one.seconds for one in found.workers) == pytest.approx(found.whole.seconds)
    assert sum(found.by_exit_code.values()) == found.counts["completed"] + found.counts["failed"]
    assert sum(map(len, found.left_out.values())) == found.counts["skipped"]
    assert len(found.failed) == found.counts["failed"] + found.counts["cancelled"]
    suite = ElementTree.fromstring(as_junit(batch(), tasks, found, outputs={}).encode())
    _check_junit(suite, found.counts, len(tasks))


def _check_junit(suites: ElementTree.Element, counts: dict[str, int], tasks: int) -> None:
    (suite,) = suites
    for one in (suites, suite):
        assert int(one.attrib["tests"]) == tasks
        assert int(one.attrib["failures"]) == counts["failed"]
        assert int(one.attrib["errors"]) == counts["cancelled"]
    cases = suite.findall("testcase")
    assert len(cases) == len({case.attrib["name"] for case in cases}) == tasks
    kinds = Counter(child.tag for case in cases for child in case)
    assert kinds["failure"] == counts["failed"]
    assert kinds["error"] == counts["cancelled"]
    assert kinds["skipped"] == int(suite.attrib["skipped"])
    assert kinds["skipped"] + kinds["failure"] + kinds["error"] + counts["completed"] == tasks


class Page(HTMLParser):
    """What a browser makes of a page, as far as it matters here."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile() -> list[dict[str, Any]]:
    names = {"name": HOSTILE, "entry": HOSTILE, "worker_id": HOSTILE, "command": HOSTILE}
    bad = {**names, "reason": HOSTILE, "docker_image": HOSTILE}
    return [task(1, **names), task(2, "failed", **bad), task(3, "skipped", **bad)]


def test_whatever_things_are_called_the_page_shows_it_as_text_and_loads_nothing() -> None:
    tasks = hostile()
    told = batch(name=HOSTILE, files=[HOSTILE], user_id=HOSTILE)
    text = as_html(told, tasks, figures_of(tasks), outputs={"task-1-2": HOSTILE * 3})
    page = Page(text)
    assert not {"script", "img", "link", "iframe", "object", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not [value for name, value in page.attributes if name in ("src", "href")]
    assert "</script><img src=x onerror=alert(1)>&\"'" in page.text
    assert not {"\x00", "\x1b", "\u202e", "\ufffe"} & set(text)
    assert "default-src 'none'" in text
    # All that is opened is closed: the rest of the page is not inside somebody's name.
    for tag in ("section", "table", "details", "svg", "pre", "div"):
        assert text.count(f"<{tag}") == text.count(f"</{tag}>")


def test_the_page_says_the_figures() -> None:
    text = as_html(batch(), MIXED, figures_of(MIXED), outputs={"task-1-8": "loss is NaN"})
    page = Page(text)
    assert "What went wrong (3)" in page.text
    assert "What was left out (2)" in page.text
    assert "loss is NaN" in page.text
    assert "All tasks (12)" in page.text
    assert page.tags["svg"] == 1


def test_junit_takes_any_names_and_keeps_the_output() -> None:
    tasks = hostile()
    told = as_junit(batch(name=HOSTILE), tasks, figures_of(tasks), outputs={"task-1-2": HOSTILE})
    suite = ElementTree.fromstring(told.encode())[0]
    failure = suite.find(".//failure")
    assert failure is not None
    assert failure.text is not None
    assert failure.text.startswith("</script><img src=x onerror=alert(1)>&\"'")
    assert float(suite.attrib["time"]) == 3.0
    assert suite.attrib["timestamp"] == "2026-01-31T12:00:00"


def test_the_json_is_the_same_to_the_byte_whenever_it_is_made() -> None:
    one, other = (
        json.dumps(as_document(batch(), MIXED, figures_of(MIXED, now)))
        for now in (None, datetime.now(UTC))
    )
    assert one == other
    document = json.loads(one)
    assert document["report"] == 1
    assert document["figures"]["counts"]["completed"] == 7
    assert [one["status"] for one in document["tasks"]][-3:] == ["cancelled", "skipped", "skipped"]


def test_what_was_removed_since_is_told() -> None:
    found = as_document(batch(submitted=20), MIXED, figures_of(MIXED))
    assert (found["size"], found["forgotten"]) == (12, 8)


# ------------------------------------------------------------------ the pace


def test_nothing_is_said_before_there_is_something_to_say() -> None:
    assert rate([], 100, None) is None
    assert rate([99], 100, 0) is None
    assert remaining({"a": Pending(5, (), None)}, {}, 4) is None
    assert remaining({"a": Pending(5, (), 3.0)}, {}, 0) is None


def test_the_rate_is_of_late() -> None:
    assert rate([float(at) for at in range(60)], 60, 0) == pytest.approx(59)  # the one at 0 is out
    old = [float(at) for at in range(100)]
    assert rate([*old, 990.0, 995.0], 1000, 0) == pytest.approx(2 * 60 / 300)


def test_the_end_is_the_work_over_the_places_but_no_sooner_than_the_longest_chain() -> None:
    entries = {"a": Pending(10, (1.0, 3.0), 4.0)}
    assert remaining(entries, {}, 2) == pytest.approx((40 + 3 + 1) / 2)
    assert remaining({"a": Pending(10, (), 4.0, limit=1)}, {}, 5) == 40
    chain = {"a": Pending(1, (), 4.0), "b": Pending(1, (), 6.0), "c": Pending(1, (), None)}
    assert remaining(chain, {"b": ["a"], "c": ["b"]}, 100) == 4 + 6 + 5
    assert remaining(chain, {"b": ["a"], "a": ["b"]}, 100) == 6
    assert remaining({"a": Pending(0, (9.0,), 4.0)}, {}, 1) == 0
    long = {str(n): Pending(1, (), 1.0) for n in range(5000)}
    assert remaining(long, {str(n + 1): [str(n)] for n in range(4999)}, 10_000) == 5000
