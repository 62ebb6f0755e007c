"""What must have ended before a task may start; arrays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.core.arrays import elements_of, parse_array
from cloudai.core.errors import InvalidInput
from cloudai.core.model import TaskSpec
from cloudai.core.needs import (
    How,
    Need,
    Tally,
    Unmeetable,
    Waits,
    check_after,
    parse_need,
    plain_id,
    weigh,
)


@pytest.mark.parametrize(
    ("text", "need"),
    [
        ("task-1-a", Need("task-1-a", How.OK)),
        ("task-1-a:any", Need("task-1-a", How.ANY)),
        ("train:FAILED", Need("train", How.FAILED)),
        ("task-1-a[7]:ok", Need("task-1-a[7]", How.OK)),
        ("prep[*]", Need("prep[*]", How.OK)),
        ("batch-1-a/train:any", Need("batch-1-a/train", How.ANY)),
    ],
)
def test_needs_are_read(text, need):
    assert parse_need(text) == need
    assert parse_need(str(need)) == need


@pytest.mark.parametrize(
    "text", ["", ":ok", "a b", "a:fine", "a:ok:ok", "-x", "a[b]", "a[*", "a/b/c", "x" * 300, "a\n"]
)
def test_what_is_no_need_is_refused(text):
    with pytest.raises(InvalidInput, match="after"):
        parse_need(text if text != "a\n" else "a\nb")


def test_needs_may_be_a_list_a_text_or_an_object():
    right = ("a:ok", "b:any")
    assert check_after(["a", "b:any"]) == right
    assert check_after("a, b:any") == right
    assert check_after({"a": "ok", "b": "any"}) == right
    assert check_after(["a", "a:ok"]) == ("a:ok",)
    for nothing in ({}, [], "", 7, [7], None, ["a"] * 0):
        with pytest.raises(InvalidInput):
            check_after(nothing)


def test_an_element_has_two_spellings():
    assert plain_id("task-1-a[7]") == "task-1-a_7"
    assert plain_id("task-1-a_7") == "task-1-a_7"
    assert plain_id("task-1-a") == "task-1-a"


def look(how, tally):
    spec = TaskSpec(image="x", after=(f"r:{how}",))
    return weigh(spec, {"r": tally} if tally else {})


GOING = Tally(total=2, ended=1, completed=1)
GOOD = Tally(total=2, ended=2, completed=2)
BAD = Tally(total=2, ended=2, completed=1, bad="b failed")
BAD_ALREADY = Tally(total=2, ended=1, bad="b failed")
LEFT_OUT = Tally(total=2, ended=2, completed=1, skipped=1, bad="b was left out")


@pytest.mark.parametrize(
    ("tally", "ok", "failed", "any_"),
    [
        (None, Unmeetable, Unmeetable, Unmeetable),
        (GOING, Waits, Waits, Waits),
        (GOOD, None, Unmeetable, None),
        (BAD, Unmeetable, None, None),
        (BAD_ALREADY, Unmeetable, Waits, Waits),
        (LEFT_OUT, Unmeetable, Unmeetable, None),
    ],
)
def test_every_cell_of_what_a_need_means(tally, ok, failed, any_):
    for how, wanted in (("ok", ok), ("failed", failed), ("any", any_)):
        found = look(how, tally)
        assert found is None if wanted is None else isinstance(found, wanted), how


def test_what_can_never_come_outweighs_what_may():
    spec = TaskSpec(image="x", after=("a:ok", "b:ok"))
    found = weigh(spec, {"a": GOING, "b": BAD})
    assert found == Unmeetable("it needs b to end well, and b failed")
    found = weigh(spec, {"a": GOING, "b": Tally(total=1)})
    assert found == Waits("after a (1 of 2 ended), b")


# ------------------------------------------------------------------ arrays


@pytest.mark.parametrize(
    ("text", "indexes", "limit"),
    [
        ("0-3", (0, 1, 2, 3), None),
        ("0-99%10", tuple(range(100)), 10),
        ("1,3,5-7", (1, 3, 5, 6, 7), None),
        ("0-15:4%2", (0, 4, 8, 12), 2),
        (7, (7,), None),
        ("9", (9,), None),
    ],
)
def test_arrays_are_read_as_slurm_writes_them(text, indexes, limit):
    found = parse_array(text)
    assert (found.indexes, found.limit) == (indexes, limit)


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "3-1", "0-3%0", "0-3%", "1,,2", "1,1", "0-5,3", "0-3:0", "-1", "0-100000"),
        *("0-9999999999", "1.5", True, None, [1], 1.5, "٣"),
    ],
)
def test_what_is_no_array_is_refused(text):
    with pytest.raises(InvalidInput, match="array"):
        parse_array(text)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20, unique=True))
def test_every_element_has_its_index(indexes):
    wanted = parse_array(",".join(map(str, indexes)) + "%3")
    specs = list(elements_of(TaskSpec(image="x"), "task-1-a", wanted))
    assert [spec.array_index for spec in specs] == indexes
    assert {(spec.array, spec.array_size, spec.array_limit) for spec in specs} == {
        ("task-1-a", len(indexes), 3)
    }
