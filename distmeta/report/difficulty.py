"""The sections on which tasks are hard, which answers were wrong, and which classes are alike."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from distmeta.errors import shortened
from distmeta.report import answers, svg
from distmeta.report.page import Chart, Section, Table
from distmeta.report.sources import RunFigures
from distmeta.types import Score

HARDEST, CLASSES, PAIRS, BINS, LETTERS = 8, 15, 15, 10, 300


def tasks(its: RunFigures) -> Section:
    """How scores spread over tasks, the hardest tasks and classes, and the wrong answers that were most certain."""
    title, blocks = "Tasks by difficulty", list[Any]()
    if not its.scores:
        blocks.append(its.scores.missing)
    for content in its.scores.content.values() if its.scores else ():
        score, values = Score(**content["score"]), content["scores"]
        blocks.append(_spread(values, score, content["title"]))
        if manifest := its.manifests.get(content["title"]):
            blocks.append(_hardest(values, score, content["title"], manifest["episodes"]))
        else:
            blocks.append(f"The manifest of {content['title']} is missing, so tasks cannot be named.")
    if not its.answers:
        blocks.append(its.answers.missing)
    for shape in its.answers.content["shapes"] if its.answers else ():
        blocks += [_classes(shape), _worst(shape)]
    return Section(title, blocks)


def _spread(values: Sequence[float], score: Score, title: str) -> Chart:
    """A histogram of the tasks' scores."""
    low, high = (0.0, 1.0) if score.is_share else (min(values), max(values))
    width = (high - low) / BINS or 1.0
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, int((value - low) / width + 1e-9))] += 1
    scale = 100 if score.is_share else 1
    labels = [svg.number(scale * (low + number * width)) for number in range(BINS + 1)]
    name = score.name + (" in %" if score.is_share else "")
    caption = f"{title}: number of tasks by {name}"
    rows = [
        (f"{start} to {end}", str(count))
        for (start, end), count in zip(itertools.pairwise(labels), counts, strict=True)
    ]
    drawing = svg.bars(labels[:-1], counts, caption, f"{name}, from", "tasks")
    return Chart(caption, drawing, Table(f"{caption}: figures", (name, "tasks"), rows, closed=True))


def _hardest(values: Sequence[float], score: Score, title: str, episodes: Sequence[Mapping[str, Any]]) -> Table:
    order = sorted(range(len(values)), key=lambda number: (score.sign * values[number], number))[:HARDEST]
    rows = []
    for number in order:
        episode = episodes[number]
        what = " · ".join(map(str, episode["classes"])) if "classes" in episode else json.dumps(episode)
        rows.append((str(number), score.show(values[number]) + score.unit, shortened(what, LETTERS)))
    return Table(f"{title}: the hardest tasks", ("episode", score.name, "what it is made of"), rows)


def _classes(shape: Mapping[str, Any]) -> Table:
    found = answers.by_class(shape["episodes"])[:CLASSES]
    rows = [
        (row.name, str(row.queries), f"{100 * row.right:.0f} %", f"{row.taken_for} ({row.times})" if row.times else "–")
        for row in found
    ]
    left = f"; {shape['left_out']} episodes are left out" if shape["left_out"] else ""
    caption = f"{shape['title']}: the hardest classes, in {len(shape['episodes'])} episodes{left}"
    return Table(caption, ("class", "queries", "right", "most often taken for"), rows)


def _worst(shape: Mapping[str, Any]) -> Table | str:
    rows = [
        (
            its["text"] if its["text"] is not None else "not kept",
            "none of the classes" if its["target"] is None else its["target"],
            its["answer"],
            f"{100 * its['certainty']:.0f} %",
            "–" if its["row"] is None else str(its["row"]),
            str(its["episode"]),
        )
        for its in shape["worst"]
    ]
    if not rows:
        return f"{shape['title']}: all answers were right."
    caption = f"{shape['title']}: the wrong answers that were most certain. Texts are as the model read them"
    return Table(caption, ("text", "is", "was taken for", "certainty", "row of the data, from 0", "episode"), rows)


def similarity(its: RunFigures) -> Section:
    """Pairs of classes by how often they were confused."""
    title = "Similarity of tasks"
    if not its.answers:
        return Section(title, [its.answers.missing])
    blocks: list[Any] = [
        "Tasks are made of classes, and are alike if their classes are. Two classes count as similar if the learner "
        "takes their texts for one another: the share of the queries of both that got the other's label, in the "
        "episodes that have both. Classes that were confused in few queries stand lower."
    ]
    for shape in its.answers.content["shapes"]:
        pairs = answers.alike(shape["episodes"])[:PAIRS]
        rows = [(p.first, p.second, f"{100 * p.confused:.0f} %", str(p.queries), str(p.episodes)) for p in pairs]
        if rows:
            columns = ("class", "and class", "confused", "queries", "episodes with both")
            blocks.append(Table(f"{shape['title']}: classes that are most alike", columns, rows))
        else:
            blocks.append(f"{shape['title']}: no two classes were confused.")
    return Section(title, blocks if len(blocks) > 1 else ["The tasks have no classes, so nothing was compared."])
