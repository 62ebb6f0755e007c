"""What users have used: sums that decay, kept up to date, the same as if counted anew."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.core.errors import InvalidInput, NotFound
from cloudai.core.lifecycle import Exited, Placed, Started
from cloudai.core.model import GIB, Resources, TaskSpec
from cloudai.core.policy import DAY, HOUR
from cloudai.core.usage import Ledger, Run, gpu_hours_within, kind_of, use_of
from cloudai.service import Service

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
WEEK = 7 * DAY


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def a_run(user: str = "ann", begin: float = HOUR, end: float = 0.0, **more: object) -> Run:
    """One that began and ended so many seconds ago."""
    fields = {
        "user_id": user,
        "kind": "alpine sh",
        "worker_id": "gpu1",
        "resources": Resources.of(cpus=2, memory=4, gpus=1),
        "started_at": ago(begin),
        "ended_at": ago(end),
        "completed": True,
        **more,
    }
    return Run(**fields)


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (TaskSpec(image="alpine"), "alpine"),
        (TaskSpec(image="alpine", argv=("python", "train.py")), "alpine python"),
        (TaskSpec(image="alpine", shell="  make all; true"), "alpine make"),
        (TaskSpec(image="alpine", shell=" "), "alpine"),
        (TaskSpec(image="i" * 300, argv=("x",)), "i" * 255),
        (TaskSpec(image="alpine", argv=("x",), task_type="llm"), "type: llm"),
    ],
)
def test_kinds(spec, kind):
    assert kind_of(spec) == kind


def test_fresh_use_counts_whole_and_old_use_half():
    resources = Resources.of(cpus=2, memory=1, gpus=0.5)
    used = use_of(resources, ago(10), NOW, now=NOW, half_life=1e12)
    assert used.cpu == pytest.approx(20)
    assert used.memory == pytest.approx(10 * GIB)
    assert used.gpu == pytest.approx(5)
    old = use_of(resources, ago(WEEK + 10), ago(WEEK), now=NOW, half_life=WEEK)
    assert old.cpu == pytest.approx(10, rel=1e-4)


def test_each_moment_of_a_long_run_decays_for_itself():
    """A run of one half-life counts for 1 / (2 ln 2) of its time as it ends."""
    used = use_of(Resources.of(cpus=1), ago(WEEK), NOW, now=NOW, half_life=WEEK)
    assert used.cpu == pytest.approx(WEEK / (2 * math.log(2)))
    parts = [
        use_of(Resources.of(cpus=1), ago(at + WEEK / 100), ago(at), now=NOW, half_life=WEEK).cpu
        for at in (WEEK / 100 * n for n in range(100))
    ]
    assert sum(parts) == pytest.approx(used.cpu)


def test_clocks_that_go_backwards_make_nothing_of_more_than_there_was():
    assert use_of(Resources.of(cpus=1), NOW, ago(60), now=NOW, half_life=WEEK).cpu == 0
    assert gpu_hours_within(Resources.of(gpus=1), NOW, ago(60), now=NOW) == 0
    ledger = Ledger(HOUR)
    ledger.add(a_run(begin=10, end=0))
    assert ledger.usage(ago(WEEK)) == ledger.usage(NOW)


def test_gpu_hours_of_the_last_day():
    ledger = Ledger(WEEK)
    ledger.add(a_run(begin=30 * HOUR, end=20 * HOUR))
    ledger.add(a_run(begin=2 * HOUR, end=HOUR, resources=Resources.of(gpus=4)))
    ledger.add(a_run("bob", begin=50 * HOUR, end=25 * HOUR))
    ledger.add(a_run("eve", begin=HOUR, end=0, resources=Resources.of(cpus=64)))
    assert ledger.gpu_hours(NOW) == {"ann": pytest.approx(4 + 4)}
    assert ledger.gpu_hours(NOW + timedelta(hours=5)) == {"ann": pytest.approx(4)}


def test_run_times_are_of_what_completed():
    ledger = Ledger(WEEK)
    for seconds, more in (
        (10, {}),
        (20, {}),
        (99, {"completed": False}),
        (7, {"worker_id": "gpu2"}),
        (5, {"kind": "other"}),
    ):
        ledger.add(a_run(begin=seconds, **more))
    assert ledger.run_times("alpine sh") == {"gpu1": 15, "gpu2": 7}
    assert ledger.run_times("nothing") == {}


runs = st.builds(
    lambda user, begin, ran: a_run(user, begin=begin, end=begin - ran),
    st.sampled_from(["ann", "bob"]),
    st.floats(0, 20 * WEEK),
    st.floats(0, WEEK),
)


@given(st.lists(runs, max_size=20), st.floats(60, WEEK))
def test_the_sums_are_those_of_each_run(given_runs, half_life):
    ledger, later = Ledger(half_life), NOW + timedelta(seconds=2 * WEEK)
    for run in given_runs:
        ledger.add(run)
    for user, found in ledger.usage(later).items():
        every = [
            use_of(r.resources, r.started_at, r.ended_at, now=later, half_life=half_life)
            for r in given_runs
            if r.user_id == user
        ]
        assert found.cpu == pytest.approx(sum(one.cpu for one in every), rel=1e-6, abs=1e-9)
        assert found.gpu == pytest.approx(sum(one.gpu for one in every), rel=1e-6, abs=1e-9)


async def test_the_service_counts_along_what_the_store_remembers(tmp_path):
    """In memory, one by one, as anew from the file."""
    service = Service(tmp_path)
    await service.open()
    assert await service.usage(NOW, WEEK) == {}
    for number, code in enumerate((0, 3, 0), start=1):
        body = {"docker_image": "alpine", "argv": ["sh"], "req_gpu": 1.0, "user_id": "ann"}
        task, _ = await service.submit(body, default_user="x")
        for event in (
            Placed(at=NOW, worker_id="gpu1"),
            Started(at=ago(100 * number), number=1, container_id="c"),
            Exited(at=ago(0), number=1, container_id="c", exit_code=code),
        ):
            task = await service.record(task, event)
    seen = (
        await service.usage(NOW, WEEK),
        await service.gpu_hours(NOW),
        await service.run_times("alpine sh"),
    )
    assert seen[0]["ann"].gpu == pytest.approx(600, rel=1e-3)
    assert seen[1] == {"ann": pytest.approx(600 / HOUR)}
    assert seen[2] == {"gpu1": pytest.approx(200)}
    assert (await service.usage(NOW + timedelta(hours=1), HOUR))["ann"].gpu < 310
    await service.close()
    again = Service(tmp_path)
    await again.open()
    assert (await again.usage(NOW, WEEK))["ann"] == seen[0]["ann"]
    assert await again.gpu_hours(NOW) == seen[1]
    assert await again.run_times("alpine sh") == seen[2]
    await again.close()


async def test_reservations(tmp_path):
    service = Service(tmp_path)
    await service.open()
    resources, later = Resources.of(cpus=2, gpus=1), NOW + timedelta(days=4000)
    one = await service.add_reservation(
        "gpu1", resources, user_id="ann", priority=75, until=later, created_by="ops", note="demo"
    )
    two = await service.add_reservation("gpu2", resources)
    assert one.id.startswith("reservation-")
    assert (one.user_id, one.priority, two.until) == ("ann", 75, None)
    await service.close()
    again = Service(tmp_path)
    await again.open()
    assert await again.reservations(NOW) == [one, two]
    assert await again.reservations(later) == [two]
    await again.remove_reservation(one.id)
    with pytest.raises(NotFound, match="not found"):
        await again.remove_reservation(one.id)
    for wrong in ({"resources": Resources()}, {"resources": resources, "until": NOW}):
        with pytest.raises(InvalidInput):
            await again.add_reservation("gpu1", **wrong)
    assert await again.reservations(NOW) == [two]
    await again.close()


async def test_a_task_type_is_a_kind_of_its_own(tmp_path):
    service = Service(tmp_path)
    await service.open()
    body = {"task_type": "tts", "parameters": {"text": "hello"}}
    task, _ = await service.submit(body, default_user="ann")
    for event in (
        Placed(at=NOW, worker_id="gpu1"),
        Started(at=ago(60), number=1, container_id="c"),
        Exited(at=ago(0), number=1, container_id="c", exit_code=0),
    ):
        task = await service.record(task, event)
    kind = kind_of(task.spec)
    assert kind == "type: tts"
    assert await service.run_times(kind) == {"gpu1": pytest.approx(60)}
    await service.close()
    again = Service(tmp_path)
    await again.open()
    assert await again.run_times(kind) == {"gpu1": pytest.approx(60)}
    await again.close()
