"""The benchmark's own arithmetic and its tables, on canned figures; what it times needs a fleet."""

from __future__ import annotations

import sys

import pytest

from tests.bench.lines import lines_by_room
from tests.bench.report import report
from tests.bench.timing import BenchFailed, Group, Series, side_by_side, timed


def test_the_table_compares_medians_with_the_first_row():
    group = Group("starts", (Series("ours", (0.1, 0.2, 0.9)), Series("theirs", (0.5, 0.3, 0.4))))
    told = report({"network": "none", "load": "0.10"}, [group], {"cloudai": {"core": 7, "api": 2}})
    assert told.splitlines() == [
        "network  none",
        "load     0.10",
        "",
        "starts, ms of 3 rounds    median   fastest   slowest     ratio",
        "ours                       200.0     100.0     900.0     1.00×",
        "theirs                     400.0     300.0     500.0     2.00×",
        "",
        "lines of code that are not blank",
        "cloudai         9  core 7, api 2",
    ]


def test_json_has_every_sample():
    group = Group("starts", (Series("ours", (0.1, 0.2)), Series("theirs", (0.3, 0.3))))
    assert group.as_json()["rows"][1] == {
        "what": "theirs",
        "median_ms": 300.0,
        "fastest_ms": 300.0,
        "slowest_ms": 300.0,
        "ratio": 2.0,
        "samples_ms": [300.0, 300.0],
    }


def test_a_round_takes_one_sample_of_each_and_each_is_first_in_turn():
    order = []

    def sample(name):
        return lambda: order.append(name) or float(len(order))

    group = side_by_side("letters", {name: sample(name) for name in "abc"}, rounds=3)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert [series.seconds for series in group.series] == [(4, 9, 11), (5, 7, 12), (6, 8, 10)]


def test_a_command_that_fails_is_no_figure():
    with pytest.raises(BenchFailed, match="ended with 3: no room"):
        timed([sys.executable, "-c", "import sys; print('no room', file=sys.stderr); sys.exit(3)"])
    seconds, out = timed([sys.executable, "-c", "print('well')"])
    assert (seconds > 0, out) == (True, "well\n")


def test_lines_are_counted_by_room(tmp_path):
    for name, text in {
        "cloudai/core/model.py": "a\n\n  \nb\n",
        "cloudai/core/sub/more.py": "c\n",
        "cloudai/service.py": "d",
        "cloudai/core/notes.txt": "not code\n",
        "templates/worker/start.sh.j2": "e\nf\n",
        "tests/conftest.py": "g\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert lines_by_room(tmp_path) == {
        "cloudai": {"core": 3, "service": 1},
        "templates": {"worker": 2},
        "tests": {"(top)": 1},
    }
