"""What an engine's description of a container means, and that a forged one does no harm."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.core.model import GIB, Phase, Resources
from cloudai.engines.docker import labels
from cloudai.engines.docker.containers import killed_for_unknown_reason, moment, sight_of

NEVER = "0001-01-01T00:00:00Z"
BEGAN = "2026-01-31T12:00:00.123456789Z"
ENDED = "2026-01-31T12:00:05.5Z"


def document(**state: Any) -> dict[str, Any]:
    """An inspect document, as engine 20.10 writes one, of a container of ours."""
    return {
        "Id": "ab" * 32,
        "Created": "2026-01-31T11:59:59Z",
        "Name": "/task-1-abc.1",
        "State": {
            "Status": "running",
            "Running": True,
            "Paused": False,
            "Restarting": False,
            "OOMKilled": False,
            "Dead": False,
            "ExitCode": 0,
            "Error": "",
            "StartedAt": BEGAN,
            "FinishedAt": NEVER,
        }
        | state,
        "Config": {
            "Tty": False,
            "Labels": {
                labels.TASK: "task-1-abc",
                labels.ASSIGNMENT: "task-1-abc.1",
                labels.STORE: "store-1",
                labels.USER: "ann",
                labels.NAME: "train",
                labels.CPU_MILLI: "1500",
                labels.MEMORY: str(GIB),
                labels.STORAGE: "10",
                labels.GPU_MILLI: "2000",
                labels.GPUS: "GPU-a,GPU-b",
            },
        },
        "HostConfig": {
            "NanoCpus": 1_500_000_000,
            "CpuQuota": 0,
            "CpuPeriod": 0,
            "Memory": GIB,
            "MemorySwap": GIB,
            "PidsLimit": 4096,
            "StorageOpt": {"size": "10G"},
        },
    }


EXITED = {"Status": "exited", "Running": False, "FinishedAt": ENDED}


def test_a_running_container_is_read_whole() -> None:
    sight = sight_of(document())
    assert sight is not None
    assert (sight.id, sight.assignment_id, sight.task_id) == (
        "ab" * 32,
        "task-1-abc.1",
        "task-1-abc",
    )
    assert (sight.store_id, sight.user_id, sight.task_name) == ("store-1", "ann", "train")
    assert sight.phase is Phase.RUNNING
    assert sight.held == Resources(cpu_milli=1500, memory=GIB, storage=10, gpu_milli=2000)
    assert sight.gpus == ("GPU-a", "GPU-b")
    assert sight.started_at == datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
    assert sight.created_at == datetime(2026, 1, 31, 11, 59, 59, tzinfo=UTC)
    assert (sight.finished_at, sight.exit_code, sight.error) == (None, None, "")
    assert sight.limits == {
        "cpu_milli": 1500,
        "memory": GIB,
        "memory_swap": GIB,
        "pids": 4096,
        "storage": 10 * GIB,
    }


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        ({"Status": "created", "Running": False, "StartedAt": NEVER}, Phase.CREATED),
        ({"Status": "running"}, Phase.RUNNING),
        ({"Status": "restarting", "Restarting": True}, Phase.RUNNING),
        ({"Status": "paused", "Paused": True}, Phase.PAUSED),
        ({"Status": "exited", "Running": False}, Phase.EXITED),
        ({"Status": "dead", "Running": False, "Dead": True}, Phase.EXITED),
        ({"Status": "removing", "Running": False}, Phase.EXITED),
        ({"Status": "removing", "Running": False, "StartedAt": NEVER}, Phase.CREATED),
        ({"Status": "a word of 2040", "Running": True}, Phase.RUNNING),
        ({"Status": "a word of 2040", "Running": True, "Paused": True}, Phase.PAUSED),
        ({"Status": None, "Running": False}, Phase.EXITED),
    ],
)
def test_every_status_has_a_phase(state: dict[str, Any], phase: Phase) -> None:
    sight = sight_of(document(**state))
    assert sight is not None
    assert sight.phase is phase


def test_an_exit_is_read_with_its_code() -> None:
    sight = sight_of(document(**EXITED, ExitCode=3))
    assert sight is not None
    assert (sight.exit_code, sight.oom_killed) == (3, False)
    assert sight.finished_at == datetime(2026, 1, 31, 12, 0, 5, 500000, tzinfo=UTC)


def test_no_container_ends_before_it_began() -> None:
    earlier = "2026-01-31T12:00:00.122Z"
    sight = sight_of(document(**EXITED | {"FinishedAt": earlier}))
    assert sight is not None
    assert sight.finished_at == sight.started_at


def test_a_container_that_never_started_has_no_exit_code() -> None:
    sight = sight_of(document(Status="created", Running=False, StartedAt=NEVER, ExitCode=0))
    assert sight is not None
    assert (sight.started_at, sight.exit_code) == (None, None)


def test_a_failed_start_keeps_the_code_and_the_word_of_its_failure() -> None:
    sight = sight_of(
        document(
            Status="created", Running=False, StartedAt=NEVER, ExitCode=127, Error="no such file"
        )
    )
    assert sight is not None
    assert (sight.started_at, sight.exit_code, sight.error) == (None, 127, "no such file")


@pytest.mark.parametrize(("oom", "unknown"), [(True, False), (False, True)])
def test_a_kill_is_looked_at_again_unless_memory_is_the_known_reason(
    oom: bool, unknown: bool
) -> None:
    sight = sight_of(document(**EXITED, ExitCode=137, OOMKilled=oom))
    assert sight is not None
    assert (sight.oom_killed, killed_for_unknown_reason(sight)) == (oom, unknown)


@pytest.mark.parametrize("missing", [labels.TASK, labels.ASSIGNMENT, labels.STORE])
def test_without_our_labels_it_is_not_ours(missing: str) -> None:
    stranger = document()
    del stranger["Config"]["Labels"][missing]
    assert sight_of(stranger) is None


def test_a_copied_label_under_another_name_is_not_ours() -> None:
    assert sight_of(document() | {"Name": "/task-1-abc.2"}) is None


@pytest.mark.parametrize("forged", ["-5", "1e9", "9" * 40, "", "many", "１２", None, 7])
def test_a_forged_amount_never_frees_what_others_hold_nor_overflows(forged: Any) -> None:
    forgery = document()
    forgery["Config"]["Labels"][labels.MEMORY] = forged
    sight = sight_of(forgery)
    assert sight is not None
    assert sight.held.memory == 0


def test_an_amount_beyond_the_largest_is_the_largest() -> None:
    forgery = document()
    forgery["Config"]["Labels"][labels.MEMORY] = "9" * 25
    sight = sight_of(forgery)
    assert sight is not None
    assert sight.held.memory == 2**63 - 1


def test_limits_say_zero_for_unlimited_and_read_quotas() -> None:
    unlimited = document()
    unlimited["HostConfig"] = {"PidsLimit": None, "MemorySwap": -1, "CpuQuota": 50_000}
    sight = sight_of(unlimited)
    assert sight is not None
    assert sight.limits == {
        "cpu_milli": 500,
        "memory": 0,
        "memory_swap": 0,
        "pids": 0,
        "storage": 0,
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (NEVER, None),
        ("2026-01-31T13:00:00.5+01:00", datetime(2026, 1, 31, 12, 0, 0, 500000, tzinfo=UTC)),
        ("2026-01-31", None),
        ("T", None),
        ("0001-01-01T00:00:00+14:00", None),
        (None, None),
        (12, None),
    ],
)
def test_moments(text: object, expected: datetime | None) -> None:
    assert moment(text) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=10,
)
PLACES = [
    *(("Id",), ("Created",), ("Name",), ("State",), ("Config",), ("HostConfig",)),
    *(("Config", "Labels"), ("Config", "Labels", labels.GPUS), ("Config", "Labels", labels.MEMORY)),
    *(
        ("State", key)
        for key in ("Status", "Running", "ExitCode", "Error", "StartedAt", "OOMKilled")
    ),
    *(("HostConfig", key) for key in ("NanoCpus", "Memory", "PidsLimit", "StorageOpt", "CpuQuota")),
    ("HostConfig", "StorageOpt", "size"),
]


@given(place=st.sampled_from(PLACES), value=JSON)
def test_no_forged_document_crashes_or_gets_a_value_of_the_wrong_kind(
    place: tuple[str, ...], value: Any
) -> None:
    forgery: Any = copy.deepcopy(document(**EXITED))
    inner = forgery
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    sight = sight_of(forgery)
    if sight is not None:
        assert isinstance(sight.error, str)
        assert isinstance(sight.oom_killed, bool)
        assert sight.exit_code is None or type(sight.exit_code) is int
        assert all(type(limit) is int and limit >= 0 for limit in sight.limits.values())
        assert 0 <= sight.held.memory <= 2**63 - 1


@given(JSON)
def test_anything_at_all_may_stand_in_a_document(value: Any) -> None:
    assert sight_of({"Config": value, "State": value, "Name": value, "Id": value}) is None
