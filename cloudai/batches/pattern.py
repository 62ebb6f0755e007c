"""The words of an entry, their expressions done for one combination of a matrix after another.

What is the same in all combinations is done once, and each text once for the same values of the
names in it: of a matrix of a hundred thousand, most texts name an axis or two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cloudai.core.errors import InvalidInput
from cloudai.expressions import FUNCTIONS, names_in, render

from .fields import as_body

MOST_KEPT = 10_000
"""Results of one text: an axis has at most so many values."""

Values = Mapping[str, Any]
Wrong = Callable[[str, InvalidInput], None]
"""Is told which word cannot be worked out, and why."""


class Pattern:
    """``words``: as they are written; ``varying``: the names whose values are not the same for
    all combinations."""

    def __init__(self, words: Mapping[str, Any], varying: Iterable[str]) -> None:
        self.words = words
        self._varying = frozenset(varying)
        self._texts: dict[str, _Text] = {}
        self._moving = [word for word, value in words.items() if self._moves(value)]
        self._same: dict[str, Any] | None = None

    def body(self, values: Values, wrong: Wrong) -> dict[str, Any] | None:
        """The body of ``POST /tasks/`` with these values; ``None`` where a word cannot be worked
        out."""
        moving = self._done(self._moving, values, wrong)
        if self._same is None:
            same = [word for word in self.words if word not in self._moving]
            self._same = self._done(same, values, wrong)
        if self._same is None or moving is None:
            return None
        return self._same | moving

    def _done(self, words: list[str], values: Values, wrong: Wrong) -> dict[str, Any] | None:
        def one(text: str) -> Any:
            known = self._texts.get(text)
            return known.rendered(values) if known is not None else render(text, values)

        found: dict[str, Any] = {}
        for word in words:
            try:
                found[word] = each_text(self.words[word], one)
            except InvalidInput as error:
                wrong(word, error)
        return as_body(found) if len(found) == len(words) else None

    def _moves(self, value: Any) -> bool:
        """Whether it is another for each combination; notes which of the names that vary each of
        its texts has in it."""
        if not self._varying:
            return False
        texts: list[str] = []
        each_text(value, texts.append)
        moving = [self._text_moves(text) for text in texts if "{" in text]
        return any(moving)

    def _text_moves(self, text: str) -> bool:
        try:
            names = self._varying & (names_in(text) | FUNCTIONS.keys())
        except InvalidInput:
            return True  # it is told when it is rendered
        self._texts[text] = _Text(text, sorted(names))
        return bool(names)


class _Text:
    """One text, rendered once for the same values of its names."""

    def __init__(self, text: str, names: list[str]) -> None:
        self.text = text
        self.names = names
        self._known: dict[str, Any] = {}

    def rendered(self, values: Values) -> Any:
        # By how they are written: 1, 1.0 and true are equal, and not the same.
        key = repr([values.get(name, _NONE) for name in self.names])
        if key not in self._known:
            if len(self._known) >= MOST_KEPT:
                return render(self.text, values)
            self._known[key] = render(self.text, values)
        return self._known[key]


_NONE = object()


def each_text(value: Any, do: Callable[[str], Any]) -> Any:
    """The value with something done to all texts in it, however deep."""
    match value:
        case str():
            return do(value)
        case list():
            return [each_text(one, do) for one in value]
        case dict():
            return {name: each_text(one, do) for name, one in value.items()}
        case _:
            return value
