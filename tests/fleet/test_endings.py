"""Scripts, silence and signals on real workers, also while the laptop is away."""

from __future__ import annotations

import json

from tests.fleet.cloudai_home import Home, until
from tests.fleet_lab import Fleet, Worker

SERIES = """\
#!/bin/sh
#SBATCH --job-name=series --signal=B:USR1@600
#CLOUDAI --image alpine --cpus 0.1
trap 'echo "checkpoint of $1"; exit 0' USR1
echo ready
while :; do sleep 0.1; done
"""
SWEEP = """\
#!/bin/sh
#SBATCH --array=1-3%2
#SBATCH --dependency=afterany:series
echo "index $CLOUDAI_ARRAY_INDEX"
[ "$CLOUDAI_ARRAY_INDEX" != 2 ]
"""


def runs(worker: Worker, task: str) -> bool:
    said = worker.docker("inspect", f"{task}.1", "--format", "{{.State.Running}}").stdout
    return said.strip() == "true"


def no_notes(fleet: Fleet) -> bool:
    return not any(worker.docker("volume", "ls", "-q").stdout for worker in fleet.workers)


def test_silence_and_limits_are_held_while_the_laptop_is_away(
    home: Home, mended_fleet: Fleet
) -> None:
    worker = mended_fleet[1]
    small = [worker.name, "alpine", "--cpus", "0.1"]
    silent = home.task(*small, "--first-output", "3", "--", "sleep", "600")
    chatty = home.task(
        *small, "--first-output", "3", "--idle-output", "30",
        "-c", "while :; do echo still here; sleep 0.5; done",
    )  # fmt: skip
    series = home.task(
        *small, "--time-limit", "12", "--signal", "USR1@10",
        "-c", "trap 'echo checkpoint; exit 0' USR1; echo ready; while :; do sleep 0.1; done",
    )  # fmt: skip
    until(lambda: all(runs(worker, task) for task in (silent, chatty, series)), "they run")
    home.kill_controller()
    until(lambda: not runs(worker, silent) and not runs(worker, series), "they were ended")
    assert runs(worker, chatty)
    home.run("wait", silent, series, code=None)
    shown = home.show(silent)
    assert (shown["status"], shown["reason"]) == ("failed", "no output in its first 3s")
    shown = home.show(series)
    assert (shown["status"], shown["exit_code"]) == ("failed", 0)
    assert shown["reason"] == "time limit of 12 s reached; USR1 was sent 10 s before"
    assert home.run("logs", series).out == b"ready\ncheckpoint\n"
    home.run("cancel", chatty)
    home.run("wait", chatty, code=125)
    until(lambda: no_notes(mended_fleet), "no note is left")


def test_a_script_is_given_time_and_an_array_waits_for_it(home: Home, mended_fleet: Fleet) -> None:
    (home.folder / "series.sh").write_text(SERIES)
    (home.folder / "sweep.sh").write_text(SWEEP)
    home.run("task", "--script", "series.sh", "--", "run 7")
    until(lambda: home.run("logs", "series", code=None).out == b"ready\n", "its trap is set")
    array = home.run("task", "-q", "--script", "sweep.sh", "alpine").text.strip()
    assert json.loads(home.run("show", array, "--json").out)["counts"]["queued"] == 3
    home.run("cancel", "series")
    home.run("wait", "series", code=125)
    assert home.run("logs", "series").out == b"ready\ncheckpoint of run 7\n"
    until(lambda: home.json("show", array)["status"] in ("failed", "completed"), "it has ended")
    counts = home.json("show", array)["counts"]
    assert (counts["completed"], counts["failed"]) == (2, 1)
    assert home.run("logs", f"{array}[3]").out == b"index 3\n"
    until(lambda: no_notes(mended_fleet), "no note is left")
