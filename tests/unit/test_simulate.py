"""Replays: nothing is lost, nothing is overbooked, equal runs are equal; and what is measured."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai.core.errors import InvalidInput
from cloudai.core.model import Resources, Strategy
from cloudai.core.policy import Policy
from cloudai.core.schedule import Shape, empty_place
from cloudai.simulate import (
    PUBLISHED,
    Fleet,
    Job,
    Outcome,
    Summary,
    Trace,
    as_svg,
    as_text,
    contestants,
    fill_many,
    fleet_of_header,
    in_parts,
    is_published_list,
    replay,
    summary_of,
)
from cloudai.simulate.drawing import spark
from cloudai.simulate.files import read_trace
from cloudai.simulate.filling import arrivals
from cloudai.simulate.fragments import Fragments
from cloudai.simulate.measures import binned
from cloudai.simulate.replay import LEFT_OUT, LEFT_WAITING, NO_GROUP, TOO_LARGE, UNKNOWN, Sample

from .synthetic_trace import swf

SPREAD, BINPACK = Policy(strategy=Strategy.SPREAD), Policy(strategy=Strategy.BINPACK)


def fleet(*workers: tuple[float, int]) -> Fleet:
    """Workers of so many cores and GPUs, with ample memory."""
    places = tuple(
        empty_place(
            f"w{n}",
            total=Resources.of(cpus=cpus, memory=1000, storage=1000),
            devices=[("A100", None)] * gpus,
        )
        for n, (cpus, gpus) in enumerate(workers)
    )
    return Fleet(source="a test", places=places)


def job(
    id_: str,
    at: float,
    runtime: float | None,
    *,
    cpus: float = 1,
    gpus: float = 0,
    limit: float | None = None,
    preemptible: bool = False,
    **more: object,
) -> Job:
    shape = Shape(
        resources=Resources.of(cpus=cpus, gpus=gpus), limit=limit, preemptible=preemptible
    )
    fields = {"user": "ann", **more}
    return Job(id=id_, submitted=at, runtime=runtime, parts=(shape,), **fields)  # type: ignore[arg-type]


def times(outcome: Outcome) -> dict[str, tuple[float | None, float | None]]:
    return {fate.job.id: (fate.start, fate.end) for fate in outcome.fates}


# ---------------------------------------------------------------- one thing at a time


def test_a_task_waits_for_the_one_before_it() -> None:
    jobs = [job("a", 100, 50, cpus=4), job("b", 110, 10, cpus=4)]
    outcome = replay(fleet((4, 0)), jobs, SPREAD)
    assert times(outcome) == {"a": (100, 150), "b": (150, 160)}
    row = summary_of(outcome)
    assert (row.tasks, row.placed, row.makespan) == (2, 2, 60)
    assert (row.wait_mean, row.wait_median) == (20, 20)
    assert row.slowdown_mean == pytest.approx((1 + 5) / 2)
    assert row.cpus == pytest.approx(1.0)
    assert row.gpus is None
    assert row.fragmentation is None


def test_a_short_task_counts_as_ten_seconds_in_the_slowdown() -> None:
    jobs = [job("a", 0, 20, cpus=4), job("b", 0, 1, cpus=4)]
    row = summary_of(replay(fleet((4, 0)), jobs, SPREAD))
    assert row.slowdown_mean == pytest.approx((1 + 21 / 10) / 2)


def test_a_time_limit_ends_a_task_and_is_counted() -> None:
    outcome = replay(fleet((4, 0)), [job("a", 0, 100, limit=30)], SPREAD)
    assert times(outcome) == {"a": (0, 30)}
    assert outcome.at_limit == 1


def test_a_short_task_slips_in_where_it_delays_nobody() -> None:
    jobs = [
        job("a", 0, 100, cpus=2, limit=100),
        job("wide", 1, 10, cpus=4, limit=10),
        job("short", 2, 50, cpus=2, limit=50),
        job("long", 3, 200, cpus=2, limit=200),
    ]
    outcome = replay(fleet((4, 0)), jobs, SPREAD)
    assert times(outcome) == {
        "a": (0, 100),
        "wide": (100, 110),
        "short": (2, 52),
        "long": (110, 310),
    }


def test_a_task_that_no_worker_could_hold_keeps_nobody_waiting() -> None:
    jobs = [job("huge", 0, 10, cpus=64), job("a", 1, 10)]
    outcome = replay(fleet((4, 0)), jobs, SPREAD)
    row = summary_of(outcome)
    assert row.never == Counter({TOO_LARGE: 1})
    assert times(outcome)["a"] == (1, 11)


def test_what_has_no_run_time_or_comes_too_late_is_counted() -> None:
    jobs = [job("a", 0, 10), job("b", 1, None), job("c", 100, 10)]
    outcome = replay(fleet((4, 0)), jobs, SPREAD, until=50)
    assert len(outcome.fates) == 1
    assert +outcome.not_counted == Counter({UNKNOWN: 1, LEFT_OUT: 1})


def test_what_still_waits_when_the_time_is_up_was_never_placed() -> None:
    jobs = [job("a", 0, 100, cpus=4), job("b", 1, 10, cpus=4)]
    outcome = replay(fleet((4, 0)), jobs, SPREAD, until=50)
    row = summary_of(outcome)
    assert (row.placed, row.never, row.makespan) == (1, Counter({LEFT_WAITING: 1}), 50)


def test_parts_start_and_end_together() -> None:
    wide = replace(job("wide", 1, 10), parts=(Shape(resources=Resources.of(cpus=4)),) * 2)
    jobs = [job("a", 0, 20, cpus=1), wide]
    outcome = replay(fleet((4, 0), (4, 0)), jobs, SPREAD)
    assert times(outcome) == {"a": (0, 20), "wide": (20, 30)}
    assert summary_of(outcome).cpus == pytest.approx((20 + 80) / (8 * 30))


def test_a_group_starts_together_or_not_at_all() -> None:
    group = [job(f"g{n}", n, 10, cpus=3, group="g") for n in range(2)]
    alone = [job(f"h{n}", 5, 10, cpus=3, group="h") for n in range(3)]
    outcome = replay(fleet((4, 0), (4, 0)), [*group, *alone], SPREAD)
    assert times(outcome)["g0"] == (1, 11)
    assert times(outcome)["g1"] == (1, 11)
    assert {fate.why for fate in outcome.fates if fate.job.group == "h"} == {NO_GROUP}


def test_a_preempted_task_begins_anew() -> None:
    jobs = [
        job("low", 0, 100, cpus=4, priority=0, preemptible=True),
        job("urgent", 10, 20, cpus=4, priority=100),
    ]
    outcome = replay(fleet((4, 0)), jobs, SPREAD)
    assert times(outcome) == {"low": (30, 130), "urgent": (10, 30)}
    assert summary_of(outcome).preempted == 1
    assert summary_of(outcome).cpus == pytest.approx(1.0)


def test_tasks_follow_the_strategy_that_is_compared_not_their_own() -> None:
    own = replace(
        job("a", 1, 10), parts=(Shape(resources=Resources.of(cpus=1), strategy=Strategy.SPREAD),)
    )
    placed = {}
    for policy in (SPREAD, BINPACK):
        outcome = replay(fleet((4, 1), (4, 1)), [job("g", 0, 99, gpus=0.5), own], policy)
        placed[policy.strategy] = outcome.samples[1].fragments
    assert len(placed) == 2


def test_an_empty_trace_is_a_row_of_nothing() -> None:
    row = summary_of(replay(fleet((4, 0)), [], SPREAD))
    assert (row.tasks, row.wait_mean, row.cpus, row.makespan) == (0, None, None, 0)
    assert as_text([row]) == []
    ElementTree.fromstring(as_svg([row], title="nothing"))


# ---------------------------------------------------------------- what holds for all traces

JOBS = st.lists(
    st.builds(
        lambda at, runtime, cpus, gpus, limit, user, priority, preemptible: (
            at,
            runtime,
            {
                "cpus": cpus,
                "gpus": gpus,
                "limit": limit,
                "user": user,
                "priority": priority,
                "preemptible": preemptible,
            },
        ),
        st.integers(0, 50),
        st.integers(0, 30),
        st.sampled_from([0.5, 1, 3, 4, 9]),
        st.sampled_from([0, 0, 0.3, 0.5, 1, 2]),
        st.none() | st.integers(1, 30),
        st.sampled_from(["ann", "bob"]),
        st.sampled_from([0, 50, 100]),
        st.booleans(),
    ),
    min_size=1,
    max_size=25,
).map(
    lambda rows: sorted(
        (job(f"t{n}", at, runtime, **more) for n, (at, runtime, more) in enumerate(rows)),
        key=lambda one: one.submitted,
    )
)


@settings(max_examples=60, deadline=None)
@given(JOBS, st.sampled_from(contestants(list(Strategy), calibrate=True)))
def test_no_task_is_lost_and_nothing_is_overbooked(jobs: list[Job], one) -> None:
    machines = fleet((4, 2), (8, 1), (2, 0))
    seen, ranking = one.make(machines, 7)
    outcome = replay(seen, jobs, one.policy, ranking=ranking)
    assert [fate.job.id for fate in outcome.fates] == [one.id for one in jobs]
    for fate in outcome.fates:
        assert (fate.start is None) == bool(fate.why)
        if fate.start is None or fate.end is None:
            assert fate.why == TOO_LARGE
            continue
        assert fate.start >= fate.job.submitted
        limit = fate.job.shape.limit
        wanted = fate.job.runtime if limit is None else min(fate.job.runtime or 0, limit)
        assert fate.end - fate.start == pytest.approx(wanted)
    for sample in outcome.samples:
        assert 0 <= sample.cpu <= outcome.total.cpu_milli
        assert 0 <= sample.gpu <= outcome.total.gpu_milli
        assert -1e-6 <= sample.fragments <= outcome.total.gpu_milli - sample.gpu + 1e-6
    assert outcome.samples[-1].cpu == outcome.samples[-1].waiting == 0
    row = summary_of(outcome)
    assert row.placed + sum(row.never.values()) == row.tasks == len(jobs)
    assert row.cpus is None or 0 <= row.cpus <= 1 + 1e-9
    assert row.slowdown_mean is None or row.slowdown_mean >= 1


@settings(max_examples=15, deadline=None)
@given(JOBS, st.sampled_from(contestants(list(Strategy), calibrate=True)))
def test_equal_runs_are_equal(jobs: list[Job], one) -> None:
    def run() -> dict[str, object]:
        seen, ranking = one.make(fleet((4, 2), (8, 1)), 3)
        return summary_of(replay(seen, jobs, one.policy, ranking=ranking)).as_json()

    assert run() == run()


def test_what_is_held_is_what_the_jobs_held() -> None:
    """The area under the curve of CPUs in use is the sum of all cores times seconds."""
    trace = read_trace(swf(150, seed=4, nodes=8, processors=64, widest=24), source="t")
    machines = fleet_of_header(trace.header, source="t")
    widest = machines.widest()
    jobs = in_parts(trace, widest.cpu_milli, widest.gpu_milli).jobs
    row = summary_of(replay(machines, jobs, SPREAD))
    assert row.placed == 150
    area = sum(one.cpu_milli / 1000 * (one.runtime or 0) for one in jobs)
    assert row.cpus is not None
    assert row.cpus * 64 * row.makespan == pytest.approx(area)


# ---------------------------------------------------------------- measures


def test_fragments_are_what_a_task_of_the_trace_could_not_use() -> None:
    from cloudai.core.schedule import Ask, Board

    whole, half = (Shape(resources=Resources.of(cpus=1, gpus=gpus)) for gpus in (1, 0.5))
    board = Board(SPREAD)
    board.see(fleet((4, 1)).places[0])
    fragments = Fragments(board, [whole, whole, whole, half])
    assert fragments.total == 0
    board.add(Ask(id="a", user="ann", shape=half))
    board.plan(0.0)
    fragments.changed(0)
    # Half a GPU is left: of no use to three of four.
    assert fragments.total == pytest.approx(500 * 3 / 4)
    board.finish("a")
    board.add(Ask(id="b", user="ann", shape=Shape(resources=Resources.of(cpus=4))))
    board.plan(0.0)
    fragments.changed(0)
    # The GPU is free, and no core is.
    assert fragments.total == pytest.approx(1000)


def test_means_over_time_weigh_by_time() -> None:
    samples = [Sample(at, 0, 0, 0, 0.0) for at in (10, 11, 15, 20)]
    assert binned([4, 0, 2, 9], samples, 1).tolist() == pytest.approx([(4 + 5 * 2) / 10])
    assert binned([4, 0, 2, 9], samples, 2).tolist() == pytest.approx([4 / 5, 2])
    assert binned([3], samples[:1], 2).tolist() == [3, 3]


def a_row(name: str = "spread") -> Summary:
    trace = read_trace(swf(60, seed=2, nodes=4, processors=32, widest=8), source="t")
    machines = fleet_of_header(trace.header, source="t")
    return summary_of(replay(machines, trace.jobs, SPREAD, name=name))


def test_the_plot_fits_a_terminal() -> None:
    lines = as_text([a_row(), a_row("performance_optimized")])
    assert max(map(len, lines)) == 80
    assert lines[0] == "CPUs in use (█ is 100 %)"
    assert any(line.startswith("tasks waiting") for line in lines)


def test_a_line_of_blocks() -> None:
    assert spark([0, 0.5, 1, 2], 1, 4) == " ▄██"
    assert spark([0.03], 1, 4) == "▁"


def test_the_svg_is_one_and_names_are_text() -> None:
    root = ElementTree.fromstring(as_svg([a_row("a<b"), a_row()], title="x & y"))
    names = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"x & y", "a<b", "spread", "CPUs in use"} <= set(names)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 4


# ---------------------------------------------------------------- place or drop


def few_jobs() -> list[Job]:
    return [job(f"t{n}", n, None, gpus=[0.25, 0.5, 1, 2][n % 4]) for n in range(12)]


def test_filling_takes_what_comes_until_there_is_enough() -> None:
    machines = fleet(*[(64, 4)] * 4)
    for one in contestants(list(Strategy), calibrate=True):
        found = fill_many(machines, few_jobs(), one, seeds=[1, 2, 3], upto=1.3)
        assert found.marks == (1.0, 1.3)
        for at in (0, 1):
            assert len(found.allocated[at]) == 3
            assert all(0.5 < part <= 1 for part in found.allocated[at])
        assert found.mean(1) >= found.mean(0)
        assert math.isfinite(found.deviation(0))
        again = fill_many(machines, few_jobs(), one, seeds=[1, 2, 3], upto=1.3)
        assert again == found


def test_arrivals_are_shuffled_by_seed_and_drawn_again() -> None:
    jobs = few_jobs()

    def first(seed: int, count: int) -> list[str]:
        return [one.id for one, _ in zip(arrivals(jobs, seed), range(count), strict=False)]

    assert sorted(first(1, 12)) == sorted(one.id for one in jobs)
    assert first(1, 30) == first(1, 30)
    assert first(1, 12) != first(2, 12)


def test_filling_with_cores_where_there_are_no_gpus() -> None:
    one = contestants([Strategy.BINPACK], calibrate=False)[0]
    found = fill_many(fleet((4, 0)), [job("a", 0, 1)], one, seeds=[1], upto=0.5)
    assert (found.marks, found.allocated) == ((0.5,), ((0.5,),))
    with pytest.raises(InvalidInput, match="asks for anything"):
        fill_many(fleet((4, 0)), [job("a", 0, 1, cpus=0)], one, seeds=[1])


def test_published_figures_stand_beside_their_own_list_only() -> None:
    assert PUBLISHED["FGD"] == (95.23, 95.39)
    trace = Trace(source="t", jobs=tuple(few_jobs()), kind="openb")
    assert not is_published_list(trace, fleet((4, 4)))


def test_binpack_fills_more_than_best_fit_and_that_more_than_random() -> None:
    """With shares and a few whole GPUs on mixed workers; for a real list see docs/simulate.md."""
    machines = fleet(*[(96, 8)] * 6, *[(64, 4)] * 6, *[(16, 2)] * 8)
    sizes = [0, 0.1, 0.25, 0.46, 0.5, 0.65, 0.81, 1, 1, 2] * 9
    jobs = [job(f"t{n}", n, None, gpus=gpus, cpus=2 + 8 * gpus) for n, gpus in enumerate(sizes)]
    found = {
        one.name: fill_many(machines, jobs, one, seeds=range(6)).mean(1)
        for one in contestants([Strategy.BINPACK], calibrate=True)
    }
    assert found["binpack"] > found["best-fit"] > found["random"]
