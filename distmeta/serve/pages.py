"""What a browser shows: a page to try the service, and its documentation. Nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from importlib.resources import files
from typing import Any

STYLE, SCRIPT = ((files(__package__) / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
_BODY = (files(__package__) / "page.html").read_text(encoding="utf-8")
METHODS = ("get", "post", "delete")


def _document(title: str, body: str, script: str = "") -> str:
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
    end = f"<script>{script}</script>" if script else ""
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}{end}</body></html>\n'


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


PAGE = _document("distmeta", _BODY, SCRIPT)
# A browser runs nothing but this script, and sends nothing to other places.
POLICY = (
    f"default-src 'none'; script-src {_hash(SCRIPT)}; style-src {_hash(STYLE)}; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def documentation(schema: Mapping[str, Any]) -> str:
    """The addresses of an OpenAPI schema, with an example of each body, as a page."""
    intro = '<h1>distmeta: the service</h1><p><a href="/">Try it</a> · <a href="/openapi.json">OpenAPI</a></p>'
    about = "<p>Make a task with <code>POST /tasks</code> and ask it with <code>POST /tasks/{id}/predict</code>. "
    about += 'An error is <code>{"error": {"where": …, "found": …, "remedy": …}}</code>.'
    if "security" in schema:
        about += " Each request needs the header <code>Authorization: Bearer TOKEN</code>."
    return _document("distmeta: the service", f"<main>{intro}{about}</p>{''.join(_operations(schema))}</main>")


def _operations(schema: Mapping[str, Any]) -> Iterator[str]:
    for path, methods in schema["paths"].items():
        for method in METHODS:
            if method in methods:
                yield _operation(schema, path, method, methods[method])


def _operation(schema: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any]) -> str:
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2>", f"<p>{escape(operation['description'])}</p>"]
    fields = [(p["name"], p.get("description", ""), p["in"]) for p in operation.get("parameters", [])]
    if "requestBody" in operation:
        body = _model(schema, operation["requestBody"]["content"]["application/json"]["schema"])
        fields += [(name, field.get("description", ""), "body") for name, field in body["properties"].items()]
        parts += [f"<pre>{escape(json.dumps(e, indent=1, ensure_ascii=False))}</pre>" for e in body.get("examples", [])]
    if fields:
        parts.insert(2, f"<table>{''.join(_row(*field) for field in fields)}</table>")
    answers = (f"<li><b>{code}</b> {escape(a['description'])}</li>" for code, a in operation["responses"].items())
    parts.append(f"<details><summary>Answers</summary><ul>{''.join(answers)}</ul></details>")
    return f"<section>{''.join(parts)}</section>"


def _row(name: str, text: str, place: str) -> str:
    return f'<tr><th>{escape(name)}</th><td class="place">{escape(place)}</td><td>{escape(text)}</td></tr>'


def _model(schema: Mapping[str, Any], found: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in found:
        return found
    model: Mapping[str, Any] = schema["components"]["schemas"][found["$ref"].rpartition("/")[2]]
    return model
