"""Mounts in the words of ``docker run --mount``: CSV of ``key=value``, read and written anew."""

from __future__ import annotations

import csv
import io
import posixpath

from .errors import InvalidInput
from .units import parse_docker_size
from .wording import did_you_mean, nearest, shown

LONGEST = 8192
"""Characters of one mount."""

_ALIASES = {
    "type": "type",
    "src": "src",
    "source": "src",
    "dst": "dst",
    "destination": "dst",
    "target": "dst",
    "ro": "readonly",
}
_TYPES = {
    "bind": ("bind-propagation", "bind-nonrecursive", "bind-recursive"),
    "volume": ("volume-subpath", "volume-nocopy", "volume-label", "volume-driver", "volume-opt"),
    "tmpfs": ("tmpfs-size", "tmpfs-mode"),
}
_FLAGS = ("readonly", "bind-nonrecursive", "volume-nocopy")
_REPEATED = ("volume-label", "volume-opt")
_CHOICES = {
    "bind-propagation": ("private", "rprivate", "shared", "rshared", "slave", "rslave"),
    "bind-recursive": ("enabled", "disabled", "writable", "readonly"),
}
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_KNOWN = ("type", "src", "dst", "readonly", *(key for keys in _TYPES.values() for key in keys))
_GPU_DOOR = "/var/run/nvidia-container-devices"
"""NVIDIA's runtime may read GPU requests from mounts below it, past the assignment."""
_EXAMPLE = "such as type=bind,src=/data,dst=/data,readonly"


class _Wrong(Exception):
    """Why a mount cannot be meant."""


def check_mount(text: str, *, what: str = "mounts") -> str:
    """The mount in one spelling: type, src, dst, then the rest as given; flags without a value.

    Raises ``InvalidInput`` naming ``what``.
    """
    try:
        return _written(_read(_fields(text)))
    except _Wrong as wrong:
        raise InvalidInput(f"{what}: {shown(text)}: {wrong}", field=what) from None


def bind_mount(source: str, target: str, *, what: str = "mounts") -> str:
    """A file or folder of the worker, to be read only. Raises ``InvalidInput`` naming ``what``
    for a place in the container that cannot be."""
    return check_mount(_csv(["type=bind", f"src={source}", f"dst={target}", "readonly"]), what=what)


def mount_target(mount: str) -> str:
    """Where in the container a checked mount stands."""
    fields = (field.partition("=") for field in _fields(mount))
    return posixpath.normpath(next(value for key, _, value in fields if key == "dst"))


def _fields(text: str) -> list[str]:
    if not text or len(text) > LONGEST:
        raise _Wrong(f"give 1 to {LONGEST} characters, {_EXAMPLE}")
    if not text.isprintable():
        raise _Wrong("has line breaks or other invisible characters")
    try:
        fields = next(csv.reader([text], strict=True))
    except csv.Error:
        raise _Wrong("its quotes are not those of CSV") from None
    # Python takes a quote inside a bare field, Docker's reader does not.
    if _csv(fields) != text and '"' in text and not _properly_quoted(text, fields):
        raise _Wrong('its quotes are not those of CSV: "src=/a ""b"",c",dst=/d')
    return fields


def _properly_quoted(text: str, fields: list[str]) -> bool:
    """Whether each field stands in the text bare and without quotes, or quoted whole."""
    for field in fields:
        quoted = '"' + field.replace('"', '""') + '"'
        written = quoted if text.startswith(quoted) else field
        if not text.startswith(written) or ('"' in field and written is field):
            return False
        text = text[len(written) :].removeprefix(",")
    return not text


def _read(fields: list[str]) -> list[tuple[str, str]]:
    read: list[tuple[str, str]] = []
    for field in fields:
        written, equals, value = field.partition("=")
        key = _ALIASES.get(written.lower(), written.lower())
        if key not in _KNOWN:
            raise _Wrong(f"unknown key {shown(written)}; {did_you_mean(key, _KNOWN)}")
        if key in _FLAGS:
            value = _flag(key, value if equals else "true")
        elif not value:
            raise _Wrong(f"{key} needs a value: {key}=…")
        if key not in _REPEATED and any(key == earlier for earlier, _ in read):
            raise _Wrong(f"{key} stands twice")
        read.append((key, value))
    _check_whole(dict(read))
    return read


def _flag(key: str, value: str) -> str:
    if value not in _TRUE + _FALSE:
        raise _Wrong(f"{key} is a flag: write it alone, or {key}=true or {key}=false")
    return "true" if value in _TRUE else "false"


def _check_whole(mount: dict[str, str]) -> None:
    kind = mount.get("type", "volume").lower()
    if kind not in _TYPES:
        near = nearest(kind, _TYPES)
        raise _Wrong(
            f"type {shown(kind)} is not bind, volume or tmpfs"
            + (f"; did you mean {near}?" if near else "")
        )
    for key in mount:
        if key not in ("type", "src", "dst", "readonly", *_TYPES[kind]):
            raise _Wrong(f"{key} is not for a {kind} mount")
    target = mount.get("dst", "")
    if not target.startswith("/") or posixpath.normpath(target).lstrip("/") == "":
        raise _Wrong(f"dst must be an absolute path in the container, not '/'; {_EXAMPLE}")
    if (posixpath.normpath(target) + "/").startswith((f"{_GPU_DOOR}/", f"{_GPU_DOOR[4:]}/")):
        raise _Wrong("would ask for GPUs past the assignment; use req_gpu (--gpus)")
    _check_source(kind, mount.get("src"))
    _check_options(mount)


def _check_source(kind: str, source: str | None) -> None:
    if kind == "bind" and (source is None or not source.startswith("/")):
        raise _Wrong("src of a bind mount must be an absolute path on the worker")
    if kind == "tmpfs" and source is not None:
        raise _Wrong("a tmpfs mount has no src")
    if kind == "volume" and source is not None and "/" in source:
        raise _Wrong("src of a volume is its name; for a path of the worker write type=bind")


def _check_options(mount: dict[str, str]) -> None:
    for key, choices in _CHOICES.items():
        if key in mount and mount[key] not in choices:
            raise _Wrong(f"{key} is one of {', '.join(choices)}")
    if "tmpfs-size" in mount:
        try:
            parse_docker_size(mount["tmpfs-size"], what="tmpfs-size")
        except InvalidInput as wrong:
            raise _Wrong(wrong.message) from None
    mode = mount.get("tmpfs-mode", "0")
    if len(mode) > 5 or not set(mode) <= set("01234567"):
        raise _Wrong("tmpfs-mode is an octal number such as 1777")


def _written(read: list[tuple[str, str]]) -> str:
    mount = dict(read)
    head = [("type", mount.get("type", "volume").lower())]
    head += [(key, mount[key]) for key in ("src", "dst") if key in mount]
    rest = [(key, value) for key, value in read if key not in ("type", "src", "dst")]
    fields = [f"{key}={value}" for key, value in head]
    for key, value in rest:
        if key not in _FLAGS:
            fields.append(f"{key}={value}")
        elif value == "true":
            fields.append(key)
    return _csv(fields)


def _csv(fields: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()
