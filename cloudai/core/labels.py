from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Expression:
    key: str
    value: str

    def meets(self, facts: Mapping[str, tuple[str, ...]]) -> bool:
        return self.value in facts.get(self.key, ())


@lru_cache
def parse(text: str) -> Expression:
    key, _, value = text.partition("=")
    return Expression(key, value)
