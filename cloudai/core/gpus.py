"""What a task may wish of the GPUs it gets, beyond how many."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache


@lru_cache(maxsize=4096)
def plain(text: str) -> str:
    """A model's name as it is compared: letters and digits, all small."""
    return "".join(letter for letter in text.lower() if letter.isalnum())


def model_matches(wanted: str, model: str) -> bool:
    """Whether ``a100`` is meant by ``NVIDIA A100-SXM4-80GB``."""
    return plain(wanted) in plain(model)


@dataclass(frozen=True, slots=True)
class Wish:
    """Which devices will do. A share also claims so much memory of its device."""

    model: str | None = None
    memory: int | None = None
    """Bytes on each device."""

    def __str__(self) -> str:
        """``a100, 40.0 GB``; empty where any device will do."""
        parts = [self.model] if self.model else []
        if self.memory is not None:
            parts.append(f"{self.memory / 2**30:.1f} GB")
        return ", ".join(parts)


ANY = Wish()
