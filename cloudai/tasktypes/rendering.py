"""A task type and values for its parameters to the body of ``POST /tasks/``.

Each scalar of the template is worked out by itself and stays one scalar, whatever the values
hold. An item of a list may be an expression that is a list: its items stand in its place, so
``{{ ['--fast'] if fast else [] }}`` is a word or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudai.batches.document import Path
from cloudai.batches.fields import as_body, as_text
from cloudai.core.errors import InvalidInput
from cloudai.core.mounts import check_mount, mount_target
from cloudai.core.problems import FileInvalid, Problem
from cloudai.core.request import read_request
from cloudai.core.wording import shown
from cloudai.expressions import render

from .parameters import Value, read_parameters
from .reading import TaskType

ADDED = ("mounts", "uploads", "downloads", "secrets")
"""Lists to which a request adds its own; all other fields of a request stand instead of the
template's."""


def body_of(kind: TaskType, parameters: object) -> dict[str, Any]:
    """What the template says for these parameters. Raises ``InvalidInput`` for a parameter, and
    ``FileInvalid`` with the place in the template for what cannot be meant there."""
    values = read_parameters(kind.parameters, parameters, of=kind.name)
    found: dict[str, Any] = {}
    for word, written in kind.task.items():
        value = _rendered(kind, ("task", word), written, values)
        if value is not None:
            found[word] = value
    body = as_body(found)
    _check(kind, body)
    return body


def merged(own: Mapping[str, object], asked: Mapping[str, object]) -> dict[str, object]:
    """The template's body with what a request says beside it: that counts, but for variables,
    which are added one by one, and mounts and the like, which are added to."""
    said = {field: value for field, value in asked.items() if value is not None}
    if {"argv", "command"} & said.keys():
        own = {field: value for field, value in own.items() if field not in ("argv", "command")}
    whole = {**own, **said}
    mine, given = own.get("env"), said.get("env")
    if isinstance(mine, Mapping) and isinstance(given, Mapping):
        whole["env"] = {**mine, **given}
    for field in ADDED:
        first, more = own.get(field), said.get(field)
        if isinstance(first, list) and isinstance(more, list):
            whole[field] = _added(first, more) if field == "mounts" else [*first, *more]
    return whole


def _added(own: list[object], asked: list[object]) -> list[object]:
    """A mount that was asked for stands instead of the template's at the same place."""
    taken = {_target(one) for one in asked}
    return [*(one for one in own if _target(one) not in taken), *asked]


def _target(mount: object) -> object:
    try:
        return mount_target(check_mount(mount)) if isinstance(mount, str) else mount
    except InvalidInput:
        return mount  # the request's check tells it


def _rendered(kind: TaskType, path: Path, value: object, values: Mapping[str, Value]) -> Any:
    match value:
        case str():
            return _scalar(kind, path, value, values)
        case list():
            items: list[object] = []
            for at, one in enumerate(value):
                done = _rendered(kind, (*path, at), one, values)
                items += [as_text(item) for item in (done if isinstance(done, list) else [done])]
                if None in items:
                    raise _wrong(kind, (*path, at), "null cannot be an item; [] is none")
            return items
        case dict():
            done = {
                name: _rendered(kind, (*path, name), one, values) for name, one in value.items()
            }
            return {name: one for name, one in done.items() if one is not None}
    return value


def _scalar(kind: TaskType, path: Path, text: str, values: Mapping[str, Value]) -> object:
    try:
        return render(text, values)
    except InvalidInput as wrong:
        raise _wrong(kind, path, wrong.message) from None


def _wrong(kind: TaskType, path: Path, text: str) -> FileInvalid:
    return FileInvalid(kind.file, [Problem(kind.document.place(path), text)])


def _check(kind: TaskType, body: Mapping[str, object]) -> None:
    """The template's own fields, checked as any body, and told at their place: what a request
    adds is checked again, under the request's words."""
    whole = {"docker_image": "image", **body}
    try:
        read_request(whole, default_user="user")
    except InvalidInput as wrong:
        field = str(wrong.details.get("field", "")).partition("[")[0].partition(".")[0]
        why = wrong.message if field else f"{shown(kind.name)}: {wrong.message}"
        raise FileInvalid(kind.file, [Problem(kind.place(field), why)]) from None
