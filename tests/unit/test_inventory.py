"""Inventory text to workers, and every way in which it cannot be meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloudai.core.errors import InvalidInput
from cloudai.core.model import GIB, MIB, Resources, Strategy, WorkerSpec
from cloudai.core.policy import Policy, Quota
from cloudai.inventory import FileInvalid, check_worker, parse
from cloudai.inventory.reading import read_fleet
from cloudai.inventory.scheduling import KEYS as SCHEDULING
from cloudai.inventory.scheduling import QUOTA
from cloudai.inventory.schema import KEYS, TOP_KEYS, WORKER_KEYS

ROOT = Path(__file__).parents[2]
ISSUE = """\
defaults: {user: ops, identity_file: ~/.ssh/id_ed25519}
groups:
  a100:
    labels: {zone: lab}
    workers:
      gpu1: {host: 10.0.0.11}
      gpu[2:8]: {host: "10.0.0.{n}"}          # ranges
workers:
  worker-1: {host: 192.168.1.100, port: 2222, reserve: {cpus: 1, memory: 2}, gpus: {max: 2}}
  lab-box: {}                                  # an alias of ~/.ssh/config
"""


def read(text: str) -> dict[str, WorkerSpec]:
    return parse(text, source="hosts.yaml")


def one(text: str) -> WorkerSpec:
    (spec,) = read(text).values()
    return spec


def lines(text: str) -> list[str]:
    with pytest.raises(FileInvalid) as caught:
        read(text)
    return caught.value.message.splitlines()


def test_a_whole_fleet() -> None:
    fleet = read(ISSUE)
    assert list(fleet) == [*(f"gpu{n}" for n in range(1, 9)), "worker-1", "lab-box"]
    assert fleet["gpu8"] == WorkerSpec(
        id="gpu8",
        host="10.0.0.8",
        user="ops",
        identity_file="~/.ssh/id_ed25519",
        labels={"zone": "lab"},
        groups=("a100",),
        place="hosts.yaml:7",
    )
    assert fleet["worker-1"] == WorkerSpec(
        id="worker-1",
        host="192.168.1.100",
        port=2222,
        user="ops",
        identity_file="~/.ssh/id_ed25519",
        reserve=Resources(cpu_milli=1000, memory=2 * GIB),
        max_gpus=2,
        place="hosts.yaml:9",
    )


def test_a_worker_without_host_is_an_alias_of_ssh_config() -> None:
    assert read(ISSUE)["lab-box"] == WorkerSpec(id="lab-box", place="hosts.yaml:10")
    fleet = read(
        "defaults: {user: ops, port: 1, labels: {a: b}}\n"
        "groups: {g: {user: ann, workers: {x: {}, y: {port: 7}}}}"
    )
    assert (fleet["x"].user, fleet["x"].port, fleet["x"].labels) == ("ann", None, {"a": "b"})
    assert (fleet["y"].user, fleet["y"].port) == ("ann", 7)
    assert one('defaults: {host: "{id}", user: ops}\nworkers: {x: {}}').user == "ops"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}", "workers:", "workers: {}", "~"])
def test_nothing_written_is_no_worker(text: str) -> None:
    assert read(text) == {}


def test_the_nearest_wins_and_tables_merge_by_key() -> None:
    fleet = read("""\
defaults:
  port: 1
  user: a
  labels: {x: d, y: d, z: d}
  reserve: {cpus: 1, memory: 1, gpus: 0.5}
  gpus: {max: 4, idle_memory: 1g}
groups:
  g:
    port: 2
    labels: {y: g, z: g}
    reserve: {memory: 512m}
    workers:
      w: {host: h, port: 3, labels: {z: w}, gpus: {max: 0}, reserve: {cpus: 0, storage: 10}}
""")
    assert fleet["w"] == WorkerSpec(
        id="w",
        host="h",
        port=3,
        user="a",
        labels={"x": "d", "y": "g", "z": "w"},
        reserve=Resources(memory=512 * MIB, storage=10 * GIB, gpu_milli=500),
        max_gpus=0,
        gpu_idle_memory=GIB,
        groups=("g",),
        place="hosts.yaml:13",
    )


def test_ranges() -> None:
    fleet = read(
        'defaults: {host: "{id}.lab"}\n'
        "workers:\n"
        '  n[08:11]-x: {port: "22{n:02}", labels: {rack: "r{n}"}}\n'
        "  g[0:1]: {}\n"
        "  one[5:5]: {}\n"
    )
    assert list(fleet) == ["n08-x", "n09-x", "n10-x", "n11-x", "g0", "g1", "one5"]
    assert (fleet["n08-x"].host, fleet["n08-x"].port) == ("n08-x.lab", 2208)
    assert fleet["n11-x"].labels == {"rack": "r11"}


def test_words_stay_words() -> None:
    spec = one("workers: {x: {host: no, user: yes, labels: {a: 12:30:45, b: 1.0, c: 0x10}}}")
    assert (spec.host, spec.user) == ("no", "yes")
    assert spec.labels == {"a": "12:30:45", "b": "1.0", "c": "0x10"}


def test_local() -> None:
    spec = one("defaults: {host: x, user: ops}\nworkers: {local: {connection: local}}")
    assert (spec.connection, spec.host, spec.user) == ("local", None, None)
    (line,) = lines("workers: {x: {connection: local, port: 22}}")
    assert line.endswith("port: is of no use with connection: local")
    (line,) = lines("groups: {g: {connection: local, workers: {x: {host: h}}}}")
    assert line.endswith("host: is of no use with connection: local")


def test_every_mistake_is_told_at_once_with_its_place() -> None:
    assert lines("""\
defaults: {usr: ops, port: abc}
groups:
  a:
    workers:
      gpu[2:8]: {hots: no, port: 12:30}
      gpu3: {memory: 3, host: "-oProxyCommand=x"}
      gpu[5:9]: {host: "h{n}", host: b}
workers:
  task-1: {}
  x: {reserve: 3, labels: [a], gpus: {max: two}, host: "a b"}
  y: {host: "{n}.lab"}
  z: [1]
""") == [
        f"hosts.yaml:{line}"
        for line in (
            f"1:12: unknown key 'usr'; did you mean 'user'? Known: {', '.join(WORKER_KEYS)}",
            "1:28: port: 'abc' is not a port; give a whole number from 1 to 65535",
            f"5:18: unknown key 'hots'; did you mean 'host'? Known: {', '.join(WORKER_KEYS)}",
            "5:34: port: '12:30' is not a port; give a whole number from 1 to 65535",
            "6:7: worker gpu3 stands twice: here as gpu3, and as gpu[2:8] at hosts.yaml:5",
            "6:14: unknown key 'memory'; write reserve: {memory: …} known: "
            + ", ".join(WORKER_KEYS),
            "6:31: host: '-oProxyCommand=x' is not a host; give an address, a name,"
            " or an alias of ~/.ssh/config",
            "7:7: worker gpu5 stands twice: here as gpu[5:9], and as gpu[2:8] at hosts.yaml:5",
            "7:32: key 'host' stands twice; first in line 7",
            "9:3: worker: 'task-1' looks like a task's id; begin it with another word",
            "10:16: reserve: '3' where keys and values belong, or {}",
            "10:27: labels: a list where keys and values belong, or {}",
            "10:44: gpus.max: 'two' is not a number of GPUs; give a whole number, 0 or more",
            "10:56: host: 'a b' is not a host; give an address, a name,"
            " or an alias of ~/.ssh/config",
            "11:13: host: '{n}.lab' uses {n}, and only ranges have a number",
            "12:6: z: a list where keys and values belong, or {}",
        )
    ]


def test_problems_are_data_for_programs() -> None:
    with pytest.raises(FileInvalid) as caught:
        read("workers:\n  x: {port: abc}")
    assert isinstance(caught.value, InvalidInput)
    (problem,) = caught.value.details["problems"]
    assert problem | {"text": ""} == {"file": "hosts.yaml", "line": 2, "column": 13, "text": ""}


def test_hundreds_of_problems_stay_readable() -> None:
    text = "workers:\n" + "".join(f"  w{n}: {{port: x}}\n" for n in range(300))
    assert len(lines(text)) == 21
    assert lines(text)[-1] == "hosts.yaml: and 280 more of the kind"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("wrokers: {}", "1:1: unknown key 'wrokers'; did you mean 'workers'? Known: defaults"),
        ("gpu1: {host: x}", "1:1: unknown key 'gpu1'; workers stand under `workers:`"),
        ("workers: {x: {host: !!str y}}", "1:21: a tag ("),
        ("workers: {x: !python/object:os.system {}}", "1:14: a tag ("),
        ("workers: {x: &a {}, y: *a}", "1:14: an anchor ('a')"),
        ("workers: {y: *a}", "1:14: an alias ('a')"),
        ("workers: {x: {<<: {host: y}}}", "1:15: a merge key (<<)"),
        ("workers: {x: {}}\n---\nworkers: {}", "2:1: a second document"),
        ("%YAML 1.1\n---\nworkers: {}", "2:1: a %-directive"),
        ("workers:\n\tx: {}", "2:1: a tab; YAML indents with spaces"),
        ("workers:\n  x:\n  \thost: y", "3:3: a tab; YAML indents with spaces"),
        ("workers: {x: {}, x: {}}", "1:18: key 'x' stands twice; first in line 1"),
        ("workers: [x]", "1:10: workers: a list where keys and values belong"),
        ("- x", "1:1: an inventory is keys and values"),
        ("just text", "1:1: an inventory is keys and values"),
        ("workers: {[a]: b}", "1:11: a key must be plain text"),
        ("workers: {~: {}}", "1:11: a key must be plain text"),
        ("workers: {gpu[1:2]: {}}", 'in braces a range needs quotes, such as "gpu[2:8]"'),
        ("workers: {x: {host: a", "not YAML: "),
        ("workers: {x: 'a\x07'}", "1:16: not YAML: a control character"),
        ("workers: {x: {host: }}", "1:15: host: has no value"),
        ("workers: {x: {host: ~}}", "1:21: host: has no value"),
        ("workers: {x: {host: {a: b}}}", "1:21: host: keys and values where one value belongs"),
        ("workers: {x: {host: 10.0.0.1:22}}", "has a port; write it apart"),
        ("workers: {x: {host: ann@h}}", "has a user; write it apart"),
        ("workers: {x: {host: 10.0.0.01}}", "zero in front"),
        ('workers: {x: {host: "a\\nb"}}', "host: 'a\\nb' is not a host"),
        ("workers: {x: {port: 0}}", "port: '0' is not a port"),
        ("workers: {x: {port: 65536}}", "port: '65536' is not a port"),
        ("workers: {x: {user: '-l root'}}", "user: '-l root' must be one word"),
        ("workers: {x: {proxy_jump: '-x'}}", "proxy_jump: '-x' must be one word"),
        ("workers: {x: {identity_file: ''}}", "identity_file: '' is not a path"),
        ("workers: {x: {connection: telnet}}", "connection: 'telnet' is not one of ssh, local"),
        ("workers: {x: {engine_socket: 'tcp://h:2375'}}", "is not a socket"),
        ("workers: {x: {reserve: {cpus: -1}}}", "reserve.cpus: '-1' is negative"),
        ("workers: {x: {reserve: {memory: lots}}}", "reserve.memory: 'lots' is not a size"),
        ("workers: {x: {reserve: {gpus: 1.5}}}", "reserve.gpus: '1.5' mixes"),
        ("workers: {x: {reserve: {mem: 1}}}", "did you mean 'memory'? Known: cpus, memory"),
        ("workers: {x: {labels: {'a b': c}}}", "labels: 'a b' is not a label's name"),
        ("workers: {x: {labels: {a: ''}}}", "labels.a: '' is not a label's value"),
        ("workers: {-x: {}}", "1:11: worker: '-x' has characters it cannot have"),
        ("workers: {'a b': {}}", "worker: 'a b' has characters"),
        ("workers: {'../x': {}}", "worker: '../x' has characters"),
        ('workers: {"a\\u202eb": {}}', "worker: 'a\\u202eb' has characters"),
        (f"workers: {{{'x' * 64}: {{}}}}", "is too long"),
        ("groups: {'a b': {}}", "group: 'a b' has characters"),
        ("groups: {g: {wrkers: {}}}", "did you mean 'workers'?"),
        ("workers:\n  g[8:2]: {}", "counts down"),
        ("workers:\n  g[1:99999999]: {}", "more than 10000 workers"),
        ("workers:\n  g[1:2:3]: {}", "is not a range"),
        ("workers:\n  g[a:b]: {}", "is not a range"),
        ("workers:\n  g[1:2][1:2]: {}", "is not a range"),
        ("workers:\n  g[1:2]: {port: '{n}000000'}", "port: '1000000' is not a port"),
        ("defaults: {port: x}", "1:18: port: 'x' is not a port"),
        ("groups: {a: {workers: {x: {}}}}\nworkers: {x: {}}", "at hosts.yaml:1"),
        ("{" * 50, "nested deeper than 10"),
        ("[" * 100_000, "a line of more than 10000 characters"),
        ("- " * 4000, "nested deeper than 10"),
        ("#\n" * 600_000, "is larger than 1 MiB"),
        ("\ufffd" * 400_000, "is larger than 1 MiB"),
    ],
)
def test_refused(text: str, problem: str) -> None:
    assert any(problem in line for line in lines(text)), lines(text)


def test_a_bomb_of_aliases_is_refused_at_its_first_anchor() -> None:
    bomb = "a: &a [x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)},*{chr(97 + n)}]\n" for n in range(20)
    )
    assert lines(bomb) == ["hosts.yaml:1:4: an anchor ('a'); use defaults and groups instead"]


def test_a_file_of_nothing_but_keys_ends_before_it_takes_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cloudai.inventory.tree.MOST_VALUES", 100)
    (line,) = lines("workers:\n" + "".join(f"  w{n}: {{}}\n" for n in range(100)))
    assert "too many keys and values" in line


def test_many_ranges_are_not_millions_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "workers:\n" + "".join(f"  a{n}-[1:9999]: {{}}\n" for n in range(3))
    monkeypatch.setattr("cloudai.inventory.reading.MOST_WORKERS", 15_000)
    assert lines(text)[-1].endswith("more than 15000 workers")


keys = (
    *(*TOP_KEYS, *(key for path in KEYS for key in path), "labels", "x", "g[1:3]", "{n}", "{id}"),
    *(*SCHEDULING, *QUOTA, "6h", "-1"),
)
marks = (
    *(
        ": ",
        ":\n",
        "\n",
        "\n  ",
        "\n    ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        "- ",
        "&a ",
        "*a",
        "!t ",
        "<<",
    ),
    *(
        "'",
        '"',
        "#",
        "|",
        ">",
        "? ",
        "---",
        "%",
        "\t",
        "\r\n",
        "\u2028",
        "\ufeff",
        "\x00",
        "~",
        "1",
    ),
)
words = st.sampled_from((*keys, *marks))


@given(st.text() | st.lists(words, max_size=40).map("".join))
@example("%YAML 9.9\n--- a")
@example("%YAML x\n---\n")
@example("%TAG ! x\n---\n")
@example("? ? ? a")
@example("\ud800")
@example('"\\U99999999"')
@example("*\u2028")
@example("!<x")
@example("!%zz a")
def test_any_text_is_an_inventory_or_an_inventory_error(text: str) -> None:
    try:
        fleet = read(text)
    except FileInvalid as error:
        told = error.message
    else:
        told = "fine"
        assert all(spec.id == worker_id for worker_id, spec in fleet.items())
    assert all(line.isprintable() and line for line in told.split("\n"))


# ------------------------------------------------------------------ example = schema = manual


def test_the_example_works_as_it_is() -> None:
    spec = one((ROOT / "inventory" / "hosts.yaml").read_text())
    assert (spec.id, spec.connection) == ("local", "local")


def uncommented() -> str:
    text = (ROOT / "inventory" / "hosts.yaml").read_text()
    return re.sub(r"(?m)^#(?=\S|  )", "", text)


def test_the_example_shows_every_key_and_each_line_of_it_is_right() -> None:
    fleet = read(uncommented())
    assert {"gpu8", "node12", "ann-pc", "local", "worker-1", "lab-box", "rootless"} <= set(fleet)
    assert fleet["node12"].host == "node12.example.com"
    for key in {*TOP_KEYS, "labels", *(key for path in KEYS for key in path), *SCHEDULING, *QUOTA}:
        assert re.search(rf"\b{key}:", uncommented()), key


def test_the_manual_names_every_key_and_its_example_is_right() -> None:
    manual = (ROOT / "docs" / "inventory.md").read_text()
    for key in {*TOP_KEYS, "labels", *(key for path in KEYS for key in path), *SCHEDULING, *QUOTA}:
        assert f"`{key}`" in manual, key
    found = re.search(r"```yaml\n(.*?)```", manual, re.DOTALL)
    assert found is not None
    assert len(read(found[1])) == 10


def test_a_worker_from_elsewhere_is_checked_by_the_same_rules() -> None:
    assert check_worker(WorkerSpec(id="x", host="h", port=22)).port == 22
    for wrong in (
        WorkerSpec(id="-x", host="h"),
        WorkerSpec(id="x", host="-oProxyCommand=x"),
        WorkerSpec(id="x", host="h", port=70000),
        WorkerSpec(id="x", host="h", user="a b"),
    ):
        with pytest.raises(InvalidInput):
            check_worker(wrong)


# ------------------------------------------------------------------ scheduling


def policy(text: str) -> Policy:
    return read_fleet(text, source="hosts.yaml").policy


def test_gpus_that_are_left_to_people_and_shared() -> None:
    spec = one("workers: {x: {gpus: {min_free: 2, share: 4}}}")
    assert (spec.min_free_gpus, spec.tasks_per_gpu) == (2, 4)
    assert (one("workers: {x: {}}").min_free_gpus, one("workers: {x: {}}").tasks_per_gpu) == (
        0,
        None,
    )
    assert (
        "gpus.share: '0' is not a number of tasks" in lines("workers: {x: {gpus: {share: 0}}}")[0]
    )


@pytest.mark.parametrize("text", ["", "workers: {}", "scheduling:", "scheduling: {}"])
def test_without_a_word_on_scheduling_the_defaults_hold(text: str) -> None:
    assert policy(text) == Policy()


def test_a_whole_policy() -> None:
    assert policy(uncommented()) == Policy(
        strategy=Strategy.BINPACK,
        half_life=7 * 86400,
        ageing=6 * 3600,
        heads=8,
        weights={"ann": 2, "*": 1},
        quotas={
            "*": Quota(tasks=20, gpu_milli=8000, gpu_hours=100),
            "bob": Quota(cpu_milli=64_000, gpu_milli=4000),
        },
        pool_quotas={"a100": {"*": Quota(gpu_milli=4000)}},
    )
    manual = (ROOT / "docs" / "inventory.md").read_text()
    (example,) = (
        text for text in re.findall(r"```yaml\n(.*?)```", manual, re.DOTALL) if "ageing" in text
    )
    assert policy(f"groups: {{a100: {{}}}}\n{example}").quota("bob") == Quota(gpu_milli=4000)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{strtegy: spread}", "1:14: unknown key 'strtegy'; did you mean 'strategy'?"),
        ("{strategy: sprad}", "scheduling.strategy: 'sprad'; did you mean 'spread'?"),
        ("{strategy: node-specific}", "needs nodes, which each task names for itself"),
        ("{half_life: soon}", "scheduling.half_life: 'soon' is not a duration"),
        ("{ageing: 0}", "scheduling.ageing: '0' is too short; give a duration such as 6h"),
        ("{heads: -1}", "scheduling.heads: '-1' is not a whole number"),
        ("{heads: }", "scheduling.heads: has no value"),
        ("{weights: {ann: 0}}", "scheduling.weights.ann: '0' is nothing; give a share"),
        ("{weights: {ann: much}}", "scheduling.weights.ann: 'much' is not a number"),
        ("{weights: {a b: 1}}", "scheduling.weights: 'a b' has characters it cannot have"),
        ("{weights: [ann]}", "scheduling.weights: a list where keys and values belong"),
        ("{quotas: {ann: 3}}", "scheduling.quotas.ann: '3' where keys and values belong"),
        ("{quotas: {ann: {gpu: 3}}}", "unknown key 'gpu'; did you mean 'gpus'?"),
        ("{quotas: {ann: {tasks: 1.5}}}", "scheduling.quotas.ann.tasks: '1.5' is not a whole"),
        ("{quotas: {ann: {tasks: [1]}}}", "scheduling.quotas.ann.tasks: a list where one value"),
        ("{pools: {a100: {}}}", "scheduling.pools: no group 'a100'; there are no groups"),
        ("nothing", "1:13: scheduling: 'nothing' where keys and values belong"),
    ],
)
def test_a_policy_that_cannot_be_meant(text: str, problem: str) -> None:
    (line,) = lines(f"scheduling: {text}")
    assert line.startswith("hosts.yaml:1:")
    assert problem in line


def test_a_pool_is_a_group_of_the_file() -> None:
    (line,) = lines("groups: {a100: {}}\nscheduling: {pools: {a10: {}}}")
    assert (
        line
        == "hosts.yaml:2:22: scheduling.pools: no group 'a10'; did you mean 'a100'? Known: a100"
    )
