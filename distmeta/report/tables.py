"""Tables of scores. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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


TRUST = ("episodes", "calibration", "answered", "wrong", "accepted", "AUROC")
OWN = ("own accepted", "own AUROC")


def trust_title(rows: Sequence[Mapping[str, Any]]) -> str:
    """The lines above the table of `trust_rows`."""
    claim = next(row["trust"]["claim"] for row in rows if "trust" in row)
    return (
        "How far its certainty can be trusted on meta-test, in % ± 95 % interval: calibration error before → after;\n"
        f"at the threshold for {claim:.0%} wrong answers on meta-validation: texts answered, answers that are wrong,\n"
        "texts of other classes accepted. AUROC: how well certainty tells those from the task's own"
        + ("\nown: the same for the texts of no class that the data give" if _has_own(rows) else "")
    )


def trust_columns(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The columns of `trust_rows`."""
    return (*TRUST, *OWN) if _has_own(rows) else TRUST


def _has_own(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any("own_auroc" in row.get("trust", ()) for row in rows)


def trust_rows(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The table of `distmeta.runs.calibrate.with_trust`; empty if nothing was calibrated."""
    share = Score("", is_share=True, higher_is_better=True)
    shown = []
    for row in rows:
        if trust := row.get("trust"):
            error = f"{share.show(trust['before'][0])} → {share.format(*trust['after'])}"
            own = ("own_accepted", "own_auroc") if _has_own(rows) else ()
            rest = (trust.get(name) for name in ("answered", "wrong", "accepted", "auroc", *own))
            shown.append((row["title"], error, *(share.format(*pair) if pair else "" for pair in rest)))
    return shown
