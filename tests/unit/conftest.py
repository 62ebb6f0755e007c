"""The CLI against a stub controller, for ``test_cli_*``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudai.cli import main
from tests.unit.cli_case import Cloudai, Result
from tests.unit.stub_controller import StubController


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home; nothing of the environment of whoever runs the tests counts."""
    for name in ("CLOUDAI_INVENTORY", "CLOUDAI_USER", "NO_COLOR", "COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDAI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.chdir(tmp_path)
    time.tzset()
    return tmp_path / "home"


@pytest.fixture
def stub(home: Path) -> Iterator[StubController]:
    with StubController(home) as running:
        yield running


@pytest.fixture
def cloudai(stub: StubController, capfdbinary: pytest.CaptureFixture[bytes]) -> Cloudai:
    """``cloudai("task", "alpine")``: one command against the stub, in a pipe."""

    def run(*args: str) -> Result:
        code = main(list(args))
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return Result(code, out.decode(errors="replace"), err.decode(errors="replace"))

    return run
