"""``image``: images of this machine, for workers that have no registry for them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from .options import common, complete_workers
from .output import on_terminal, rich_console, say
from .session import Session
from .terminal import clean

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

News = dict[str, Any]


@click.group()
def image_command() -> None:
    """Send images of this machine to workers."""


@image_command.command("push")
@click.argument("image")
@click.argument("workers", nargs=-1, metavar="[WORKER]...", shell_complete=complete_workers)
@click.option("--all", "everywhere", is_flag=True, help="To every worker of the inventory.")
@common
@click.pass_context
def push_command(ctx: click.Context, image: str, workers: tuple[str, ...], everywhere: bool) -> int:
    """Send an image of this machine's Docker to workers: only the layers they lack.

    \b
      cloudai image push my-model:latest worker-1 worker-2
      cloudai image push my-model:latest --all
    """
    session = ctx.ensure_object(Session)
    if bool(workers) == everywhere:
        raise click.UsageError("Name the workers, or say --all.", ctx=ctx)
    body = {"image": image, "workers": list(workers), "all": everywhere}
    results: list[News] = []
    found: News = {}
    with (
        session.client.post_stream("/images/push", body) as chunks,
        _bars(shown=not (session.json or session.quiet)) as bars,
    ):
        for news in _each(chunks):
            if "workers" in news:
                found = news
            elif "outcome" not in news:
                bars.moved(news)
            else:
                results.append(news)
                bars.ended(news)
                if not (session.json or session.quiet):
                    bars.say(_line(news))
    answer = {"image": found["image"], "image_id": found["image_id"], "results": results}
    there = [one["worker_id"] for one in results if one["outcome"] != "failed"]
    session.show(answer, lambda _: None, quiet=there)
    return 0 if len(there) == len(found["workers"]) else 1


def _each(chunks: Iterator[bytes]) -> Iterator[News]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _line(news: News) -> str:
    """What came of one worker."""
    from cloudai.core.units import show_gib

    worker = clean(news["worker_id"])
    if news["outcome"] == "failed":
        error = news["error"]
        hint = f"\n   {clean(error['hint'])}" if error["hint"] else ""
        return f"❌ {worker}: {clean(error['message'])}{hint}"
    if news["outcome"] == "there":
        return f"✅ {worker}: it was there already"
    return (
        f"✅ {worker}: sent {news['sent_layers']} of {news['layers']} layers,"
        f" {show_gib(news['sent'])} in {news['seconds']:.1f} s"
    )


class _Lines:
    """Where nobody looks at a terminal: only what came of each worker."""

    def moved(self, news: News) -> None:
        """How far it is."""

    def ended(self, news: News) -> None:
        """It is there, or will not be."""

    def say(self, line: str) -> None:
        say(line)
        sys.stdout.flush()


class _Bars(_Lines):
    """A bar a worker on the terminal, gone once it ended."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def moved(self, news: News) -> None:
        worker = news["worker_id"]
        if worker not in self._bars:
            self._bars[worker] = self._progress.add_task(clean(worker), total=news["total"])
        self._progress.update(self._bars[worker], completed=news["bytes"], total=news["total"])

    def ended(self, news: News) -> None:
        if (bar := self._bars.pop(news["worker_id"], None)) is not None:
            self._progress.remove_task(bar)

    def say(self, line: str) -> None:
        self._progress.console.print(line, soft_wrap=True)


@contextmanager
def _bars(*, shown: bool) -> Iterator[_Lines]:
    if not shown or not on_terminal():
        yield _Lines()
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f} %"),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=rich_console(), transient=True) as progress:
        yield _Bars(progress)
