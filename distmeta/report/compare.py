"""Runs beside one another, paired on the same meta-test episodes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distmeta.errors import CheckpointError
from distmeta.report.progress import Reporter
from distmeta.report.statistics import paired
from distmeta.report.tables import table_title
from distmeta.types import Score


def compare(runs: Sequence[tuple[str, Path]], reporter: Reporter) -> dict[str, Any]:
    """Shows the meta-trained learners of several runs, and by how much the first is ahead of each.

    Args:
        runs: what each is called, and its directory; two or more.
        reporter: where the table is shown.

    Returns:
        The figures that ``--json`` prints: for each shape of episodes, `runs` with their score and interval, and
        `difference`, the first run's score less this one's, paired by episode.

    Raises:
        CheckpointError: a run was not evaluated, or on other episodes than the first.
    """
    evaluations = [(name, _read(name, path)) for name, path in runs]
    (first, own), *others = evaluations
    for name, its in others:
        if missing := [content["title"] for shape, content in own.items() if shape not in its]:
            found = f"was evaluated on other episodes than {first} (such as {missing[0]})"
            raise CheckpointError(name, found, "evaluate both with the same data, splits and evaluation.* settings")
    rows, results = [], []
    for shape, content in own.items():
        score, scores, compared = Score(**content["score"]), np.array(content["scores"]), []
        for name, its in evaluations:
            figures = paired(score.name, scores, np.array(its[shape]["scores"]))
            compared.append({"run": name, **figures})
            difference = "" if its is own else score.format(figures["difference"], figures["difference_ci95"], "+")
            shown = score.format(figures[score.name], figures["ci95"])
            rows.append((content["title"], name, shown, difference))
        about = {name: content[name] for name in ("family", "shape", "title", "score")}
        results.append({**about, "episodes": len(scores), "runs": compared})
    score = Score(**next(iter(own.values()))["score"])
    title = table_title(score, "", f"{first}'s")
    reporter.table(title, ("episodes", "run", score.name, "difference"), rows)
    return {"meta_test": results}


def _read(name: str, run_dir: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The meta-trained learner's scores, by title and hash of the manifest."""
    try:
        contents = [json.loads(path.read_text(encoding="utf-8")) for path in run_dir.glob("scores-*.json")]
        found = {(its["title"], its["manifest_sha256"]): its for its in contents}
        for its in contents:
            Score(**its["score"]), np.array(its["scores"], float)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            name, f"its scores cannot be read ({error})", f"run `distmeta evaluate {name}`"
        ) from error
    if not found:
        raise CheckpointError(name, "has no scores of meta-test", f"run `distmeta evaluate {name}`")
    return dict(sorted(found.items()))
