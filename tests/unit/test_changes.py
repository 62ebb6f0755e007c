"""``GET /batches/{ref}/changes`` rests on this: nothing that happened is ever left out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai.core.lifecycle import Exited, Placed, Started, StopAsked
from cloudai.core.model import State, Task, TaskSpec
from cloudai.store import Store

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
EVENTS = (
    Placed(at=NOW, worker_id="gpu1"),
    Started(at=NOW, number=1, container_id="c" * 64),
    Exited(at=NOW, number=1, container_id="c" * 64, exit_code=0),
)


def a_task(number: int, batch: str | None = "batch-1-a") -> Task:
    return Task(
        id=f"task-1-{number}",
        spec=TaskSpec(image="alpine", batch=batch),
        state=State.QUEUED,
        created_at=NOW + timedelta(seconds=number),
    )


def test_only_what_changed_and_only_of_the_batch(tmp_path: Any) -> None:
    with Store.open(tmp_path / "db", now=NOW) as store:
        tasks = store.submit_many([a_task(1), a_task(2), a_task(3), a_task(4, None)])
        cursor = store.changes("batch-1-a", since=None, limit=10).cursor
        assert store.changes("batch-1-a", since=cursor, limit=10).tasks == []
        store.record(tasks[3], EVENTS[0])
        store.record(tasks[1], StopAsked(at=NOW))
        placed = store.record(tasks[0], EVENTS[0])
        found = store.changes("batch-1-a", since=cursor, limit=10)
        assert [(one.id, one.state) for one in found.tasks] == [
            ("task-1-2", State.CANCELLED),
            ("task-1-1", State.STARTING),
        ]
        assert not found.more
        assert placed is not None
        store.record(placed, EVENTS[1])
        later = store.changes("batch-1-a", since=found.cursor, limit=10)
        assert [(one.id, one.state) for one in later.tasks] == [("task-1-1", State.RUNNING)]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=18), st.integers(1, 3), st.data())
def test_whoever_looks_at_any_time_knows_in_the_end_how_all_stand(
    moves: list[int], limit: int, data: st.DataObject
) -> None:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "db", now=NOW) as store:
        tasks = store.submit_many([a_task(n) for n in range(6)])
        known = {task.id: task for task in tasks}
        cursor = store.changes("batch-1-a", since=None, limit=1).cursor

        def look() -> None:
            nonlocal cursor
            while True:
                news = store.changes("batch-1-a", since=cursor, limit=limit)
                assert len(news.tasks) <= limit
                assert news.cursor >= cursor
                cursor = news.cursor
                known.update({task.id: task for task in news.tasks})
                if not news.more:
                    return

        for at in moves:
            stage = (State.QUEUED, State.STARTING, State.RUNNING, State.COMPLETED).index(
                tasks[at].state
            )
            if stage < 3:
                moved = store.record(tasks[at], EVENTS[stage])
                assert moved is not None
                tasks[at] = replace(moved)
            if data.draw(st.booleans()):
                look()
        look()
        assert {one.id: one.state for one in known.values()} == {one.id: one.state for one in tasks}
