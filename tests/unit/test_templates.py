"""Task types: what their files may say, how parameters are read, and that a value comes out as
itself, whatever it holds.

``python -m tests.unit.test_templates`` writes the golden lines of the shipped ones anew.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai.core.errors import InvalidInput, NotFound
from cloudai.core.groups import read_group
from cloudai.core.problems import FileInvalid
from cloudai.core.request import read_request
from cloudai.core.usage import kind_of
from cloudai.engines.docker.command import preview
from cloudai.tasktypes import TYPES, TaskTypes, shipped
from cloudai.tasktypes.reading import read_type
from cloudai.tasktypes.rendering import body_of

GOLDEN = Path(__file__).parents[1] / "data" / "templates"
ASKED = {
    "llm": {"prompt": 'Say "hi" to O\'Neil & $(whoami)\n{{ now }}', "max_tokens": "128"},
    "llm-whole": {
        **{"prompt": "Hello", "system": "a poet", "model": "o/m:Q8_0", "seed": 7},
        **{"temperature": 0, "context": 4096, "cache": "/srv/models"},
    },
    "stable_diffusion": {"prompt": "a lighthouse, at dusk", "out": "/srv/out", "steps": 30},
    "tts": {"text": "-- mind the gap", "language": "en"},
    "image_to_text": {"image": "/in/cat.jpg", "folder": "/srv/photos"},
}


def line_of(name: str) -> str:
    body = {"task_type": name.partition("-")[0], "parameters": ASKED[name]}
    spec, _ = read_request(body, default_user="ann", expand=TaskTypes(Path("/none")).expand)
    return preview(spec) + "\n"


@pytest.mark.parametrize("name", ASKED)
def test_a_shipped_type_runs_as_its_golden_line_says(name):
    assert line_of(name) == (GOLDEN / f"{name}.txt").read_text(), (
        "if that is meant: python -m tests.unit.test_templates"
    )


def test_every_shipped_type_can_be_read_is_pinned_and_has_its_limits():
    found = TaskTypes(Path("/none")).listed()
    assert [one.name for one in found] == ["image_to_text", "llm", "stable_diffusion", "tts"]
    for one in found:
        assert one.origin == "shipped"
        assert one.kind is not None, one.problem
        task = one.kind.task
        assert re.search(r"@sha256:[0-9a-f]{64}$|:[\w.-]*[0-9][\w.-]*$", task["image"])
        assert {"cpus", "memory", "storage", "gpus", "shm_size", "time_limit"} <= task.keys()
        assert "command" not in task


# -------------------------------------------------------------------- values stay values

EVERYWHERE = """
about: shows a value in every place there is
parameters:
  x: {type: text, help: a value}
task:
  image: alpine
  argv: [echo, "{{ x }}", "--x={{ x }}", "{{ ['-v', x] if x else [] }}", end]
  env: {X: "{{ x }}", Y: "a{{ x }}b"}
"""
NASTY = st.text(max_size=50).filter(lambda text: "\x00" not in text) | st.sampled_from(
    [
        *(
            "$(id)",
            "`id`",
            "; rm -rf /",
            "' || true",
            '"',
            "\\",
            "a\nb",
            "\r",
            "\t",
            "-x",
            "--",
            "",
        ),
        *(
            "{{ x }}",
            "{% raw %}",
            "{#",
            "}}",
            "]",
            "}",
            ", end",
            ": ",
            "- a",
            "&a",
            "*a",
            "!!python",
        ),
        *(
            "null",
            "~",
            "true",
            "0x10",
            "1e3",
            "2026-01-31",
            "<<",
            "%YAML",
            "---",
            "\u2028",
            "\ufeff",
        ),
    ]
)


@settings(max_examples=60)
@given(NASTY)
def test_a_value_comes_out_as_exactly_that_item_and_nothing_else_changes(value):
    kind = read_type("everywhere", "everywhere.yaml.j2", EVERYWHERE)
    body = body_of(kind, {"x": value})
    option = ["-v", value] if value else []
    assert body["argv"] == ["echo", value, f"--x={value}", *option, "end"]
    assert body["env"] == {"X": value, "Y": f"a{value}b"}
    assert body.keys() == {"docker_image", "argv", "env"}
    spec, env = read_request(body, default_user="ann")
    assert list(spec.argv) == body["argv"]
    assert env == body["env"]
    assert shlex.split(preview(spec))[-len(spec.argv) :] == body["argv"]


@settings(max_examples=40)
@given(NASTY)
def test_a_path_is_a_path_or_refused(value):
    text = (
        "about: x\nparameters: {p: {type: path, help: h}}\n"
        "task: {image: alpine, mounts: ['type=bind,src={{ p }},dst=/in']}"
    )
    kind = read_type("p", "p.yaml.j2", text)
    try:
        body = body_of(kind, {"p": "/" + value})
    except InvalidInput:
        return
    (mount,) = read_request(body, default_user="ann")[0].mounts
    assert mount.split(",")[0] == "type=bind"
    assert len(mount.split(",")) == 3


# -------------------------------------------------------------------- parameters


def a_kind(header: str, argv: str = "[echo]", more: str = ""):
    text = f"about: x\nparameters:\n  v: {header}\ntask:\n  image: alpine\n  argv: {argv}\n{more}"
    return read_type("mine", "mine.yaml.j2", text)


READ = [
    ("{type: text, help: h}", "5", "5"),
    ("{type: text, help: h}", 5, "5"),
    ("{type: text, help: h}", True, "true"),
    ("{type: int, help: h}", "5", "5"),
    ("{type: int, help: h}", 5.0, "5"),
    ("{type: int, help: h, default: 3}", None, "3"),
    ("{type: float, help: h}", "0.10", "0.1"),
    ("{type: bool, help: h}", "yes", "true"),
    ("{type: bool, help: h}", False, "false"),
    ("{type: choice, choices: [a, 2], help: h}", "2", "2"),
    ("{type: size, help: h}", "512m", "512m"),
    ("{type: size, help: h}", 4, "4"),
    ("{type: duration, help: h}", "1h30m", "1h30m"),
    ("{type: path, help: h}", "/a b/c", "/a b/c"),
]


@pytest.mark.parametrize(("header", "given", "out"), READ)
def test_a_parameter_is_read_by_its_type(header, given, out):
    kind = a_kind(header, '[echo, "{{ v }}"]')
    assert body_of(kind, {"v": given})["argv"] == ["echo", out]


WRONG = [
    ("{type: int, help: how many}", "5.5", "'5.5'; give a whole number: how many"),
    ("{type: int, help: h}", True, "true; give a whole number"),
    ("{type: int, help: h, min: 1, max: 9}", "0", "'0'; give a whole number from 1 to 9: h"),
    ("{type: float, help: h, max: 1}", 2, "2; give a number, 1 or less"),
    ("{type: float, help: h}", "nan", "'nan'; give a number"),
    ("{type: bool, help: h}", "maybe", "'maybe'; give true or false"),
    ("{type: choice, choices: [euler, heun], help: h}", "eulr", "did you mean 'euler'?"),
    ("{type: size, help: h}", "big", "'big'; give GiB such as 4"),
    ("{type: duration, help: h}", "soon", "'soon'; give seconds, or a duration"),
    ("{type: path, help: h}", "in", "'in'; give a whole path"),
    ("{type: path, help: h}", "/a,src=/etc", "with no comma"),
    ("{type: text, help: h}", ["x"], "a list; give text"),
    ("{type: text, help: what to say}", None, "missing; give text: what to say"),
]


@pytest.mark.parametrize(("header", "given", "why"), WRONG)
def test_a_value_that_cannot_be_meant_says_what_would_be_right(header, given, why):
    kind = a_kind(header, '[echo, "{{ v }}"]')
    with pytest.raises(InvalidInput) as refused:
        body_of(kind, {"v": given})
    assert refused.value.message.startswith("parameters.v: ")
    assert why in refused.value.message
    assert refused.value.details["field"] == "parameters.v"


def test_an_unknown_parameter_is_told_with_the_nearest_and_what_that_is_for():
    kind = a_kind("{type: text, help: what to say}", '[echo, "{{ v }}"]')
    with pytest.raises(InvalidInput, match="no such parameter; did you mean 'v'") as refused:
        body_of(kind, {"v": "x", "vv": "y"})
    assert refused.value.hint == "v: what to say"
    with pytest.raises(InvalidInput, match="give an object"):
        body_of(kind, ["v"])


def test_every_type_has_a_test_of_what_it_reads():
    assert {re.search(r"type: (\w+)", header)[1] for header, *_ in READ} == set(TYPES)


# -------------------------------------------------------------------- the file

HEAD = "about: x\nparameters:\n  v: {type: text, help: h}\ntask:\n  image: alpine\n"
BROKEN = {
    "": (1, 1, "a template is keys and values"),
    "about: [": (1, 9, "not YAML"),
    "about: x\ntsk: {}": (2, 6, "key 'tsk'; did you mean 'task'?"),
    "task: {image: alpine}": (1, 1, "about: say in a line"),
    "about: x\ntask: 5": (2, 7, "task: give image, argv"),
    "about: x\ntask: {imge: alpine}": (2, 14, "key 'imge'; did you mean 'image'?"),
    "about: x\ntask: {image: alpine, user: ann}": (2, 29, "key 'user'"),
    "about: x\ntask: {image: alpine, docker_image: b}": (2, 37, "says the same as another"),
    "about: x\nparameters:\n  if: {type: text, help: h}\ntask: {image: a}": (3, 7, "is a word of"),
    "about: x\nparameters:\n  B: {type: text, help: h}\ntask: {image: a}": (
        *(3, 6),
        "cannot be a name",
    ),
    "about: x\nparameters:\n  b: text\ntask: {image: a}": (3, 6, "give its type and help"),
    "about: x\nparameters:\n  b: {type: txt, help: h}\ntask: {image: a}": (3, 13, "mean 'text'?"),
    "about: x\nparameters:\n  b: {type: [], help: h}\ntask: {image: a}": (3, 13, "type: a list"),
    "about: x\nparameters:\n  b: {type: text}\ntask: {image: a}": (3, 6, "help is missing"),
    "about: x\nparameters:\n  b: {type: text, help: a, or b}\ntask: {image: a}": (
        *(3, 28),
        "text with a comma needs quotes",
    ),
    "about: x\nparameters:\n  b: {type: int, help: h, default: x}\ntask: {image: a}": (
        *(3, 36),
        "default of b: 'x'; give a whole number",
    ),
    "about: x\nparameters:\n  b: {type: text, help: h, min: 1}\ntask: {image: a}": (
        *(3, 33),
        "only a number",
    ),
    "about: x\nparameters:\n  b: {type: choice, help: h}\ntask: {image: a}": (
        *(3, 6),
        "choices: they",
    ),
    HEAD: (3, 6, "parameter v is used nowhere"),
    HEAD + '  argv: ["{{ w }}"]\n': (6, 10, "unknown name 'w'; known: v"),
    HEAD + '  argv: ["{{ v | uper }}"]\n': (6, 10, "no filter 'uper'; did you mean 'upper'?"),
    HEAD + '  argv: ["{{ v.__class__() }}"]\n': (6, 10, "only range() can be called"),
    HEAD + '  argv: ["{{ v"]\n': (6, 10, "not an expression"),
    HEAD + '  argv: "{{ [v] }}"\n': (6, 9, "argv: write a list"),
    HEAD + '  command: echo "{{ v }}"\n': (6, 12, "no value can stand in shell text"),
    HEAD + '  argv: [sh, -c, "echo {{ v }}"]\n': (6, 18, "no value can stand in code that sh runs"),
    HEAD + '  argv: [env, /bin/bash, -l, -ec, "{{ v }}"]\n': (6, 35, "in code that bash runs"),
    HEAD + '  argv: [python3, -u, -c, "print({{ v }})"]\n': (6, 27, "in code that python3 runs"),
    HEAD + '  mounts: ["type=bind,src={{ v }},dst=/in"]\n': (6, 12, "make its type path"),
    HEAD + "  argv: [x]\n  command: y {{ v }}\n": (7, 12, "command"),
}


@pytest.mark.parametrize("text", BROKEN, ids=lambda text: text[-40:])
def test_what_is_wrong_in_a_file_is_told_with_its_line_and_column(text):
    line, column, why = BROKEN[text]
    with pytest.raises(FileInvalid) as refused:
        read_type("mine", "/p/mine.yaml.j2", text)
    places = [
        (problem["line"], problem["column"], problem["text"])
        for problem in refused.value.details["problems"]
    ]
    assert any((line, column) == at[:2] and why in at[2] for at in places), places
    assert f"/p/mine.yaml.j2:{line}:{column}: " in refused.value.message


def test_a_shell_gets_values_behind_its_code_or_as_variables():
    kind = read_type("mine", "m", HEAD + "  argv: [sh, -c, 'echo \"$1\"', sh, '{{ v }}']\n")
    assert body_of(kind, {"v": "$(id)"})["argv"][-1] == "$(id)"
    kind = read_type("mine", "m", HEAD + "  command: echo \"$V\"\n  env: {V: '{{ v }}'}\n")
    body = body_of(kind, {"v": "$(id)"})
    assert (body["command"], body["env"]) == ('echo "$V"', {"V": "$(id)"})


def test_what_is_no_task_is_told_at_its_place_in_the_template():
    text = HEAD + "  memory: lots\n  argv: ['{{ v }}']\n"
    with pytest.raises(FileInvalid, match=r"mine.yaml.j2:6:11: req_memory: 'lots'"):
        body_of(read_type("mine", "mine.yaml.j2", text), {"v": "x"})
    text = HEAD + "  argv: ['{{ v | int + 1 }}']\n"
    with pytest.raises(FileInvalid, match=r"mine.yaml.j2:6:10: 'x' is not a whole number"):
        body_of(read_type("mine", "mine.yaml.j2", text), {"v": "x"})


def test_a_number_a_flag_and_nothing_at_all_become_fields():
    text = (
        "about: x\nparameters:\n  n: {type: int, help: h}\n  f: {type: bool, help: h}\n"
        "  t: {type: duration, default: null, help: h}\n"
        "task:\n  image: alpine\n  retries: '{{ n }}'\n  preemptible: '{{ f }}'\n"
        "  time_limit: '{{ t }}'\n"
    )
    kind = read_type("mine", "mine.yaml.j2", text)
    body = body_of(kind, {"n": "3", "f": "true"})
    assert body == {"docker_image": "alpine", "retries": 3, "preemptible": True}
    assert body_of(kind, {"n": 3, "f": "no", "t": "2h"})["time_limit"] == "2h"


# -------------------------------------------------------------------- where they lie


def put(folder: Path, name: str, about: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml.j2"
    path.write_text(f"about: {about}\ntask: {{image: alpine, argv: [echo, {about}]}}\n")
    return path


@pytest.fixture
def types(tmp_path):
    found = TaskTypes(tmp_path / "home")
    found.inventory = lambda: tmp_path / "project" / "inventory" / "hosts.yaml"
    return found


def test_the_projects_come_before_the_homes_and_those_before_the_shipped(types, tmp_path):
    put(tmp_path / "home/templates/tasks", "llm", "home")
    put(tmp_path / "home/templates/tasks", "mine", "home")
    put(tmp_path / "project/templates/tasks", "mine", "project")
    listed = {one.name: (one.origin, one.kind.about) for one in types.listed()}
    assert listed["mine"] == ("project", "project")
    assert listed["llm"] == ("home", "home")
    assert listed["tts"][0] == "shipped"
    assert types.expand({"task_type": "mine"})["argv"] == ["echo", "project"]


def test_an_inventory_in_the_home_makes_the_home_the_project(types, tmp_path):
    types.inventory = lambda: tmp_path / "home" / "hosts.yaml"
    assert [origin for origin, _ in types.folders()] == ["home", "shipped"]
    types.inventory = lambda: tmp_path / "fleet" / "hosts.yaml"
    assert types.folders()[0] == ("project", tmp_path / "fleet" / "templates" / "tasks")


def test_a_file_is_meant_by_its_whole_path(types, tmp_path):
    path = put(tmp_path / "elsewhere", "own", "file")
    body = types.expand({"task_type": str(path)})
    assert (body["task_type"], body["argv"]) == ("own", ["echo", "file"])
    with pytest.raises(NotFound, match="there is no file"):
        types.find(str(path.with_name("other.yaml.j2")))
    with pytest.raises(InvalidInput, match=r"ends in \.yaml\.j2"):
        types.find("/etc/passwd")


def test_a_broken_one_is_listed_with_its_problem_and_hides_nothing(types, tmp_path):
    path = put(tmp_path / "project/templates/tasks", "llm", "x")
    path.write_text("about: x\ntask: {imag: a}\n")
    one = next(one for one in types.listed() if one.name == "llm")
    assert (one.kind, one.origin) == (None, "project")
    assert f"{path}:2:14: key 'imag'" in one.problem
    with pytest.raises(FileInvalid, match="did you mean 'image'"):
        types.expand({"task_type": "llm"})


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "", ".", "a\nb", "x" * 200, "-x"])
def test_a_name_never_leaves_the_folders(types, name):
    with pytest.raises(InvalidInput, match="give the name of a template"):
        types.find(name)


def test_an_unknown_name_is_told_with_the_nearest(types):
    with pytest.raises(NotFound, match="no task type 'lllm'; did you mean 'llm'"):
        types.expand({"task_type": "lllm"})
    with pytest.raises(InvalidInput, match="task_type: 5; give the name"):
        types.expand({"task_type": 5})


def test_what_is_no_text_file_is_told_so(types, tmp_path):
    folder = tmp_path / "project/templates/tasks"
    folder.mkdir(parents=True)
    (folder / "bytes.yaml.j2").write_bytes(b"about: x\n\xff\n")
    (folder / "folder.yaml.j2").mkdir()
    with pytest.raises(InvalidInput, match=r"bytes\.yaml\.j2:2: it is not UTF-8"):
        types.find("bytes")
    with pytest.raises(InvalidInput, match=r"directory|no file"):
        types.find("folder")


# -------------------------------------------------------------------- with a request


def test_what_is_asked_beside_it_counts(types):
    body = {
        "task_type": "tts",
        "parameters": {"text": "hello", "out": "/srv/out"},
        "req_memory": "2g",
        "env": {"MORE": "1"},
        "mounts": ["type=bind,src=/data,dst=/data", "type=bind,src=/elsewhere,dst=/out"],
    }
    spec, env = read_request(body, default_user="ann", expand=types.expand)
    assert spec.task_type == "tts"
    assert spec.resources.memory_gib == 2
    assert env == {"TTS_HOME": "/cache", "MORE": "1"}
    assert spec.mounts == ("type=bind,src=/data,dst=/data", "type=bind,src=/elsewhere,dst=/out")
    spec, _ = read_request({**body, "command": "id"}, default_user="ann", expand=types.expand)
    assert (spec.shell, spec.argv) == ("id", ())
    assert kind_of(spec) == "type: tts"


def test_parameters_need_a_type_and_a_group_names_its_task(types):
    with pytest.raises(InvalidInput, match="parameters: they go with task_type"):
        read_request({"docker_image": "a", "parameters": {}}, default_user="a", expand=types.expand)
    body = {"tasks": [{"docker_image": "a"}, {"task_type": "tts", "parameters": {"txt": "x"}}]}
    with pytest.raises(InvalidInput) as refused:
        read_group(body, default_user="ann", group="group-1-a", expand=types.expand)
    assert refused.value.message.startswith("tasks[1].parameters.txt: tts has no such parameter")


def test_a_dispatched_task_leaves_out_what_the_template_asks_of_the_queue(types, tmp_path):
    path = put(tmp_path / "project/templates/tasks", "mine", "x")
    path.write_text("about: x\ntask: {image: alpine, priority: high, retries: 2}\n")
    assert types.expand({"task_type": "mine"})["priority"] == "high"
    assert types.expand({"task_type": "mine"}, direct=True).keys() == {"docker_image", "task_type"}


def test_the_shipped_ones_travel_with_the_package():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '"cloudai.templates.tasks"' in text
    assert shipped().is_dir()


def test_the_example_of_the_page_is_one():
    page = (Path(__file__).parents[2] / "docs" / "templates.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    kind = read_type("transcribe", "transcribe.yaml.j2", text)
    body = body_of(kind, {"audio": "/in/a.wav", "words": "yes", "folder": "/srv/in"})
    assert body["argv"] == ["/in/a.wav", "--language=en", "--beams", "5", "--word-timestamps"]
    assert body["mounts"] == ["type=bind,src=/srv/in,dst=/in,readonly"]
    listed = re.findall(r"^\| `(\w+)` \| `(\w+)`", page, re.MULTILINE)
    assert {name for name, _ in listed} >= {one.name for one in TaskTypes(Path("/none")).listed()}
    for one in TaskTypes(Path("/none")).listed():
        (row,) = re.findall(rf"^\| `{one.name}` \| (.*?) \|", page, re.MULTILINE)
        assert re.findall(r"`(\w+)`", row) == [each.name for each in one.kind.parameters]


if __name__ == "__main__":
    for each in ASKED:
        (GOLDEN / f"{each}.txt").write_text(line_of(each))
