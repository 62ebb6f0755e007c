"""HTML, SVG and XML as text. Escaping is not optional: only what ``element`` made is markup,
everything else is text that somebody wrote."""

from __future__ import annotations

from html import escape

from .plain import plain

_VOID = frozenset(("meta", "rect", "path"))


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def text_of(value: object) -> Markup:
    """Any text, escaped, also for use inside an attribute; control characters left out, since
    XML has no way to write them."""
    return value if isinstance(value, Markup) else Markup(escape(plain(str(value))))


def join(parts: list[Markup] | tuple[Markup, ...], between: str = "") -> Markup:
    """Several pieces in a row."""
    return Markup(text_of(between).join(parts))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """``<name attributes>children</name>``. ``None`` children and attributes are left out. An
    attribute's ``_`` is written ``-``, and one at its end is dropped (``class_``)."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text_of(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID and not children:
        return Markup(f"<{name}{told}/>")
    inner = "".join(text_of(child) for child in children if child is not None)
    return Markup(f"<{name}{told}>{inner}</{name}>")
