"""One HTML page from sections of text, tables and charts. It needs no network, no script and no other file.

All texts are data: Jinja2 escapes them, and characters that a terminal would obey are shown as escapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from distmeta.errors import printable

GENERATOR = "distmeta report"
TEMPLATE = Path(__file__).with_name("page.html.j2")
ROWS = 25  # of the table beside a chart

Row = TypeVar("Row")


@dataclass(frozen=True)
class Table:
    """A table. `closed`: shown only on a click, and in print."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    closed: bool = False


@dataclass(frozen=True)
class Chart:
    """A drawing (SVG, whose texts are escaped), what it shows, and the same figures as a table."""

    caption: str
    svg: str
    table: Table


Block = str | Table | Chart


@dataclass(frozen=True)
class Section:
    """A heading, and what stands below it: paragraphs, tables and charts."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Chapter:
    """A heading over sections; what detectors found, and what they could not look for."""

    title: str
    sections: Sequence[Section]
    findings: Sequence[Any] = ()
    unchecked: Sequence[str] = field(default_factory=list)


def sampled(rows: Sequence[Row], most: int = ROWS) -> list[Row]:
    """At most so many rows, evenly spread, with the first and the last."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(number * (len(rows) - 1) / (most - 1))] for number in range(most)]


def render(title: str, subtitle: str, chapters: Sequence[Chapter]) -> str:
    """The page as HTML."""
    import jinja2
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        return value if isinstance(value, Markup) else printable(str(value))

    environment = jinja2.Environment(
        autoescape=True, finalize=shown, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["drawing"] = Markup  # of `svg`, whose texts are escaped
    environment.tests["table"] = lambda block: isinstance(block, Table)
    environment.tests["chart"] = lambda block: isinstance(block, Chart)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, subtitle=subtitle, chapters=chapters, generator=GENERATOR)


def is_ours(path: Path) -> bool:
    """Whether a file is a page that `render` made."""
    with path.open("rb") as file:
        return f'name="generator" content="{GENERATOR}"'.encode() in file.read(1000)
