"""The API's own page: whole, and without anything from elsewhere."""

from __future__ import annotations

import json
import re

from fastapi import Request
from fastapi.exceptions import RequestValidationError

from cloudai.api.app import _unreadable, make_app


def test_every_operation_stands_on_the_page_and_nothing_is_fetched():
    from cloudai.api.page import _page

    app = make_app(None, None)  # type: ignore[arg-type]  # nothing is asked of them
    document = app.openapi()
    page = "".join(_page(document))
    for path, methods in document["paths"].items():
        assert f"<code>{path}</code>" in page
        assert methods
    assert page.count("<details>") == sum(len(methods) for methods in document["paths"].values())
    assert not re.search(r"(src|href)=['\"]?(https?:)?//", page)
    assert "<script" not in page


def test_what_is_shown_is_text():
    from cloudai.api.page import _operation

    shown = "".join(_operation("GET", "/<b>", {"description": "<script>x</script>"}))
    assert "<script" not in shown
    assert "&lt;b&gt;" in shown


def test_a_body_that_is_no_json_object_is_told_how_to_be_one():
    """What curl sends unless it is told otherwise, and text that is torn."""
    form = (b"content-type", b"application/x-www-form-urlencoded")
    request = Request({"type": "http", "headers": [form]})
    for fault in (
        {"loc": ("body",), "msg": "Input should be a valid dictionary", "type": "dict_type"},
        {"loc": ("body", 1), "msg": "JSON decode error", "type": "json_invalid"},
    ):
        answer = _unreadable(request, RequestValidationError([fault]))
        error = json.loads(bytes(answer.body))["error"]
        assert (answer.status_code, error["exit_code"]) == (422, 2)
        assert error["message"] == "body: it is not a JSON object"
        assert "Content-Type: application/json" in error["hint"]
