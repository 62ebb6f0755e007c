"""Jinja2 expressions in texts that people write (task templates, batch files): values in, plain
data out. The only home of jinja2's data side.

A text is either one expression, ``{{ lr * 2 }}``, which gives that value with its type, or text
with values in it. A value is data: it is never read as an expression, whatever it holds, and it
never passes through YAML or a shell here. Each scalar of a file is rendered by itself, after the
file was parsed, so a value cannot become a key, a list or a second scalar.

What an expression may do is listed, and nothing else is there: names that were given, operators,
the filters and tests below, ``range``, ``{% if %}``. No attribute of a Python object can be
reached, since a dot only looks into mappings. There is no loop, and each step is measured before
its result is made, so that an expression ends soon and small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jinja2 import nodes

from .allowed import FUNCTIONS
from .plain import Plain, Refused, as_text, check_size, plain, unknown, weigh
from .sandbox import ENVIRONMENT, compiled, context_of
from .told import told

__all__ = ["FUNCTIONS", "Plain", "check", "names_in", "render", "render_text"]


def render(text: str, values: Mapping[str, object]) -> Plain:
    """What ``text`` means with these values: the value itself where it is one expression alone,
    else text. Text without ``{{`` and ``{%`` is answered as it is.

    ``values``: name -> plain data (text, numbers, true, false, null, lists, mappings with text as
    keys). Raises ``InvalidInput`` for a name that is not there (with the nearest that is), for
    what cannot be read, and for what would take too long or become too large. The message has no
    place in it; ``details["line"]`` is the line within ``text``, from 1, where it is known.
    """
    if "{" not in text:
        return text
    with told(text):
        template = compiled(text)
        parts: list[object] = []
        size = 0
        for part in template.root_render_func(context_of(values)):
            parts.append(plain(part))
            size += weigh(parts[-1])
            check_size(size)
        if len(parts) == 1:
            return parts[0]  # type: ignore[return-value]
        return "".join(as_text(part) for part in parts)


def render_text(text: str, values: Mapping[str, object]) -> str:
    """As ``render``, as text: numbers as JSON has them, ``true`` and ``false``. Raises
    ``InvalidInput`` also for null, a list and a mapping."""
    with told(text):
        return as_text(render(text, values))


def check(text: str, names: Iterable[str]) -> None:
    """Raises ``InvalidInput`` where ``text`` cannot be read, or uses a name that is none of
    ``names`` (but with ``is defined`` and ``default``, too): before there are any values."""
    if "{" not in text:
        return
    with told(text):
        compiled(text)
        known = {*names}
        for name in ENVIRONMENT.parse(text).find_all(nodes.Name):
            if name.name not in known and name.name not in FUNCTIONS:
                raise Refused(unknown(name.name, known), name.lineno)


def names_in(text: str) -> set[str]:
    """The names that ``text`` uses, without those of functions. Raises ``InvalidInput`` where it
    cannot be read."""
    if "{" not in text:
        return set()
    with told(text):
        compiled(text)
        found = {name.name for name in ENVIRONMENT.parse(text).find_all(nodes.Name)}
        return found - {*FUNCTIONS}
