"""What the tasks of a batch need, by whole ids; no task may wait for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cloudai.core.arrays import element_id
from cloudai.core.errors import CloudaiError, InvalidInput
from cloudai.core.needs import EACH, Need, parse_need, split_element

from .planned import Asked, Entry, Mistakes, Planned, Read

Resolve = Callable[[str], str]
"""The whole id of a task, array or batch that is there already; raises for what is not."""


@dataclass(slots=True)
class _Named:
    """What a name within the batch means."""

    tasks: list[Planned]
    entry: Entry | None = None


def link(read: Read, asked: Asked, resolve: Resolve) -> None:
    """Sets ``needs`` of every task. A reference is an entry's id, a task's name, both within
    the batch, or a task, array or batch that is there already; in that order. Raises
    ``FileInvalid``: for what is not there, and for a cycle, which it shows."""
    mistakes = Mistakes()
    _Linker(read, asked, resolve, mistakes).link()
    mistakes.settle()


class _Linker:
    def __init__(self, read: Read, asked: Asked, resolve: Resolve, mistakes: Mistakes) -> None:
        self.read = read
        self.asked = asked
        self.resolve = resolve
        self.mistakes = mistakes
        self.named: dict[str, _Named] = {}
        self.known: dict[str, str | CloudaiError] = {}
        """What is there already, looked up once."""
        self.edges: dict[str, list[str]] = {}
        """task -> what it needs within the batch: tasks, ``entry ID``, ``array ID``."""
        self.ids: set[str] = {task.id for task in read.tasks}
        for task in read.tasks:
            if task.name is not None:
                self.named.setdefault(task.name, _Named([])).tasks.append(task)
        for entry in read.entries:
            self.named[entry.id] = _Named(entry.tasks, entry)

    def link(self) -> None:
        for task in self.read.tasks:
            if not task.after:
                continue
            needs: list[Need] = []
            for ref, how in task.after:
                try:
                    need = parse_need(f"{ref}:{how}")
                    needs.append(Need(self._whole(task, need.ref), need.how))
                except CloudaiError as wrong:
                    self._wrong(task, wrong.message + (f" ({wrong.hint})" if wrong.hint else ""))
            task.needs = tuple(dict.fromkeys(str(need) for need in needs))
        self._refuse_cycles()

    def _wrong(self, task: Planned, text: str) -> None:
        self.mistakes.add(task.entry.file.name, task.entry.place("after"), text)

    def _whole(self, task: Planned, ref: str) -> str:
        each = ref.endswith(EACH)
        word, index = split_element(ref.removesuffix(EACH) if each else ref)
        if each:
            if task.spec.array is None:
                raise InvalidInput(
                    f"after: {ref} means the element with the same index; only an entry with an"
                    " array has one"
                )
            index = task.spec.array_index
        if (named := self.named.get(word)) is None:
            return self._outside(word, index)
        if index is not None:
            return self._element(task, ref, named, index)
        if named.entry is not None:
            if task in named.tasks:
                raise InvalidInput(f"after: {word} is the entry itself")
            self._edge(task, f"entry {word}")
            return f"{self.asked.batch_id}/{word}"
        return self._one(task, word, named)

    def _one(self, task: Planned, word: str, named: _Named) -> str:
        arrays = {one.spec.array for one in named.tasks}
        if len(named.tasks) == 1:
            self._edge(task, named.tasks[0].id)
            return named.tasks[0].id
        if len(arrays) == 1 and (array := arrays.pop()) is not None:
            self._edge(task, f"array {array}")
            return array
        raise InvalidInput(
            f"after: {len(named.tasks)} tasks are called {word}; give them names of their own, or"
            " their entry an id"
        )

    def _element(self, task: Planned, ref: str, named: _Named, index: int) -> str:
        arrays = {one.spec.array for one in named.tasks}
        array = arrays.pop() if len(arrays) == 1 else None
        if array is None:
            raise InvalidInput(f"after: {ref}: that is no single array")
        own = element_id(array, index)
        if own not in self.ids:
            raise InvalidInput(f"after: {ref}: it has no element {index}")
        self._edge(task, own)
        return own

    def _outside(self, word: str, index: int | None) -> str:
        ref = word if index is None else f"{word}[{index}]"
        if ref not in self.known:
            try:
                self.known[ref] = self.resolve(ref)
            except CloudaiError as error:
                self.known[ref] = InvalidInput(
                    f"after: {word} is no entry and no task of this batch, and none that is there"
                    f" already ({error.message})"
                )
        found = self.known[ref]
        if isinstance(found, CloudaiError):
            raise found
        return found

    def _edge(self, task: Planned, node: str) -> None:
        self.edges.setdefault(task.id, []).append(node)

    # -------------------------------------------------------------- cycles

    def _refuse_cycles(self) -> None:
        """Depth first, without recursion: a chain may be as long as the batch."""
        by_id = {task.id: task for task in self.read.tasks}
        members: dict[str, list[str]] = {}
        for task in self.read.tasks:
            members.setdefault(f"entry {task.entry.id}", []).append(task.id)
            if task.spec.array is not None:
                members.setdefault(f"array {task.spec.array}", []).append(task.id)

        def after(node: str) -> Iterator[str]:
            return iter(self.edges.get(node, ()) if node in by_id else members[node])

        done: set[str] = set()
        for start in self.edges:
            if start in done:
                continue
            path, within = [(start, after(start))], {start}
            while path:
                node, rest = path[-1]
                needed = next(rest, None)
                if needed is None:
                    path.pop()
                    within.discard(node)
                    done.add(node)
                elif needed in within:
                    cycle = [one for one, _ in path]
                    self._tell(by_id, cycle[cycle.index(needed) :])
                    return
                elif needed not in done:
                    path.append((needed, after(needed)))
                    within.add(needed)

    def _tell(self, by_id: dict[str, Planned], cycle: list[str]) -> None:
        """By the names that stand in the file; a set is passed over, its task says it."""
        tasks = [by_id[node] for node in cycle if node in by_id]
        names = [task.name or task.entry.id for task in tasks]
        first = names.index(min(names))
        tasks, names = tasks[first:] + tasks[:first], names[first:] + names[:first]
        shown = " → ".join(names[:10] + (["…"] if len(names) > 10 else []) + names[:1])
        self._wrong(tasks[0], f"after: a cycle, none of these could ever start: {shown}")
