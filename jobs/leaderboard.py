"""Tables of many runs: every row on every data set and class split, each a run of `distmeta train` that is kept.

    python jobs/leaderboard.py jobs/leaderboard.yaml intents runs/leaderboard

A run that is finished is only read, and one that was stopped goes on. The table is printed as Markdown; each run's own
figures and log stay in its directory. Seconds are those of whole commands, start and evaluation included. The interval
of a mean over splits is that of the mean of independent means: it says how sure the figure is for these classes, not
for others. In a table of streams of tasks, a stream for each seed, intervals are over the streams.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

Run = dict[str, Any]  # what `distmeta train --json` prints, and its seconds
Results = dict[tuple[str, str], list[Run]]  # by row and column


def main() -> None:
    """Runs what is missing of a table, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a YAML file of tables, such as jobs/leaderboard.yaml")
    parser.add_argument("table", help="which of its tables")
    parser.add_argument("out", type=Path, help="the folder of the runs")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings for all runs, such as data.cache=D")
    arguments = parser.parse_args()
    tables = yaml.safe_load(arguments.file.read_text(encoding="utf-8"))
    if arguments.table not in tables:
        parser.error(f"no table {arguments.table!r}; there are {', '.join(tables)}")
    print(make(tables[arguments.table], arguments.out / arguments.table, arguments.settings))


def make(table: dict[str, Any], out: Path, settings: Sequence[str]) -> str:
    """Runs what is missing, and returns the table as Markdown."""
    columns, first = table.get("columns", {"": []}), next(iter(table["rows"]))
    key, values = ("seed", table["seeds"]) if "seeds" in table else ("data.split", table.get("splits", [None]))

    def finished(row: str, column: str, value: Any) -> Run:
        folders = (
            out / re.sub(r"[^\w.-]+", "_", "-".join(str(part) for part in (name, column, value) if part)).lower()
            for name in (row, first)
        )
        folder, of_first = (path.absolute() for path in folders)
        given = [*table.get("settings", []), *columns[column], *table["rows"][row], *settings]
        given += [f"{key}={value}"] if value is not None else []
        return finish(table["config"], [each.replace("{first}", str(of_first)) for each in given], folder)

    results = {
        (row, column): [finished(row, column, value) for value in values] for row in table["rows"] for column in columns
    }
    lines = (streams if "seeds" in table else meta_tests)(results, list(table["rows"]), list(columns))
    lines.insert(1, ["---", *["---:"] * (len(lines[0]) - 1)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def finish(config: str, settings: Sequence[str], run_dir: Path) -> Run:
    """The result of a run, which is started, resumed or only read."""
    written = run_dir / "evaluation.json"
    took, logged = (run_dir.with_name(f"{run_dir.name}.{what}") for what in ("seconds", "log"))
    if not written.exists():
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        begun = any((run_dir / "checkpoints").glob("step-*"))
        what = ["--resume", str(run_dir)] if begun else [config, *settings, f"run_dir={run_dir}"]
        command = [str(Path(sys.executable).with_name("distmeta")), "train", *what]
        print(" ".join(command), file=sys.stderr, flush=True)
        started = time.monotonic()
        with logged.open("a", encoding="utf-8") as log:
            code = subprocess.run(command, stderr=log, check=False).returncode
        with took.open("a", encoding="utf-8") as file:  # a line an attempt
            file.write(f"{time.monotonic() - started:.1f}\n")
        if code:
            sys.exit(f"it ended with exit code {code}; see {logged}")
    result: Run = json.loads(written.read_text(encoding="utf-8"))
    return {**result, "seconds": sum(map(float, took.read_text(encoding="utf-8").split()))}


def meta_tests(results: Results, rows: Sequence[str], columns: Sequence[str]) -> list[list[str]]:
    """The rows of a table of meta-tests, its title first: those of the table, then the baselines of the first."""
    one = results[rows[0], columns[0]][0]["meta_test"]
    baselines = [base["name"] for base in one[0]["baselines"]]
    learners = {(row, 0): row for row in rows}
    learners |= {(rows[0], 1 + number): name for number, name in enumerate(baselines) if number}
    # Of one family the shots alone tell rows apart.
    several = len({its["family"] for its in one}) > 1
    titles = [its["title"] if several else f"{its['shape']['shots']}-shot" for its in one]
    lines = [["", *(f"{column} {title}".strip() for column in columns for title in titles), "seconds"]]
    for (row, which), name in learners.items():
        cells = [
            show([run["meta_test"][i] for run in results[row, column]], which)
            for column in columns
            for i in range(len(one))
        ]
        seconds = sum(run["seconds"] for column in columns for run in results[row, column])
        lines.append([name, *cells, "" if which else f"{seconds:.0f}"])
    return lines


def show(rows: Sequence[dict[str, Any]], which: int) -> str:
    """Mean over splits and its interval: of the learner (0) or of its baseline of that number."""
    chosen = [row["baselines"][which - 1] if which else row for row in rows]
    if any("diverged" in row for row in chosen):
        return "diverged"
    score, scale = ("accuracy", 100) if "accuracy" in rows[0] else ("mse", 1)
    mean = scale * sum(row[score] for row in chosen) / len(chosen)
    half = scale * sum(row["ci95"] ** 2 for row in chosen) ** 0.5 / len(chosen)
    return f"{mean:.1f} ± {half:.1f}" if scale == 100 else f"{mean:.2f} ± {half:.2f}"


def streams(results: Results, rows: Sequence[str], columns: Sequence[str]) -> list[list[str]]:
    """The rows of a table of streams, its title first; the last is that of learning each task by itself.

    At the fewest shots: the mean regret of a round on arrival, against what the first row's learner makes of the same
    episodes in hindsight; accuracy on arrival; accuracy on the earlier rounds when the stream has ended.
    """
    lines = [["", *(f"{column} {what}".strip() for column in columns for what in ("regret", "accuracy", "kept"))]]
    for row, prefix in [*((row, "") for row in rows), (rows[0], "independent_")]:
        cells: list[str] = []
        for column in columns:
            pairs = zip(results[row, column], results[rows[0], column], strict=True)
            figures = np.array([stream_figures(own, first, prefix) for own, first in pairs]).T
            cells += [f"{mean(its):.{d}f} ± {half_width(its):.{d}f}" for its, d in zip(figures, (3, 1, 1), strict=True)]
        if prefix:  # what each task learned by itself is not kept
            cells[2::3] = [""] * len(columns)
        lines.append([f"{rows[0]}, each task by itself" if prefix else row, *cells])
    return lines


def stream_figures(own: Run, first: Run, prefix: str) -> tuple[float, float, float]:
    """Means over a stream's rounds: regret, accuracy on arrival and accuracy in the end, both in %."""
    shots = min(row["shots"] for row in own["stream"]["rounds"])
    rounds, reference = ([row for row in run["stream"]["rounds"] if row["shots"] == shots] for run in (own, first))
    regret = mean([row[f"{prefix}loss"] - best["final_loss"] for row, best in zip(rounds, reference, strict=True)])
    arrival = mean([100 * row[f"{prefix}accuracy"] for row in rounds])
    return regret, arrival, mean([100 * row["final_accuracy"] for row in rounds[:-1]])


def mean(values: Sequence[float] | np.ndarray) -> float:
    """Their mean."""
    return float(np.mean(values))


def half_width(values: np.ndarray) -> float:
    """Of the 95 % interval of a mean of few: Student's t."""
    from scipy.stats import t

    return float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)


if __name__ == "__main__":
    main()
