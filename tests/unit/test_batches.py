"""Batch files: what they come to, and what is told of their mistakes."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai.batches import Asked, File, link, read_files
from cloudai.batches.pattern import Pattern
from cloudai.core.errors import InvalidInput, TaskNotFound
from cloudai.core.model import OnUnmet, Placement
from cloudai.core.problems import FileInvalid
from cloudai.expressions import render

NOW = datetime(2026, 1, 31, 2, 0, tzinfo=UTC)


def unknown(ref):
    raise TaskNotFound(ref)


def read(*files, resolve=unknown, **settings):
    """The planned tasks of these texts: YAML, or (text, format)."""
    numbers = itertools.count(1)
    asked = Asked(settings, NOW, "ann", "batch-1-a", lambda kind: f"{kind}-1-{next(numbers)}")
    sent = [
        File(f"f{at}.yaml", text, "yaml")
        if isinstance(text, str)
        else File(f"f{at}.{text[1]}", *text)
        for at, text in enumerate(files, start=1)
    ]
    found = read_files(sent, asked)
    link(found, asked, resolve)
    return found


def wrong(*files, **settings):
    """(file, line, column, text) of each mistake."""
    with pytest.raises(FileInvalid) as error:
        read(*files, **settings)
    return [
        (one["file"], one["line"], one["column"], one["text"])
        for one in error.value.details["problems"]
    ]


def by_name(found):
    return {task.spec.name: task for task in found.tasks}


SWEEP = """
name: sweep-{{ date }}
vars: {epochs: 3}
defaults:
  image: busybox
  cpus: 0.5
  env: {MODE: fast, LR: "0"}
tasks:
- name: prepare
  command: prepare {{ epochs }}
- id: train
  name: train-{{ lr }}-{{ seed }}
  matrix: {lr: [0.1, 0.01], seed: range(3)}
  exclude: [{lr: 0.1, seed: 2}]
  include: [{lr: 1, seed: 9}]
  command: train {{ lr * 2 }} {{ seed }}
  env: {LR: "{{ lr }}"}
  after: {prepare: ok}
- name: report
  after: {train: any, prepare: ok}
  on_unmet: skip
  argv: [echo, 7, true]
"""


def test_a_matrix_is_every_combination_but_those_left_out_and_those_added():
    found = read(SWEEP)
    assert found.name == "sweep-2026-01-31"
    names = [task.spec.name for task in found.tasks]
    assert names == [
        "prepare",
        *("train-0.1-0", "train-0.1-1", "train-0.01-0", "train-0.01-1", "train-0.01-2"),
        *("train-1-9", "report"),
    ]
    one = by_name(found)["train-0.01-2"]
    assert one.spec.shell == "train 0.02 2"
    assert one.env == {"MODE": "fast", "LR": "0.01"}
    assert one.spec.resources.cpu_milli == 500
    assert (one.entry.id, one.spec.user_id) == ("train", "ann")
    assert one.needs == ("batch-1-a/prepare:ok",)
    report = by_name(found)["report"]
    assert report.spec.argv == ("echo", "7", "true")
    assert report.needs == ("batch-1-a/train:any", "batch-1-a/prepare:ok")
    assert report.spec.on_unmet is OnUnmet.SKIP


def test_what_is_set_goes_before_what_the_file_says_and_is_a_number_where_that_was_one():
    assert by_name(read(SWEEP, epochs="5"))["prepare"].spec.shell == "prepare 5"
    text = "vars: {tag: 'x', n: 1}\ntasks: [{image: 'a:{{ tag }}', argv: ['{{ n + 1 }}']}]"
    (task,) = read(text, tag="7", n="2").tasks
    assert (task.spec.image, task.spec.argv) == ("a:7", ("3",))


def test_a_name_that_no_file_uses_is_a_slip_of_the_pen():
    with pytest.raises(InvalidInput, match="--set epoch: no file of the batch uses that name"):
        read(SWEEP, epoch="5")
    with pytest.raises(InvalidInput, match="--set '1x'"):
        read(SWEEP, **{"1x": "5"})


FORMS = {
    "yaml": "tasks:\n- {image: a, name: x, cpus: 2, env: {A: '1'}}\n- {image: b, argv: [x, y]}",
    "json": json.dumps(
        {
            "tasks": [
                {"image": "a", "name": "x", "cpus": 2, "env": {"A": "1"}},
                {"docker_image": "b", "argv": ["x", "y"]},
            ]
        }
    ),
    "jsonl": '{"image": "a", "name": "x", "req_cpu": 2, "env": {"A": "1"}}\n\n'
    '{"image": "b", "argv": ["x", "y"]}\n',
}


@pytest.mark.parametrize("form", FORMS)
def test_all_formats_say_the_same(form):
    one, two = read((FORMS[form], form)).tasks
    assert (one.spec.image, one.spec.name, one.env) == ("a", "x", {"A": "1"})
    assert one.spec.resources.cpu_milli == 2000
    assert (two.spec.image, two.spec.argv) == ("b", ("x", "y"))


def test_a_row_of_csv_is_a_task():
    text = 'name,image,command,cpus,env.LR\nx,a,"echo ""{{ date }}"", now",2,0.1\n,b,,,\n'
    one, two = read((text, "csv")).tasks
    assert (one.spec.name, one.spec.shell, one.env) == (
        "x",
        'echo "2026-01-31", now',
        {"LR": "0.1"},
    )
    assert one.spec.resources.cpu_milli == 2000
    assert (two.spec.name, two.spec.image, two.env) == (None, "b", {})


def test_several_files_are_one_batch_and_each_has_its_own_defaults():
    first = "defaults: {image: a}\ntasks: [{name: one}]"
    second = "defaults: {image: b}\ntasks: [{name: two, after: one}]"
    one, two = read(first, second).tasks
    assert (one.spec.image, two.spec.image) == ("a", "b")
    assert two.needs == ("batch-1-a/one:ok",)


# ------------------------------------------------------------------ mistakes, with their places


def test_every_mistake_is_told_at_once_with_its_place():
    text = """
defaults: {image: busybox, cpu: 1}
tasks:
- name: b
  command: echo {{ nope }}
- name: c
  cpus: lots
- name: d
  matrix: {x: []}
- [1]
- name: b
  image: -x
"""
    found = wrong(text)
    assert [(line, column) for _, line, column, _ in found] == [
        *((2, 28), (5, 12), (7, 9), (9, 15), (10, 3), (12, 10)),
    ]
    said = [text for *_, text in found]
    assert said[0] == "key 'cpu'; did you mean 'cpus'?"
    assert "'nope'" in said[1]
    assert said[1].startswith("command:")
    assert said[2].startswith("cpus: 'lots'")
    assert said[3].startswith("x: ")
    assert "an entry is keys and values" in said[4]
    assert said[5].startswith("image: ")


def test_a_mistake_in_the_defaults_is_told_where_they_stand():
    assert wrong("defaults:\n  image: a\n  memory: much\ntasks:\n- name: x\n")[0][1:3] == (3, 11)


@pytest.mark.parametrize(
    ("text", "form", "place", "said"),
    [
        ("tasks: [", "yaml", (1, 9), "not YAML"),
        ("a: 1\nb: &x [1]\n<<: *x\n", "yaml", (3, 1), "merge key"),
        ("tasks: !!python/object:os.system []", "yaml", (1, 8), "tag"),
        ("tasks:\n- image: a\n  image: b\n", "yaml", (3, 3), "stands twice"),
        ('{"tasks": [{"image": "a",}]}', "json", (1, 26), "a key in double quotes"),
        ('{"tasks":\n [{"image" "a"}]}', "json", (2, 12), "a colon"),
        ('{"image": "a"}\n{"image": }', "jsonl", (2, 11), "not JSON"),
        ("image,image\na,b\n", "csv", (1, 1), "stands twice"),
        ("image,name\na\n", "csv", (2, 1), "1 cells"),
        ('image\n"a', "csv", (2, 1), "not CSV"),
        ("just text", "yaml", (1, 1), "a batch is keys and values"),
        ("tasks: {}", "yaml", (1, 8), "give a list"),
        ("taks: []", "yaml", (1, 1), "did you mean 'tasks'?"),
        ("", "yaml", (1, 1), "a batch is keys and values"),
        ("tasks: []", "yaml", (1, 1), "nothing to submit"),
    ],
)
def test_what_cannot_be_read_is_told_where(text, form, place, said):
    found = wrong((text, form))
    assert found[0][1:3] == place
    assert said in found[0][3]


def test_a_text_that_would_blow_up_is_refused():
    bomb = "a: &a [x, x]\n" + "".join(
        f"{one}: &{one} [{', '.join(['*' + before] * 9)}]\n"
        for before, one in itertools.pairwise("abcdefghij")
    )
    assert "too many keys" in wrong(bomb)[0][3]
    assert "nested deeper" in wrong("tasks: " + "[" * 200 + "]" * 200)[0][3]
    deep = '{"tasks": ' + "[" * 50_000
    assert "nested deeper" in wrong((deep, "json"))[0][3]
    assert "nested too deep" in wrong(("[" * 50_000, "jsonl"))[0][3]
    many = "tasks:\n- image: a\n  matrix: {x: range(1000), y: range(1000)}\n"
    assert "1000000 combinations; at most 100000" in wrong(many)[0][3]


# ------------------------------------------------------------------ needs


def chain(n):
    return "defaults: {image: a}\ntasks:\n" + "".join(
        f"- {{name: s{at}, after: 's{at - 1}'}}\n" if at else "- {name: s0}\n" for at in range(n)
    )


def test_a_chain_within_one_entry_goes_by_the_names_of_its_tasks():
    text = """
defaults: {image: a}
tasks:
- id: step
  name: step-{{ n }}
  matrix: {n: range(4)}
  after: ["{{ 'step-%d:ok' % (n - 1) if n else '' }}"]
"""
    tasks = read(text).tasks
    assert [task.needs for task in tasks] == [(), *((f"{one.id}:ok",) for one in tasks[:3])]


def test_a_cycle_is_refused_and_shown():
    text = """defaults: {image: x}
tasks:
- {name: b, after: a}
- {name: c, after: b}
- {name: a, after: c}
"""
    ((_, line, column, said),) = wrong(text)
    assert (line, column) == (5, 20)
    assert "a → c → b → a" in said
    assert "is the entry itself" in wrong("tasks: [{image: x, name: a, after: a}]")[0][3]


def test_a_long_chain_is_no_deep_recursion():
    assert len(read(chain(3000)).tasks) == 3000
    assert "…" in wrong(chain(3000).replace("{name: s0}", "{name: s0, after: s2999}"))[0][3]


def test_what_is_no_entry_is_looked_for_among_what_is_there():
    text = "tasks: [{image: x, name: a, after: {other: any}}]"
    (task,) = read(text, resolve=lambda ref: f"task-1-{ref}").tasks
    assert task.needs == ("task-1-other:any",)
    ((_, _, _, said),) = wrong(text)
    assert "other is no entry and no task of this batch" in said


def test_arrays_need_each_other_element_by_element():
    text = """
defaults: {image: x}
tasks:
- {name: cut, array: 0-2}
- {name: train, array: "0-2%2", after: "cut[*]"}
- {name: first, after: "train[0]:any"}
- {name: all, after: train}
"""
    found = read(text).tasks
    cut, train, (first, whole) = found[:3], found[3:6], found[6:]
    assert [task.needs for task in train] == [(f"{one.id}:ok",) for one in cut]
    assert [task.id for task in train] == [f"{train[0].spec.array}_{n}" for n in range(3)]
    assert {task.spec.array_limit for task in train} == {2}
    assert first.needs == (f"{train[0].id}:any",)
    assert whole.needs == ("batch-1-a/train:ok",)
    more = text.replace('"0-2%2"', '"0-3"')
    assert "it has no element 3" in wrong(more)[0][3]
    assert "only an entry with an array" in wrong(text.replace('array: "0-2%2", ', ""))[0][3]


def test_names_that_several_tasks_have_are_no_reference():
    text = """
defaults: {image: x}
tasks:
- {id: e, name: same, matrix: {n: [1, 2]}}
- {name: b, after: same}
"""
    assert "2 tasks are called same" in wrong(text)[0][3]


def test_groups_are_made_of_an_entry_or_of_each_of_its_tasks():
    text = """
defaults: {image: x}
tasks:
- {name: "w{{ n }}", matrix: {n: range(3)}, group: strict_spread}
- {name: "t{{ n }}", matrix: {n: range(2)}, group: {placement: pack, replicas: 2}}
"""
    tasks = read(text).tasks
    first, rest = tasks[:3], tasks[3:]
    assert {(one.spec.group, one.spec.group_size) for one in first} == {(first[0].spec.group, 3)}
    assert [one.spec.group_rank for one in first] == [0, 1, 2]
    assert first[0].spec.placement is Placement.STRICT_SPREAD
    assert [one.spec.name for one in rest] == ["t0", "t0", "t1", "t1"]
    assert len({one.spec.group for one in rest}) == 2
    assert len({one.id for one in tasks}) == 7
    assert "placement" in wrong(text.replace("strict_spread", "sprad"))[0][3]


# ------------------------------------------------------------------ properties

names = st.text("abcde", min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, st.sets(names, max_size=3), min_size=1, max_size=6))
def test_a_batch_is_taken_exactly_when_its_needs_can_be_met(graph):
    """Against the plainest rule: take away what needs nothing, again and again."""
    tasks = [
        {"image": "x", "name": name, "after": dict.fromkeys(sorted(needs), "ok") or None}
        for name, needs in graph.items()
    ]
    left = {name: set(needs) for name, needs in graph.items()}
    while free := [name for name, needs in left.items() if not needs]:
        for name in free:
            del left[name]
        left = {name: needs - set(free) for name, needs in left.items()}
    try:
        found = read((json.dumps(tasks), "json"))
    except FileInvalid:
        assert left
        return
    assert not left
    needed = {task.spec.name: {need.split("/")[1] for need in task.needs} for task in found.tasks}
    assert needed == {name: {f"{need}:ok" for need in needs} for name, needs in graph.items()}


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(values)
def test_our_reader_of_json_reads_what_the_standard_one_reads(value):
    from cloudai.batches.document import read_document
    from cloudai.core.problems import Problems

    for text in (json.dumps(value), json.dumps(value, indent=1, ensure_ascii=False)):
        assert read_document(text, "json", Problems("x")).data == value


@settings(max_examples=150, deadline=None)
@given(
    st.text(st.sampled_from(' \n[]{}:,"-#&*!|>abc0.~'), max_size=40),
    st.sampled_from(["yaml", "json", "jsonl", "csv"]),
)
def test_no_text_does_more_than_be_refused(text, form):
    with contextlib.suppress(InvalidInput):
        read((text, form))


# ------------------------------------------------------------------ what is alike, done once

SCALARS = st.one_of(
    st.sampled_from([0, 1, 1.0, True, False, None, "1", "", "x", -0.0, 0.0]),
    st.lists(st.sampled_from([1, 1.0, True, "1"]), max_size=2),
)
TEXTS = st.sampled_from(
    [
        *("plain", "{{ a }}", "{{ b }}", "{{ index }}", "{{ fixed }}", "{{ range }}"),
        *("{{ a | string }}-{{ index }}", "{{ [a, b] | tojson }}", "{{ c | default('none') }}"),
        *("{{ a is defined }}", "{{ missing }}", "{{ a", "{{ range(2) | tojson }}"),
    ]
)


@given(
    words=st.dictionaries(
        st.sampled_from(["command", "name", "argv", "env", "time_limit"]),
        st.one_of(TEXTS, st.lists(TEXTS, max_size=2), st.dictionaries(st.just("X"), TEXTS)),
    ),
    axes=st.fixed_dictionaries(
        {"a": st.lists(SCALARS, min_size=1, max_size=3), "b": st.lists(SCALARS, min_size=1)},
        optional={"range": st.lists(SCALARS, min_size=1, max_size=2)},
    ),
    more=st.lists(st.dictionaries(st.sampled_from("abc"), SCALARS, min_size=1), max_size=2),
)
def test_a_pattern_says_what_each_combination_would_say_by_itself(words, axes, more):
    combos = [dict(zip(axes, one, strict=True)) for one in itertools.product(*axes.values())]
    pattern = Pattern(words, {"index"}.union(*combos, *more))
    for index, combo in enumerate([*combos, *more]):
        values = {"fixed": 7, "index": index, **combo}
        assert said(pattern, values) == said(Pattern(words, ()), values)


def said(pattern, values):
    """The body, told so that 1, 1.0 and true are not the same, and what is wrong."""
    wrong = []
    body = pattern.body(values, lambda word, error: wrong.append((word, error.message)))
    return repr(body and sorted(body.items())), sorted(wrong)


def test_a_matrix_does_each_text_once_for_the_same_values(monkeypatch):
    done = []

    def counted(text, values):
        done.append(text)
        return render(text, values)

    monkeypatch.setattr("cloudai.batches.pattern.render", counted)
    found = read(
        """
        vars: {data: /data}
        tasks:
        - image: busybox
          matrix: {lr: range(20), seed: range(30)}
          argv: ["--lr={{ lr }}", "--seed={{ seed * 2 }}", "--data={{ data }}", "-v"]
        """
    )
    assert len(found.tasks) == 600
    assert found.tasks[-1].spec.argv == ("--lr=19", "--seed=58", "--data=/data", "-v")
    assert Counter(done) == {
        "--lr={{ lr }}": 20,
        "--seed={{ seed * 2 }}": 30,
        "--data={{ data }}": 1,
        "-v": 600,
        "busybox": 1,
    }
