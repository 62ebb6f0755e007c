"""The real controller, service and store in virtual time, driven by Hypothesis: every order of
submits, ends, faults and deaths that it can think of, and the checker over what came of it.

``CLOUDAI_CHAOS_EXAMPLES`` sets how many; a failing one is printed as the steps that lead there,
and with ``CLOUDAI_CHAOS_SHRINK=1`` the shortest such steps are looked for, which takes minutes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Stage
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cloudai.core.model import Phase, State
from cloudai.engines.fake import Fault, Job

from .checker import check, never_more_than_there_is, started_at_most_once
from .on_anything import Anything
from .world import SimWorker, World, a_template

EXAMPLES = int(os.environ.get("CLOUDAI_CHAOS_EXAMPLES", "60"))
STEPS = 30
STAGES = (Stage.explicit, Stage.reuse, Stage.generate, Stage.target)
if os.environ.get("CLOUDAI_CHAOS_SHRINK"):
    # Minutes, for the shortest way to a failure.
    STAGES += (Stage.shrink,)

VERBS = ("start", "probe", "look", "observe", "happenings", "stop", "remove", "logs", "pull")
SHARES = (0.0, 0.0, 0.0, 0.5, 1.0)
IMAGES = ("plain", "plain", "plain", "quick", "bad", "missing", "nosuch")

WISHES = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {"retries": st.integers(1, 3)},
        optional={"retry_on": st.sampled_from(("exit", "lost", "start,pull", "137"))},
    ),
    st.fixed_dictionaries({"on_lost": st.sampled_from(("requeue", "fail"))}).map(
        lambda wish: {**wish, "lost_after": 60}
    ),
    st.just({"preemptible": True, "priority": "low"}),
    st.just({"priority": "high"}),
    st.just({"signal": "USR1@5"}),
    st.just({"signal": "USR1@5", "preemptible": True, "priority": "low", "on_lost": "requeue"}),
    st.just({"preemptible": True, "priority": "low", "retries": 2, "on_lost": "requeue"}),
)
"""What a task may ask besides: being tried again, given up, or put aside for another."""


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    # In memory where that is possible: a sync then costs nothing.
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="cloudai-chaos-", dir=parent))
    try:
        with a_template(folder / "template") as made:
            yield made
    finally:
        shutil.rmtree(folder)


class Machine(RuleBasedStateMachine):
    """Rules are what people, workers, networks and power supplies do."""

    template: Path

    @initialize(seed=st.integers(0, 2**32 - 1))
    def begin(self, seed: int) -> None:
        self.world = World(self.template.parent / "home", self.template, seed)
        for name, size in (("w1", {"cpus": 3}), ("w2", {"cpus": 2, "gpus": 2})):
            worker = SimWorker(name, self.world, memory=4, **size)
            worker.images = {"plain", "quick", "bad"}
            worker.registry["nosuch"] = "pull access denied"
            worker.jobs["quick"] = Job(seconds=0.0, exit_code=3, output=b"done\n")
            worker.jobs["bad"] = Job(start_error="no such command")
            self.world.workers[name] = worker
        self.world.start_controller()
        self.world.pass_time(1)

    # ---------------------------------------------------------------- people

    @rule(
        image=st.sampled_from(IMAGES),
        cpus=st.sampled_from((0.5, 1.0, 2.0)),
        gpus=st.sampled_from(SHARES),
        limit=st.sampled_from((None, None, None, 20.0)),
        wishes=WISHES,
    )
    def submit(
        self,
        image: str,
        cpus: float,
        gpus: float,
        limit: float | None,
        wishes: dict[str, object],
    ) -> None:
        body = {
            "docker_image": image,
            "req_cpu": cpus,
            "req_gpu": gpus,
            "req_memory": 0.25,
            "time_limit": limit,
            "env": {"TOKEN": "x"},
        } | wishes
        made = self.world.ask("submit", self.world.service.submit(body, default_user="ann"))
        if wishes.get("on_lost", "wait") != "wait":
            self.world.history.may_be_lost.add(made.id)

    @rule(
        images=st.lists(st.sampled_from(IMAGES), min_size=2, max_size=2),
        placement=st.sampled_from(("pack", "spread", "strict_spread")),
    )
    def submit_a_group(self, images: list[str], placement: str) -> None:
        tasks = [{"docker_image": one, "req_cpu": 1.0, "req_memory": 0.25} for one in images]
        body = {"tasks": tasks, "placement": placement}
        self.world.ask("submit", self.world.service.submit_group(body, default_user="ann"))

    @rule(worker=st.sampled_from(("w1", "w2")), image=st.sampled_from(IMAGES))
    def dispatch(self, worker: str, image: str) -> None:
        body = {"docker_image": image, "req_memory": 0.25}
        desk = self.world.desk
        self.world.ask("submit", desk.dispatch(worker, body, default_user="ann", timeout=2))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if open_ones := [task.id for task in self.world.tasks() if not task.state.final]:
            chosen = data.draw(st.sampled_from(sorted(open_ones)))
            self.world.ask("cancel", self.world.service.cancel(chosen), chosen)

    @rule(data=st.data())
    def a_person_says_that_a_worker_is_gone(self, data: st.DataObject) -> None:
        if placed := [task.id for task in self.world.tasks() if task.state.assigned]:
            chosen = data.draw(st.sampled_from(sorted(placed)))
            self.world.history.may_be_lost.add(chosen)
            self.world.ask("mark-lost", self.world.desk.mark_lost(chosen), chosen)

    # ---------------------------------------------------------------- workers

    def _containers(self, *phases: Phase) -> list[tuple[SimWorker, str]]:
        return [
            (worker, name)
            for worker in self.world.workers.values()
            for name, container in worker.containers.items()
            if container.sight.phase in phases
        ]

    @rule(data=st.data(), code=st.sampled_from((0, 0, 0, 1, 137)))
    def a_job_ends(self, data: st.DataObject, code: int) -> None:
        if running := self._containers(Phase.RUNNING):
            worker, name = data.draw(st.sampled_from(running))
            worker.end(name, code)

    @rule(data=st.data(), lines=st.integers(1, 5))
    def a_job_writes(self, data: st.DataObject, lines: int) -> None:
        if running := self._containers(Phase.RUNNING):
            worker, name = data.draw(st.sampled_from(running))
            begun = worker.written.get(name, b"").count(b"\n")
            for number in range(begun, begun + lines):
                worker.write(name, b"line %d\n" % number)

    @rule(data=st.data())
    def someone_removes_a_container(self, data: st.DataObject) -> None:
        if there := self._containers(*Phase):
            worker, name = data.draw(st.sampled_from(there))
            task_id = worker.containers[name].sight.task_id
            self.world.history.meddled.add(task_id)
            if self.world.state_of(task_id) in (State.STARTING, State.STOPPING):
                self.world.history.unrecorded.add(task_id)
            worker.vanish(name)

    @rule(data=st.data(), paused=st.booleans())
    def someone_pauses_a_container(self, data: st.DataObject, paused: bool) -> None:
        if alive := self._containers(Phase.RUNNING, Phase.PAUSED):
            worker, name = data.draw(st.sampled_from(alive))
            worker.pause(name, paused=paused)

    @rule(taken=st.booleans())
    def an_outsider_takes_a_gpu(self, taken: bool) -> None:
        worker = self.world.workers["w2"]
        worker.outsiders = {worker.gpus[0]: 2**34} if taken else {}

    # ---------------------------------------------------------------- networks

    @rule(name=st.sampled_from(("w1", "w2")), calls=st.sampled_from((None, 1, 3)))
    def unreachable(self, name: str, calls: int | None) -> None:
        self.world.engines[name].go_away(calls)

    @rule(name=st.sampled_from(("w1", "w2")))
    def reachable(self, name: str) -> None:
        self.world.engines[name].come_back()

    @rule(
        name=st.sampled_from(("w1", "w2")),
        verb=st.sampled_from(("start", *VERBS)),
        faults=st.lists(st.sampled_from(Fault), min_size=1, max_size=2),
    )
    def calls_will_go_wrong(self, name: str, verb: str, faults: list[Fault]) -> None:
        if verb != "start":
            faults = [fault for fault in faults if fault is not Fault.LOST_HALF]
        self.world.engines[name].plan(verb, *faults)

    @rule(name=st.sampled_from(("w1", "w2")))
    def streams_drop(self, name: str) -> None:
        self.world.engines[name].drop_streams()

    @precondition(lambda self: self.world.late_starts())
    @rule(data=st.data())
    def a_late_start_lands(self, data: st.DataObject) -> None:
        self.world.land(data.draw(st.sampled_from(self.world.late_starts())))

    # ---------------------------------------------------------------- power supplies and time

    @rule(away=st.sampled_from((0.0, 0.5, 20.0, 3600.0)))
    def the_controller_is_killed_and_another_comes(self, away: float) -> None:
        self.world.kill_controller()
        self.world.loop.jump(away)
        self.world.start_controller()

    @rule(seconds=st.sampled_from((0.005, 0.05, 0.2, 0.5, 1.0, 3.0, 20.0, 40.0, 90.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    # ---------------------------------------------------------------- what must hold

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            found = [
                *never_more_than_there_is(self.world.history),
                *started_at_most_once(self.world.history),
            ]
            assert not found, found
            self.world.heal()
            self.world.converge()
            found = check(self.world.conclude())
            assert not found, found
            for worker in self.world.workers.values():
                assert max(worker.signals.values(), default=0) <= 1, "told once"
                assert worker.notes == {}, "no note of an end is left"
        finally:
            self.world.close()


@pytest.mark.timeout(3600)
def test_whatever_happens_the_promises_hold(template: Path) -> None:
    Machine.template = template
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            phases=STAGES,
            suppress_health_check=list(HealthCheck),
        ),
    )


IN_VIRTUAL_TIME_ALONE = {
    "a_late_start_lands",  # on real workers: "a start that comes late"
    "a_person_says_that_a_worker_is_gone",  # there: "worker lost", which takes minutes
}


def test_the_same_rules_are_tried_on_real_workers() -> None:
    virtual = {
        name for name, one in vars(Machine).items() if hasattr(one, "hypothesis_stateful_rule")
    }
    real = {name for name in vars(Anything) if not name.startswith("_") and name != "rules"}
    assert virtual - IN_VIRTUAL_TIME_ALONE == real
