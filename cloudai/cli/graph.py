"""``graph``: what comes after what in a batch, on the terminal and as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import common
from .output import columns, on_terminal, rich_console, say, tell, with_colours
from .session import Session
from .terminal import clean

if TYPE_CHECKING:
    from cloudai.graph import Graph

Batch = dict[str, Any]
STYLES = {
    "completed": "green",
    "failed": "red",
    "cancelled": "magenta",
    "running": "cyan",
    "skipped": "yellow",
    "waiting": "bright_black",
    "outside": "bright_black",
    "met": "green",
    "unmet": "red",
    "legend": "bright_black",
}


@click.command()
@click.argument("ref", metavar="BATCH")
@click.option(
    "--svg",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw it to a file, as SVG, instead.",
)
@common
@click.pass_obj
def graph_command(session: Session, ref: str, svg: Path | None) -> int:
    """Draw what comes after what in a batch, and how it stands.

    A box is an entry of the batch's file, with how many of its tasks have completed; a line
    that will never be followed, since what it needs ended otherwise, is dashed.
    """
    from cloudai.graph import graph_of

    from .batch_news import find_batch, tasks_of

    batch = find_batch(session.client, ref)
    batch_id = batch["batch_id"]
    graph = graph_of(batch_id, [_clean(task) for task in tasks_of(session.client, batch)])
    if svg:
        _write(svg, graph, batch)
    answer = {
        "batch_id": batch_id,
        "nodes": [
            {
                "key": node.key,
                "label": node.label,
                "state": node.state,
                "counts": dict(node.counts),
                "outside": node.outside,
            }
            for node in graph.nodes.values()
        ],
        "edges": [
            {"from": one.source, "to": one.target, "how": one.how, "state": one.state}
            for one in graph.edges
        ],
    }
    session.show(
        answer,
        lambda _: _told(svg) if svg else _draw(graph),
        quiet=[svg] if svg else [f"{one.source} {one.target} {one.how}" for one in graph.edges],
    )
    return 0


def _clean(task: dict[str, Any]) -> dict[str, Any]:
    """What somebody called things, as it may be shown."""
    return {
        **task,
        "entry": clean(task["entry"]) if task.get("entry") else None,
        "name": clean(task["name"]) if task.get("name") else None,
    }


def _draw(graph: Graph) -> None:
    from cloudai.graph import as_lines

    from .progress import speaks

    if not graph.nodes:
        say("The batch has no tasks.")
        return
    width = columns() if on_terminal() else 80
    lines = as_lines(graph, width=max(40, width - 1), ascii_only=not speaks("┌▼✗◆╎…✓●○–↗"))
    if not with_colours():
        for line in lines:
            say("".join(text for text, _ in line).rstrip())
        return
    from rich.text import Text

    console = rich_console()
    for line in lines:
        drawn = Text.assemble(*((text, STYLES.get(style, "")) for text, style in line))
        console.print(drawn, soft_wrap=True)


def _write(path: Path, graph: Graph, batch: Batch) -> None:
    from cloudai.core.errors import CloudaiError
    from cloudai.graph import as_svg

    title = str(batch.get("name") or batch["batch_id"])
    try:
        path.write_text(as_svg(graph, title=title), encoding="utf-8")
    except OSError as error:
        raise CloudaiError(f"--svg: {path} cannot be written: {error.strerror}") from error


def _told(path: Path) -> None:
    tell(f"The graph is in {path}")
