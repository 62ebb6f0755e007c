"""Why the scheduler is right: rules on random fleets and queues."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai.core.model import GIB, Placement, Resources, Strategy
from cloudai.core.policy import HOUR, Policy
from cloudai.core.schedule import Ask, Board, Place, Running, Shape, empty_place, why
from tests.unit.reference_scheduler import Machine, reference

NOW = 1_000_000.0

fleets = st.lists(
    st.tuples(st.sampled_from([2, 4, 8, 16]), st.sampled_from([4, 16, 64]), st.integers(0, 4)),
    min_size=1,
    max_size=6,
)
shapes = st.builds(
    lambda cpus, memory, gpus, limit: Shape(
        resources=Resources.of(cpus=cpus, memory=memory, gpus=gpus), limit=limit
    ),
    st.sampled_from([0.5, 1, 2, 4]),
    st.sampled_from([0.5, 1, 4, 16]),
    st.sampled_from([0, 0, 0.25, 0.5, 1, 2, 3]),
    st.sampled_from([None, 600.0, 3600.0]),
)
few_shapes = st.lists(shapes, min_size=1, max_size=5)


def queues(most=30):
    return few_shapes.flatmap(
        lambda some: st.lists(
            st.tuples(
                st.sampled_from(some),
                st.sampled_from(["ann", "bob", "eve"]),
                st.sampled_from([25, 50, 50, 75]),
                st.integers(0, 30),
            ),
            max_size=most,
        )
    ).map(
        lambda rows: [
            Ask(
                id=f"task-{i}",
                user=user,
                shape=shape,
                priority=priority,
                since=NOW - hours * HOUR,
                position=i,
            )
            for i, (shape, user, priority, hours) in enumerate(rows)
        ]
    )


def places(fleet) -> list[Place]:
    return [
        empty_place(
            f"w{i}",
            total=Resources.of(cpus=cpus, memory=memory, storage=1000),
            devices=[("A100", 40 * GIB)] * gpus,
        )
        for i, (cpus, memory, gpus) in enumerate(fleet)
    ]


def a_board(fleet, queue, policy=None) -> Board:
    board = Board(policy)
    for place in places(fleet):
        board.see(place)
    for ask in queue:
        board.add(ask, NOW)
    return board


def went(plan) -> list[tuple[str, str]]:
    return [(one.task_id, one.worker_id) for one in plan.placements]


def check_never_more_than_there_is(board: Board, fleet) -> None:
    """Counted anew from what runs, without what the board itself keeps."""
    for i, (cpus, memory, gpus) in enumerate(fleet):
        running = board.workers.running[i].values()
        assert sum(one.resources.cpu_milli for one in running) <= cpus * 1000
        assert sum(one.resources.memory for one in running) <= memory * GIB
        held = [0] * gpus
        for one in running:
            milli = one.resources.gpu_milli
            assert len(one.devices) == (milli // 1000 if milli >= 1000 else milli > 0)
            for device in one.devices:
                held[device] += min(milli, 1000)
        assert all(amount <= 1000 for amount in held), "a GPU is held twice"


@given(fleets, queues())
@settings(max_examples=200)
def test_it_does_what_the_obvious_one_does(fleet, queue):
    policy = Policy(heads=0)
    machines = [
        Machine(f"w{i}", cpus * 1000, memory * GIB, [1000] * gpus)
        for i, (cpus, memory, gpus) in enumerate(fleet)
    ]
    plan = a_board(fleet, queue, policy).plan(NOW)
    assert went(plan) == reference(queue, machines, now=NOW, policy=policy)


@given(fleets, queues(), st.sampled_from(list(Strategy)))
@settings(max_examples=200)
def test_never_more_than_there_is_and_a_reason_on_every_worker(fleet, queue, strategy):
    if strategy is Strategy.NODE_SPECIFIC:
        queue = [replace(a, shape=replace(a.shape, nodes=("w0",))) for a in queue]
    board = a_board(fleet, queue, Policy(strategy=strategy))
    plan = board.plan(NOW)
    check_never_more_than_there_is(board, fleet)
    placed = {task for task, _ in went(plan)}
    assert placed | set(plan.waiting) == {ask.id for ask in queue}
    assert not placed & set(plan.waiting)
    for task_id in plan.waiting:
        assert plan.waiting[task_id]
        told = {worker for one in why(board, task_id, NOW).reasons for worker in one.workers}
        assert told == {f"w{i}" for i in range(len(fleet))}


@given(fleets, queues())
@settings(max_examples=100)
def test_the_same_input_gives_the_same_plan(fleet, queue):
    assert went(a_board(fleet, queue).plan(NOW)) == went(a_board(fleet, queue).plan(NOW))


def rebuilt(board: Board, fleet, policy: Policy) -> Board:
    """A board that remembers nothing, over the same fleet and queue."""
    fresh = Board(policy)
    for i, place in enumerate(places(fleet)):
        fresh.see(replace(place, running=tuple(board.workers.running[i].values()), free=None))
        fresh.see(
            replace(
                place,
                free=board.workers.free[i],
                running=tuple(board.workers.running[i].values()),
            )
        )
    for ask in board.queue.asks.values():
        fresh.add(ask, NOW)
    return fresh


@given(fleets, queues(40), queues(10), st.lists(st.integers(0, 1000), max_size=12), st.booleans())
@settings(max_examples=200)
def test_what_it_remembers_misses_nothing(fleet, queue, more, ends, keeps):
    """After any events a plan leaves nothing that a board without memory would place, but on
    workers that somebody waits for: who has begun to wait for one stays there."""
    policy = Policy(heads=4 if keeps else 0)
    board = a_board(fleet, queue, policy)
    board.plan(NOW)
    late = [replace(a, id=f"late-{a.id}", position=1000 + a.position) for a in more]
    for step, end in enumerate(ends):
        running = sorted(board.workers.at)
        if running:
            board.finish(running[end % len(running)])
        if late:
            board.add(late.pop(), NOW)
        board.plan(NOW + step)
        check_never_more_than_there_is(board, fleet)
    waited_for = {board.workers.places[i].worker_id for i in board.keeps}
    missed = went(rebuilt(board, fleet, policy).plan(NOW + len(ends)))
    assert [one for one in missed if one[1] not in waited_for] == []


@given(fleets, queues(40))
@settings(max_examples=200)
def test_backfill_never_delays_the_first_that_waits(fleet, queue):
    """Where all have time limits: whoever keeps a worker can start there when it was said."""
    queue = [replace(a, shape=replace(a.shape, limit=a.shape.limit or 7200.0)) for a in queue]
    board = a_board(fleet, queue)
    board.plan(NOW)
    promised = {keep.ask.id: (keep.worker, keep.start) for keep in board.keeps.values()}
    for task_id, (i, start) in promised.items():
        ask = board.queue.asks[task_id]
        room = board.workers.free[i].copy()
        for one in board.workers.running[i].values():
            if one.ends <= start:
                room.give(one.resources, one.devices, one.wish)
        assert room.lacks(ask.shape.resources) is None


@given(fleets, queues(40))
@settings(max_examples=100)
def test_no_priority_inversion(fleet, queue):
    """A task of a shape that waits while a later one of the same shape runs had no chance."""
    board = a_board(fleet, queue, Policy(heads=0))
    order = [task for task, _ in went(board.plan(NOW))]
    by_id = {ask.id: ask for ask in queue}
    level = {ask.id: board.queue.level_of(ask, NOW) for ask in queue}
    for waiting in board.queue.asks.values():
        for task in order:
            if by_id[task].shape == waiting.shape:
                assert level[task] >= level[waiting.id]
                if by_id[task].user == waiting.user and level[task] == level[waiting.id]:
                    assert by_id[task].position < waiting.position


groups = st.tuples(
    st.sampled_from(list(Placement)),
    st.integers(2, 5),
    shapes.map(lambda s: replace(s, limit=None)),
)


def members(number, placement, size, shape) -> list[Ask]:
    return [
        Ask(
            id=f"g{number}.{rank}",
            user="ann",
            shape=shape,
            position=number * 10 + rank,
            since=NOW,
            group=f"g{number}",
            group_size=size,
            group_rank=rank,
            placement=placement,
        )
        for rank in range(size)
    ]


@given(fleets, st.lists(groups, min_size=1, max_size=4), queues(10))
@settings(max_examples=200)
def test_groups_are_whole_and_strict(fleet, wanted, queue):
    queue = [*queue, *(ask for i, one in enumerate(wanted) for ask in members(i, *one))]
    board = a_board(fleet, queue)
    plan = board.plan(NOW)
    check_never_more_than_there_is(board, fleet)
    where: dict[str, list[str]] = {}
    for task, worker in went(plan):
        if task.startswith("g"):
            where.setdefault(task.partition(".")[0], []).append(worker)
    for number, (placement, size, _) in enumerate(wanted):
        there = where.get(f"g{number}", [])
        assert len(there) in (0, size)
        if there and placement is Placement.STRICT_PACK:
            assert len(set(there)) == 1
        if there and placement is Placement.STRICT_SPREAD:
            assert len(set(there)) == size


def test_two_groups_that_each_need_the_whole_fleet_come_one_after_the_other():
    shape = Shape(resources=Resources.of(cpus=1, memory=1, gpus=1))
    queue = [*members(0, Placement.SPREAD, 4, shape), *members(1, Placement.SPREAD, 4, shape)]
    board = a_board([(4, 16, 2), (4, 16, 2)], queue)
    assert {task.partition(".")[0] for task, _ in went(board.plan(NOW))} == {"g0"}
    for ask in queue[:4]:
        assert not board.plan(NOW).placements
        board.finish(ask.id)
    assert {task.partition(".")[0] for task, _ in went(board.plan(NOW))} == {"g1"}


def test_nothing_starves():
    """A big task of low priority, among small ones of high priority that never stop coming."""
    small = Shape(resources=Resources.of(cpus=1, memory=1), limit=3600.0)
    big = Ask(
        id="big",
        user="ann",
        shape=Shape(resources=Resources.of(cpus=4, memory=4)),
        priority=25,
        since=NOW,
        position=0,
    )
    board = a_board([(4, 16, 0)], [big], Policy())
    for i in range(4):
        board.add(Ask(id=f"s{i}", user="bob", shape=small, priority=75, since=NOW, position=i + 1))
    now, began, serial = NOW, None, 10
    placed: list[tuple[float, str]] = []
    while began is None and now < NOW + 48 * HOUR:
        for task, _ in went(board.plan(now)):
            placed.append((now + 3600, task))
            began = now if task == "big" else began
        for end, task in list(placed):
            if end <= now + 900:
                board.finish(task)
                placed.remove((end, task))
        now += 900
        for _ in range(2):
            serial += 1
            board.add(
                Ask(
                    id=f"s{serial}",
                    user="bob",
                    shape=small,
                    priority=75,
                    since=now,
                    position=serial,
                ),
                now,
            )
    assert began is not None
    assert began - NOW <= 24 * HOUR


def running(task_id: str, *, priority=25, preemptible=True, gpus=1.0, started=NOW, devices=(0,)):
    return Running(
        id=task_id,
        user="bob",
        resources=Resources.of(cpus=1, memory=1, gpus=gpus),
        priority=priority,
        preemptible=preemptible,
        started=started,
        devices=devices,
    )


def busy_place(worker_id: str, gpus: int, *tasks: Running) -> Place:
    place = empty_place(
        worker_id,
        total=Resources.of(cpus=16, memory=64, storage=100),
        devices=[("A100", 40 * GIB)] * gpus,
    )
    for task in tasks:
        place.free.cpu -= task.resources.cpu_milli
        place.free.memory -= task.resources.memory
        place.free.hold(task.devices, task.resources.gpu_milli)
    return replace(place, running=tasks)


def urgent(gpus: float, priority=100) -> Ask:
    shape = Shape(resources=Resources.of(cpus=1, memory=1, gpus=gpus))
    return Ask(id="urgent", user="ann", shape=shape, priority=priority, since=NOW)


def preempted(ask: Ask, *all_places: Place) -> list[str]:
    board = Board()
    for place in all_places:
        board.see(place)
    board.add(ask, NOW)
    plan = board.plan(NOW)
    assert not plan.placements
    return [one.task_id for one in plan.preempt]


def test_the_lowest_and_youngest_make_room_and_no_more_than_it_takes():
    low_old = running("low-old", started=NOW - 100, devices=(0,))
    low_young = running("low-young", started=NOW - 1, devices=(1,))
    high = running("high", priority=75, devices=(2,))
    assert preempted(urgent(1), busy_place("w", 3, low_old, low_young, high)) == ["low-young"]
    assert preempted(urgent(2), busy_place("w", 3, low_old, low_young, high)) == [
        "low-young",
        "low-old",
    ]


def test_fewest_victims_over_all_workers():
    two = busy_place("w1", 2, running("a", devices=(0,)), running("b", devices=(1,)))
    one = busy_place("w2", 2, running("both", gpus=2.0, devices=(0, 1)))
    assert preempted(urgent(2), two, one) == ["both"]


def test_nobody_makes_room_who_did_not_agree_or_is_as_important():
    never = running("never", preemptible=False)
    assert preempted(urgent(1), busy_place("w", 1, never)) == []
    assert preempted(urgent(1, priority=25), busy_place("w", 1, running("same"))) == []


def test_room_that_is_being_made_is_not_made_twice():
    ending = replace(running("ending"), ending=True)
    other = running("other", devices=(1,))
    assert preempted(urgent(1), busy_place("w", 2, ending, other)) == []


def test_waiting_lifts_a_task_and_a_clock_that_goes_back_takes_nothing():
    board = a_board([(4, 16, 0)], [])
    ask = replace(urgent(0, priority=25), since=NOW)
    assert board.queue.level_of(ask, NOW) == 25
    assert board.queue.level_of(ask, NOW + 13 * HOUR) == 75
    assert board.queue.level_of(ask, NOW - 13 * HOUR) == 25


def test_a_fraction_of_each_of_two_gpus_is_not_a_whole_one():
    half = Shape(resources=Resources.of(cpus=1, memory=1, gpus=0.75))
    whole = Shape(resources=Resources.of(cpus=1, memory=1, gpus=1))
    queue = [
        Ask(id="a", user="u", shape=half, position=0),
        Ask(id="b", user="u", shape=half, position=1),
        Ask(id="c", user="u", shape=whole, position=2),
    ]
    plan = a_board([(8, 32, 2)], queue).plan(NOW)
    assert [task for task, _ in went(plan)] == ["a", "b"]
    assert "Insufficient GPU: worker has 0.0 available" in plan.waiting["c"]


def test_fair_shares_between_two_users_by_weight():
    shape = Shape(resources=Resources.of(cpus=1, memory=1))
    queue = [
        Ask(id=f"{user}{i}", user=user, shape=shape, position=i + (100 if user == "bob" else 0))
        for user in ("ann", "bob")
        for i in range(12)
    ]
    plan = a_board([(12, 64, 0)], queue).plan(NOW)
    first = [task[:3] for task, _ in went(plan)]
    assert first.count("ann") == first.count("bob") == 6
    plan = a_board([(12, 64, 0)], queue, Policy(weights={"ann": 2.0})).plan(NOW)
    first = [task[:3] for task, _ in went(plan)]
    assert (first.count("ann"), first.count("bob")) == (8, 4)


def test_shapes_that_have_gone_by_are_forgotten():
    board = a_board([(4, 16, 0)], [])
    for i in range(2500):
        need = Resources.of(cpus=1, memory=1)
        shape = Shape(resources=need, image=f"image-{i}", avoid=(f"zone={i}",))
        board.add(Ask(id=f"t{i}", user="ann", shape=shape, position=i), NOW)
        assert went(board.plan(NOW)) == [(f"t{i}", "w0")]
        board.finish(f"t{i}")
    assert len(board.queue.shapes) < 1200
    assert len(board.workers._conditions) < 1200
