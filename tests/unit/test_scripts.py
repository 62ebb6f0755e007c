"""Every worker script: no value may meet a quote, and each is plain POSIX shell."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import jinja2
import pytest

from cloudai import scripts

SHELLS = (["dash"], ["bash", "--posix"], ["busybox", "sh"])
TEMPLATES = sorted(scripts.folder().glob("*.sh.j2"))
EXPRESSION = re.compile(r"""\{\{(?:'[^']*'|"[^"]*"|[^'"{}])*\}\}""")
HEREDOC = re.compile(r"<<-?\s*(['\"\\]?)([A-Za-z_]\w*)")


def misplaced(template: str) -> list[str]:
    """Values of a template that stand where quoting them does not help: inside quotes of any
    kind, a heredoc, an expansion in braces. Each as the line it stands on."""
    text = re.sub(r"\{#.*?#\}|\{%.*?%\}", "", template, flags=re.DOTALL)
    found: list[str] = []
    nested: list[str] = []  # innermost last: ' " ` ${ and ( for a command substitution
    heredoc = ""
    at = 0
    while at < len(text):
        inside = nested[-1] if nested else ""
        line = text[text.rfind("\n", 0, at) + 1 : text.find("\n", at) % (len(text) + 1)]
        if match := EXPRESSION.match(text, at):
            if heredoc or inside in ("'", '"', "`", "${"):
                found.append(line.strip())
            at = match.end()
            continue
        if heredoc:
            if text[at] == "\n" and text[at + 1 :].lstrip("\t").startswith(f"{heredoc}\n"):
                heredoc = ""
            at += 1
            continue
        at = _step(text, at, inside, nested)
        if not nested and (match := HEREDOC.match(text, at)):
            heredoc, at = match[2], match.end()
    assert not nested, f"this test lost its way in the quotes: {nested}"
    return found


def _step(text: str, at: int, inside: str, nested: list[str]) -> int:
    two = text[at : at + 2]
    char = two[:1]
    if inside == "'":
        if char == "'":
            nested.pop()
    elif char == "\\":
        return at + 2
    elif two == "$(":
        nested.append("(")
        return at + 2
    elif two == "${":
        nested.append("${")
        return at + 2
    elif char in ('"', "`"):
        nested.pop() if inside == char else nested.append(char)
    elif inside == "${" and char == "}":
        nested.pop()
    elif inside in ("", "("):
        if char == "'":
            nested.append("'")
        elif char == "#" and (at == 0 or text[at - 1] in " \t\n;("):
            return text.find("\n", at) % (len(text) + 1)
        elif inside == "(" and char == "(":
            nested.append("(")
        elif inside == "(" and char == ")":
            nested.pop()
    return at + 1


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_value_stands_inside_quotes(path: Path) -> None:
    assert misplaced(path.read_text()) == []


def test_there_are_templates() -> None:
    names = {path.name for path in TEMPLATES}
    assert {"probe.sh.j2", "start.sh.j2", "pull.sh.j2", "stop.sh.j2", "remove.sh.j2"} <= names


@pytest.mark.parametrize(
    "bad",
    [
        'echo "{{ x }}"',
        "echo '{{ x }}'",
        "echo 'it is\n{{ x }}\n'",
        'echo "a $(echo "{{ x }}")"',
        "echo `echo {{ x }}`",
        "echo ${y:-{{ x }}}",
        "cat <<EOF\n{{ x }}\nEOF\n",
        "cat <<'EOF'\n{{ x }}\nEOF\n",
        "cat <<-END\n\t{{ x }}\n\tEND\n",
        'awk \'{ print }\' "$f" | sed "s/{{ x }}/y/"',
    ],
)
def test_the_check_sees_what_it_is_for(bad: str) -> None:
    assert misplaced(bad)


@pytest.mark.parametrize(
    "good",
    [
        "echo {{ x }}",
        "x={{ x }}; echo \"$x\" 'and {' {{ y }}",
        'echo "a $(echo {{ x }})"',
        "docker inspect --format {{ '{{json .}}' }} -- \"$name\"",
        "# it's {{ x }}\necho {{ x }}",
        '{# "{{ x }}" #}\necho {{ x }}',
        "cat <<EOF\n$x\nEOF\necho {{ x }}\n",
    ],
)
def test_the_check_lets_plain_words_be(good: str) -> None:
    assert misplaced(good) == []


NASTY = [
    "",
    "a b",
    "it's",
    '"',
    "$(touch /tmp/never)",
    "`id`",
    "-n",
    "--",
    "*",
    "a\nb",
    "\\",
    "!x",
    "~",
    "{{ x }}",
    "ünï\u202e",
    "x" * 100_000,
]


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_a_value_arrives_as_it_is(shell: list[str]) -> None:
    words = " ".join(scripts._word(value) for value in NASTY)
    done = subprocess.run(
        [*shell, "-s"], input=f"printf '%s\\0' {words}".encode(), capture_output=True, check=True
    )
    assert done.stdout.decode().split("\0")[:-1] == NASTY


@pytest.mark.parametrize("value", [None, True, 1.5, {"a": 1}, ["a", None]])
def test_a_value_that_is_no_word_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        scripts._word(value)


def test_a_nul_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        scripts._word("a\x00b")


def test_a_missing_value_is_refused() -> None:
    with pytest.raises((jinja2.UndefinedError, TypeError)):
        scripts.render("stop", docker_host="")


VALUES = {
    "docker_host": "unix:///run/it's here.sock",
    "endpoint": "unix:///run/docker.sock",
    "name": "task-1.1",
    "task": "task-1",
    "store": "s",
    "image": "$(id)",
    "options": ["--name", "a'b"],
    "argv": ["-c", "echo '$x'"],
    "env_lines": ["A=1", "B=$(id)"],
    "exported": ["C=a\nb"],
    "secrets": [(3, ["a\\047"], ",dst=/x,readonly"), (1, ["b"], ',"dst=/a,b",readonly')],
    "engine": "ABCD:EFGH",
    "held_format": "{{.ID}}",
    "read_back": 1,
    "gpu_by": "gpus",
    "cpu_milli": 1,
    "want_memory": 1,
    "want_storage": 1,
    "gpu_milli": 1,
    "cpus": 1,
    "memory": 1,
    "data_root": "/a b",
    "reserve": ["0", "0", "0", "0"],
    "max_gpus": -1,
    "idle_memory": 0,
    "gpu_memory": -1,
    "gpu_model": "",
    "min_free_gpus": 0,
    "tasks_per_gpu": -1,
    "grace": 1,
    "time_limit": 60,
    "first_output": 60,
    "idle_output": 60,
    "signal": "USR1",
    "before": 60,
    "noted": 1,
    "limit": 1,
    "tick": 1,
    "settings": '{"auths": {"it\'s": "$(id)"}}',
    "image_id": "sha256:0",
    "reference": "mine:1",
    "tag": 1,
    "look_for": "mine:1",
    "host": "unix:///run/docker.sock",
    "container": "0" * 64,
    "tty": 1,
    "start_by": ["run", "-d"],
    "pieces": [],
    "sizes": {},
    "wanted": [],
    "fill_seconds": 1,
    "pack": "0" * 64,
    "begin": 0,
    "rest": 1,
    "size": 1,
    "path": "/a b",
}
FILLED = {
    **VALUES,
    "start_by": ["create"],
    "pieces": [("a" * 64, 0, 512), ("b" * 64, 512, 1024)],
    "sizes": {"a" * 64: 512, "b" * 64: 2048},
    "wanted": [f"{'a' * 64}:512", f"{'b' * 64}:2048"],
}


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
@pytest.mark.parametrize(
    "name",
    [path.name.removesuffix(".sh.j2") for path in TEMPLATES if not path.name.startswith("_")],
)
@pytest.mark.parametrize("gpu_by", ["gpus", "cdi"])
def test_every_script_is_shell_that_parses(name: str, shell: list[str], gpu_by: str) -> None:
    values = VALUES if gpu_by == "gpus" else FILLED
    text = scripts.render(name, **{**values, "gpu_by": gpu_by})
    done = subprocess.run([*shell, "-n"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_values_are_quoted_in_the_script() -> None:
    text = scripts.render("start", **VALUES)
    assert f"image={shlex.quote('$(id)')}" in text
    assert "'B=$(id)'" in text
