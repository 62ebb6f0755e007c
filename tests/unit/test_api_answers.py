"""What the API says of requests that it cannot read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi import Request
from fastapi.exceptions import RequestValidationError

from cloudai.api.app import _unreadable

FORM, JSON = b"application/x-www-form-urlencoded", b"application/json; charset=utf-8"


@pytest.mark.parametrize(
    ("sent", "where", "hinted"),
    [(FORM, ("body",), True), (JSON, ("body",), False), (FORM, ("query", "limit"), False)],
)
def test_a_body_that_is_not_said_to_be_json_is_told_how(
    sent: bytes, where: tuple[str, ...], hinted: bool
) -> None:
    request = Request({"type": "http", "headers": [(b"content-type", sent)]})
    problem: dict[str, Any] = {"loc": where, "msg": "Input should be …", "type": "x", "input": "s"}
    answer = _unreadable(request, RequestValidationError([problem]))
    error = json.loads(bytes(answer.body))["error"]
    assert ("Content-Type: application/json" in error["hint"]) == hinted
    assert error["exit_code"] == 2
