"""Commands that use a meta-trained learner: adapt, predict and suggest."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from distmeta.cli.given import read_descriptions, read_label_sets, read_labels, read_unlabelled, section
from distmeta.cli.shared import Json, Overrides, app, output, require_file, require_place, show
from distmeta.errors import ConfigError, DataError
from distmeta.report.output import clean_stdout

if TYPE_CHECKING:
    from distmeta.protocols import Codec
    from distmeta.report.progress import Reporter
    from distmeta.use.task import Task

DOCUMENT = "task.json"
TaskFolder = Annotated[
    str, typer.Argument(metavar="TASK", help="The folder of a task, or a registered one: models:/NAME@ALIAS.")
]


@app.command()
def adapt(
    run: Annotated[
        str, typer.Argument(metavar="RUN|TASK", help="A run, a learner, models:/NAME@ALIAS, or a task that grows.")
    ],
    examples: Annotated[str, typer.Argument(metavar="EXAMPLES", help="Labelled texts: a file, a folder, an address.")],
    overrides: Overrides = None,
    out: Annotated[str | None, typer.Option(help="The folder of the new task; a TASK grows in place.")] = None,
    wrong: Annotated[
        float | None, typer.Option(help="The share of wrong answers, such as 0.05, above which it abstains.")
    ] = None,
    unlabelled: Annotated[str | None, typer.Option(help="Texts without labels that help: a file, a folder, -.")] = None,
    descriptions: Annotated[
        str | None, typer.Option(help="Descriptions of the classes, as a file like EXAMPLES; or `names`: their labels.")
    ] = None,
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="A text may have several labels: a row for each, or a|b; or none.")
    ] = False,
    family: Annotated[str | None, typer.Option(help="The task's family, if the learner has several.")] = None,
    as_json: Json = False,
) -> None:
    """Learn a task from labelled examples, in seconds: any number of classes, one example of each or more."""
    settings = overrides or []
    data = section(examples, settings)
    more = unlabelled and section(unlabelled, settings)
    about = section(descriptions, settings) if descriptions not in (None, "names") else None
    grows = (Path(run) / DOCUMENT).is_file()
    if out is None and not grows:
        raise ConfigError("--out", "missing", "name a folder for the task, such as --out my_task")
    folder = Path(out or run)
    if out is not None and folder.exists():
        raise ConfigError("--out", f"{out} exists", "name another folder, or remove it")
    if grows and family:
        raise ConfigError("--family", f"{family}, and {run} is a task, which has one", "leave it out")
    require_place(folder)

    from distmeta.report.progress import Reporter
    from distmeta.use.examples import unusable

    with clean_stdout(), Reporter() as reporter:
        learn, codec, sets = _grows(run, multi_label) if grows else _learns(run, family, multi_label)
        texts, labels, names = read_label_sets(data, reporter) if sets else read_labels(data, reporter)
        for name, text in zip(names, texts, strict=True):
            if reason := unusable(codec, text):
                raise DataError(name, reason, "leave it out")
        classes = sorted({label for its in labels for label in ([its] if isinstance(its, str) else its)})
        described = {name: name for name in classes} if descriptions == "names" else {}
        described |= read_descriptions(about, reporter) if about else {}
        extra = read_unlabelled(more, codec, reporter) if more else []
        if known := sum(map(set(texts).__contains__, extra)):
            reporter.note(f"note: {known} texts without labels are among the examples, and left out")
        started = time.perf_counter()
        task = learn(texts, labels, unlabelled=extra, descriptions=described, wrong=wrong)
        seconds = time.perf_counter() - started
        task.save(folder)
        result = _describe(task, folder, seconds, reporter)
    show(result, as_json)


@app.command()
def predict(
    task: TaskFolder,
    texts: Annotated[
        str, typer.Argument(metavar="[TEXTS|-]", help="A file, a folder, an address; -: lines of standard input.")
    ] = "-",
    overrides: Overrides = None,
    out: Annotated[str | None, typer.Option(help="A file for the predictions; by default stdout.")] = None,
    form: Annotated[Literal["csv", "jsonl"] | None, typer.Option("--format", help="By default csv.")] = None,
    always: Annotated[bool, typer.Option("--always", help="Answer even where it is not sure enough.")] = False,
) -> None:
    """Predict the labels of texts, with the probability of each class. No label: not sure enough."""
    require_file(out)
    data = section(texts, overrides or [])
    form = form or ("jsonl" if out and out.endswith((".jsonl", ".ndjson")) else "csv")

    from distmeta.data.texts import read_texts
    from distmeta.report.progress import Reporter
    from distmeta.use.cut import Cut
    from distmeta.use.table import predictions, write_csv, write_json_lines

    with Reporter() as reporter, clean_stdout():
        learned = _task(task)
    with Reporter() as reporter:
        cut = Cut(learned.codec)
        rows = predictions(learned, cut.counted(read_texts(data)), reporter.note, not always)
        first = list(islice(rows, 1))  # what cannot be read at all is told before anything is written
        with output(out) as file:
            write = write_csv if form == "csv" else write_json_lines
            write(file, learned, _counted(chain(first, rows), reporter))
        cut.tell(reporter.note)


@app.command()
def suggest(
    task: TaskFolder,
    texts: Annotated[str, typer.Argument(metavar="TEXTS", help="Texts without labels: a file, a folder, -.")],
    overrides: Overrides = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many texts to suggest.")] = 20,
    out: Annotated[str | None, typer.Option(help="A CSV file for the texts; by default stdout.")] = None,
) -> None:
    """Name the texts most worth a label, as CSV: fill in the labels, then `distmeta adapt TASK` with the file."""
    require_file(out)
    data = section(texts, overrides or [])

    from distmeta.report.progress import Reporter
    from distmeta.use.cut import Cut
    from distmeta.use.suggest import suggest as choose
    from distmeta.use.table import write_suggestions

    with Reporter() as reporter, clean_stdout():
        learned = _task(task)
        usable = read_unlabelled(data, learned.codec, reporter)
        Cut(learned.codec).add(usable).tell(reporter.note)
        chosen = [usable[place] for place in choose(learned, usable, count, partial(reporter.count, "texts"))]
    with output(out) as file:
        write_suggestions(file, learned, chosen)


def _learns(run: str, family: str | None, multi_label: bool) -> tuple[Callable[..., Task], Codec, bool]:
    """What learns a task: the learner of a run, of a copy of its folder `learner`, or a registered one."""
    from distmeta.runs.directory import place
    from distmeta.use.learner import load

    learner = load(place(run))
    name = learner.family_of(family)
    return partial(learner.adapt, family=name, multi_label=multi_label), learner.codecs[name], multi_label


def _grows(folder: str, multi_label: bool) -> tuple[Callable[..., Task], Codec, bool]:
    """What learns a task again; and whether its texts may have several labels."""
    task = _task(folder)
    return task.grow, task.codec, multi_label or task.thresholds is not None


def _task(name: str) -> Task:
    """The task in a folder, or a registered one."""
    import distmeta

    return distmeta.load_task(name)


def _describe(task: Task, folder: Path, seconds: float, reporter: Reporter) -> dict[str, Any]:
    """Says what was learned; the same as figures."""
    from distmeta.use.cut import Cut

    cut = Cut(task.codec).add(task.examples)
    cut.tell(reporter.note)
    ways, expected, fitted = len(task.names), task.expected, task.calibration
    counts = {what: number for what, number in task.counts.items() if number}
    reporter.note(
        f"learned {ways} classes from {', '.join(f'{n} {what}' for what, n in counts.items())} in {seconds:.1f} s"
    )
    if expected:
        share, interval = f"{expected.accuracy:.0%}", f"{expected.low:.0%} to {expected.high:.0%}"
        tested = f"{expected.right} of {expected.tested} examples, when they were left out"
        reporter.note(f"expect {share} right answers: it got {tested} (95 % interval {interval})")
    elif f1 := task.expected_f1:
        interval = f"95 % interval {f1.low:.0%} to {f1.high:.0%}"
        said = f"expect a micro F1 of {f1.micro_f1:.0%} ({interval}) and a macro F1 of {f1.macro_f1:.0%}"
        reporter.note(f"{said}: those of {f1.tested} examples, when they were left out")
    else:
        few = "no class has a second example" if task.thresholds is None else "fewer than four can be left out"
        reporter.note(f"how good it is cannot be said: {few}")
    if task.thresholds:
        low, high = min(task.thresholds), max(task.thresholds)
        reporter.note(f"a text gets the classes whose probability reaches their threshold, {low:.2f} to {high:.2f}")
    elif fitted is None:
        reporter.note("it is not calibrated and never abstains: `distmeta evaluate` its run again to change that")
    else:
        shape = ", ".join(f"{name} {value}" for name, value in fitted["shape"].items() if name != "queries")
        sure = f"below a certainty of {task.threshold:.2f}" if task.threshold <= 1 else "always: no certainty is enough"
        reporter.note(f"its probabilities are calibrated on meta-validation tasks ({shape}); it abstains {sure}")
    reporter.note(f"the task is in {folder}; `distmeta predict {shlex.quote(str(folder))} TEXTS` predicts")
    return {
        "task": str(folder),
        "classes": list(task.names),
        **task.counts,
        "cut": cut.cut,
        "seconds": seconds,
        "expected": expected and {**expected._asdict(), "accuracy": expected.accuracy},
        "calibration": fitted,
        "threshold": task.threshold,
        "thresholds": task.limits,
        "expected_f1": task.expected_f1 and task.expected_f1._asdict(),
    }


def _counted(rows: Iterator[Any], reporter: Reporter) -> Iterator[Any]:
    """The rows; progress says how many there were. On a terminal, the rows are the progress."""
    for number, row in enumerate(rows, 1):
        yield row
        if not sys.stdout.isatty():
            reporter.count("texts", number)
