"""The text of a template to a task type, checked before anything is asked of it.

::

    about: one line on what it does
    parameters:
      prompt: {type: text, help: what to answer}
    task:                                  the body of POST /tasks/, in the words of batch files
      image: …
      argv: [-p, "{{ prompt }}"]

The YAML is read first, and each scalar in it is an expression of its own: no value can become
anything but the one scalar in whose place it stands (docs/templates.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from posixpath import basename
from typing import Any

from cloudai.batches.document import Document, Path, read_document
from cloudai.batches.fields import WORDS, field_of
from cloudai.core.errors import InvalidInput
from cloudai.core.problems import Place, Problems
from cloudai.core.request import FIELDS
from cloudai.core.wording import did_you_mean, nearest, shown
from cloudai.expressions import check, names_in

from .parameters import TYPES, Parameter

TOP = ("about", "parameters", "task")
OF_PARAMETERS = ("type", "help", "default", "choices", "min", "max")
NOT_HERE = (
    *("task_type", "parameters", "idempotency_key", "user_id", "target"),
    *("after", "on_unmet", "begin", "array"),
)
"""Fields that are of one task, not of a kind of task."""
_FIELDS = tuple(field for field in FIELDS if field not in NOT_HERE)
_TASK_WORDS = (*(word for word in WORDS if field_of(word) in _FIELDS), *_FIELDS)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TAKEN = ("and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "range", "self")
"""Words of expressions."""
_INTERPRETERS = re.compile(
    r"(?:a|ba|da|k|mk|z|fi)?sh|busybox|python[0-9.]*|perl|ruby|node|nodejs|php|awk|lua"
)
_CODE = re.compile(r"-[A-Za-z]*[ce]|--(?:command|eval)")
"""Options after which an interpreter takes code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskType:
    """A template, read."""

    name: str
    file: str
    about: str
    parameters: tuple[Parameter, ...]
    task: Mapping[str, Any]
    """Word -> value, as they were written."""
    document: Document

    def place(self, field: str) -> Place:
        """Where a field of the body of ``POST /tasks/`` stands."""
        words = (word for word in self.task if field_of(word) == field)
        return self.document.place(("task", next(words, "")))


@lru_cache(maxsize=256)
def read_type(name: str, file: str, text: str) -> TaskType:
    """``file``: its path, for messages. Raises ``FileInvalid`` with line and column of everything
    that is wrong in it."""
    problems = Problems(file)
    document = read_document(text, "yaml", problems)
    problems.settle()
    found = _Reader(document, problems).read(name)
    problems.settle()
    return found


class _Reader:
    """Gathers what is wrong while it reads."""

    def __init__(self, document: Document, problems: Problems) -> None:
        self._document = document
        self._problems = problems
        self._used: set[str] = set()

    def _wrong(self, path: Path, text: str) -> None:
        self._problems.add(self._document.place(path), text)

    def read(self, name: str) -> TaskType:
        data = self._document.data
        if not isinstance(data, dict):
            self._wrong((), "a template is keys and values: about, parameters, task")
            data = {}
        for key in data:
            if key not in TOP:
                self._wrong((key,), f"key {shown(key)}; {did_you_mean(key, TOP)}")
        about = data.get("about")
        if data and (not isinstance(about, str) or not about.strip()):
            self._wrong(("about",), "about: say in a line what it does")
        parameters = self._parameters(data.get("parameters"))
        task = self._task(data.get("task"), {one.name: one.type for one in parameters})
        for one in parameters:
            if one.name not in self._used:
                self._wrong(("parameters", one.name), f"parameter {one.name} is used nowhere")
        return TaskType(
            name=name,
            file=self._document.name,
            about=" ".join(str(about).split()),
            parameters=tuple(parameters),
            task=task,
            document=self._document,
        )

    # ---------------------------------------------------------------- the header

    def _parameters(self, data: object) -> list[Parameter]:
        if data is None:
            return []
        if not isinstance(data, dict):
            self._wrong(("parameters",), "parameters: give names, each with its type and help")
            return []
        return [self._parameter(name, given) for name, given in data.items()]

    def _parameter(self, name: str, given: object) -> Parameter:
        at: Path = ("parameters", name)
        if not _NAME.fullmatch(name) or name in _TAKEN:
            taken = "is a word of expressions" if name in _TAKEN else "cannot be a name"
            self._wrong(at, f"{shown(name)} {taken}; give a-z, 0-9 and _, a letter first")
        said = given if isinstance(given, dict) else {}
        if not isinstance(given, dict):
            self._wrong(
                at, f"{name}: {shown(given)}; give its type and help: {{type: text, help: …}}"
            )
        for key in said:
            if key not in OF_PARAMETERS:
                comma = "; text with a comma needs quotes" if said[key] is None else ""
                near = did_you_mean(key, OF_PARAMETERS)
                self._wrong((*at, key), f"key {shown(key)}; {near}{comma}")
        kind = said.get("type")
        if said and not (isinstance(kind, str) and kind in TYPES):
            self._wrong((*at, "type"), f"type: {shown(kind)}; {did_you_mean(str(kind), TYPES)}")
        about = said.get("help")
        if said and (not isinstance(about, str) or not about.strip()):
            self._wrong((*at, "help"), f"{name}: help is missing; say what it is for")
        bare = Parameter(
            name=name,
            type=kind if isinstance(kind, str) and kind in TYPES else "text",
            help=" ".join(str(about).split()),
            required="default" not in said,
            choices=self._choices(at, said, kind),
            least=self._bound((*at, "min"), said.get("min"), kind),
            most=self._bound((*at, "max"), said.get("max"), kind),
        )
        return self._with_default(at, bare, said.get("default"))

    def _choices(self, at: Path, said: Mapping[str, Any], kind: object) -> tuple[str, ...]:
        given = said.get("choices")
        if (given is None) != (kind != "choice"):
            self._wrong(at, "choices: they go with type: choice, and that with them")
        if given is None:
            return ()
        if not isinstance(given, list) or not given or not all(given):
            self._wrong((*at, "choices"), "choices: give a list of words")
            return ("",)
        # An unquoted number is meant as the word it is written as.
        return tuple(str(one) for one in given)

    def _bound(self, at: Path, given: object, kind: object) -> int | float | None:
        if given is None:
            return None
        if kind not in ("int", "float") or isinstance(given, bool):
            self._wrong(at, f"{at[-1]}: only a number of type int or float has one")
            return None
        if not isinstance(given, int | float):
            self._wrong(at, f"{at[-1]}: {shown(given)}; give a number")
            return None
        return given

    def _with_default(self, at: Path, bare: Parameter, given: object) -> Parameter:
        if given is None:
            return bare
        try:
            default = bare.read(given)
        except InvalidInput as wrong:
            self._wrong((*at, "default"), wrong.message.replace("parameters.", "default of ", 1))
            return bare
        return Parameter(
            name=bare.name,
            type=bare.type,
            help=bare.help,
            required=False,
            default=default,
            choices=bare.choices,
            least=bare.least,
            most=bare.most,
        )

    # ---------------------------------------------------------------- the task

    def _task(self, data: object, names: Mapping[str, str]) -> dict[str, Any]:
        if not isinstance(data, dict):
            self._wrong(("task",), "task: give image, argv and what else it asks")
            return {}
        found: dict[str, Any] = {}
        for word, value in data.items():
            at: Path = ("task", word)
            if word not in _TASK_WORDS:
                near = nearest(word, _TASK_WORDS)
                hint = (
                    f"did you mean {near!r}?" if near else "docs/templates.md lists what may stand"
                )
                self._wrong(at, f"key {shown(word)}; {hint}")
                continue
            if any(field_of(word) == field_of(other) for other in found):
                self._wrong(at, f"{word} says the same as another key; give one")
            found[word] = value
            for path, text in _texts(value, at):
                self._expression(path, text, names, word)
        if "command" in found and "argv" in found:
            self._wrong(("task", "command"), "command and argv: give one")
        argv = found.get("argv", [])
        if not isinstance(argv, list):
            self._wrong(("task", "argv"), "argv: write a list; an expression in it may be one, too")
        else:
            self._code(argv)
        return found

    def _expression(self, at: Path, text: str, names: Mapping[str, str], word: str) -> None:
        try:
            check(text, names)
        except InvalidInput as wrong:
            place = self._document.place(at)
            hint = f" ({wrong.hint})" if wrong.hint else ""
            self._problems.add(place, f"{wrong.message}{hint}")
            return
        used = names_in(text)
        self._used |= used
        if word == "mounts" and (loose := sorted(one for one in used if names[one] == "text")):
            self._wrong(
                at,
                f"mounts: {loose[0]} is text, which could say more than a path; make its type path",
            )
        if word == "command" and used:
            self._wrong(
                at,
                "command: no value can stand in shell text; give it as a variable"
                " (env: {PROMPT: '{{ prompt }}'}, and \"$PROMPT\" here), or use argv",
            )

    def _code(self, argv: list[Any]) -> None:
        """Refuses a value in what an interpreter would run."""
        for at, word in enumerate(argv):
            if not isinstance(word, str) or not _INTERPRETERS.fullmatch(basename(word)):
                continue
            for code in range(at + 2, len(argv)):
                option = argv[code - 1]
                if not isinstance(option, str) or not option.startswith("-"):
                    break
                if _CODE.fullmatch(option):
                    if isinstance(argv[code], str) and names_in(argv[code]):
                        self._wrong(
                            ("task", "argv", code),
                            f"argv: no value can stand in code that {basename(word)} runs; give it"
                            " behind the code (sh -c 'echo \"$1\"' sh VALUE), or as a variable",
                        )
                    break


def _texts(value: object, path: Path) -> Iterator[tuple[Path, str]]:
    """All texts in a value, with where they stand."""
    match value:
        case str():
            yield path, value
        case list():
            for at, one in enumerate(value):
                yield from _texts(one, (*path, at))
        case dict():
            for name, one in value.items():
                yield from _texts(one, (*path, name))
