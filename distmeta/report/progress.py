"""Shows the progress of a run on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from distmeta.errors import printable
from distmeta.types import Score, StepReport

LINE_SECONDS = 10.0  # between two plain lines
SMOOTHING = 0.9  # of the displayed loss


def as_typed(text: str) -> Text:
    """Text that rich does not read as markup."""
    return Text(printable(text))


class Reporter:
    """Shows progress; a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.live = self.console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.live,
        )
        self._bars: dict[str, TaskID] = {}
        self._said = time.monotonic()
        self._loss: float | None = None
        self._validation = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """Prints a line that stays."""
        self.console.print(as_typed(text), soft_wrap=True)

    def step(self, report: StepReport, total: int) -> None:
        """Shows a finished outer step."""
        if (loss := report.metrics.get("meta_train/loss")) is not None:  # a whole meta-batch may have been rejected
            self._loss = loss if self._loss is None else SMOOTHING * self._loss + (1 - SMOOTHING) * loss
        smoothed = "" if self._loss is None else f"loss {self._loss:.3f}"
        figures = f"{smoothed}{self._validation} · {report.metrics['time/tasks_per_second']:.1f} tasks/s"
        for task in report.rejected:
            self.note(f"task {task.index} rejected ({', '.join(task.names)}): {task.reason}")
        self._show("outer steps", report.outer_step, total, figures)

    def validation(self, step: int, figures: dict[str, float], score: Score) -> None:
        """Shows the result of meta-validation after an outer step."""
        value, half = (figures[f"meta_validation/{score.name}{suffix}"] for suffix in ("", "_ci95"))
        shown = score.format(value, half) + score.unit
        self._validation = f" · validation {shown}"
        if not self.live:
            self.note(f"step {step}: validation {score.name} {shown}")

    def has_validation(self, step: int) -> bool:
        """Whether the meta-validation of an outer step was reported already."""
        return True

    def episodes(self, what: str, done: int, total: int) -> None:
        """Shows how much of an evaluation is done."""
        self._show(what, done, total, "", closing=True)

    def count(self, what: str, done: int) -> None:
        """Shows how many there are so far, of an unknown number."""
        if self.live:
            self._show(what, done, None, "")
        elif time.monotonic() - self._said > LINE_SECONDS:
            self._said = time.monotonic()
            self.note(f"{what}: {done:,}")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Prints a table that stays. Repeated entries of the first column are left out."""
        shown_title = "\n".join(map(printable, title.split("\n")))
        table = Table(title=Text(shown_title, style="table.title"), title_justify="left")
        for number, column in enumerate(columns):
            numeric = not any(letter.isalpha() for row in rows for letter in row[number])
            table.add_column(as_typed(column), justify="right" if numeric else "left")
        last = None
        for first, *rest in rows:
            if last is not None and first != last:
                table.add_section()
            table.add_row(*map(as_typed, ("" if first == last else first, *rest)))
            last = first
        self.console.print(table)

    def _show(self, what: str, done: int, total: int | None, figures: str, closing: bool = False) -> None:
        if self.live:
            if what not in self._bars:
                self._bars[what] = self._progress.add_task(printable(what), total=total, figures="")
            self._progress.update(self._bars[what], completed=done, figures=figures)
            if closing and done == total:
                self._progress.remove_task(self._bars.pop(what))
        elif time.monotonic() - self._said > LINE_SECONDS or (done == total and not closing):
            self._said = time.monotonic()
            self.note(f"{what} {done}/{total}  {figures}".rstrip())
