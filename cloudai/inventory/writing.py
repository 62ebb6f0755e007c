"""Edits of the inventory for ``register`` and ``unregister``: one line in, one entry out.

The text around an edit stays as it is, byte for byte: comments, order, quotes, columns. Every
edit is read back before it is written, and must say what was meant and nothing else.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from cloudai.core.errors import Conflict, WorkerNotFound
from cloudai.core.model import WorkerSpec
from cloudai.core.problems import NOWHERE, FileInvalid, Problem, Problems

from .atomic import write_text
from .file import decode, read_bytes
from .reading import Fleet, read_fleet
from .specs import check_worker, values_of
from .tree import Entry, Table, Text, read_tree

HEADER = """\
# The workers of cloudai: docs/inventory.md says what can stand here.
"""
_TRIES = 3


def add_worker(path: Path, spec: WorkerSpec) -> None:
    """Writes the worker under ``workers:``, with the keys that are given and not inherited.

    Makes the file, and folders above it, where there are none. ``spec.groups`` and
    ``spec.place`` say nothing here. Raises ``Conflict`` where the id is taken, ``InvalidInput``
    or ``FileInvalid`` where the worker or the file cannot be meant, ``StoreFailed`` where
    the disk refuses.
    """
    check_worker(spec)
    _apply(path, lambda text, source: _added(text, source, spec))


def plan_worker(path: Path, spec: WorkerSpec) -> WorkerSpec:
    """The worker as it would be read back after ``add_worker``, the file's defaults included;
    nothing is written. Raises what ``add_worker`` raises."""
    check_worker(spec)
    source = str(path)
    text = decode(read_bytes(path), source=source) if path.exists() else ""
    return read_fleet(_added(text, source, spec), source=source).workers[spec.id]


def _added(text: str, source: str, spec: WorkerSpec) -> str:
    fleet = read_fleet(text, source=source)
    if taken := fleet.workers.get(spec.id):
        raise Conflict(
            f"Worker {spec.id} is in the inventory already, at {taken.place}",
            hint=f"edit it there, or `cloudai unregister {spec.id}` first",
            worker=spec.id,
        )
    edited = _with_entry(text, source, _written(spec, _inherited(text, source, spec)))
    _compare(edited, source, fleet, added=spec)
    return edited


def remove_worker(path: Path, worker_id: str) -> None:
    """Takes the worker's entry out; comments above it stay.

    Raises ``WorkerNotFound``; ``Conflict`` where it comes from a range, saying what to write
    instead; ``FileInvalid`` and ``StoreFailed`` as ``add_worker``.
    """

    def edit(text: str, source: str) -> str:
        fleet = read_fleet(text, source=source)
        if worker_id not in fleet.workers:
            raise WorkerNotFound(worker_id)
        origin = fleet.origins[worker_id]
        if origin.range is not None and origin.number is not None:
            others = " and ".join(origin.range.without(origin.number))
            where = f"{source}:{origin.place.line}"
            raise Conflict(
                f"Worker {worker_id} comes from the range {origin.key} at {where}",
                hint=f"write {others} there instead" if others else "take that line out",
                worker=worker_id,
            )
        edited = _without_entry(text, source, worker_id)
        _compare(edited, source, fleet, removed=worker_id)
        return edited

    _apply(path, edit)


def _apply(path: Path, edit: Callable[[str, str], str]) -> None:
    """Reads, edits and writes; begins again when someone else saved meanwhile."""
    for _ in range(_TRIES):
        before = read_bytes(path) if path.exists() else None
        content = before or b""
        mark = "\ufeff" if content.startswith(b"\xef\xbb\xbf") else ""
        edited = mark + edit(decode(content, source=str(path)), str(path))
        if "\r\n" in edited and before is not None:
            edited = re.sub(r"(?<!\r)\n", "\r\n", edited)
        now = read_bytes(path) if path.exists() else None
        if now == before:
            write_text(path, edited)
            return
    raise Conflict(f"{path} is being changed by someone else", hint="try again")


# ------------------------------------------------------------------ what is written


def _written(spec: WorkerSpec, inherited: WorkerSpec | None) -> str:
    """``id: {host: …}``, as YAML on one line, without what the worker has anyhow."""
    entry = CommentedMap({spec.id: _given(spec, inherited)})
    for part in (entry[spec.id], *entry[spec.id].values()):
        if isinstance(part, CommentedMap):
            part.fa.set_flow_style()
    yaml = YAML(pure=True)
    yaml.width = 1_000_000
    line = io.StringIO()
    yaml.dump(entry, line)
    return line.getvalue().rstrip("\n")


def _given(spec: WorkerSpec, inherited: WorkerSpec | None) -> CommentedMap:
    """The keys to write: not the default of the schema, and not inherited from the file's."""
    plain, has = values_of(WorkerSpec(id=spec.id)), values_of(inherited or WorkerSpec(id=spec.id))
    given = CommentedMap()
    for path, value in values_of(spec).items():
        if value is None or value in (plain.get(path), has.get(path)):
            continue
        table = given if len(path) == 1 else given.setdefault(path[0], CommentedMap())
        table[path[-1]] = value
    return given


def _inherited(text: str, source: str, spec: WorkerSpec) -> WorkerSpec:
    """What the worker would be with no key but those that say what it is: the file's defaults."""
    bare = WorkerSpec(id=spec.id, connection=spec.connection, host=spec.host)
    fleet = read_fleet(_with_entry(text, source, _written(bare, None)), source=source)
    return replace(fleet.workers[spec.id], connection="ssh", host=None)


# ------------------------------------------------------------------ where it is written


def _with_entry(text: str, source: str, entry: str) -> str:
    root = read_tree(text, Problems(source))
    if root is None:
        return f"{_ended(text) or HEADER}workers:\n  {entry}\n"
    workers = root.entries.get("workers")
    if workers is None:
        whole = f"workers: {{{entry}}}" if root.flow else f"workers:\n  {entry}"
        return _insert(text, root, whole)
    if isinstance(workers.value, Table):
        return _insert(text, workers.value, entry)
    if root.flow:
        return f"{text[: workers.value.end]} {{{entry}}}{text[workers.value.end :]}"
    if isinstance(workers.value, Text) and workers.value.start < workers.value.end:
        # A written null makes room.
        text = text[: workers.value.start].rstrip(" ") + text[workers.value.end :]
    indent = " " * (workers.key.place.column + 1)
    return _insert_line(text, workers.key.end, indent + entry)


def _insert(text: str, table: Table, entry: str) -> str:
    """The text with one entry more, behind the table's last."""
    last = max(table.entries.values(), key=lambda one: one.key.start, default=None)
    if not table.flow:
        assert last is not None
        indent = " " * (last.key.place.column - 1)
        return _insert_line(
            text, last.value.end, "\n".join(indent + line for line in entry.split("\n"))
        )
    if last is None:
        return f"{text[: table.start]}{{{entry}}}{text[table.end :]}"
    gap = " " if text[last.value.end - 1] == ":" else ""  # `b:,` would be a key of that name
    return f"{text[: last.value.end]}{gap}, {entry}{text[last.value.end :]}"


def _insert_line(text: str, after: int, line: str) -> str:
    """The line below the one that holds the character before ``after``."""
    newline = text.find("\n", after - 1)
    if newline < 0:
        return f"{_ended(text)}{line}\n"
    return f"{text[: newline + 1]}{line}\n{text[newline + 1 :]}"


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def _without_entry(text: str, source: str, worker_id: str) -> str:
    root = read_tree(text, Problems(source))
    assert root is not None
    table, entry = _find(root, worker_id)
    if table.flow:
        return _cut_flow(text, table, entry)
    first = text.rfind("\n", 0, entry.key.start) + 1
    newline = text.find("\n", entry.value.end - 1)
    return text[:first] + (text[newline + 1 :] if newline >= 0 else "")


def _find(root: Table, worker_id: str) -> tuple[Table, Entry]:
    holders = [root]
    groups = root.entries.get("groups")
    if groups is not None and isinstance(groups.value, Table):
        holders += [
            one.value for one in groups.value.entries.values() if isinstance(one.value, Table)
        ]
    for holder in holders:
        workers = holder.entries.get("workers")
        if workers is None or not isinstance(workers.value, Table):
            continue
        if entry := workers.value.entries.get(worker_id):
            return workers.value, entry
    raise WorkerNotFound(worker_id)


def _cut_flow(text: str, table: Table, entry: Entry) -> str:
    """The text without one entry of a table in braces, and without the comma beside it."""
    entries = sorted(table.entries.values(), key=lambda one: one.key.start)
    at = entries.index(entry)
    if at + 1 < len(entries):
        return text[: entry.key.start] + text[entries[at + 1].key.start :]
    start = entries[at - 1].value.end if at else table.start + 1
    return text[:start] + text[entry.value.end :]


# ------------------------------------------------------------------ whether it says what is meant


def _compare(
    edited: str,
    source: str,
    before: Fleet,
    *,
    added: WorkerSpec | None = None,
    removed: str | None = None,
) -> None:
    """Raises ``FileInvalid`` unless the edited text says the same, but for that worker."""
    wanted = _placeless(before.workers)
    if removed is not None:
        del wanted[removed]
    try:
        after = read_fleet(edited, source=source)
        now = _placeless(after.workers)
        found = now.pop(added.id) if added is not None else None
    except (FileInvalid, KeyError):
        raise _too_odd(source) from None
    same = now == wanted and after.policy == before.policy
    if not same or (found and added and _given(added, found)):
        raise _too_odd(source)


def _placeless(workers: Mapping[str, WorkerSpec]) -> dict[str, WorkerSpec]:
    return {worker_id: replace(spec, place="") for worker_id, spec in workers.items()}


def _too_odd(source: str) -> FileInvalid:
    why = "is written in a way that cannot be edited safely; edit it by hand"
    return FileInvalid(source, [Problem(NOWHERE, why)])
