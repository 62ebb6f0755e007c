"""``simulate``: what would have been, under several strategies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import common
from .output import StatusLine, print_json, say, tell
from .session import Session
from .simulated import print_fillings, print_replays

if TYPE_CHECKING:
    from cloudai.core.model import Strategy
    from cloudai.simulate import Contestant, Filling, Fleet, Summary, Trace

ALL = "all"
FORMATS = ("auto", "json", "csv", "swf", "openb")
PAGE = 1000
ENDED = ["completed", "failed", "cancelled"]
Asked = Mapping[str, Any]


@click.command()
@click.argument("trace", required=False, type=click.Path(path_type=Path))
@click.option("--history", is_flag=True, help="Replay what ran here, rather than a file.")
@click.option(
    "--since",
    metavar="TIME",
    help="With --history: only what was submitted since then, or 30d ago.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="auto",
    show_default=True,
    help="What TRACE is: JSON lines, CSV, Standard Workload Format, openb's pods.",
)
@click.option(
    "--fleet",
    metavar="FILE|inventory",
    help="The workers: a YAML file, openb's nodes.csv, or the present ones.  [default: an SWF"
    " file's own header, else inventory]",
)
@click.option("--swf-gpus", is_flag=True, help="Take an SWF file's processors as GPUs, not cores.")
@click.option(
    "--strategy",
    "strategies",
    multiple=True,
    metavar="NAME",
    help="Compare this one; may be repeated; all: all five.  [default: all]",
)
@click.option("--calibrate", is_flag=True, help="Compare plain best-fit and random as well.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=42,
    show_default=True,
    metavar="N",
    help="For random, and the first one of --seeds.",
)
@click.option("--until", metavar="TIME", help="Stop so long after the first submission.")
@click.option(
    "--plot",
    metavar="FILE.svg",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Draw it to a file, too.",
)
@click.option(
    "--place-or-drop",
    is_flag=True,
    help="How full a fleet gets: tasks come in a shuffled order, each is placed at once or"
    " dropped, none ends.",
)
@click.option(
    "--arrivals",
    type=click.FloatRange(min=0.01, max=10),
    default=1.3,
    show_default=True,
    metavar="PART",
    help="With --place-or-drop: until tasks asking for so much of the fleet have come.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1, max=1000),
    default=10,
    show_default=True,
    metavar="N",
    help="With --place-or-drop: so many shuffles.",
)
@common
@click.pass_obj
def simulate_command(session: Session, /, **asked: Any) -> int:
    """Replay TRACE on a fleet under several strategies, and compare them.

    Tasks run as long as they did in the trace, and the scheduler that places them is the real
    one. Nothing is started anywhere. docs/simulate.md describes the formats.

    \b
      cloudai simulate --history --since 30d
      cloudai simulate log.swf.gz --strategy spread --strategy binpack --plot log.svg
      cloudai simulate pods.csv --fleet nodes.csv --place-or-drop --calibrate
    """
    _check(asked)
    strategies = _strategies(asked["strategies"])
    trace = _trace(session, asked)
    fleet = _fleet(session, asked, trace)
    trace = _fitted(trace, fleet, asked)
    from cloudai.simulate import contestants

    line = StatusLine()
    try:
        entrants = contestants(strategies, calibrate=asked["calibrate"])
        if asked["place_or_drop"]:
            return _fill(session, trace, fleet, entrants, asked, line)
        return _replay(session, trace, fleet, entrants, asked, line)
    finally:
        line.clear()


def _check(asked: Asked) -> None:
    """Raises ``click.UsageError`` for what does not go together."""
    if (asked["trace"] is None) == (not asked["history"]):
        raise click.UsageError("Give a TRACE, or --history.")
    if asked["since"] and not asked["history"]:
        raise click.UsageError("--since goes with --history.")
    if asked["place_or_drop"] and (asked["until"] or asked["plot"]):
        raise click.UsageError("--until and --plot do not go with --place-or-drop.")
    if asked["plot"] and not asked["plot"].absolute().parent.is_dir():
        raise click.UsageError(f"--plot: there is no folder {asked['plot'].parent}.")


def _strategies(names: Sequence[str]) -> list[Strategy]:
    from cloudai.core.model import Strategy
    from cloudai.core.wishes import check_strategy

    if not names or ALL in names:
        return list(Strategy)
    return list(dict.fromkeys(check_strategy(name, what="--strategy") for name in names))


# ---------------------------------------------------------------- the trace and the fleet


def _trace(session: Session, asked: Asked) -> Trace:
    from cloudai.core.errors import NotFound
    from cloudai.simulate import read_trace_file, trace_of_history

    if not asked["history"]:
        return read_trace_file(asked["trace"], form=asked["form"], swf_gpus=asked["swf_gpus"])
    since = 0.0
    if asked["since"]:
        from datetime import UTC, datetime

        from cloudai.core.units import parse_since

        since = parse_since(asked["since"], datetime.now(UTC), what="--since") / 1e9
    trace = trace_of_history(_ended(session, since), source="this controller", since=since)
    if not trace.jobs:
        raise NotFound("No task has run here" + (f" since {asked['since']}" if since else ""))
    return trace


def _ended(session: Session, since: float) -> Iterator[dict[str, Any]]:
    """All tasks that have ended, newest first, page by page; older pages are not asked for."""
    from datetime import UTC, datetime

    from .wording import moment

    seen: set[str] = set()
    oldest = datetime.fromtimestamp(since, UTC)
    while True:
        page = session.client.get("/tasks/", status=ENDED, limit=PAGE, offset=len(seen))
        fresh = [task for task in page["tasks"] if task["task_id"] not in seen]
        seen |= {task["task_id"] for task in fresh}
        yield from fresh
        last = moment(fresh[-1]["created_at"]) if fresh else None
        if last is None or last < oldest or len(seen) >= page["total"]:
            return


def _fleet(session: Session, asked: Asked, trace: Trace) -> Fleet:
    from cloudai.core.errors import InvalidInput, NotFound
    from cloudai.simulate import fleet_of_header, fleet_of_workers, read_fleet_file

    given = asked["fleet"]
    if given is None and trace.kind == "swf":
        return fleet_of_header(trace.header, source=trace.source, gpus=asked["swf_gpus"])
    if given is None and trace.kind == "openb":
        raise InvalidInput("openb's tasks need a fleet", hint="give --fleet nodes.csv")
    if given not in (None, "inventory"):
        return read_fleet_file(Path(given))
    fleet = fleet_of_workers(session.client.get("/workers/")["workers"])
    if not fleet.places:
        raise NotFound("No worker was ever seen", hint="describe a fleet: --fleet FILE")
    return fleet


def _fitted(trace: Trace, fleet: Fleet, asked: Asked) -> Trace:
    """The trace as that fleet can take it."""
    from cloudai.simulate import in_parts, without_memory

    if trace.kind != "swf":
        return trace
    if asked["fleet"] is None:
        trace = without_memory(trace)
    widest = fleet.widest()
    return in_parts(trace, widest.cpu_milli, widest.gpu_milli)


# ---------------------------------------------------------------- both ways to run it


def _replay(
    session: Session,
    trace: Trace,
    fleet: Fleet,
    entrants: Sequence[Contestant],
    asked: Asked,
    line: StatusLine,
) -> int:
    from cloudai.core.units import parse_duration
    from cloudai.simulate import as_svg, replay, summary_of

    until = None if asked["until"] is None else parse_duration(asked["until"], what="--until")
    rows: list[Summary] = []
    for one in entrants:
        line.show(f"{one.name}: {len(trace.jobs)} tasks on {len(fleet.places)} workers")
        seen, ranking = one.make(fleet, asked["seed"])
        outcome = replay(seen, trace.jobs, one.policy, name=one.name, ranking=ranking, until=until)
        rows.append(summary_of(outcome))
    line.clear()
    if session.json:
        print_json({**_about(trace, fleet), "strategies": [row.as_json() for row in rows]})
    elif session.quiet:
        for row in rows:
            say(f"{row.name} {0.0 if row.wait_mean is None else row.wait_mean:.1f}")
    else:
        print_replays(trace, fleet, rows)
    if asked["plot"]:
        title = f"{trace.source} on {fleet.source}"
        asked["plot"].write_text(as_svg(rows, title=title), encoding="utf-8")
        if not session.quiet:
            tell(f"The plot is in {asked['plot']}")
    return 0


def _fill(
    session: Session,
    trace: Trace,
    fleet: Fleet,
    entrants: Sequence[Contestant],
    asked: Asked,
    line: StatusLine,
) -> int:
    from cloudai.simulate import fill_many

    seeds = range(asked["seed"], asked["seed"] + asked["seeds"])

    def filled(one: Contestant) -> Filling:
        def tell_seed(seed: int) -> None:
            line.show(f"{one.name}: shuffle {seed - seeds[0] + 1} of {len(seeds)}")

        upto: float = asked["arrivals"]
        return fill_many(fleet, trace.jobs, one, seeds=seeds, upto=upto, tell=tell_seed)

    found = [filled(one) for one in entrants]
    line.clear()
    if session.json:
        print_json({**_about(trace, fleet), "strategies": [one.as_json() for one in found]})
    elif session.quiet:
        for filling in found:
            parts = (f"{filling.mean(at) * 100:.2f}" for at in range(len(filling.marks)))
            say(" ".join([filling.name, *parts]))
    else:
        print_fillings(trace, fleet, found, seeds=asked["seeds"])
    return 0


def _about(trace: Trace, fleet: Fleet) -> dict[str, Any]:
    total = fleet.total
    return {
        "trace": {
            "source": trace.source,
            "kind": trace.kind,
            "tasks": len(trace.jobs),
            "skipped": dict(trace.skipped),
            "notes": list(trace.notes),
        },
        "fleet": {
            "source": fleet.source,
            "workers": len(fleet.places),
            "cpus": total.cpus,
            "gpus": total.gpus,
            "notes": list(fleet.notes),
        },
    }
