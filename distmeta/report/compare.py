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
    evaluations = [(name, scores.read(name, path)) for name, path in runs]
    (first, own), *other_runs = evaluations
    for name, shapes in other_runs:
        if missing := [content["title"] for shape, content in own.items() if shape not in shapes]:
            found = f"was evaluated on other episodes than {first} (such as {missing[0]})"
            raise CheckpointError(name, found, "evaluate both with the same data, splits and evaluation.* settings")
    rows, results = [], []
    for shape, content in own.items():
        score, values, compared = Score(**content["score"]), np.array(content["scores"]), []
        for name, shapes in evaluations:
            figures = paired(score.name, values, np.array(shapes[shape]["scores"]))
            compared.append({"run": name, **figures})
            difference = "" if shapes is own else score.format(figures["difference"], figures["difference_ci95"], "+")
            shown = score.format(figures[score.name], figures["ci95"])
            rows.append((content["title"], name, shown, difference))
        about = {name: content[name] for name in ("family", "shape", "title", "score")}
        results.append({**about, "episodes": len(values), "runs": compared})
    score = Score(**next(iter(own.values()))["score"])
    title = table_title(score, "", f"{first}'s")
    reporter.table(title, ("episodes", "run", score.name, "difference"), rows)
    return {"meta_test": results}
