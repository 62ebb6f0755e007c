"""What all commands of one run share: how to answer, and the client."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudai.client import Client


class Session:
    """One run of ``cloudai``. The flags are set by the options every command takes."""

    def __init__(self) -> None:
        self.json = False
        self.quiet = False
        self.inventory: str | None = None
        self._clients: list[Client] = []

    @property
    def client(self) -> Client:
        """The client of this run; starts a controller where none runs."""
        if not self._clients:
            self.connect()
        return self._clients[0]

    def connect(self, *, start: bool = True, patience: float | None = None) -> Client:
        """A client made to measure: one that starts no controller, or waits not long."""
        from cloudai.client import Client, find_home, find_inventory

        home = find_home(os.environ)
        inventory = find_inventory(self.inventory, os.environ, home=home)
        limits = {} if patience is None else {"patience": patience}
        self._clients.append(Client(home, inventory, start=start, **limits))
        return self._clients[-1]

    @property
    def notices(self) -> list[str]:
        """What the controller wants a person to know, each once."""
        return list(dict.fromkeys(line for client in self._clients for line in client.notices))

    def show(
        self, data: Any, people: Callable[[Any], object], *, quiet: Iterable[object] = ()
    ) -> None:
        """Answers: the API's JSON, or the bare ``quiet`` lines, or as ``people`` prints it."""
        from .output import print_json, say

        if self.json:
            print_json(data)
        elif self.quiet:
            for line in quiet:
                say(line)
        else:
            people(data)
