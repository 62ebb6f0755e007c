"""Schedules: when a line is due, what becomes of times that nobody saw, and that one time makes
one batch whatever happens.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai import crontimes
from cloudai.api.doors import Doors
from cloudai.controller.link import Reach
from cloudai.controller.shut_out import shut_out
from cloudai.core.cron import LATE, Missed, Schedule, due, outcome, read_schedule, set_back
from cloudai.core.errors import (
    AuthenticationFailed,
    CloudaiError,
    Conflict,
    InvalidInput,
    NotFound,
    StoreFull,
)
from cloudai.core.model import State
from cloudai.crontimes import check_line, check_zone, next_after, next_times, own_zone
from tests.unit.test_controller import Bench, until

BERLIN = ZoneInfo("Europe/Berlin")
NIGHTLY = """
name: nightly-{{ date }}
vars: {epochs: 3}
tasks:
- {name: first, image: busybox, argv: ["{{ epochs }}", "{{ date }}", "{{ time }}"]}
- {name: second, image: busybox, after: {first: ok}}
"""


def local(line, *moment, many=3, zone="Europe/Berlin"):
    """Its next times on the clocks there."""
    start = datetime(*moment, tzinfo=ZoneInfo(zone))
    times = next_times(line, zone, start, many)
    return [at.astimezone(ZoneInfo(zone)).strftime("%d %H:%M%z")[:-2] for at in times]


# ------------------------------------------------------------------ lines and zones


@pytest.mark.parametrize(
    ("line", "when_it_begins", "when_it_ends"),
    [
        ("30 2 * * *", ["29 03:00+02", "30 02:30+02"], ["25 02:30+02", "26 02:30+01"]),
        ("*/30 2 * * *", ["29 03:00+02", "30 02:00+02"], ["25 02:00+02", "25 02:30+02"]),
        ("30 */2 * * *", ["29 03:00+02", "29 04:30+02"], ["25 02:30+02", "25 04:30+01"]),
        ("0 3,2 * * *", ["29 03:00+02", "30 02:00+02"], ["25 02:00+02", "25 03:00+01"]),
        ("45 * * * *", ["29 01:45+01", "29 03:45+02"], ["25 01:45+02", "25 02:45+02"]),
    ],
)
def test_a_time_that_summer_time_leaves_out_or_repeats_comes_once(
    line, when_it_begins, when_it_ends
):
    assert local(line, 2026, 3, 29, 1, 40, many=2) == when_it_begins
    assert local(line, 2026, 10, 25, 1, 40, many=2) == when_it_ends


def test_a_line_for_every_hour_goes_by_the_hours_that_pass():
    assert local("15 * * * *", 2026, 10, 25, 1, 30) == ["25 02:15+02", "25 02:15+01", "25 03:15+01"]


def test_in_the_second_of_two_hours_of_one_name_the_first_is_over():
    second = datetime(2026, 10, 25, 2, 10, tzinfo=BERLIN, fold=1)
    assert next_after("30 2 * * *", "Europe/Berlin", second).astimezone(BERLIN).day == 26


def test_words_and_names():
    for word, line in (
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
    ):
        assert check_line(word) == line
    assert local("0 6 * jan-mar mon,FRI", 2026, 1, 1, many=2) == ["02 06:00+01", "05 06:00+01"]
    assert local("0 0 L * *", 2026, 2, 1, many=1) == ["28 00:00+01"]
    assert local("0 0 13 * 5", 2026, 1, 1) == ["02 00:00+01", "09 00:00+01", "13 00:00+01"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("60 * * * *", "minute is '60'"),
        ("* 24 * * *", "hour is '24'"),
        ("* * 0 * *", "day of the month is '0'"),
        ("* * * foo *", "month is 'foo'"),
        ("* * * * 8", "day of the week is '8'"),
        ("* * * * mon#6", "day of the week"),
        ("0 0 30 2 *", "day of the month is '30'"),
        ("0 2 * *", "4 fields"),
        ("0 0 2 * * *", "6 fields"),
        ("", "0 fields"),
        ("@reboot", "crontab"),
        ("@dayly", "did you mean @daily"),
        ("9" * 5000 + " * * * *", "characters"),
    ],
)
def test_a_line_that_cannot_be_meant_is_told_by_its_field(line, told):
    with pytest.raises(InvalidInput) as error:
        check_line(line)
    assert error.value.message.startswith("line: ")
    assert told in error.value.message


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("0123456789*/,-#Lwmonjan?", max_size=6), min_size=5, max_size=5))
def test_any_line_is_refused_in_words_or_has_a_next_time(parts):
    try:
        line = check_line(" ".join(parts))
    except InvalidInput:
        return
    times = next_times(line, "Europe/Berlin", datetime(2026, 3, 28, tzinfo=UTC), 3)
    assert times == sorted(set(times))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["30 2 * * *", "*/20 */3 * * *", "0 0 * * 1", "59 23 31 * *", "15 * * * *"]),
    st.sampled_from(["Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu", "UTC"]),
    st.datetimes(datetime(2010, 1, 1), datetime(2030, 1, 1)),
)
def test_between_a_moment_and_its_next_time_there_is_none(line, zone, moment):
    moment = moment.replace(tzinfo=UTC)
    first, second = next_times(line, zone, moment, 2)
    assert moment < first < second
    assert next_after(line, zone, first - timedelta(microseconds=1)) == first
    assert next_after(line, zone, first) == second


def test_zones():
    assert check_zone("Europe/Berlin") == "Europe/Berlin"
    for name, near in (("Berlin", "Europe/Berlin"), ("Europe/Berln", "Europe/Berlin")):
        with pytest.raises(InvalidInput, match=f"did you mean {near}"):
            check_zone(name)
    for name in ("", "../etc/passwd", "/etc/localtime", "\0", "x" * 5000, "Europe"):
        with pytest.raises(InvalidInput, match="zone: "):
            check_zone(name)


def test_the_zone_of_this_machine_has_a_name(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    assert own_zone() == "Europe/Berlin"
    monkeypatch.setenv("TZ", "America/New_York")
    assert own_zone() == "America/New_York"

    def unknown():
        raise LookupError("two files say two things")

    monkeypatch.setattr(crontimes.tzlocal, "get_localzone_name", unknown)
    with pytest.raises(InvalidInput, match="does not tell its time zone") as error:
        own_zone()
    assert "--zone" in error.value.hint


# ------------------------------------------------------------------ what is due

START = datetime(2026, 1, 31, 1, 0, tzinfo=UTC)


def a_schedule(**changes):
    known = {
        "id": "nightly",
        "user_id": "ann",
        "line": "0 2 * * *",
        "zone": "UTC",
        "files": ("/n.yaml",),
        "settings": {},
        "missed": Missed.SKIP,
        "overlap": False,
        "created_at": START,
        "due_at": START.replace(hour=2),
    }
    return Schedule(**known | changes)


def seen(at):
    return lambda _: at


def test_what_is_seen_within_a_minute_is_on_time():
    one = a_schedule()
    assert due([one], one.due_at - timedelta(microseconds=1), next_after, seen=seen(START)) == []
    [found] = due([one], one.due_at + LATE, next_after, seen=seen(one.due_at + LATE))
    assert (found.run, found.at, found.next_at.day) == (True, one.due_at, 1)
    late = one.due_at + LATE + timedelta(seconds=1)
    [found] = due([one], late, next_after, seen=seen(late))
    assert not found.run
    # It was tried in time, and could not be made: that is no missed run.
    [found] = due([one], late, next_after, seen=seen(one.due_at))
    assert found.run


def test_of_several_times_the_latest_counts():
    one = a_schedule(line="* * * * *", due_at=START)
    at = START + timedelta(minutes=7, seconds=20)
    [found] = due([one], at, next_after, seen=seen(at))
    assert (found.run, found.at) == (True, START + timedelta(minutes=7))


def test_one_run_stands_for_all_that_were_missed_and_is_the_latest_of_them():
    one = a_schedule(missed=Missed.ONCE)
    at = one.due_at + timedelta(days=3, hours=5)
    [found] = due([one], at, next_after, seen=seen(at))
    assert (found.run, found.at) == (True, one.due_at + timedelta(days=3))
    assert found.next_at == one.due_at + timedelta(days=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-7200, 7200), max_size=12), st.sampled_from(Missed))
def test_no_time_comes_twice_however_the_clock_is_set(steps, missed):
    """Each step moves the clock; then the schedule is looked at, as the controller does."""
    one, at, latest = a_schedule(line="*/30 * * * *", missed=missed), START, START
    one = a_schedule(line=one.line, missed=missed, due_at=next_after(one.line, one.zone, at))
    ran = []
    for step in steps:
        at += timedelta(seconds=step)
        if at < latest:
            earlier = set_back(one, at, next_after)
            one = a_schedule(
                line=one.line,
                missed=missed,
                last_at=one.last_at,
                due_at=earlier or one.due_at,
            )
        latest = at
        for found in due([one], at, next_after, seen=seen(at)):
            ran += [found.at] if found.run else []
            one = a_schedule(line=one.line, missed=missed, last_at=found.at, due_at=found.next_at)
    assert sorted(set(ran)) == sorted(ran)
    assert one.due_at - at <= timedelta(minutes=30) + timedelta(days=1)


def test_a_clock_that_was_wrong_by_far_does_not_silence_a_schedule():
    wrong = START.replace(year=2031)
    one = a_schedule(last_at=wrong, due_at=next_after("0 2 * * *", "UTC", wrong))
    assert set_back(one, START, next_after) == START.replace(hour=2)
    done = a_schedule(last_at=START.replace(hour=2), due_at=START.replace(month=2, day=1, hour=2))
    assert set_back(done, START, next_after) is None


def test_what_is_asked_for():
    body = {"line": " 0  2 * * * ", "files": ["/a.yaml"]}
    wanted = read_schedule(body, default_user="ann")
    assert (wanted.line, wanted.missed, wanted.user_id) == ("0 2 * * *", Missed.SKIP, "ann")
    for bad, told in (
        ({"files": ["/a"]}, "line: missing"),
        ({"line": "x"}, "files: missing"),
        ({**body, "files": ["a.yaml"]}, "whole paths"),
        ({**body, "files": []}, "files: "),
        ({**body, "missed": "twice"}, "skip or once"),
        ({**body, "overlap": "yes"}, "overlap: "),
        ({**body, "set": {"a": 1}}, "set: "),
        ({**body, "id": "a b"}, "id: "),
        ({**body, "lines": 1}, "unknown field"),
    ):
        with pytest.raises(InvalidInput) as error:
            read_schedule(bad, default_user="ann")
        assert told in error.value.message


def test_an_outcome_is_one_line():
    assert outcome("failed", "a:1:2: x\nb:3:4: y\n") == "failed: a:1:2: x (and 1 more)"
    assert len(outcome("failed", "x" * 9999)) <= 500


# ------------------------------------------------------------------ kept by the controller


class Night:
    """A controller with a schedule, and a clock that a test sets."""

    def __init__(self, bench: Bench, tmp_path) -> None:
        self.bench, self.file = bench, tmp_path / "nightly.yaml"
        self.file.write_text(NIGHTLY)
        self.at = START

    @property
    def schedules(self):
        return self.bench.controller.schedules

    async def begin(self, **body):
        self.schedules.clock = lambda: self.at
        asked = {"line": "0 2 * * *", "zone": "UTC", "id": "nightly", "files": [str(self.file)]}
        one, _ = await self.schedules.add(asked | body, default_user="ann")
        return one

    async def look(self, *moment):
        self.at = datetime(2026, *moment, tzinfo=UTC)
        await self.schedules.look()
        return self.schedules.get("nightly")

    def batches(self):
        return self.bench.service.store.batches()[0]

    async def again(self):
        """As another controller of the same home finds it."""
        await self.schedules.load()
        self.schedules._seen.clear()

    async def end_all(self):
        for batch in self.batches():
            live = [state for state in State if not state.final]
            if self.bench.service.store.ids_of(batch.id, live):
                await self.bench.desk.batches.cancel(batch.id)


@pytest.fixture
async def night(tmp_path):
    async with Bench(tmp_path / "home", {}).running() as bench:
        yield Night(bench, tmp_path)


@pytest.fixture(autouse=True)
def home(tmp_path):
    (tmp_path / "home").mkdir()


async def test_it_is_submitted_when_it_is_due_with_the_date_of_that_time(night):
    one = await night.begin(set={"epochs": "5"}, zone="Asia/Tokyo")
    assert one.due_at == datetime(2026, 1, 31, 17, 0, tzinfo=UTC)
    assert (await night.look(1, 31, 16, 59, 59)).last_at is None
    assert night.batches() == []
    one = await night.look(1, 31, 17, 0, 1)
    [batch] = night.batches()
    assert (one.last_batch, one.last_outcome) == (batch.id, "submitted")
    assert one.due_at == datetime(2026, 2, 1, 17, 0, tzinfo=UTC)
    # The date there: it was the first of February in Tokyo.
    assert batch.name == "nightly-2026-02-01"
    first = (await night.bench.service.tasks(batch=batch.id))[0][-1]
    assert first.spec.argv == ("5", "2026-02-01", "02:00")
    await night.look(1, 31, 17, 0, 2)
    assert len(night.batches()) == 1


async def test_a_controller_that_dies_before_it_notes_the_batch_makes_no_second(night):
    await night.begin()
    kept = night.bench.service.store.note_schedule

    def dies(*_):
        raise MemoryError("killed")

    night.bench.service.store.note_schedule = dies
    with pytest.raises(MemoryError):
        await night.look(1, 31, 2, 0)
    assert len(night.batches()) == 1
    night.bench.service.store.note_schedule = kept
    # The next one comes an hour later: that run was made, and is not missed.
    await night.again()
    one = await night.look(1, 31, 3, 0)
    [batch] = night.batches()
    assert (one.last_batch, one.last_outcome) == (batch.id, "submitted")


async def test_no_run_while_the_last_batch_has_not_ended(night):
    await night.begin()
    await night.look(1, 31, 2, 0)
    [batch] = night.batches()
    one = await night.look(2, 1, 2, 0)
    assert one.last_outcome == f"left out: {batch.id} had not ended"
    assert (one.last_batch, len(night.batches())) == (batch.id, 1)
    with pytest.raises(Conflict, match="has not ended"):
        await night.schedules.run_now("nightly", overlap=False)
    await night.end_all()
    one = await night.look(2, 2, 2, 0)
    assert one.last_outcome == "submitted"
    assert len(night.batches()) == 2


async def test_overlap_where_it_is_meant(night):
    await night.begin(overlap=True)
    await night.look(1, 31, 2, 0)
    await night.look(2, 1, 2, 0)
    assert len(night.batches()) == 2


async def test_missed_times_are_passed_over_or_made_up_for_once(night):
    await night.begin()
    one = await night.look(2, 3, 9, 0)
    assert one.last_outcome == "missed: no controller was there at that time"
    assert night.batches() == []
    await night.schedules.remove("nightly")
    night.at = START
    await night.begin(missed="once")
    one = await night.look(2, 3, 1, 0)
    [batch] = night.batches()
    assert (one.last_outcome, batch.name) == ("submitted", "nightly-2026-02-02")
    assert one.due_at == datetime(2026, 2, 3, 2, 0, tzinfo=UTC)


async def test_a_clock_that_is_set_back_runs_nothing_twice(night):
    await night.begin(overlap=True)
    await night.look(1, 31, 2, 0)
    for moment in ((1, 31, 1, 0), (1, 31, 1, 59, 59), (1, 31, 2, 0), (1, 31, 2, 30)):
        await night.look(*moment)
    assert len(night.batches()) == 1
    await night.look(2, 1, 2, 0)
    assert len(night.batches()) == 2


async def test_files_that_are_gone_or_broken_are_told_and_tried_the_next_time(night):
    await night.begin()
    night.file.unlink()
    one = await night.look(1, 31, 2, 0)
    assert one.last_outcome == f"failed: {night.file}: No such file or directory"
    assert night.schedules.notices() == [f"schedule nightly: {one.last_outcome}"]
    night.file.write_text(NIGHTLY.replace("image", "imgae"))
    one = await night.look(2, 1, 2, 0)
    assert one.last_outcome.startswith(f"failed: {night.file}:5:")
    night.file.write_text(NIGHTLY)
    one = await night.look(2, 2, 2, 0)
    assert (one.last_outcome, night.schedules.notices()) == ("submitted", [])


async def test_a_disk_that_is_full_for_a_while_costs_no_run(night):
    await night.begin()
    kept = night.bench.service.store.submit_batch

    def full(*_, **__):
        raise StoreFull("no space")

    night.bench.service.store.submit_batch = full
    assert (await night.look(1, 31, 2, 0)).last_at is None
    night.bench.service.store.submit_batch = kept
    assert (await night.look(1, 31, 2, 5)).last_outcome == "submitted"


async def test_what_is_refused_leaves_no_schedule(night, tmp_path):
    for body, kind in (
        ({"files": [str(tmp_path / "none.yaml")]}, NotFound),
        ({"files": [str(tmp_path)]}, InvalidInput),
        ({"line": "60 * * * *"}, InvalidInput),
        ({"zone": "Nowhere"}, InvalidInput),
        ({"set": {"epoch": "1"}}, InvalidInput),
    ):
        with pytest.raises(kind):
            await night.begin(**body)
    assert night.schedules.all == []
    await night.begin()
    with pytest.raises(Conflict, match="a schedule nightly already"):
        await night.begin()
    with pytest.raises(NotFound):
        await night.schedules.remove("other")


async def test_run_by_hand_and_what_stays_of_it(night):
    one = await night.begin()
    batch = await night.schedules.run_now("nightly", overlap=False)
    await night.again()
    after = night.schedules.get("nightly")
    assert (after.last_batch, after.due_at) == (batch.id, one.due_at)
    second = await night.schedules.run_now("nightly", overlap=True)
    assert second.id != batch.id
    await night.end_all()
    assert (await night.look(1, 31, 2, 0)).last_outcome == "submitted"


async def test_the_controller_keeps_time_by_itself(night):
    """Its own clock and its own loop, with a line that is due every minute."""
    await night.begin(line="* * * * *")
    one = night.schedules.get("nightly")
    night.at = one.due_at
    await until(lambda: night.schedules.get("nightly").last_outcome == "submitted", "it runs")


async def test_refusals_are_of_the_tree(night):
    night.file.write_text("tasks: [{image: busybox, target: nowhere}]")
    with pytest.raises(CloudaiError) as error:
        await night.begin()
    assert error.value.code == "worker_not_found"


async def test_a_controller_with_schedules_does_not_leave(night):
    doors = Doors(night.bench.controller, night.bench.home)
    night.bench.controller.idle_since = doors._last = 0.0
    assert doors.quiet_for() > 300
    await night.begin()
    assert doors.quiet_for() == 0.0
    await night.schedules.remove("nightly")
    assert doors.quiet_for() > 300


# ------------------------------------------------------------------ what cron needs of batches


async def test_a_batch_that_must_not_overlap_waits_for_its_like(night):
    async def submit(text, **more):
        files = [{"name": more.pop("file", "/n.yaml"), "text": text, "format": "yaml"}]
        body = {"files": files, "no_overlap": True, **more}
        return (await night.bench.desk.submit_batch(body, default_user="ann"))[0]

    one = "tasks: [{image: busybox}]"
    first = await submit(one, name="a")
    for again in ({"name": "b"}, {"name": "a", "file": "/other.yaml"}, {"once_key": "k"}):
        with pytest.raises(Conflict, match=f"{first.id} of the same name or files"):
            await submit(one, **again)
    assert len(night.batches()) == 1
    assert await submit(one, name="a", user_id="bob")
    assert await submit(one, name="b", file="/other.yaml")
    assert await submit(one, name="c", file="<stdin>")
    assert await submit(one, name="d", file="<stdin>")
    with pytest.raises(InvalidInput, match="neither a name nor files"):
        await submit(one, file="<stdin>")
    await night.end_all()
    assert await submit(one, name="a")


class Shut:
    """A link as ``shut_out`` sees it."""

    def __init__(self, worker, hint, reach=Reach.STOPPED):
        self.id, self.reach = worker, reach
        self.error = AuthenticationFailed("worker refuses ann", hint=hint)
        self.reason = self.error.message


def test_that_no_worker_lets_us_in_is_told_once_for_those_alike():
    links = [Shut(f"w{at}", "no agent") for at in range(5)]
    told = "no worker lets us in, so nothing can run. w0, w1, w2 and 2 more: worker refuses ann: "
    assert shut_out(links) == f"{told}no agent"
    assert shut_out([*links, Shut("w9", "", Reach.UNREACHABLE)]) == ""
    assert shut_out([]) == ""
