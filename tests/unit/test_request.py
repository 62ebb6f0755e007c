"""The body of ``POST /tasks/``: what is taken, and in which words the rest is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.core.errors import InvalidInput
from cloudai.core.model import DEFAULT_RESOURCES, GIB, MIB, OnLost, Resources, Strategy, TaskSpec
from cloudai.core.request import (
    FIELDS,
    MOST_ARGUMENTS,
    MOST_OF_A_VARIABLE,
    OWN,
    Requests,
    read_request,
)


def read(**fields: Any) -> TaskSpec:
    return read_request({"docker_image": "alpine", **fields}, default_user="ann")[0]


def refused(**fields: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        read(**fields)
    error = caught.value
    assert error.message.isprintable(), "what was given is made visible, on one line"
    assert len(error.message) < 600
    assert error.details["field"]
    return f"{error.message} | {error.hint}"


def test_an_image_is_enough() -> None:
    spec, env = read_request({"docker_image": "alpine"}, default_user="ann")
    assert spec == TaskSpec(image="alpine", user_id="ann", resources=DEFAULT_RESOURCES)
    assert env == {}


def test_null_is_as_good_as_left_out() -> None:
    assert read(**dict.fromkeys(field for field in FIELDS if field != "docker_image")) == read()


def test_everything_at_once() -> None:
    spec, env = read_request(
        {
            "docker_image": "alpine:3", "argv": ["echo", "a b", ""], "req_cpu": 2.0,
            "req_memory": "512m", "req_storage": 10, "req_gpu": 0.5, "user_id": "bob@lab",
            "name": "nightly", "target": "gpu1", "env": {"TOKEN": "s3cret\n$(x)'\""},
            "mounts": ["src=/data,target=/data,ro,type=bind"], "workdir": "/work",
            "run_as": "1000:1000", "shm_size": 1, "time_limit": "90m", "grace": 30,
            "idempotency_key": "nightly 2026-01-31",
        },
        default_user="ann",
    )  # fmt: skip
    assert env == {"TOKEN": "s3cret\n$(x)'\""}
    assert spec == TaskSpec(
        image="alpine:3",
        argv=("echo", "a b", ""),
        resources=Resources(cpu_milli=2000, memory=512 * MIB, storage=10 * GIB, gpu_milli=500),
        user_id="bob@lab",
        name="nightly",
        target="gpu1",
        env=("TOKEN",),
        mounts=("type=bind,src=/data,dst=/data,readonly",),
        workdir="/work",
        run_as="1000:1000",
        shm_size=GIB,
        time_limit=5400.0,
        grace=30.0,
        idempotency_key="nightly 2026-01-31",
    )
    assert "s3cret" not in repr(spec)


def test_unknown_fields_name_the_nearest() -> None:
    assert "unknown field 'req_memmory'; did you mean 'req_memory'?" in refused(req_memmory=4)
    assert "unknown field 'zzz'; known: docker_image, argv" in refused(zzz=1)


@pytest.mark.parametrize("body", [None, [], "alpine", 3])
def test_a_body_that_is_no_object(body: Any) -> None:
    with pytest.raises(InvalidInput, match="send a JSON object"):
        read_request(body, default_user="ann")


def test_an_image_must_be_given() -> None:
    with pytest.raises(InvalidInput, match="docker_image: missing"):
        read_request({}, default_user="ann")
    assert "docker_image: '--privileged' begins with '-'" in refused(docker_image="--privileged")
    assert "docker_image: a list; give text" in refused(docker_image=["alpine"])


@pytest.mark.parametrize("field", ["req_cpu", "req_memory", "req_storage", "shm_size"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 1e300, "lots", True, [], ""])
def test_resources_that_cannot_be_meant(field: str, value: Any) -> None:
    assert refused(**{field: value}).startswith(f"{field}: ")


def test_resources_at_their_edges() -> None:
    assert "mixes whole GPUs and a share" in refused(req_gpu=1.5)
    assert "Docker needs 6m at the least" in refused(req_memory="5m")
    assert read(req_memory="6m").resources.memory == 6 * MIB
    assert read(req_gpu=0).resources.gpu_milli == 0


def test_a_command_is_shell_text_or_arguments() -> None:
    assert read(command="echo $HOME\n").shell == "echo $HOME\n"
    assert read(argv=[]).argv == ()
    assert "not both" in refused(command="x", argv=["x"])
    assert "says nothing to run" in refused(command=" \n")
    assert "argv[1]: 3; give text" in refused(argv=["x", 3])
    assert "argv: 'echo hi'; give a list" in refused(argv="echo hi")
    assert "names the program" in refused(argv=["", "x"])
    assert "zero byte" in refused(argv=["a\x00b"])
    assert "not valid UTF-8" in refused(command="\udcff")


def test_commands_are_bounded_since_docker_takes_them_as_arguments() -> None:
    assert len(read(argv=["x" * (MOST_ARGUMENTS - 2)]).argv[0]) == MOST_ARGUMENTS - 2
    assert "docker takes them as arguments" in refused(argv=["x"] * MOST_ARGUMENTS)
    assert "docker takes them as arguments" in refused(command="é" * (MOST_ARGUMENTS // 2 + 1))


@pytest.mark.parametrize("value", ["", "'\"", "a\nb", "$(reboot)", "x" * 100_000, "\x1b[31m", "é"])
def test_values_of_variables_are_any_text(value: str) -> None:
    spec, env = read_request({"docker_image": "a", "env": {"X": value}}, default_user="ann")
    assert env == {"X": value}
    assert spec.env == ("X",)


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=B", "É", "A\n", "A" * 300, "-e"])
def test_names_of_variables_are_names(name: str) -> None:
    assert "is not the name of a variable" in refused(env={name: "x"})


@pytest.mark.parametrize("name", ["NVIDIA_VISIBLE_DEVICES", "NVIDIA_MIG_CONFIG_DEVICES"])
def test_variables_that_choose_gpus_are_refused_with_the_reason(name: str) -> None:
    message = refused(env={name: "all"})
    assert f"env: {name} is set by cloudai alone: it would" in message
    assert "ask for GPUs with req_gpu (--gpus)" in message


def test_variables_that_only_matter_inside_are_fine() -> None:
    names = ("NVIDIA_DRIVER_CAPABILITIES", "CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE")
    assert read(env=dict.fromkeys(names, "x")).env == names


def test_variables_beyond_the_kernel_are_refused_and_their_values_never_shown() -> None:
    longest = MOST_OF_A_VARIABLE - len("X=")
    assert read(env={"X": "s" * longest}).env == ("X",)
    for value in ("s" * (longest + 1), "s\x00s", "s\udcff", 12345, ["s"]):
        message = refused(env={"X": value})
        assert message.startswith("env.X: ")
        assert "ss" not in message
        assert "12345" not in message
    assert "in all" in refused(env={f"X{n}": "s" * 100_000 for n in range(11)})
    assert "at most 1000" in refused(env={f"X{n}": "" for n in range(1001)})
    assert "give an object" in refused(env=["X=1"])


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("type=bind,src=/a,dst=/b", "type=bind,src=/a,dst=/b"),
        ("TYPE=BIND,Source=/a,Target=/b", "type=bind,src=/a,dst=/b"),
        ("dst=/b,src=/a,type=bind,readonly=1", "type=bind,src=/a,dst=/b,readonly"),
        ("type=bind,src=/a,dst=/b,ro=false", "type=bind,src=/a,dst=/b"),
        ('type=bind,"src=/a,b",dst=/b', 'type=bind,"src=/a,b",dst=/b'),
        ('type=bind,"src=/a ""q""",dst=/b', 'type=bind,"src=/a ""q""",dst=/b'),
        ('"type=bind",src=/a,dst=/b', "type=bind,src=/a,dst=/b"),
        ("type=bind,src=/a=b,dst=/b", "type=bind,src=/a=b,dst=/b"),
        ("dst=/cache", "type=volume,dst=/cache"),
        ("src=cache,dst=/cache,volume-nocopy", "type=volume,src=cache,dst=/cache,volume-nocopy"),
        (
            "type=volume,src=v,dst=/v,volume-opt=type=nfs,volume-opt=device=:/x",
            "type=volume,src=v,dst=/v,volume-opt=type=nfs,volume-opt=device=:/x",
        ),
        (
            "type=tmpfs,dst=/t,tmpfs-size=1g,tmpfs-mode=1777",
            "type=tmpfs,dst=/t,tmpfs-size=1g,tmpfs-mode=1777",
        ),
    ],
)
def test_mounts_are_read_and_written_anew(given: str, kept: str) -> None:
    assert read(mounts=[given]).mounts == (kept,)
    assert read(mounts=[kept]).mounts == (kept,)


@pytest.mark.parametrize(
    ("mount", "why"),
    [
        ("", "give 1 to"),
        ("/a:/b", "unknown key '/a:/b'"),
        ("type=bind,src=/a,dst=/b,readnly", "did you mean 'readonly'?"),
        ("type=bind, src=/a,dst=/b", "unknown key ' src'"),
        ("type=bnd,src=/a,dst=/b", "did you mean bind?"),
        ("type=npipe,src=/a,dst=/b", "is not bind, volume or tmpfs"),
        ("type=bind,dst=/b", "src of a bind mount must be an absolute path"),
        ("type=bind,src=data,dst=/b", "src of a bind mount must be an absolute path"),
        ("type=bind,src=./a,dst=/b", "src of a bind mount must be an absolute path"),
        ("type=bind,src=/a", "dst must be an absolute path"),
        ("type=bind,src=/a,dst=b", "dst must be an absolute path"),
        ("type=bind,src=/a,dst=/", "dst must be an absolute path"),
        ("type=bind,src=/a,dst=//.", "dst must be an absolute path"),
        ("src=/a,dst=/b", "write type=bind"),
        ("type=tmpfs,src=/x,dst=/t", "has no src"),
        ("type=bind,src=/a,dst=/b,tmpfs-size=1g", "is not for a bind mount"),
        ("type=tmpfs,dst=/t,tmpfs-size=x", "tmpfs-size: 'x' is not a size"),
        ("type=tmpfs,dst=/t,tmpfs-mode=9", "octal"),
        ("type=bind,src=/a,dst=/b,src=/c", "src stands twice"),
        ("type=bind,src=/a,dst=/b,readonly=maybe", "readonly is a flag"),
        ("type=bind,src=/a,dst=/b,bind-propagation=x", "is one of private"),
        ("type=bind,src=,dst=/b", "src needs a value"),
        ("type=bind,src=/a,dst=/b,", "unknown key ''"),
        ('type=bind,src=/a"b,dst=/b', "quotes are not those of CSV"),
        ('type=bind,"src=/a"b,dst=/b', "quotes are not those of CSV"),
        ('type=bind,"src=/a,dst=/b', "quotes are not those of CSV"),
        ("type=bind,src=/a\n,dst=/b", "line breaks"),
        ("type=bind,src=/a,dst=/var/run/nvidia-container-devices/all", "past the assignment"),
        ("type=bind,src=/a,dst=/run/nvidia-container-devices/all", "past the assignment"),
    ],
)
def test_mounts_that_cannot_be_meant(mount: str, why: str) -> None:
    message = refused(mounts=[mount])
    assert message.startswith("mounts[0]: ")
    assert why in message


def test_two_mounts_at_one_place() -> None:
    assert "same dst" in refused(mounts=["dst=/a", "type=tmpfs,dst=/a/"])
    assert "at most 64" in refused(mounts=[f"dst=/m{n}" for n in range(65)])


BAD_NAMES = ["", "a b", "-a", "a/b", "../x", "x\n", "ab\u202etxt", "n" * 300, "é", "a\x1b[1m"]


@pytest.mark.parametrize("field", ["name", "target", "user_id", "run_as"])
@pytest.mark.parametrize("value", BAD_NAMES)
def test_names_that_are_not_names(field: str, value: str) -> None:
    assert refused(**{field: value}).startswith(f"{field}: ")


@pytest.mark.parametrize("name", ["task-1731629400-abc", "task-x", "task"])
def test_a_name_is_not_taken_for_an_id(name: str) -> None:
    assert "looks like a task's id" in refused(name=name)


@pytest.mark.parametrize("user", ["1000:1000", "1000", "ann:staff"])
def test_whose_task_it_is_and_who_it_runs_as_are_two_things(user: str) -> None:
    assert "`--run-as UID[:GID]`" in refused(user_id=user)


def test_run_as() -> None:
    for good in ("0", "1000:1000", "nobody", "www-data:www-data"):
        assert read(run_as=good).run_as == good
    for bad in ("1000:", ":5", "4294967296", "a:b:c", "-1"):
        assert refused(run_as=bad).startswith("run_as: ")


def test_workdir() -> None:
    assert "give an absolute path" in refused(workdir="work")
    assert "give an absolute path" in refused(workdir="/a\nb")


def test_time_limit_and_grace() -> None:
    assert read(time_limit=0.5).time_limit == 0.5
    assert "give more than nothing" in refused(time_limit="0s")
    assert read(grace=0).grace == 0
    assert "give 0 to 3600 seconds" in refused(grace="2h")
    assert read().grace == TaskSpec(image="x").grace


def test_what_becomes_of_it_when_its_worker_is_lost() -> None:
    assert (read().on_lost, read().lost_after) == (OnLost.WAIT, 600)
    spec = read(on_lost="requeue", lost_after="1h")
    assert (spec.on_lost, spec.lost_after) == (OnLost.REQUEUE, 3600)
    assert "give wait, requeue or fail" in refused(on_lost="retry")
    assert "a minute at the least" in refused(lost_after=59)
    assert read(lost_after=60).lost_after == 60
    assert read().lost_after == TaskSpec(image="x").lost_after


@pytest.mark.parametrize(
    ("given", "kept"),
    [("low", 25), ("Normal", 50), ("high", 75), (" URGENT ", 100), (0, 0), ("7", 7), (100.0, 100)],
)
def test_priorities_are_words_or_numbers(given: Any, kept: int) -> None:
    assert read(priority=given).priority == kept


@pytest.mark.parametrize("given", ["highest", -1, 101, 2.5, True, "1e1", [], ""])
def test_priorities_that_are_none(given: Any) -> None:
    assert "priority: " in refused(priority=given)
    assert "give low, normal, high, urgent, or a whole number from 0 to 100" in refused(
        priority=given
    )


def test_strategies_in_any_spelling() -> None:
    assert read().strategy is None
    for text in ("load_balanced", "Load-Balanced", " LOAD_BALANCED "):
        assert read(strategy=text).strategy is Strategy.LOAD_BALANCED
    assert "did you mean 'spread'? Known: spread, load_balanced" in refused(strategy="spred")


def test_nodes() -> None:
    assert read(nodes="gpu1").nodes == ("gpu1",)
    spec = read(nodes=["gpu1", "zone == lab", "pool=a100", "gpu1"], strategy="node-specific")
    assert spec.nodes == ("gpu1", "zone=lab", "pool=a100")
    assert "it needs nodes" in refused(strategy="node_specific")
    assert "give a worker's id, a pool's name, or label=value" in refused(nodes=["zone!=lab"])
    assert "nodes: 3; give ids" in refused(nodes=[3])
    assert "at most 32" in refused(nodes=["a"] * 33)


def test_gpus_by_model_and_memory() -> None:
    spec = read(gpu_model=" A100-SXM4 80GB ")
    assert (spec.gpu_model, spec.resources.gpu_milli) == ("A100-SXM4 80GB", 1000)
    assert read(gpu_model="a100", req_gpu=0.5).resources.gpu_milli == 500
    assert read(gpu_memory=40, req_gpu=1).gpu_memory == 40 * GIB
    assert read(gpu_memory="512m", gpu_model="t4").gpu_memory == 512 * MIB
    for field, value in (("gpu_model", "a100"), ("gpu_memory", 40)):
        assert "it needs GPUs: give req_gpu" in refused(**{field: value, "req_gpu": 0})
    assert "it needs GPUs" in refused(gpu_memory=40)
    for bad in ("", "a100:2", "-a", "a\nb", "x" * 64, "é"):
        assert "part of the model's name" in refused(gpu_model=bad)


def test_what_a_worker_must_and_must_not_meet() -> None:
    spec = read(require=["zone == lab", "memory >= 64"], avoid="gpu_model=Tesla T4")
    assert spec.require == ("zone=lab", "memory>=64")
    assert spec.avoid == ("gpu_model=Tesla T4",)
    assert "require: 'zone=' cannot be meant; give an expression" in refused(require=["zone="])
    assert refused(avoid=[{}]).startswith("avoid: ")


def test_other_tasks_to_be_near_or_apart_from() -> None:
    spec = read(near=["db", "task-1731629400-k3f9x2"], apart="db")
    assert spec.near == ("db", "task-1731629400-k3f9x2")
    assert spec.apart == ("db",)
    assert "give a task's id or name" in refused(near=["a b"])


def test_preemptible_is_a_flag() -> None:
    assert not read().preemptible
    assert read(preemptible=True).preemptible
    assert "give true or false" in refused(preemptible="yes")


def test_retries_and_for_what() -> None:
    assert (read().retries, read().retry_on) == (0, ())
    spec = read(retries="3", retry_on="OOM, lost,075,7,7")
    assert (spec.retries, spec.retry_on) == (3, ("oom", "lost", "75", "7"))
    assert read(retries=1, retry_on=["exit", 137]).retry_on == ("exit", "137")
    assert read(retries=1, retry_on=[]).retry_on == ()
    assert "give a whole number from 0 to 100" in refused(retries=101)
    assert "it needs retries" in refused(retry_on="oom")
    for bad in ("out", "0", "256", [True], [""], {}):
        assert refused(retries=1, retry_on=bad).startswith("retry_on: ")


def test_idempotency_keys_are_visible_text() -> None:
    assert read(idempotency_key="k" * 255).idempotency_key == "k" * 255
    for bad in ("", "  ", "k" * 256, "a\nb", "a\u202eb", 7):
        assert refused(idempotency_key=bad).startswith("idempotency_key: ")


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
nearly = st.dictionaries(st.sampled_from(FIELDS), json, max_size=5)


@given(nearly | json)
def test_any_body_is_read_or_refused(body: Any) -> None:
    for whole in (body, {**body, "docker_image": "alpine"} if isinstance(body, dict) else body):
        try:
            spec, env = read_request(whole, default_user="ann")
        except InvalidInput as error:
            message = error.message
        else:
            message = ""
            assert tuple(env) == spec.env
        assert message.isprintable()


def outcome(read: Any, body: Any) -> object:
    try:
        spec, env = read(body)
    except InvalidInput as error:
        return error.message, error.hint, error.details
    return repr(spec), env


SHARED: dict[str, Any] = {
    "docker_image": "alpine:3", "req_cpu": 1, "mounts": ["type=bind,src=/d,dst=/d"],
    "priority": "high", "retries": 2, "time_limit": "1h", "signal": "USR1@60",
    "uploads": ["/a=>/b"],
}  # fmt: skip
own = st.fixed_dictionaries(
    {},
    optional={
        "command": st.sampled_from(["echo 1", "", " ", None, 7, "x" * MOST_ARGUMENTS]),
        "argv": st.sampled_from([[], ["a", "b"], [""], None, "a", [1]]),
        "script": st.sampled_from(["#!/bin/sh\necho", "echo", None]),
        "env": st.sampled_from([{}, {"A": "1"}, {"A": 1}, {"": "x"}, None, []]),
        "name": st.sampled_from(["one", "two", "-", "", None, 5]),
    },
)
alike = st.sampled_from(
    [SHARED, {**SHARED, "req_cpu": True}, {**SHARED, "req_cpu": 1.0}, {"docker_image": "-"}]
)


@given(st.lists(st.tuples(alike, own), min_size=1, max_size=6))
def test_what_many_share_is_read_as_each_alone_would_be(bodies: Any) -> None:
    many = Requests(default_user="ann")
    for shared, its_own in bodies:
        body = {**its_own, **shared}
        assert outcome(many.read, body) == outcome(
            lambda one: read_request(one, default_user="ann"), body
        )


def test_what_many_share_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    monkeypatch.setattr("cloudai.core.request.check_image", lambda text: checked.append(text))
    many = Requests(default_user="ann")
    specs = [many.read({**SHARED, "name": f"one-{n}", "argv": ["x"]})[0] for n in range(5)]
    assert [spec.name for spec in specs] == [f"one-{n}" for n in range(5)]
    assert checked == ["alpine:3"]
    many.read({**SHARED, "priority": "low"})
    assert checked == ["alpine:3"] * 2


def test_fields_of_ones_own_change_nothing_else() -> None:
    plain = read(**SHARED)
    for field, value in {
        "command": "echo", "argv": ["a"], "script": "#!/bin/sh\n", "env": {"A": "1"}, "name": "n"
    }.items():  # fmt: skip
        assert field in OWN
        changed = {"command": "shell", "script": "shell"}.get(field, field)
        spec = read(**SHARED, **{field: value})
        assert replace(spec, **{changed: getattr(plain, changed)}) == plain
