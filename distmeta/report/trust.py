"""The sections on how far certainty can be trusted, and on texts of none of the classes."""

from __future__ import annotations

from typing import Any

from distmeta.report import answers, svg
from distmeta.report.page import Chart, Section, Table, sampled
from distmeta.report.sources import RunFigures


def calibration(its: RunFigures) -> Section:
    """Calibration errors before and after the temperature, and the reliability diagram."""
    title, blocks = "Calibration", list[Any]()
    temperatures = {
        _key(name, found["shape"]): found["temperature"]
        for name, family in (its.learner.content["families"].items() if its.learner else ())
        for found in family.get("calibration", [])
    }
    rows = []
    for row in its.rows:
        if trust := row.get("trust"):
            temperature = temperatures.get(_key(row["family"], row["shape"]))
            shown = "not known" if temperature is None else f"{temperature:.2f}"
            rows.append((row["title"], _percent(trust["before"]), _percent(trust["after"]), shown))
    if rows:
        caption = "Expected calibration error on meta-test, ± 95 % interval: the mean distance between certainty and "
        caption += "share of right answers. The temperature comes from meta-validation"
        blocks.append(Table(caption, ("episodes", "before", "after", "temperature"), rows))
    else:
        blocks.append(_not_calibrated(its))
    blocks += [] if its.learner else [its.learner.missing]
    if not its.answers:
        return Section(title, [*blocks, its.answers.missing])
    return Section(title, [*blocks, *(_diagram(shape) for shape in its.answers.content["shapes"])])


def _diagram(shape: dict[str, Any]) -> Chart:
    found = {
        name: answers.reliability(shape["episodes"], which)
        for name, which in (("before the temperature", "raw"), ("after it", "certainties"))
    }
    lines = [
        svg.Line(name, [100 * sure for sure, _, _ in points], [100 * right for _, right, _ in points])
        for name, points in found.items()
    ]
    rows = [
        (name, f"{100 * sure:.0f} %", f"{100 * right:.0f} %", str(count))
        for name, points in found.items()
        for sure, right, count in points
    ]
    caption = f"{shape['title']}: share of right answers by certainty. On the dotted line certainty is right"
    columns = ("series", "certainty", "right", "answers")
    drawing = svg.lines(
        lines, caption, "certainty in %", "right answers in %", (0.0, 100.0), (0.0, 100.0), diagonal=True
    )
    return Chart(caption, drawing, Table(f"{caption}: figures", columns, rows, closed=True))


def out_of_scope(its: RunFigures) -> Section:
    """What is answered and what is wrong at the threshold, and the curve over all thresholds."""
    title, blocks = "Texts of none of the classes", list[Any]()
    rows = []
    for row in its.rows:
        if trust := row.get("trust"):
            auroc = _plain(trust["auroc"]) if "auroc" in trust else "no such texts"
            accepted = _percent(trust["accepted"]) if "accepted" in trust else "no such texts"
            figures = (_percent(trust["answered"]), _percent(trust["wrong"]), accepted, auroc)
            own = (_percent(trust["own_accepted"]), _plain(trust["own_auroc"])) if "own_auroc" in trust else ("", "")
            rows.append((row["title"], f"{100 * trust['claim']:.0f} %", *figures, *own))
    if rows:
        caption = "At the threshold for a share of wrong answers, chosen on meta-validation: how many queries are "
        caption += "answered, how many answers are wrong, and how many texts of other classes get an answer"
        columns = ["episodes", "threshold for", "answered", "wrong", "others accepted", "AUROC"]
        if has_own := any(any(row[6:]) for row in rows):
            caption += ". Own: the same for the texts of no class that the data give"
            columns += ["own accepted", "own AUROC"]
        blocks.append(Table(caption, tuple(columns), [row if has_own else row[:6] for row in rows]))
    else:
        blocks.append(_not_calibrated(its))
    if not its.answers:
        return Section(title, [*blocks, its.answers.missing])
    for shape in its.answers.content["shapes"]:
        found = answers.outside(shape["episodes"])
        blocks.append(
            _curve(found, shape["title"])
            if found
            else f"{shape['title']}: the episodes have no texts of other classes, since they use all classes."
        )
    return Section(title, blocks)


def _curve(found: answers.Outside, title: str) -> Chart:
    xs, ys = [100 * value for value in found.accepted], [100 * value for value in found.answered]
    caption = f"{title}: queries that are answered, by texts of other classes that are too. AUROC {found.auroc:.3f}"
    x_label, y_label = "others accepted in %", "queries answered in %"
    points = list(zip(found.thresholds, xs, ys, strict=True))
    rows = [(f"{threshold:.2f}", f"{x:.0f} %", f"{y:.0f} %") for threshold, x, y in sampled(points, 12)]
    table = Table(f"{caption}: figures", ("threshold", "others accepted", "queries answered"), rows, closed=True)
    line = svg.Line("over all thresholds", xs, ys)
    return Chart(caption, svg.lines([line], caption, x_label, y_label, (0.0, 100.0), (0.0, 100.0), True), table)


def _not_calibrated(its: RunFigures) -> str:
    if not its.evaluation:
        return its.evaluation.missing
    why = "its tasks have no classes, a task diverged, or it was evaluated by an earlier version"
    return f"The learner was not calibrated: {why}."


def _key(family: str, shape: dict[str, Any]) -> tuple[Any, ...]:
    return (family, *sorted(shape.items()))


def _percent(figure: list[float]) -> str:
    return f"{100 * figure[0]:.1f} ± {100 * figure[1]:.1f} %"


def _plain(figure: list[float]) -> str:
    return f"{figure[0]:.3f} ± {figure[1]:.3f}"
