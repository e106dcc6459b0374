"""The sections of a report on one run. A section whose figures are missing says so in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distmeta.errors import shortened
from distmeta.report import difficulty, svg, trust
from distmeta.report.page import Chart, Section, Table, sampled
from distmeta.report.sources import RunFigures
from distmeta.report.tables import table_rows
from distmeta.types import Score

LETTERS = 300  # of a setting


def all_sections(its: RunFigures) -> list[Section]:
    """Everything about one run."""
    made: list[Callable[[RunFigures], Section]] = [
        results,
        learning,
        adaptation,
        difficulty.tasks,
        difficulty.similarity,
        trust.calibration,
        trust.out_of_scope,
        gradients,
        origin,
    ]
    return [make(its) for make in made]


def results(its: RunFigures) -> Section:
    """The table of meta-test, and a chart of scores by shots."""
    title = "Results on new tasks"
    if not its.evaluation:
        return Section(title, [its.evaluation.missing])
    columns = ("episodes", "learner", its.score.name, "difference")
    caption = "Meta-test, ± 95 % interval. Difference: the meta-trained learner minus the row's, paired by episode"
    blocks: list[Any] = [Table(caption, columns, table_rows(its.evaluation.content["meta_test"]))]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in its.rows:
        if "shots" in row["shape"]:
            groups.setdefault((row["family"], row["shape"].get("ways")), []).append(row)
    for (family, ways), rows in groups.items():
        if len(rows) > 1:
            whose = f"{family}, {ways}-way" if ways else family
            blocks.append(_by_shots(rows, f"Score by shots: {whose}"))
    if not any(isinstance(block, Chart) for block in blocks):
        blocks.append("There is no curve by shots: it needs evaluation.shots with two or more numbers.")
    return Section(title, blocks)


def _by_shots(rows: Sequence[dict[str, Any]], caption: str) -> Chart:
    score = Score(**rows[0]["score"])
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for row in sorted(rows, key=lambda row: row["shape"]["shots"]):
        for learner in (row, *row["baselines"]):
            if learner.get(score.name) is not None:
                point = (row["shape"]["shots"], learner[score.name], learner["ci95"])
                lines.setdefault(learner["name"], []).append(point)
    return curves(caption, lines, score, "shots")


def learning(its: RunFigures) -> Section:
    """Scores and losses of meta-training and meta-validation by outer step."""
    title = "Learning"
    if not its.metrics:
        return Section(title, [its.metrics.missing])
    blocks: list[Any] = []
    kinds: dict[str, list[str]] = {}
    for name in its.metrics.content:
        if name.startswith(("meta_train/", "meta_validation/")) and not name.endswith("_ci95"):
            kinds.setdefault(name.rpartition("/")[2], []).append(name)
    for kind in sorted(kinds, key=lambda kind: (kind == "loss", kind)):
        lines = {}
        for name in sorted(kinds[kind]):
            halves = dict(its.history(f"{name}_ci95"))
            lines[name.replace("/", " ").replace("_", "-")] = [
                (step, value, halves.get(step)) for step, value in its.history(name)
            ]
        shown = its.scores_by_name.get(kind) or Score(kind, is_share=False, higher_is_better=False)
        blocks.append(curves(f"{kind} by outer step", lines, shown, "outer step"))
    if not any(name.startswith("meta_validation/") for name in its.metrics.content):
        blocks.append("Meta-validation was not run in training: set evaluation.validation_every.")
    return Section(title, blocks or ["MLflow has no figures of meta-training: no outer step was logged."])


def adaptation(its: RunFigures) -> Section:
    """The adaptation curve."""
    title = "Adaptation to a new task"
    if not its.curve:
        return Section(title, [its.curve.missing])
    about = its.curve.content
    lines = {
        name: [(step, *point) for step, point in enumerate(zip(values["means"], values["halves"], strict=True))]
        for name, values in about["learners"].items()
    }
    if not lines:
        return Section(title, ["There is no adaptation curve: the learner takes no inner steps, or diverges at once."])
    score = Score(**about["score"])
    used = f"In meta-training, inner.steps is {about['inner_steps']}."
    caption = f"{score.name} on meta-validation tasks after inner steps, with 95 % intervals"
    return Section(title, [curves(caption, lines, score, "inner steps"), used])


def gradients(its: RunFigures) -> Section:
    """Norms of the meta-gradient before clipping."""
    title = "Gradient norms"
    if not its.metrics:
        return Section(title, [its.metrics.missing])
    norms = [(step, value, None) for step, value in its.history("outer/grad_norm")]
    if not norms:
        return Section(title, ["MLflow has no gradient norms of this run."])
    plain = Score("norm", is_share=False, higher_is_better=False)
    limit, clipped = its.config.outer.clip_norm, ""
    if limit:
        share = sum(value > limit for _, value, _ in norms) / len(norms)
        clipped = (
            f" {100 * share:.0f} % of the steps were above outer.clip_norm = {limit:g} and were scaled down to it."
        )
    rejected = max((value for _, value in its.history("outer/rejected_tasks")), default=0.0)
    text = f"The norm of the mean meta-gradient of each outer step, before clipping.{clipped}"
    text += f" Tasks that were rejected, since their gradient was not finite: {rejected:.0f}."
    return Section(title, [text, curves("Norm of the meta-gradient", {"norm": norms}, plain, "outer step")])


def origin(its: RunFigures) -> Section:
    """Where the run came from: hashes, and all settings."""
    found = {"directory": its.name, "MLflow run": its.run.get("mlflow_run_id") or "not created"}
    if its.evaluation:
        found |= {"outer steps": its.evaluation.content["outer_steps"]}
        found |= {"meta-parameters (SHA-256)": its.evaluation.content["meta_params_sha256"]}
        found |= {f"manifest of {row['title']} (SHA-256)": row["manifest_sha256"] for row in its.rows}
    for name, value in _flat(its.run.get("identity") or {}):
        if not name.startswith("settings"):  # they stand below
            found[f"identity: {name}"] = value
    blocks: list[Any] = [
        Table("Hashes", ("what", "value"), [(name, shortened(str(value), LETTERS)) for name, value in found.items()])
    ]
    if not its.run.get("identity"):
        blocks.append("The run has no identity: it was started with an earlier version.")
    settings = [(name, shortened(value, LETTERS)) for name, value in its.settings.items()]
    return Section("Settings and hashes", [*blocks, Table("All settings", ("key", "value"), settings, closed=True)])


def curves(
    caption: str, lines: Mapping[str, Sequence[tuple[float, float, float | None]]], score: Score, x_label: str
) -> Chart:
    """A chart of lines of (x, value, half-width or None), and their table. Shares are shown in %."""
    scale = 100 if score.is_share else 1
    drawn = [
        svg.Line(
            name,
            [x for x, _, _ in points],
            [scale * y for _, y, _ in points],
            [scale * (half or 0.0) for _, _, half in points] if any(half for _, _, half in points) else None,
        )
        for name, points in lines.items()
    ]
    rows = [
        (name, svg.number(x), score.show(y) if half is None else score.format(y, half))
        for name, points in lines.items()
        for x, y, half in sampled(points)
    ]
    label = score.name + (" in %" if score.is_share else "")
    table = Table(f"{caption}: figures", ("series", x_label, label), rows, closed=True)
    return Chart(caption, svg.lines(drawn, caption, x_label, label), table)


def _flat(content: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(content, dict):
        return [(prefix, content)]
    return [pair for key, value in content.items() for pair in _flat(value, f"{prefix}.{key}" if prefix else str(key))]
