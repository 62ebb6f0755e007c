"""How far a ``docker pull`` is, and whether it still moves. No I/O but the stream it reads."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Callable

from cloudai.core.errors import EngineFailed, Indeterminate
from cloudai.core.model import MIB
from cloudai.engines import PullProgress, RegistryLogin

from .failures import why_not_pulled
from .parts import whole_number

LAYER = re.compile(r"([0-9a-f]{12}): (.+)")
DOCKER_HUB = "https://index.docker.io/v1/"
"""What docker's client calls it."""
HAVE = ("Pull complete", "Already exists", "Download complete", "Verifying Checksum")


def login_settings(login: RegistryLogin) -> str:
    """A ``config.json`` of docker's client that knows this log-in and nothing else."""
    address = DOCKER_HUB if login.registry == "docker.io" else login.registry
    words = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
    return json.dumps({"auths": {address: {"auth": words}}})


class Pull:
    """One pull, told from its output line by line.

    It stands still when for ``stall`` seconds neither docker said anything nor the space that
    is free on the worker's disk changed; ``clock`` is monotonic, in seconds.
    """

    def __init__(self, image: str, *, stall: float, clock: Callable[[], float]) -> None:
        self._image, self._stall, self._clock = image, stall, clock
        self._layers: dict[str, bool] = {}
        self._words: list[str] = []
        self._free: int | None = None
        self._moved_at = clock()
        self.status: int | None = None

    def line(self, text: str) -> PullProgress | None:
        """Takes one line; what to tell people, if that is news. Raises ``EngineFailed`` when
        nothing has moved for too long."""
        word, _, rest = text.partition(" ")
        number = whole_number(rest)
        if word == "tick" and number is not None:
            self._tick(number)
            return None
        if word == "done" and number is not None:
            self.status = number
            return None
        if not text.strip():
            return None
        self._moved_at = self._clock()
        if match := LAYER.fullmatch(text.strip()):
            before = self._text()
            self._layers[match[1]] = match[2].startswith(HAVE) or self._layers.get(match[1], False)
            after = self._text()
            return None if before == after else PullProgress(after)
        self._words = [*self._words[-9:], text.strip()]
        return None

    def _text(self) -> str:
        have = sum(self._layers.values())
        return f"pulling {self._image}: {have} of {len(self._layers)} layers"

    def _tick(self, free: int) -> None:
        now = self._clock()
        if self._free is None or abs(free - self._free) >= MIB:
            self._free, self._moved_at = free, now
        elif now - self._moved_at >= self._stall:
            raise EngineFailed(
                f"pull of {self._image} made no progress for {self._stall:g} s",
                hint="the layers it already has stay on the worker; try again",
            )

    def finish(self) -> None:
        """Raises ``EngineFailed`` with the registry's word, ``Indeterminate`` when the output
        ended before docker did."""
        if self.status is None:
            raise Indeterminate(f"the pull of {self._image} broke off")
        if self.status != 0:
            words = next((w for w in reversed(self._words) if "rror" in w), " ".join(self._words))
            why = why_not_pulled(words, image=self._image)
            raise EngineFailed(why.reason, hint=why.hint)


async def lines_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Whole lines; a last one without its end too. Endless ones are cut at 64 KiB."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace")
        rest = rest[-65536:]
    if rest:
        yield rest.decode("utf-8", "replace")
