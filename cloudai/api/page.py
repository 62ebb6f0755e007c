"""``/docs``: the API on one page, made from its own OpenAPI document. Nothing is fetched from
anywhere: a cluster without the internet has a manual too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin: 2.5rem 0 .5rem; text-transform: capitalize }
details { border-bottom: 1px solid #8884; padding: .4rem 0 }
summary { cursor: pointer }
code, pre { font: 14px/1.45 ui-monospace, monospace }
pre { background: #8882; padding: .6rem .8rem; overflow-x: auto; border-radius: .3rem }
.method { display: inline-block; width: 4.5rem; font-weight: 600 }
.says { opacity: .7; margin-left: .6rem }
table { border-collapse: collapse; margin: .4rem 0 } td { padding: .1rem 1.2rem .1rem 0 }
"""


@router.get("/docs", response_class=HTMLResponse)
async def docs(request: Request) -> HTMLResponse:
    """The page. The document itself is at ``/openapi.json``."""
    return HTMLResponse("".join(_page(request.app.openapi())))


def _page(document: dict[str, Any]) -> Iterator[str]:
    info = document["info"]
    yield "<!doctype html><html lang=en><meta charset=utf-8>"
    yield "<meta name=viewport content='width=device-width'>"
    yield f"<title>{escape(info['title'])} API</title><style>{STYLE}</style>"
    yield f"<h1>{escape(info['title'])} API <small>{escape(info['version'])}</small></h1>"
    yield f"<p>{escape(info.get('description', ''))} The document: "
    yield "<a href=openapi.json>openapi.json</a>.</p>"
    groups: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            entry = "".join(_operation(method.upper(), path, operation))
            groups.setdefault(operation.get("tags", ["other"])[0], []).append(entry)
    for name, entries in groups.items():
        yield f"<h2>{escape(name)}</h2>{''.join(entries)}"


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    says = operation.get("description") or operation.get("summary", "")
    yield f"<details><summary><span class=method>{method}</span><code>{escape(path)}</code>"
    yield f"<span class=says>{escape(says.splitlines()[0] if says else '')}</span></summary>"
    yield f"<p>{escape(says)}</p>"
    if parameters := operation.get("parameters"):
        rows = "".join(_parameter(one) for one in parameters)
        yield f"<table>{rows}</table>"
    for content in operation.get("requestBody", {}).get("content", {}).values():
        for name, example in content.get("examples", {}).items():
            text = json.dumps(example["value"], indent=2, ensure_ascii=False)
            yield f"<p>{escape(name)}</p><pre>{escape(text)}</pre>"
    yield "</details>"


def _parameter(one: dict[str, Any]) -> str:
    schema = one.get("schema", {})
    kind = schema.get("type") or " or ".join(
        str(choice.get("type", "")) for choice in schema.get("anyOf", [])
    )
    default = f"default {schema['default']}" if schema.get("default") is not None else ""
    cells = (one["name"], one["in"], kind, default)
    return "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>"
