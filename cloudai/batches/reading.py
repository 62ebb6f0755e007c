"""Batch files to tasks, checked as a whole before anything is stored.

::

    document     text -> plain values with places           YAML, JSON, JSON lines, CSV
    matrix       entry -> combinations of values
    reading      entry x values -> the body of a task -> core.request -> its spec
    multiplying  tasks -> groups, and elements of arrays
    linking      what entries need -> ids; no cycle

Every mistake is told with its file, line and column, all of them at once.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from cloudai.core.errors import CloudaiError, InvalidInput
from cloudai.core.files import download_beside, upload_beside
from cloudai.core.names import check_entry_id, check_task_name, check_user
from cloudai.core.problems import FileInvalid, Place, Problem, Problems
from cloudai.core.request import Requests, array_of, begin_of, check_key
from cloudai.core.wording import did_you_mean, nearest, shown
from cloudai.expressions import render

from .document import FORMATS, TOP, Document, Path, read_document
from .fields import KNOWN, OF_FILES, as_text, field_of, word_of
from .matrix import MOST_TASKS, combinations
from .multiplying import grouped, spread
from .pattern import Pattern, each_text
from .planned import Asked, Entry, File, Mistakes, Planned, Read

MOST_FILES = 100


def read_files(files: Sequence[File], asked: Asked) -> Read:
    """All tasks of a batch, not linked yet. Raises ``FileInvalid``, and ``InvalidInput`` for
    what stands beside the files."""
    mistakes = Mistakes()
    _check_settings(files, asked.settings)
    documents = _documents(files, mistakes)
    reader = _Reader(asked, mistakes)
    for document in documents:
        reader.file(document)
    if not reader.entries:
        mistakes.settle()
        raise FileInvalid(files[0].name, [Problem(Place(1, 1), "no tasks: nothing to submit")])
    for entry in reader.entries:
        reader.expand(entry)
        if reader.count > MOST_TASKS:
            mistakes.add(
                entry.file.name,
                entry.file.place(entry.path),
                f"more than {MOST_TASKS} tasks in all",
            )
            break
    mistakes.settle()
    tasks = [task for entry in reader.entries for task in entry.tasks]
    return Read(reader.name, reader.user or asked.user, reader.once_key, tasks, reader.entries)


def _check_settings(files: Sequence[File], settings: Mapping[str, str]) -> None:
    """A name that no file mentions is a slip of the pen."""
    for name in settings:
        if not name.isidentifier():
            raise InvalidInput(
                f"--set {shown(name)}: give letters, digits and '_', no digit first", field="set"
            )
        if not any(re.search(rf"\b{name}\b", file.text) for file in files):
            words = {word for file in files for word in re.findall(r"[A-Za-z_]\w*", file.text)}
            near = nearest(name, sorted(words)[:5000])
            hint = f"did you mean {near}?" if near else ""
            raise InvalidInput(
                f"--set {name}: no file of the batch uses that name", hint=hint, field="set"
            )


def _documents(files: Sequence[File], mistakes: Mistakes) -> list[Document]:
    if not 1 <= len(files) <= MOST_FILES:
        raise InvalidInput(f"files: {len(files)}; give 1 to {MOST_FILES}", field="files")
    found: list[Document] = []
    for file in files:
        problems = mistakes.of.setdefault(file.name, Problems(file.name))
        if file.format not in FORMATS:
            raise InvalidInput(
                f"{file.name}: format {shown(file.format)}; {did_you_mean(file.format, FORMATS)}",
                field="files",
            )
        try:
            found.append(read_document(file.text, file.format, problems))
        except FileInvalid:
            continue  # it is among its problems
    mistakes.settle()
    return found


class _Reader:
    """Files in, entries with their tasks out."""

    def __init__(self, asked: Asked, mistakes: Mistakes) -> None:
        self.asked = asked
        self.mistakes = mistakes
        self.name: str | None = None
        self.user: str | None = None
        self.once_key: str | None = None
        self.entries: list[Entry] = []
        self.count = 0
        self._ids: dict[str, Entry] = {}

    # -------------------------------------------------------------- a file

    def file(self, document: Document) -> None:
        """Its head, and its entries, not expanded yet."""
        data = document.data
        if isinstance(data, list):
            data = {"tasks": data}
            document.under("tasks")
        if not isinstance(data, dict):
            self._wrong(document, TOP, "a batch is keys and values: defaults, vars, tasks")
            return
        for key in data:
            if key not in OF_FILES:
                self._wrong_key(document, (key,), did_you_mean(key, OF_FILES))
        values = self._values(document, data)
        self._head(document, data, values)
        defaults = self._defaults(document, data)
        tasks = data.get("tasks")
        if not isinstance(tasks, list):
            where: Path = ("tasks",) if tasks is not None else TOP
            self._wrong(document, where, "tasks: give a list of entries, each with an image")
            return
        for at, written in enumerate(tasks):
            self._entry(document, ("tasks", at), written, defaults, values)

    def _wrong(self, document: Document, path: Path, text: str) -> None:
        self.mistakes.add(document.name, document.place(path), text)

    def _wrong_key(self, document: Document, path: Path, right: str) -> None:
        self.mistakes.add(document.name, document.key(path), f"key {shown(path[-1])}; {right}")

    def _built_in(self) -> dict[str, Any]:
        now = self.asked.now
        return {
            "date": f"{now:%Y-%m-%d}",
            "time": f"{now:%H:%M}",
            "timestamp": int(now.timestamp()),
            "user": self.asked.user,
        }

    def _values(self, document: Document, data: Mapping[str, Any]) -> dict[str, Any]:
        """What expressions may name, but for what a matrix adds."""
        values: dict[str, Any] = self._built_in()
        given = data.get("vars") or {}
        if not isinstance(given, dict):
            self._wrong(document, ("vars",), "vars: give names and values, as in {who: ann}")
            given = {}
        for name, value in given.items():
            if not name.isidentifier():
                self._wrong(document, ("vars", name), f"{shown(name)} cannot be used as a name")
                continue
            if name not in self.asked.settings:
                values[name] = self._render(document, ("vars", name), value, values)
        for name, text in self.asked.settings.items():
            is_text = isinstance(given.get(name), str)
            values[name] = text if is_text else _as_written(text)
        return values

    def _head(self, document: Document, data: Mapping[str, Any], values: dict[str, Any]) -> None:
        checks: dict[str, Callable[..., str]] = {
            "name": check_task_name,
            "user": check_user,
            "once_key": check_key,
        }
        for key, check in checks.items():
            if data.get(key) is None or getattr(self, key) is not None:
                continue
            text = as_text(self._render(document, (key,), data[key], values))
            try:
                setattr(self, key, check(_as_str(text, key), what=key))
            except InvalidInput as wrong:
                self._wrong(document, (key,), wrong.message)

    def _defaults(self, document: Document, data: Mapping[str, Any]) -> dict[str, Any]:
        defaults = data.get("defaults") or {}
        if not isinstance(defaults, dict):
            self._wrong(document, ("defaults",), "defaults: give fields of tasks and values")
            return {}
        known = [word for word in KNOWN if word not in ("id", "matrix", "include", "exclude")]
        for word in defaults:
            if word not in known:
                self._wrong_key(document, ("defaults", word), _near(word, known))
        return defaults

    def _entry(
        self,
        document: Document,
        path: Path,
        written: Any,
        defaults: dict[str, Any],
        values: dict[str, Any],
    ) -> None:
        if not isinstance(written, dict):
            self._wrong(document, path, f"{shown(written)}; an entry is keys and values")
            return
        written = _with_columns(written)
        for word in written:
            if word not in KNOWN:
                self._wrong_key(document, (*path, word), _near(word, KNOWN))
        if twice := _said_twice(written):
            why = f"{twice[0]} and {twice[1]} say the same; give one"
            self._wrong(document, (*path, twice[1]), why)
        own = self._own_id(document, path, written)
        entry = Entry(own, document, path, written, defaults, values)
        if own in self._ids:
            first = self._ids[own]
            line = f"{first.file.name}:{first.file.place(first.path).line}"
            self._wrong(document, path, f"the id {shown(own)} stands twice; first in {line}")
            return
        self._ids[own] = entry
        self.entries.append(entry)

    def _own_id(self, document: Document, path: Path, written: Mapping[str, Any]) -> str:
        """What needs call it by: its ``id``, else its name where that is one for all of it, else
        its place."""
        given = written.get("id")
        if given is not None:
            try:
                return check_entry_id(_as_str(as_text(given), "id"), what="id")
            except InvalidInput as wrong:
                self._wrong(document, (*path, "id"), wrong.message)
        name = written.get("name")
        if given is None and isinstance(name, str) and "{" not in name and name not in self._ids:
            try:
                return check_entry_id(name, what="name")
            except InvalidInput:
                pass  # it is told where the name is checked
        return f"entry-{len(self.entries) + 1}"

    # -------------------------------------------------------------- an entry

    @cached_property
    def _requests(self) -> Requests:
        """Once all heads are read: whose tasks they are may stand in the last one."""
        return Requests(default_user=self.user or self.asked.user, expand=self.asked.expand)

    def expand(self, entry: Entry) -> None:
        """All tasks of it."""

        def rendered(value: Any, path: Path) -> Any:
            try:
                return _rendered(value, entry.values)
            except InvalidInput as wrong:
                raise InvalidInput(f"{path[-1]}: {wrong.message}", path=list(path)) from None

        try:
            combos = list(combinations(entry.written, rendered))
        except InvalidInput as wrong:
            path = wrong.details.get("path", ())
            self._wrong(entry.file, (*entry.path, *path), wrong.message)
            return
        merged = _merged(entry.defaults, entry.written)
        words = {
            word: value
            for word, value in merged.items()
            if word in KNOWN and word not in _NOT_RENDERED
        }
        varying = {"index"}.union(*combos) if len(combos) > 1 else ()
        pattern = Pattern(words, varying)
        for index, combo in enumerate(combos):
            task = self._task(entry, pattern, {**entry.values, "index": index, **combo})
            if task is None:
                break  # what is wrong with one is wrong with most
            entry.tasks.append(task)
            if self.count + len(entry.tasks) > MOST_TASKS:
                break
        try:
            wanted = _rendered(merged.get("group"), entry.values)
            entry.tasks = spread(grouped(entry.tasks, wanted, self.asked.new_id))
        except InvalidInput as wrong:
            self.mistakes.add(entry.file.name, entry.place("group"), f"group: {wrong.message}")
        self.count += len(entry.tasks)

    def _task(self, entry: Entry, pattern: Pattern, values: Mapping[str, Any]) -> Planned | None:
        def wrong_word(word: str, wrong: InvalidInput) -> None:
            self.mistakes.add(entry.file.name, entry.place(word), f"{word}: {wrong.message}")

        body = pattern.body(values, wrong_word)
        if body is None:
            return None
        body = _with_whole_path(body, entry.file.name)
        after = _needs(body.pop("after", None))
        try:
            spec, env = self._requests.read(body)
            elements = array_of(body)
            begin = begin_of(body, self.asked.now)
            if isinstance(after, InvalidInput):
                raise after
        except CloudaiError as wrong:
            self._refused(entry, wrong, pattern.words)
            return None
        return Planned(self.asked.new_id("task"), spec, env, begin, entry, elements, after)

    def _refused(self, entry: Entry, wrong: CloudaiError, words: Mapping[str, Any]) -> None:
        """Under the name of the field as it was written, at its place."""
        field = str(wrong.details.get("field", ""))
        name = re.split(r"[.\[]", field, maxsplit=1)[0]
        word = word_of(name, words)
        text = wrong.message
        if name and text.startswith(name) and word != name:
            text = word + text.removeprefix(name)
        hint = f" ({wrong.hint})" if wrong.hint else ""
        place = entry.place(word) if word in words else entry.file.place(entry.path)
        self.mistakes.add(entry.file.name, place, text + hint)

    def _render(self, document: Document, path: Path, value: Any, values: Mapping[str, Any]) -> Any:
        try:
            return _rendered(value, values)
        except InvalidInput as wrong:
            self._wrong(document, path, f"{path[-1]}: {wrong.message}")
            return None


_NOT_RENDERED = ("matrix", "include", "exclude", "id", "group")


def _rendered(value: Any, values: Mapping[str, Any]) -> Any:
    """The value with all expressions in it done."""
    return each_text(value, lambda text: render(text, values))


_BESIDE_FILES = {"task_type", "uploads", "downloads"}


def _with_whole_path(body: dict[str, Any], file: str) -> dict[str, Any]:
    """A template that is named by its place beside the file of the batch; what tasks bring along
    from there, and send there."""
    if not file.startswith("/") or not _BESIDE_FILES & body.keys():
        return body
    folder, kind = posixpath.dirname(file), body.get("task_type")
    if isinstance(kind, str) and kind.startswith(("./", "../")):
        body["task_type"] = posixpath.normpath(posixpath.join(folder, kind))
    for name, beside in (("uploads", upload_beside), ("downloads", download_beside)):
        if isinstance(given := body.get(name), list):
            body[name] = [beside(one, folder) if isinstance(one, str) else one for one in given]
    return body


def _as_written(text: str) -> Any:
    """What was typed for ``--set``, as YAML would take it: ``5`` is a number."""
    for kind in (int, float):
        if re.fullmatch(r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?", text):
            try:
                return kind(text)
            except ValueError:
                continue
    return {"true": True, "false": False}.get(text, text)


def _as_str(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{what}: {shown(value)}; give text", field=what)
    return value


def _near(word: str, known: Iterable[str]) -> str:
    near = nearest(word, known)
    return f"did you mean {near!r}?" if near else "docs/batches.md lists what an entry may say"


def _with_columns(written: dict[str, Any]) -> dict[str, Any]:
    """``env.NAME``, as a column of CSV has it, is one of its variables."""
    columns = {word: value for word, value in written.items() if word.startswith("env.")}
    if not columns:
        return written
    env = dict(written.get("env") or {})
    env |= {word.removeprefix("env."): value for word, value in columns.items()}
    rest = {word: value for word, value in written.items() if word not in columns}
    return {**rest, "env": env}


def _said_twice(written: Mapping[str, Any]) -> tuple[str, str] | None:
    seen: dict[str, str] = {}
    for word in written:
        if (field := field_of(word)) in seen:
            return seen[field], word
        seen[field] = word
    return None


def _merged(defaults: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """The entry over the defaults; of variables each by itself."""
    said = {field_of(word) for word in written}
    if {"command", "argv"} & said:
        said |= {"command", "argv"}
    merged = {word: value for word, value in defaults.items() if field_of(word) not in said}
    merged |= written
    if isinstance(defaults.get("env"), dict) and isinstance(written.get("env"), dict):
        merged["env"] = {**defaults["env"], **written["env"]}
    return merged


def _needs(value: Any) -> list[tuple[str, str]] | InvalidInput:
    """(reference, how) of each; an empty reference is none: what an expression may leave."""
    items: list[tuple[str, str]] = []
    match value:
        case None:
            return []
        case str():
            listed: list[Any] = value.split(",")
        case list():
            listed = value
        case dict():
            return [(str(ref), str(how)) for ref, how in value.items() if ref]
        case _:
            return InvalidInput(
                f"after: {shown(value)}; give entries and how they must have ended, as in"
                " {prepare: ok}",
                field="after",
            )
    for one in listed:
        if not isinstance(one, str):
            return InvalidInput(f"after: {shown(one)}; give text such as prepare:ok", field="after")
        ref, _, how = one.strip().partition(":")
        if ref:
            items.append((ref, how or "ok"))
    return items
