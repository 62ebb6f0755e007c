"""The API's own page: whole, and without anything from elsewhere."""

from __future__ import annotations

import re

from cloudai.api.app import make_app


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
