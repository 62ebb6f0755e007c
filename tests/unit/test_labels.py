"""Expressions about workers: what they mean, and how they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.core.errors import InvalidInput
from cloudai.core.labels import meets_any, node_of, parse, parse_node

FACTS = {
    "zone": ("lab",),
    "worker": ("gpu1",),
    "pool": ("a100", "lab-pool"),
    "gpu_model": ("NVIDIA A100-SXM4-80GB", "NVIDIA H100"),
    "gpus": ("4",),
    "memory": ("62.8",),
    "empty": (),
}


@pytest.mark.parametrize(
    ("text", "met", "canonical"),
    [
        ("zone=lab", True, "zone=lab"),
        (" zone == lab ", True, "zone=lab"),
        ("zone=attic", False, "zone=attic"),
        ("zone!=lab", False, "zone!=lab"),
        ("zone != attic", True, "zone!=attic"),
        ("rack!=7", True, "rack!=7"),
        ("rack=7", False, "rack=7"),
        ("zone", True, "zone"),
        ("rack", False, "rack"),
        ("!rack", True, "!rack"),
        ("! zone", False, "!zone"),
        ("empty", False, "empty"),
        ("!empty", True, "!empty"),
        ("zone in (attic,lab)", True, "zone in (attic, lab)"),
        ("zone IN (lab)", True, "zone=lab"),
        ("zone in( cellar , attic )", False, "zone in (attic, cellar)"),
        ("pool=lab-pool", True, "pool=lab-pool"),
        ("pool!=a100", False, "pool!=a100"),
        ("gpu_model=NVIDIA H100", True, "gpu_model=NVIDIA H100"),
        ("gpus>=4", True, "gpus>=4"),
        ("gpus > 4", False, "gpus>4"),
        ("gpus<=4", True, "gpus<=4"),
        ("memory<62.8", False, "memory<62.8"),
        ("memory>=62.5", True, "memory>=62.5"),
        ("zone>=1", False, "zone>=1"),
        ("rack<5", False, "rack<5"),
        ("in=1", False, "in=1"),
        ("in", False, "in"),
    ],
)
def test_what_an_expression_means(text, met, canonical):
    found = parse(text)
    assert found.meets(FACTS) is met
    assert str(found) == canonical
    assert parse(canonical) == found
    assert hash(parse(canonical)) == hash(found)


@pytest.mark.parametrize(
    "text",
    [
        *("", "  ", "=lab", "zone=", "zone>=", "zone in ()", "zone in (a,,b)", "zone in (a"),
        *("zone lab", "!zone=lab", "zone=!lab", "zone===lab", "a&b", "zone in (=a)", "x" * 2000),
        *("zone=a\nb", "!!zone", "k" * 80, "-zone"),
    ],
)
def test_what_cannot_be_meant_names_the_right_form(text):
    with pytest.raises(InvalidInput) as caught:
        parse(text, what="require")
    assert caught.value.message.startswith("require: ")
    assert "zone" in caught.value.message
    assert caught.value.message.isprintable()
    assert caught.value.details["field"] == "require"


def test_numbers_are_compared_with_numbers():
    with pytest.raises(InvalidInput, match="compares numbers, such as memory>=64"):
        parse("memory>=64g")


def test_a_node_is_a_worker_a_pool_or_a_label():
    for name in ("gpu1", "a100", "zone=lab", "pool=lab-pool", "worker in (gpu1, gpu2)"):
        assert meets_any([name], FACTS), name
    for name in ("gpu2", "zone=attic", "pool=gpu1"):
        assert not meets_any([name], FACTS), name
    assert meets_any(["gpu2", "zone=lab"], FACTS)
    assert not meets_any([], FACTS)
    assert node_of(" zone == lab ") == "zone=lab"
    assert node_of("gpu1") == "gpu1"


@pytest.mark.parametrize("text", ["", "a b", "-a", "task-1", "zone!=lab", "!zone", "gpus>=2", "é"])
def test_a_node_that_is_none(text):
    with pytest.raises(InvalidInput) as caught:
        parse_node(text)
    assert caught.value.message.startswith("nodes: ")


words = st.text("ab=!<>() ,in1.-_", max_size=20) | st.text(max_size=8)


@given(words)
def test_any_text_is_refused_or_written_as_it_is_read(text):
    try:
        found = parse(text)
    except InvalidInput:
        return
    assert parse(str(found)) == found
    assert isinstance(found.meets(FACTS), bool)
