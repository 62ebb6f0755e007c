"""Image names, sizes and durations against the docker command itself: whatever text comes, it is
taken or refused as Docker takes or refuses it, and means the same.
"""

from __future__ import annotations

import json
import re
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cloudai.core.errors import InvalidInput
from cloudai.core.image import check_image
from cloudai.core.units import MOST_SECONDS, parse_docker_size, parse_duration

asked_of_docker = settings(
    max_examples=60,
    deadline=None,
    # The engine is the same for all examples, and forgets each.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Deaf(socketserver.ThreadingUnixStreamServer):
    """An engine that writes down what it is asked to create, and creates nothing."""

    daemon_threads = True
    asked: dict[str, Any] | None = None

    def handle_error(self, request: object, client_address: object) -> None:
        """A command that has heard enough hangs up: that is no trouble here."""


class _Talk(BaseHTTPRequestHandler):
    server: Deaf

    def do_HEAD(self) -> None:
        self._answer(200, b"")

    def do_GET(self) -> None:
        self._answer(200, b"OK")

    def do_POST(self) -> None:
        self.server.asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(400, b'{"message": "written down"}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Api-Version", "1.41")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "docker"  # a UNIX socket has no address

    def log_message(self, format: str, *args: object) -> None: ...


Ask = Callable[..., dict[str, Any] | None]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """``docker create`` with these words: what it would have the engine make, or ``None`` where
    it refuses them itself."""
    docker = shutil.which("docker")
    assert docker, "the docker command is not here"
    path = tmp_path_factory.mktemp("engine") / "docker.sock"
    with Deaf(str(path), _Talk) as engine:
        threading.Thread(target=engine.serve_forever, daemon=True).start()

        def create(*words: str) -> dict[str, Any] | None:
            engine.asked = None
            command = [docker, "-H", f"unix://{path}", "create", *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            assert done.returncode != 0, "nothing is created here"
            # Else an engine that could not be asked would look like a refusal.
            assert "written down" in done.stderr or engine.asked is None, done.stderr
            assert "Cannot connect" not in done.stderr, done.stderr
            return engine.asked

        yield create
        engine.shutdown()


def taken(parse: Callable[[str], Any], text: str) -> Any:
    """What we make of it; ``None``: refused."""
    try:
        return parse(text)
    except InvalidInput:
        return None


words = st.text("ab1", min_size=1, max_size=4)
# Upper case in a registry's name is read otherwise by older releases of Docker.
references = st.one_of(
    st.text("ab1./:@_-", min_size=1, max_size=14),
    st.lists(words | st.sampled_from([".", "_", "__", "-", "---", "/", ":", "@"]), max_size=9).map(
        "".join
    ),
    st.builds(
        "{}{}/{}{}".format,
        words,
        st.sampled_from(["", ".a", ":5000", ":", ".:1", "-.a"]),
        words,
        st.sampled_from(["", ":A_1.b-", ":-a", ":" + "a" * 128, ":" + "a" * 129, "@sha256:ab"]),
    ),
)


@asked_of_docker
@given(references)
@example("alpine")
@example("a" * 64)
@example("x@sha256:" + "a" * 64)
def test_image_names(ask: Ask, text: str) -> None:
    made = ask("--", text) if text else None
    ours = taken(check_image, text)
    if text.startswith("-") or re.fullmatch("[0-9a-f]{64}", text):
        assert ours is None, "ours alone: it would be an option, or is one machine's id"
    else:
        assert (ours is not None) == (made is not None), f"docker: {made and made['Image']}"
    assert made is None or made["Image"] == text


numbers = st.one_of(
    st.decimals(0, 10**6, places=3, allow_nan=False).map(str),
    st.text("0123456789.eE+-", min_size=1, max_size=6),
)
sizes = st.builds(
    "{}{}{}".format,
    numbers,
    st.sampled_from(["", "", " ", "  "]),
    st.sampled_from(["", "b", "k", "K", "kb", "KiB", "m", "mib", "g", "GB", "t", "pb", "x", "ib"]),
) | st.text("01.kmgbiB +-", min_size=1, max_size=6)


@asked_of_docker
@given(sizes)
@example("1.5g")
@example("0.1k")
def test_sizes(ask: Ask, text: str) -> None:
    made = ask(f"--memory={text}", "--", "x")
    theirs = None if made is None else made["HostConfig"]["Memory"]
    if text.startswith("-") or (theirs is not None and not 0 <= theirs < 2**63 - 1):
        theirs = None  # "-0", and what overflows in Docker, otherwise on each kind of processor
    assert taken(parse_docker_size, text) == theirs


durations = st.lists(
    st.tuples(numbers, st.sampled_from(["h", "m", "s", "ms", "us", "µs", "ns", "", "d", "x"])).map(
        "".join
    ),
    min_size=1,
    max_size=3,
).map("".join) | st.text("01.hmsnu+- ", min_size=1, max_size=6)


@asked_of_docker
@given(durations)
@example("1h30m")
@example(".5h")
@example("0")
@example("-0")
@example("-00")
@example("-0s")
def test_durations(ask: Ask, text: str) -> None:
    made = ask(f"--health-interval={text}", "--", "x")
    ours = taken(parse_duration, text)
    if made is None:
        bare = re.fullmatch(r"\+?[0-9.]+(?:[eE][+-]?[0-9]+)?", text)
        assert ours is None or bare or "d" in text, "ours alone: seconds, and days"
        return
    theirs = (made.get("Healthcheck") or {}).get("Interval", 0) / 10**9
    if theirs > MOST_SECONDS:
        assert ours is None
    else:
        assert ours == pytest.approx(theirs, abs=1e-8)


def test_nothing_of_this_needs_an_engine(ask: Ask, tmp_path: Path) -> None:
    """So that a refusal is docker's own."""
    assert ask("--", "alpine") is not None
    assert ask("--", "Alpine") is None
