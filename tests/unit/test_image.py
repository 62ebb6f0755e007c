"""Image names. ``tests/data/image_names.json`` carries the inputs and verdicts of the tests of
distribution/reference (Apache-2.0)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.core.errors import InvalidInput
from cloudai.core.image import check_image

NAMES = json.loads((Path(__file__).parents[1] / "data" / "image_names.json").read_text())
HEX = "1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a"

# The lists come from two tests of the source: whole references as people type them, and bare
# repository paths. So some texts stand there twice, and "Docker/docker" is valid (an upper-case
# first part is a registry's host name) while "docker/Docker" is not. No text has two verdicts;
# where the command itself was asked (docker create, 28.2), it differed in one: the bare id.


def test_no_text_has_two_verdicts() -> None:
    assert not set(NAMES["valid"]) & set(NAMES["invalid"])


@pytest.mark.parametrize("name", sorted(set(NAMES["valid"])))
def test_valid_names(name: str) -> None:
    assert check_image(name) == name


@pytest.mark.parametrize("name", sorted(set(NAMES["invalid"])))
def test_invalid_names(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"^docker_image: "):
        check_image(name)


# Verdicts of the docker command (28.2), but where said.
@pytest.mark.parametrize(
    "name",
    [
        "alpine:latest",
        "alpine:Tag_1.2-x",
        "localhost:5000/x",
        "LOCALHOST:5000/x",
        "[fc00::1]/x",
        f"alpine@sha256:{HEX}",
        f"registry.example.com:5000/team/app:1.2@sha256:{HEX}",
        f"{HEX}:x",
        f"sha256:{HEX}",
        "a" * 237,
    ],
)
def test_what_docker_run_takes(name: str) -> None:
    assert check_image(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "is empty"),
        ("--privileged", "begins with '-'"),
        ("-x", "begins with '-'"),
        ("Ubuntu", "must be lower case"),
        ("docker.io/Foo:x", "must be lower case"),
        ("a b", "has spaces"),
        ("alpine\n", "has spaces"),
        ("alpine\u202e", "has spaces or characters"),
        ("alp$(reboot)", "is not an image name"),
        ("alpine;reboot", "is not an image name"),
        ("é/x", "characters"),
        ("https://hub.docker.com/_/alpine", "web address"),
        (HEX, "one machine only"),
        ("alpine:", "has a tag"),
        ("alpine:-x", "has a tag"),
        ("a:b:c", "has a tag"),
        ("x:" + "a" * 129, "has a tag"),
        ("alpine@", "has a digest"),
        ("alpine@sha256:abcd", "has a digest"),
        (f"alpine@sha256:{HEX.upper()}", "has a digest"),
        (f"alpine@sha512:{HEX}", "has a digest"),
        (f"alpine@sha256:{HEX}@sha256:{HEX}", "has a digest"),
        ("foo_bar:80/x", "has a registry"),
        ("a//b", "is not an image name"),
        ("a" * 256, "more than 255"),
        ("a" * 250 + "/" + "a" * 250, "more than 255"),
    ],
)
def test_what_is_refused_says_why(name: str, why: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_image(name)
    assert why in caught.value.message
    assert "such as alpine" in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


@given(st.text())
def test_what_passes_is_one_plain_word_and_no_option(text: str) -> None:
    try:
        name = check_image(text)
    except InvalidInput as refused:
        name, message = None, refused.message
    if name is None:
        assert message.isprintable()
        return
    assert name == text
    assert not name.startswith("-")
    assert re.fullmatch(r"[a-zA-Z0-9./:@_\[\]-]+", name)
