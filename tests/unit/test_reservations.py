"""Parts of workers that are kept for somebody: lent, taken back, given back; end to end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from cloudai.controller import effects as effects_module
from cloudai.controller import link as link_module
from cloudai.core.errors import Insufficient, InvalidInput, NotFound, WorkerNotFound
from cloudai.core.model import Resources, State
from cloudai.core.reserving import read_reservation
from cloudai.core.schedule import Reservation, Running
from cloudai.core.schedule.lending import Lending, lending
from cloudai.engines.fake import FakeWorker
from cloudai.service import now
from tests.unit.test_controller import Bench, until


@pytest.fixture
def a_bench(tmp_path: Path) -> Callable[..., Bench]:
    return lambda **workers: Bench(tmp_path, workers)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "AGAIN_AT_MOST", 0.05)
    monkeypatch.setattr(effects_module, "LATE", 0.05)


async def reserve(bench: Bench, **body: object):
    return await bench.desk.reserve({"worker_id": "w1", **body}, default_user="ann")


async def test_what_is_reserved_is_lent_taken_back_and_the_borrower_runs_later(a_bench):
    async with a_bench(w1=FakeWorker(cpus=2)).running() as bench:
        worker = bench.workers["w1"]
        await reserve(bench, req_cpu=2.0)
        # Somebody else has no right to it …
        other = await bench.submit(user_id="bob", req_cpu=1.0)
        await until(lambda: other.id in bench.controller.waiting, "it waits")
        waits = bench.controller.waiting[other.id]
        assert waits == "w1: what is free there is reserved for ann"
        # … but may borrow it, if it gives it back.
        borrower = await bench.submit(
            user_id="eve", req_cpu=2.0, preemptible=True, priority="urgent", grace=0
        )
        borrower = await bench.reach(borrower, State.RUNNING)
        (shown,) = bench.desk.reservations()
        assert shown.lending == Lending(Resources(), Resources.of(cpus=2))
        # Its owner comes: the borrower goes back to the queue, whatever its priority.
        mine = await bench.reach(await bench.submit(req_cpu=2.0, priority="low"), State.RUNNING)
        borrower = await bench.service.find(borrower.id)
        assert borrower.state is State.QUEUED
        assert mine.id in borrower.reason
        await until(lambda: bench.desk.reservations()[0].lending.used.cpus == 2, "it is used")
        worker.finish(mine.assignment.id, 0)
        borrower = await bench.reach(borrower, State.RUNNING)
        assert borrower.assignment.number == 2
        worker.finish(borrower.assignment.id, 0)
        assert (await bench.ended(borrower)).state is State.COMPLETED
        assert (await bench.service.find(other.id)).state is State.QUEUED


async def test_given_back_it_is_everybodys_at_once(a_bench):
    async with a_bench(w1=FakeWorker(cpus=2)).running() as bench:
        made = await reserve(bench, req_cpu=2.0)
        other = await bench.submit(user_id="bob")
        await until(lambda: other.id in bench.controller.waiting, "it waits")
        await bench.desk.unreserve(made.reservation.id)
        await bench.reach(other, State.RUNNING)
        assert bench.desk.reservations() == []
        with pytest.raises(NotFound):
            await bench.desk.unreserve(made.reservation.id)


async def test_one_whose_time_is_over_holds_no_more(a_bench, monkeypatch):
    async with a_bench(w1=FakeWorker(cpus=2)).running() as bench:
        await reserve(bench, req_cpu=2.0, **{"for": "1h"})
        other = await bench.submit(user_id="bob")
        await until(lambda: other.id in bench.controller.waiting, "it waits")
        bench.controller.sharing.present(now() + timedelta(hours=2))
        bench.controller.wake()
        await bench.reach(other, State.RUNNING)


async def test_the_next_controller_knows_them(a_bench):
    bench = a_bench(w1=FakeWorker(cpus=2))
    async with bench.running():
        made = await reserve(bench, req_cpu=1.0, note="the demo")
    async with bench.running():
        assert [one.reservation for one in bench.desk.reservations()] == [made.reservation]
        assert made.reservation.created_by == "ann"


async def test_more_than_the_worker_has_is_refused_what_is_reserved_already_counted(a_bench):
    async with a_bench(w1=FakeWorker(cpus=4)).running() as bench:
        with pytest.raises(Insufficient, match="w1 has 4 CPUs; 5 are asked for"):
            await reserve(bench, req_cpu=5.0)
        with pytest.raises(Insufficient, match="w1 has 0 GPUs; 1 are asked for"):
            await reserve(bench, req_gpu=1)
        await reserve(bench, req_cpu=3.0)
        with pytest.raises(Insufficient, match="of which 3 are reserved already; 2 are asked for"):
            await reserve(bench, req_cpu=2.0)
        with pytest.raises(WorkerNotFound):
            await bench.desk.reserve({"worker_id": "w9", "req_cpu": 1}, default_user="ann")


async def test_why_and_where_of_the_running_controller(a_bench):
    async with a_bench(
        w1=FakeWorker(cpus=2, name="w1"), w2=FakeWorker(cpus=1, name="w2")
    ).running() as bench:
        body = {"docker_image": "busybox", "req_cpu": 2.0}
        trial, _ = await bench.service.submit(body, default_user="bob", dry_run=True)
        assert await bench.desk.where([trial]) == ({trial.id: "w1"}, "")
        first = await bench.reach(await bench.submit(req_cpu=2.0), State.RUNNING)
        assert await bench.desk.why(first) is None
        second = await bench.submit(req_cpu=2.0, user_id="bob")
        found = await bench.desk.why(second)
        assert [(one.workers, one.reason) for one in found.reasons] == [
            (("w1",), f"0 of 2 CPUs free, 2 held by {first.id} (ann)"),
            (("w2",), "1 of 1 CPUs free"),
        ]
        where, would_wait = await bench.desk.where([trial])
        assert where == {}
        assert would_wait.startswith("w1: Insufficient CPU: worker has 0.0 available")


def test_whose_it_is_when_it_is_not_said():
    def whose(**body: object) -> tuple[str | None, int]:
        found = read_reservation({"worker_id": "w1", "req_cpu": 1, **body}, default_user="ann")
        return found.user_id, found.priority

    assert whose() == ("ann", 0)
    assert whose(user_id="bob") == ("bob", 0)
    assert whose(priority="high") == (None, 75)
    assert whose(user_id="bob", priority="high") == ("bob", 75)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "worker_id: missing"),
        ({"worker_id": "w1"}, "a reservation of nothing"),
        ({"worker_id": "w1", "req_cpu": 1, "for": "x"}, "for: "),
        ({"worker_id": "w1", "cpus": 1}, "unknown field 'cpus'"),
        ({"worker_id": "w1", "req_cpu": 1, "note": "x" * 201}, "note: 201 characters"),
    ],
)
def test_what_cannot_be_meant_is_refused(body, words):
    with pytest.raises(InvalidInput, match=words):
        read_reservation(body, default_user="ann")


def test_a_task_counts_for_one_reservation_only_and_what_is_lent_is_shared_out():
    reserved = [
        Reservation(id=name, user="ann", resources=Resources.of(cpus=2, gpus=1)) for name in "ab"
    ]
    running = {
        "task-1": Running(id="task-1", user="ann", resources=Resources.of(cpus=3)),
        "task-2": Running(
            id="task-2", user="bob", resources=Resources.of(cpus=1), preemptible=True
        ),
    }
    assert lending(reserved, None, running) == {
        "a": Lending(Resources.of(cpus=2)),
        "b": Lending(Resources.of(cpus=1)),
    }
