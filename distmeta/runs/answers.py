"""What a report says about single answers and about adaptation, kept beside the scores.

RUN/answers.json           for each shape of meta-test: the episodes' classes, and the row, target and answer of queries
    adaptation_curve.json  the means and intervals of adaptation_curve.png

Both have a format number and the hash of the evaluated meta-parameters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distmeta.errors import shortened
from distmeta.protocols import Draw
from distmeta.report.statistics import mean_ci95
from distmeta.runs.calibrate import Answered
from distmeta.runs.experiment import Experiment
from distmeta.types import Score, Stream

FORMAT = 1
ANSWERS, CURVE = "answers.json", "adaptation_curve.json"
NO_CLASS = -1  # the target of a text that belongs to none of an episode's classes
MOST = 50_000  # answers that are kept of a shape
WORST, OUTSIDE, LETTERS = 20, 5, 300  # wrong answers whose texts are kept, such texts of no class, and their length


def keep_answers(run_dir: Path, digest: str, experiment: Experiment, answered: Sequence[Answered]) -> Path:
    """Writes answers.json of meta-parameters with a hash, in place of an earlier one."""
    shapes = [_shape(experiment, its) for its in answered]
    return _write(run_dir / ANSWERS, {"format": FORMAT, "meta_params_sha256": digest, "shapes": shapes})


def keep_curve(run_dir: Path, digest: str, experiment: Experiment, curves: Mapping[str, np.ndarray]) -> Path:
    """Writes adaptation_curve.json, from scores (points, episodes) of learners by name.

    A learner has the `means` after 0, 1, 2, … inner steps, the `halves` of their 95 % intervals, and the half-widths of
    two paired differences: between last and first (`gain_half`), and between best and last (`fall_half`).
    """
    family, streams = next((name, splits["meta_validation"]) for name, splits in experiment.streams.items())
    score = experiment.setup.families[family].score
    content = {
        "format": FORMAT,
        "meta_params_sha256": digest,
        "score": score._asdict(),
        "shape": dict(streams[0].shape),
        "steps": experiment.config.evaluation.curve_steps,
        "inner_steps": getattr(experiment.learner, "inner_steps", 0),
        "starts_from_support": experiment.learner.starts_from_support,
        "learners": {name: _curve(scores, score) for name, scores in curves.items()},
    }
    return _write(run_dir / CURVE, content)


def _curve(scores: np.ndarray, score: Score) -> dict[str, Any]:
    means, halves = zip(*map(mean_ci95, scores), strict=True)
    best = scores[int(np.argmax(score.sign * np.array(means)))]
    differences = {"gain_half": scores[-1] - scores[0], "fall_half": best - scores[-1]}
    return {"means": means, "halves": halves} | {name: mean_ci95(values)[1] for name, values in differences.items()}


def _write(path: Path, content: dict[str, Any]) -> Path:
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
    aside.replace(path)
    return path


def _shape(experiment: Experiment, its: Answered) -> dict[str, Any]:
    """The answers of a shape. Those of the last episodes are left out if there are more than `MOST`."""
    family, answers = experiment.setup.families[its.stream.family], its.answers
    chosen = answers.logits.argmax(-1)
    raw, sure = answers.certainties(1.0), answers.certainties(its.temperature)
    asked = answers.inside | answers.outside
    targets = np.where(answers.inside, answers.targets, NO_CLASS)
    count = max(1, int(np.searchsorted(asked.sum(1).cumsum(), MOST, side="right")))
    stream = family.with_outside(its.stream) or its.stream
    draws = [family.draw(stream, index) for index in range(min(count, len(asked)))]
    episodes = []
    for number, (draw, here) in enumerate(zip(draws, asked, strict=False)):
        rows = _rows(family.to_json(draw), asked.shape[1])
        episodes.append(
            {
                "classes": _classes(draw, answers.logits.shape[-1]),
                "rows": rows and [row for row, kept in zip(rows, here, strict=True) if kept],
                "targets": targets[number][here].tolist(),
                "answers": chosen[number][here].tolist(),
                "certainties": sure[number][here].round(4).tolist(),
                "raw": raw[number][here].round(4).tolist(),
            }
        )
    wrong = (chosen != targets) & asked
    wrong[len(draws) :] = False
    return {
        "family": family.name,
        "shape": dict(its.stream.shape),
        "title": its.title,
        "temperature": its.temperature,
        "left_out": len(asked) - len(draws),
        "episodes": episodes,
        "worst": [
            _error(experiment, stream, draws[episode], episode, element, sure, targets, chosen, episodes)
            for kind, most in ((answers.inside, WORST), (answers.outside, OUTSIDE))
            for episode, element in _surest(np.where(wrong & kind, sure, -1.0), most)
        ],
    }


def _classes(draw: Draw, outputs: int) -> list[str]:
    """The names of an episode's classes; numbers where a family does not name all of them."""
    return list(draw.names) if len(draw.names) == outputs else [f"class {number}" for number in range(outputs)]


def _rows(written: Mapping[str, Any], elements: int) -> list[int] | None:
    """The source's row of each element of a query set; None if a family's elements are not whole rows."""
    rows = [int(row) for name in ("query", "outside") for row in np.ravel(written.get(name, []))]
    return rows if len(rows) == elements else None


def _surest(sure: np.ndarray, most: int) -> list[tuple[int, int]]:
    """Episode and element of the largest certainties (T, E), of those that are not negative."""
    order = np.argsort(-sure, axis=None, kind="stable")[:most]
    places = zip(*np.unravel_index(order, sure.shape), strict=True)
    return [(int(episode), int(element)) for episode, element in places if sure[episode, element] >= 0]


def _error(
    experiment: Experiment,
    stream: Stream,
    draw: Draw,
    episode: int,
    element: int,
    sure: np.ndarray,
    targets: np.ndarray,
    chosen: np.ndarray,
    episodes: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """A wrong answer, with its text as the model read it if an element is a text."""
    family, target = experiment.setup.families[stream.family], int(targets[episode, element])
    names = episodes[episode]["classes"]
    rows, inputs, text = _rows(family.to_json(draw), sure.shape[1]), family.batch([draw]).query.inputs, None
    if experiment.tokenizer and rows and "input_ids" in inputs:
        mask = inputs["attention_mask"][0, element] > 0
        text = experiment.tokenizer.decode(inputs["input_ids"][0, element][mask].tolist(), skip_special_tokens=False)
    return {
        "episode": episode,
        "row": rows and rows[element],
        "text": None if text is None else shortened(text, LETTERS),
        "target": None if target == NO_CLASS else names[target],
        "answer": names[int(chosen[episode, element])],
        "certainty": round(float(sure[episode, element]), 4),
    }
