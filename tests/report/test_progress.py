"""What is shown where there is no terminal."""

import io

from rich.console import Console

from distmeta.report.progress import Reporter
from distmeta.types import Rejected, Score, StepReport

ACCURACY = Score("accuracy", is_share=True, higher_is_better=True)


def report(step: int, **metrics: float) -> StepReport:
    named = {f"meta_train/{name}": value for name, value in metrics.items()}
    return StepReport(step, {**named, "time/tasks_per_second": 2.5})


def shown(reporter: Reporter) -> list[str]:
    assert isinstance(reporter.console.file, io.StringIO)
    return reporter.console.file.getvalue().splitlines()


def make() -> Reporter:
    return Reporter(Console(file=io.StringIO(), width=100))


def test_the_last_step_is_always_shown_with_the_smoothed_loss() -> None:
    """0.9 · 1 + 0.1 · 2."""
    with make() as reporter:
        reporter.step(report(1, loss=1.0), 2)
        reporter.step(report(2, loss=2.0), 2)
    assert shown(reporter) == ["outer steps 2/2  loss 1.100 · 2.5 tasks/s"]


def test_validation_is_a_line_and_stays_beside_the_loss() -> None:
    with make() as reporter:
        reporter.validation(1, {"meta_validation/accuracy": 0.5, "meta_validation/accuracy_ci95": 0.021}, ACCURACY)
        reporter.step(report(1, loss=1.0), 1)
    assert shown(reporter) == [
        "step 1: validation accuracy 50.0 ± 2.1 %",
        "outer steps 1/1  loss 1.000 · validation 50.0 ± 2.1 % · 2.5 tasks/s",
    ]


def test_a_rejected_task_is_named_and_a_rejected_meta_batch_has_no_loss() -> None:
    with make() as reporter:
        reporter.step(StepReport(1, report(1).metrics, (Rejected(7, ("a", "b"), "not finite"),)), 2)
        reporter.step(report(2, loss=3.0), 2)
    assert shown(reporter) == ["task 7 rejected (a, b): not finite", "outer steps 2/2  loss 3.000 · 2.5 tasks/s"]


def test_a_table_does_not_repeat_its_first_column() -> None:
    with make() as reporter:
        reporter.table("T", ("episodes", "learner"), [("1-shot", "a"), ("1-shot", "b"), ("5-shot", "c")])
    text = "\n".join(shown(reporter))
    assert (text.count("1-shot"), text.count("5-shot")) == (1, 1)
