"""Tables of scores. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from distmeta.errors import printable
from distmeta.types import Score

Row = tuple[str, str, str, str]


def cell(value: Any) -> Any:
    """A value for a CSV file: spreadsheets read text that begins like a formula as text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def markdown(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|$~&#!])", r"\\\1", printable(text))


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, whose cells are shown as they are."""
    lines = [columns, *rows]
    shown = [f"| {' | '.join(map(markdown, line))} |" for line in lines]
    return "\n".join([shown[0], f"| {' | '.join(['---'] * len(columns))} |", *shown[1:]])


def table_title(score: Score, of: str, whose: str) -> str:
    """The two lines above an evaluation table: the score, and the learner that rows are compared with."""
    return (
        f"Meta-test {score.name}{score.unit and ' in %'}{of}, ± 95 % interval; "
        f"{'higher' if score.higher_is_better else 'lower'} is better.\n"
        f"Difference: {whose} {score.name} minus the row's, paired by episode"
    )


def table_rows(meta_test: Sequence[dict[str, Any]]) -> list[Row]:
    """The evaluation table: episodes, learner, score, and the meta-trained learner's score minus it."""
    rows = []
    for row in meta_test:
        score = Score(**row["score"])
        rows.append((row["title"], row["name"], score.format(row[score.name], row["ci95"]), ""))
        for base in row["baselines"]:
            if "diverged" in base:
                rows.append((row["title"], base["name"], "diverged", ""))
                continue
            difference = score.format(base["difference"], base["difference_ci95"], "+")
            rows.append((row["title"], base["name"], score.format(base[score.name], base["ci95"]), difference))
    return rows
