"""Quantities as people write them. ``tests/data/sizes.json`` carries the verdicts of the tests of
docker/go-units (Apache-2.0), RAMInBytes: what Docker reads for ``--memory``;
``tests/data/durations.json`` what the docker command itself said."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.core.errors import InvalidInput
from cloudai.core.model import GIB, MIB, Resources
from cloudai.core.units import (
    MOST_SECONDS,
    PIB,
    parse_amount,
    parse_cpus,
    parse_docker_size,
    parse_duration,
    parse_gpus,
    parse_since,
    show_duration,
    show_gib,
)

DATA = Path(__file__).parents[1] / "data"
SIZES = json.loads((DATA / "sizes.json").read_text())
DURATIONS = json.loads((DATA / "durations.json").read_text())
OURS_ALONE = {"45", "1", "1.5", "2d", "1w", "1d12h", "1:30:00"}
"""Durations that Docker does not know: bare seconds, days, weeks, a clock."""
NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)

# Asked of the docker command itself (28.2).
ALSO_VALID = {"1e3": 1000, "32 ": 32, "32 mb": 32 * MIB, "+32": 32, "32.": 32, ".5g": GIB // 2}
ALSO_INVALID = ["32  mb", " 32", "1e400", "32kbb", "1.5.5g", "4gigs", "g", ".", "inf ", "4 g b"]


@pytest.mark.parametrize("case", SIZES["valid"], ids=lambda case: case["text"])
def test_sizes_are_dockers(case: dict[str, object]) -> None:
    assert parse_docker_size(str(case["text"])) == case["bytes"]


@pytest.mark.parametrize(("text", "size"), ALSO_VALID.items())
def test_sizes_are_those_of_the_docker_command(text: str, size: int) -> None:
    assert parse_docker_size(text) == size


@pytest.mark.parametrize("text", SIZES["invalid"] + ALSO_INVALID)
def test_what_docker_refuses_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_docker_size(text)


@pytest.mark.parametrize("case", SIZES["valid"], ids=lambda case: case["text"])
def test_amounts_with_a_unit_are_dockers_and_without_one_gib(case: dict[str, object]) -> None:
    text, size = str(case["text"]), int(str(case["bytes"]))
    if text.replace(".", "").isdigit():
        assert parse_amount(text, what="-mem") == round(float(text) * GIB)
    elif size > PIB:  # Docker takes 32 PiB; no machine has it
        with pytest.raises(InvalidInput, match="more than 1 PiB"):
            parse_amount(text, what="-mem")
    else:
        assert parse_amount(text, what="-mem") == size


@pytest.mark.parametrize("value", [4, 4.0, "4", "4.0", "4g", "4G", "4GB", "4GiB", "4096m", "4 "])
def test_four_gigabytes_mean_gib_however_written(value: object) -> None:
    assert parse_amount(value, what="-mem") == 4_294_967_296


@pytest.mark.parametrize(
    ("value", "size"),
    [(0.1, 107_374_182), ("0.1", 107_374_182), (0.5, GIB // 2), (1e-9, 1), ("512m", 512 * MIB)],
)
def test_amounts_are_exact(value: object, size: int) -> None:
    assert parse_amount(value, what="-mem") == size


@given(st.integers(1, PIB))
def test_an_amount_answered_in_gib_is_the_same_when_sent_again(size: int) -> None:
    if size < 2**46:  # beyond, a float of GiB has no room for single bytes
        assert parse_amount(size / GIB, what="req_memory") == size


BAD_AMOUNTS = ["nan", "inf", "-1", "-4g", "0", "0g", "", "four", "1e999", "2000000", "9e15b", "4x"]


@pytest.mark.parametrize(
    "value",
    [
        *BAD_AMOUNTS,
        float("nan"),
        float("inf"),
        -1,
        0,
        0.0,
        1e-12,
        10**400,
        True,
        None,
        [],
        {},
        b"4",
    ],
)
def test_amounts_that_cannot_be_meant_name_the_flag_and_what_would_be_right(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"^-mem: .*; give GiB such as 4 or 0\.5") as caught:
        parse_amount(value, what="-mem")
    assert caught.value.details == {"field": "-mem"}


def test_amounts_of_zero_where_zero_is_an_answer() -> None:
    assert parse_amount("0", what="reserve.memory", zero=True) == 0


@pytest.mark.parametrize(
    ("value", "milli"),
    [(2, 2000), ("2.0", 2000), (0.01, 10), ("0.5", 500), (0.1 + 0.2, 300), (100_000, 100_000_000)],
)
def test_cpus(value: object, milli: int) -> None:
    assert parse_cpus(value, what="--cpus") == milli


@pytest.mark.parametrize("value", ["0", 0.001, -1, "nan", "2 cores", 100_001, "1/2", True, "٣"])
def test_cpus_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"^--cpus: .*give cores"):
        parse_cpus(value, what="--cpus")


@pytest.mark.parametrize(
    ("value", "milli"), [(0, 0), ("0.5", 500), (1, 1000), ("2.0", 2000), (0.9999, 1000)]
)
def test_gpus(value: object, milli: int) -> None:
    assert parse_gpus(value, what="--gpus") == milli


@pytest.mark.parametrize("value", [1.5, "2.25", -0.5, "nan", 0.0001, 10_001, "all"])
def test_gpus_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"^--gpus: .*a share of one GPU such as 0.5"):
        parse_gpus(value, what="--gpus")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("45", 45), ("45s", 45), (45, 45), (0.25, 0.25), ("90m", 5400), ("1h30m", 5400),
        ("2d", 172_800), ("1w", 604_800), ("1.5h", 5400), ("500ms", 0.5), ("1:30:00", 5400),
        ("2-00:00:01", 172_801), ("1m500ms", 60.5), ("0", 0),
    ],
)  # fmt: skip
def test_durations(value: object, seconds: float) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize("case", DURATIONS["valid"], ids=lambda case: case["text"])
def test_durations_are_dockers(case: dict[str, object]) -> None:
    nanoseconds = case["nanoseconds"]
    assert isinstance(nanoseconds, int)
    if nanoseconds > MOST_SECONDS * 10**9:
        with pytest.raises(InvalidInput, match="more than ten years"):
            parse_duration(case["text"])
    else:
        assert parse_duration(case["text"]) == nanoseconds / 10**9


@pytest.mark.parametrize("text", sorted(set(DURATIONS["invalid"]) - OURS_ALONE))
def test_durations_that_docker_refuses_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_duration(text)


@pytest.mark.parametrize(
    "value", ["", "m", "1h 30m", "-5m", "-5", "nan", "1:30", "90 minutes", "4000d", True]
)
def test_durations_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"^time_limit: .*such as 45s, 90m"):
        parse_duration(value, what="time_limit")


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("2026-01-31T12:00:00Z", 1_769_860_800_000_000_000),
        ("2026-01-31T12:00:00.123456789Z", 1_769_860_800_123_456_789),
        ("2026-01-31T13:00:00+01:00", 1_769_860_800_000_000_000),
        ("2026-01-31t12:00:00z", 1_769_860_800_000_000_000),
        ("2026-01-31 12:00", 1_769_860_800_000_000_000),
        ("2026-01-31", 1_769_817_600_000_000_000),
        ("1769860800", 1_769_860_800_000_000_000),
        ("1769860800.123456789", 1_769_860_800_123_456_789),
        ("0", 0),
        ("10m", 1_769_860_200_000_000_000),
        ("1h30m", 1_769_855_400_000_000_000),
        ("60w", 1_769_860_800_000_000_000 - 60 * 604_800 * 10**9),
    ],
)
def test_since(text: str, nanoseconds: int) -> None:
    assert parse_since(text, NOW) == nanoseconds


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-02-30", "2026-01-31T25:00:00Z", "1960-01-01", "0000-01-01", "-5m",
     "1769860800000", "9999-12-31T23:59:59-14:00x", "2026-01-31T12:00:00+99:00", "١٠m"],
)  # fmt: skip
def test_since_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^since: "):
        parse_since(text, NOW)


@given(st.text(max_size=30))
def test_any_text_is_a_quantity_or_refused(text: str) -> None:
    for parse in (parse_cpus, parse_gpus, parse_amount, parse_duration):
        message = "x: "
        try:
            assert parse(text, what="x") >= 0  # type: ignore[operator]
        except InvalidInput as refused:
            message = refused.message
        assert message.startswith("x: ")
        assert message.isprintable()
    with contextlib.suppress(InvalidInput):
        assert parse_since(text, NOW) >= 0


@given(st.decimals(0, 100_000, allow_nan=False, allow_infinity=False, places=3))
def test_cpus_agree_with_the_domain(cores: object) -> None:
    if float(str(cores)) >= 0.01:
        assert parse_cpus(str(cores), what="x") == Resources.of(cpus=float(str(cores))).cpu_milli


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (512 * MIB, "512 MiB"), (GIB, "1 GiB"),
        (3 * GIB // 2, "1.5 GiB"), (67_430_000_000, "62.8 GiB"), (2048 * GIB, "2 TiB"),
        (GIB - 1, "1 GiB"), (1024, "1 KiB"),
    ],
)  # fmt: skip
def test_amounts_shown(size: int, text: str) -> None:
    assert show_gib(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (0.42, "0.4s"), (3.14, "3.1s"), (9.97, "10s"), (45.4, "45s"), (59.7, "1m00s"),
        (303, "5m03s"), (7500, "2h05m"), (86_399.9, "1d00h"), (273_600, "3d04h"), (-1, "0s"),
    ],
)  # fmt: skip
def test_durations_shown(seconds: float, text: str) -> None:
    assert show_duration(seconds) == text
