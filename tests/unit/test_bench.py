"""The benchmark's own arithmetic and its tables, on canned figures; what it times needs a fleet."""

from __future__ import annotations

import json
import os
import re
import sys
import time

import pytest

from tests.bench import pages
from tests.bench.figures import (
    CPU_SECONDS,
    PER_SECOND,
    Aim,
    Group,
    Series,
    exponent,
    growth,
)
from tests.bench.lines import lines_by_room
from tests.bench.report import as_text
from tests.bench.results import CHECKOUT, compared, document
from tests.bench.timing import BenchFailed, cpu_of, memory_of, peak_of, side_by_side, timed

OURS = Series("ours", (0.1, 0.2, 0.9))
THEIRS = Series("theirs", (0.5, 0.3, 0.4))
CONDITIONS = {"commit": "abc", "form": "short, 3 rounds"}


def test_the_table_compares_medians_with_the_first_row():
    half = Aim("at most half of theirs", against="theirs", at_most=0.5)
    fast = Aim("at most 150 ms", at_most=150)
    group = Group(1, "starts", (OURS, THEIRS), aims=(half, fast), notes=("It was dark.",))
    assert list(as_text(group)) == [
        "starts, ms, 3 rounds    median     least      most     ratio",
        "ours                     200.0     100.0     900.0     1.00×",
        "theirs                   400.0     300.0     500.0     2.00×",
        "  at most half of theirs: 0.50",
        "  at most 150 ms: 200.00, SHORT OF IT",
        "  It was dark.",
    ]


def test_more_may_be_better_and_an_aim_needs_what_it_is_about():
    aims = (
        Aim("ahead of theirs", against="theirs", at_least=1),
        Aim("theirs above 3", of="theirs", at_least=3),
        Aim("ahead of nobody", against="nobody", at_least=1),
    )
    series = (Series("ours", (4.0,)), Series("theirs", (5.0,)))
    group = Group(3, "many", series, PER_SECOND, aims)
    assert [(one.value, one.within) for one in group.reached()] == [(0.8, False), (5, True)]
    assert next(iter(as_text(group))).split() == ["many,", "a", "second", "ratio"]


def test_a_page_keeps_what_people_wrote_around_the_figures(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Speed\n\n{pages.BEGIN}\nold\n{pages.END}\n\nWhy.\n")
    aim = Aim("at most half of theirs", against="theirs", at_most=0.4)
    pages.write(CONDITIONS, [Group(1, "starts", (OURS, THEIRS), aims=(aim,))], page)
    told = page.read_text()
    assert told.startswith(f"# Speed\n\n{pages.BEGIN}\n")
    assert told.endswith(f"{pages.END}\n\nWhy.\n")
    assert "old" not in told
    assert "| 1 | starts: at most half of theirs | 0.50 | **short** |" in told
    assert "### 1. One task dispatched" in told
    assert "| theirs | 400.0 | 300.0 | 500.0 | 2.00 |" in told
    page.write_text("# Speed\n")
    with pytest.raises(BenchFailed, match="has no place"):
        pages.write(CONDITIONS, [], page)


def test_the_readme_quotes_no_figure_that_the_bench_did_not_print():
    figure = re.compile(r"\d[\d,.]*\d|\d")
    section = (CHECKOUT / "README.md").read_text().partition("## Speed\n")[2].partition("\n## ")[0]
    page = pages.PAGE.read_text()
    printed = page[page.index(pages.BEGIN) : page.index(pages.END)]
    assert len(figure.findall(section)) > 5
    assert set(figure.findall(section)) <= set(figure.findall(printed))


def a_run(commit, **series):
    group = Group(1, "starts", tuple(Series(name, each) for name, each in series.items()))
    return json.loads(json.dumps(document({"commit": commit}, [group], {})))


def test_two_runs_are_compared_where_they_differ_by_more_than_their_spread():
    before = a_run("a", one=(0.1, 0.11, 0.12), two=(0.1, 0.3, 0.5), three=(1.0, 1.0), gone=(1.0,))
    after = a_run("b", one=(0.2, 0.21, 0.22), two=(0.1, 0.4, 0.5), three=(0.5, 0.5))
    assert list(compared(before, after)) == [
        "commit   a -> b",
        "",
        "starts, ms",
        f"  {'one':<44}     110.0     210.0   1.91×  WORSE",
        f"  {'two':<44}     300.0     400.0   1.33×",
        f"  {'three':<44}   1,000.0     500.0   0.50×  better",
    ]


def test_growth_tells_the_exponent():
    assert exponent([1, 10, 100], [2, 20, 200]) == pytest.approx(1)
    assert exponent([1, 10], [3, 300]) == pytest.approx(2)
    told = growth("a pass", CPU_SECONDS, {10: 0.5, 100: 5.0}, of="tasks")
    assert told.notes == ("It grows with the tasks to the power of 1.00.",)
    assert [one.what for one in told.series] == ["10 tasks", "100 tasks"]


def test_a_round_takes_one_sample_of_each_and_each_is_first_in_turn():
    order = []

    def sample(name):
        return lambda: order.append(name) or float(len(order))

    taken = side_by_side({name: sample(name) for name in "abc"}, rounds=3)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert [series.samples for series in taken] == [(4, 9, 11), (5, 7, 12), (6, 8, 10)]


def test_a_process_tells_its_cpu_and_memory():
    pid = os.getpid()
    assert 0 < cpu_of(pid) <= time.process_time() + sum(os.times()[2:4]) + 0.05
    assert 1e6 < memory_of(pid) <= peak_of(pid)


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
