"""``docker run`` as data: whole lines compared, no engine asked."""

from __future__ import annotations

import dataclasses
import shlex

import pytest

from cloudai.core.errors import InvalidInput
from cloudai.core.model import GIB, MIB, Resources, TaskSpec
from cloudai.engines import Order
from cloudai.engines.docker import command
from cloudai.engines.docker.failures import why_not_pulled, why_not_started
from cloudai.engines.groups import group_env, master_port

SPEC = TaskSpec(
    image="python:3.9",
    argv=("python", "-c", "print('it''s')"),
    resources=Resources.of(cpus=2, memory=4, storage=10),
    user_id="ann",
    name="train it",
    env=("TOKEN",),
    mounts=("type=bind,src=/data,dst=/data",),
    workdir="/work",
    run_as="1000:1000",
)


def order(**changes: object) -> Order:
    return Order(
        assignment_id="task-1731629400-k3f9x2.1",
        task_id="task-1731629400-k3f9x2",
        store_id="store-7",
        spec=dataclasses.replace(SPEC, **changes),
        env={},
    )


def test_a_task_with_everything() -> None:
    placed = order()
    assert shlex.join(command.run_options(placed, storage_limit="quota", env=("TOKEN",))) == (
        "--name task-1731629400-k3f9x2.1 --pull never --init --cpus 2 --memory 4g --memory-swap 4g"
        " --storage-opt size=10g --shm-size 2g --pids-limit 16384 --ulimit nofile=65536:65536"
        " --log-driver json-file --log-opt max-size=50m --log-opt max-file=10"
        " --label cloudai.task=task-1731629400-k3f9x2"
        " --label cloudai.assignment=task-1731629400-k3f9x2.1 --label cloudai.store=store-7"
        " --label cloudai.user=ann --label 'cloudai.name=train it'"
        f" --label cloudai.spec={command.spec_hash(placed.spec)} --label cloudai.cpu_milli=2000"
        " --label cloudai.memory=4294967296 --label cloudai.storage=10737418240"
        " --label cloudai.gpu_milli=0 -e NVIDIA_VISIBLE_DEVICES=void -e TOKEN"
        " --mount type=bind,src=/data,dst=/data --workdir /work --user 1000:1000"
    )


def test_the_line_people_see() -> None:
    asked = order(
        argv=(),
        shell="nvidia-smi; echo '$HOME'",
        resources=Resources.of(cpus=0.5, memory=0.25, storage=1, gpus=2),
        name=None,
        mounts=(),
        workdir=None,
        run_as=None,
        shm_size=64 * MIB,
    ).spec
    assert command.preview(asked) == (
        "docker run -d --cpus 0.5 --memory 256m --gpus 2 --shm-size 64m -e TOKEN"
        """ --entrypoint /bin/sh -- python:3.9 -c 'nvidia-smi; echo '"'"'$HOME'"'"''"""
    )


def test_the_line_people_see_has_what_they_asked_and_nothing_of_ours() -> None:
    assert command.preview(order().spec, storage_limit="quota") == (
        "docker run -d --cpus 2 --memory 4g --storage-opt size=10g -e TOKEN"
        " --mount type=bind,src=/data,dst=/data --workdir /work --user 1000:1000"
        f" -- {shlex.join([order().spec.image, *order().spec.argv])}"
    )


MEMBER = {"group": "group-1731629400-q8d2f1", "group_size": 3, "group_rank": 2}


def test_a_member_of_a_group_has_its_hosts_network() -> None:
    line = shlex.join(command.run_options(order(**MEMBER), storage_limit="watch", env=()))
    assert " --network host " in line
    assert " --network host " in command.preview(order(**MEMBER).spec)
    alone = order(**(MEMBER | {"group_size": 1, "group_rank": 0}))
    assert "--network" not in command.run_options(alone, storage_limit="watch", env=())
    assert "--network" not in command.preview(alone.spec)
    assert group_env(alone) == {}


def test_what_a_member_is_told() -> None:
    placed = dataclasses.replace(order(**MEMBER), peers=("10.0.0.1", "10.0.0.7", "10.0.0.2"))
    port = "24289"
    assert group_env(placed) == {
        "CLOUDAI_GROUP": "group-1731629400-q8d2f1",
        "CLOUDAI_RANK": "2",
        "CLOUDAI_WORLD_SIZE": "3",
        "CLOUDAI_MASTER_ADDR": "10.0.0.1",
        "CLOUDAI_MASTER_PORT": port,
        "CLOUDAI_PEERS": "10.0.0.1,10.0.0.7,10.0.0.2",
        "RANK": "2",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "3",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": port,
        "PET_NODE_RANK": "2",
        "PET_NNODES": "3",
        "PET_MASTER_ADDR": "10.0.0.1",
        "PET_MASTER_PORT": port,
    }


def test_ports_of_groups_are_known_to_all_and_spread() -> None:
    ports = {master_port(f"group-{number}") for number in range(100)}
    assert len(ports) > 95
    assert all(20000 <= one < 30000 for one in ports)


def test_the_memory_of_a_gpu_is_a_label_where_it_is_declared() -> None:
    share = Resources.of(cpus=1, memory=1, gpus=0.5)
    words = command.run_options(
        order(resources=share, gpu_memory=20 * GIB), storage_limit="watch", env=()
    )
    assert "cloudai.gpu_memory=21474836480" in words
    for without in (order(resources=share), order(gpu_memory=20 * GIB)):
        line = shlex.join(command.run_options(without, storage_limit="watch", env=()))
        assert "gpu_memory" not in line


def test_a_share_of_a_gpu_is_one_to_docker() -> None:
    asked = order(resources=Resources.of(cpus=1, memory=1, gpus=0.5)).spec
    assert " --gpus 1 " in command.preview(asked)


def test_storage_is_only_promised_where_it_is_enforced() -> None:
    assert "--storage-opt" not in command.run_options(order(), storage_limit="watch", env=())


def test_an_image_that_looks_like_an_option_stays_an_image() -> None:
    words = shlex.split(command.preview(order(image="--privileged", argv=("busybox", "true")).spec))
    assert words[words.index("--") + 1] == "--privileged"


def test_a_gpu_task_may_see_its_gpus() -> None:
    words = command.run_options(
        order(resources=Resources.of(cpus=1, memory=1, gpus=1)), storage_limit="watch", env=()
    )
    assert "NVIDIA_VISIBLE_DEVICES=void" not in words


@pytest.mark.parametrize(
    ("memory", "shm"), [(16 * MIB, "64m"), (GIB, "512m"), (3 * GIB + 2, "1610612737b")]
)
def test_shared_memory_is_half_the_memory(memory: int, shm: str) -> None:
    placed = order(resources=Resources(cpu_milli=1000, memory=memory))
    words = command.run_options(placed, storage_limit="watch", env=())
    assert words[words.index("--shm-size") + 1] == shm


def test_the_hash_is_of_the_whole_spec() -> None:
    assert command.spec_hash(SPEC) == command.spec_hash(dataclasses.replace(SPEC))
    for changed in ({"argv": ("x",)}, {"workdir": "/"}, {"resources": Resources()}):
        assert command.spec_hash(SPEC) != command.spec_hash(dataclasses.replace(SPEC, **changed))


# --- environment


def test_plain_values_go_by_the_env_file_and_others_by_the_environment() -> None:
    plan = command.plan_env({"A": 'it\'s "$(id)" ', "B": "x\ny", "C": "x" * 100_000, "D": "\r"})
    assert plan.lines == ('A=it\'s "$(id)" ',)
    assert plan.exported == {"B": "x\ny", "C": "x" * 100_000, "D": "\r"}


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "HOME",
        "DOCKER_HOST",
        "DOCKER_CONFIG",
        "LD_PRELOAD",
        "https_proxy",
        "HTTP_PROXY",
        "no_proxy",
        "XDG_RUNTIME_DIR",
        "GODEBUG",
        "TMPDIR",
        "BUILDKIT_PROGRESS",
        "IFS",
        "PS4",
        "ENV",
        "PPID",
        "UID",
        "BASH_ENV",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "SSL_CERT_FILE",
        "LC_ALL",
        "GLIBC_TUNABLES",
    ],
)
def test_what_the_client_acts_on_never_enters_its_environment(name: str) -> None:
    assert command.plan_env({name: "tcp://evil"}) == command.EnvPlan((f"{name}=tcp://evil",), {})
    for value in ("two\nlines", "x" * 70_000):
        with pytest.raises(InvalidInput, match=name):
            command.plan_env({name: value})


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"A-B": "1"}, "cannot be the name"),
        ({"": "1"}, "cannot be the name"),
        ({"1A": "1"}, "cannot be the name"),
        ({"A=B": "1"}, "cannot be the name"),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, "is set by cloudai"),
        ({"A": "x\x00"}, "NUL"),
        ({"A": "\udcff"}, "UTF-8"),
        ({"A": "x" * 140_000}, "at most 127 KB"),
        ({f"A{n}": "x" * 100_000 for n in range(12)}, "1024 KB"),
    ],
)
def test_what_cannot_be_given_whole_is_refused(env: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        command.plan_env(env)


# --- the engine's words


@pytest.mark.parametrize(
    ("said", "meant", "transient"),
    [
        (
            "docker: Error response from daemon: failed to create shim task: OCI runtime create"
            ' failed: runc create failed: unable to start container process: exec: "nosuch":'
            " executable file not found in $PATH: unknown",
            'cannot start: "nosuch" is not a command in the image busybox',
            False,
        ),
        (
            'exec: "/bin": permission denied: unknown',
            'cannot start: "/bin" in the image busybox may not be executed',
            False,
        ),
        (
            'docker: Error response from daemon: could not select device driver "" with'
            " capabilities: [[gpu]].",
            "cannot give GPUs to containers",
            False,
        ),
        (
            "nvidia-container-cli: device error: GPU-1: unknown device: unknown",
            "the worker's GPU runtime refused: device error: GPU-1: unknown device",
            False,
        ),
        (
            'invalid mount config for type "bind": bind source path does not exist: /nosuch',
            "mount: /nosuch does not exist on the worker",
            False,
        ),
        (
            "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
            "more CPUs are asked for than the worker has (2.00)",
            False,
        ),
        (
            "mkdir /var/lib/docker/x: no space left on device",
            "the disk of its Docker is full",
            True,
        ),
        (
            "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
            "Docker is down",
            True,
        ),
        (
            "cannot share the host's network namespace when user namespaces are enabled",
            "userns-remap",
            False,
        ),
        ("something new", "Docker refused to start it: something new", False),
        ("", "Docker gave no reason", False),
    ],
)
def test_why_it_did_not_start(said: str, meant: str, transient: bool) -> None:
    why = why_not_started(said, image="busybox")
    assert meant in why.reason
    assert why.transient is transient
    assert said.rsplit(": ", 1)[0].removeprefix("docker: Error response from daemon: ")[:40] in (
        why.reason
    )


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (
            "pull access denied for x, repository does not exist or may require login",
            "no such image",
        ),
        ("manifest for busybox:nope not found: manifest unknown", "no such tag"),
        ("dial tcp: lookup r.example on 1.1.1.1:53: no such host", "cannot reach the registry"),
        ("dial tcp 127.0.0.1:1: connect: connection refused", "did not answer"),
        ("invalid reference format", "not an image name"),
        (
            "write /var/lib/docker/tmp: no space left on device",
            "disk of the worker's Docker is full",
        ),
    ],
)
def test_why_it_was_not_pulled(said: str, meant: str) -> None:
    reason = why_not_pulled(f"Error response from daemon: {said}", image="x").reason
    assert meant in reason
    assert said in reason
