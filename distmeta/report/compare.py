"""Compares runs, paired on the same meta-test episodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distmeta.errors import CheckpointError
from distmeta.report import scores
from distmeta.report.progress import Reporter
from distmeta.report.statistics import paired
from distmeta.report.tables import table_title
from distmeta.types import Score


def compare(runs: Sequence[tuple[str, Path]], reporter: Reporter) -> dict[str, Any]:
    """Shows the scores of several runs' meta-trained learners, and the first run's lead over each of the others.

    Args:
        runs: name and directory of each run; two or more.
        reporter: where the table is shown.

    Returns:
        The figures that ``--json`` prints: for each shape of episodes, `runs` with score, interval and `difference`,
        which is the first run's score minus this run's, paired by episode.

    Raises:
        CheckpointError: a run was not evaluated, or was evaluated on other episodes than the first.
    """
    results = paired_scores(runs)
    score = Score(**results[0]["score"])
    title = table_title(score, "", f"{runs[0][0]}'s")
    reporter.table(title, ("episodes", "run", score.name, "difference"), rows_of(results))
    return {"meta_test": results}


def paired_scores(runs: Sequence[tuple[str, Path]]) -> list[dict[str, Any]]:
    """What `compare` returns for each shape of episodes; raises what it raises."""
    evaluations = [(name, scores.read(name, path)) for name, path in runs]
    (first, own), *other_runs = evaluations
    for name, shapes in other_runs:
        if missing := [content["title"] for shape, content in own.items() if shape not in shapes]:
            found = f"was evaluated on other episodes than {first} (such as {missing[0]})"
            raise CheckpointError(name, found, "evaluate both with the same data, splits and evaluation.* settings")
    results = []
    for shape, content in own.items():
        score, values = Score(**content["score"]), np.array(content["scores"])
        compared = [
            {"run": name, **paired(score.name, values, np.array(shapes[shape]["scores"]))}
            for name, shapes in evaluations
        ]
        about = {name: content[name] for name in ("family", "shape", "title", "score")}
        results.append({**about, "episodes": len(values), "runs": compared})
    return results


def rows_of(results: Sequence[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """The table of `paired_scores`: episodes, run, score, and the first run's lead over it."""
    rows = []
    for result in results:
        score = Score(**result["score"])
        for number, its in enumerate(result["runs"]):
            difference = score.format(its["difference"], its["difference_ci95"], "+") if number else ""
            rows.append((result["title"], its["run"], score.format(its[score.name], its["ci95"]), difference))
    return rows
