"""The scripts that take files on a worker and give them back, in every shell and awk there is."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cloudai.scripts import render

from .worker_tools import COMBINATIONS, Tools

DATA = "".join(f"line {number}\n" for number in range(2000))
PACK = hashlib.sha256(DATA.encode()).hexdigest()


@pytest.fixture(params=COMBINATIONS, ids="-".join)
def tools(request: pytest.FixtureRequest, tmp_path: Path) -> Tools:
    return Tools(tmp_path / "tools", *request.param)


def put(tools: Tools, data: str, *, begin: int = 0, pack: str = PACK) -> str:
    size = len(DATA)
    values = {"store": "it's", "pack": pack, "begin": begin, "rest": size - begin, "size": size}
    return tools.run(render("put", docker_host="", **values), stdin=data)


def cache(tools: Tools) -> Path:
    return tools.folder / ".cache" / "cloudai" / "it's"


def test_a_pack_that_is_cut_goes_on_and_is_there_once_it_is_whole(tools):
    assert put(tools, DATA[:5000]) == "short 5000 \n"
    assert [path.name for path in cache(tools).iterdir()] == [f"{PACK}.part"]
    assert put(tools, DATA) == "have 5000\n"
    assert put(tools, DATA[5000:] + "and more", begin=5000) == "stored\n"
    (whole,) = cache(tools).iterdir()
    assert (whole.name, whole.read_text()) == (PACK, DATA)
    assert whole.stat().st_mode & 0o077 == cache(tools).stat().st_mode & 0o077 == 0
    forget = render("forget_files", store="it's")
    assert tools.run(forget) == tools.run(forget) == "gone\n"
    assert not (tools.folder / ".cache").exists()


def test_a_pack_that_is_not_what_was_sent_is_not_kept(tools):
    assert put(tools, DATA, pack="0" * 64) == "damaged\n"
    assert not list(cache(tools).iterdir())


@pytest.mark.parametrize("begin", [0, 7000])
def test_what_is_fetched_ends_with_its_digest(tools, begin):
    (tools.folder.parent / "data").write_text(DATA)
    # As words: cp -L -- CONTAINER:PATH -
    tools.put("docker", f'[ "$4" = "{"c" * 64}:/a b" ] && exec cat {tools.folder.parent}/data')
    script = render(
        "fetch", docker_host="", store="s", container="c" * 64, path="/a b", begin=begin
    )
    assert tools.run(script) == f"{DATA[begin:]}\ncloudai-sum {PACK}\n"
