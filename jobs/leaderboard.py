"""Tables of many runs: one `distmeta train` for each row, data set and class split. The runs are kept.

    python jobs/leaderboard.py jobs/leaderboard.yaml intents runs/leaderboard

A finished run is only read, and a stopped run is resumed. The table is printed as Markdown; each run's own figures and
log stay in its directory. Seconds are those of whole commands, including start and evaluation. The interval of a mean
over splits treats the splits' means as independent: it holds for these classes, not for others. A table of streams of
tasks has a stream for each seed, and its intervals are over the streams.
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

Run = dict[str, Any]  # what `distmeta train --json` prints, and the seconds that it took
Results = dict[tuple[str, str], list[Run]]  # by row and column


def main() -> None:
    """Runs a table's missing runs, and prints the table."""
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
    """Runs the missing runs, and returns the table as Markdown."""
    columns, first = table.get("columns", {"": []}), next(iter(table["rows"]))
    key, values = ("seed", table["seeds"]) if "seeds" in table else ("data.split", table.get("splits", [None]))

    def finished(row: str, column: str, value: Any) -> Run:
        folders = (
            out / re.sub(r"[^\w.-]+", "_", "-".join(str(part) for part in (name, column, value) if part)).lower()
            for name in (row, first)
        )
        folder, of_first = (path.absolute() for path in folders)
        overrides = [*table.get("settings", []), *columns[column], *table["rows"][row], *settings]
        overrides += [f"{key}={value}"] if value is not None else []
        return finish(table["config"], [setting.replace("{first}", str(of_first)) for setting in overrides], folder)

    results = {
        (row, column): [finished(row, column, value) for value in values] for row in table["rows"] for column in columns
    }
    lines = (streams if "seeds" in table else meta_tests)(results, list(table["rows"]), list(columns))
    lines.insert(1, ["---", *["---:"] * (len(lines[0]) - 1)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def finish(config: str, settings: Sequence[str], run_dir: Path) -> Run:
    """The result of a run, which is started, resumed, or only read if it is finished."""
    written = run_dir / "evaluation.json"
    seconds_path, log_path = (run_dir.with_name(f"{run_dir.name}.{ending}") for ending in ("seconds", "log"))
    if not written.exists():
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        begun = any((run_dir / "checkpoints").glob("step-*"))
        what = ["--resume", str(run_dir)] if begun else [config, *settings, f"run_dir={run_dir}"]
        command = [str(Path(sys.executable).with_name("distmeta")), "train", *what]
        print(" ".join(command), file=sys.stderr, flush=True)
        started = time.monotonic()
        with log_path.open("a", encoding="utf-8") as log:
            code = subprocess.run(command, stderr=log, check=False).returncode
        with seconds_path.open("a", encoding="utf-8") as file:  # one line per attempt
            file.write(f"{time.monotonic() - started:.1f}\n")
        if code:
            sys.exit(f"the run ended with exit code {code}; see {log_path}")
    result: Run = json.loads(written.read_text(encoding="utf-8"))
    return {**result, "seconds": sum(map(float, seconds_path.read_text(encoding="utf-8").split()))}


def meta_tests(results: Results, rows: Sequence[str], columns: Sequence[str]) -> list[list[str]]:
    """The lines of a table of meta-tests: the header, the table's rows, then the baselines of the first row."""
    tests = results[rows[0], columns[0]][0]["meta_test"]
    baselines = [base["name"] for base in tests[0]["baselines"]]
    learners = {(row, 0): row for row in rows}
    learners |= {(rows[0], 1 + number): name for number, name in enumerate(baselines) if number}
    # With one family the shots alone tell the tests apart.
    is_mixed = len({test["family"] for test in tests}) > 1
    titles = [test["title"] if is_mixed else f"{test['shape']['shots']}-shot" for test in tests]
    lines = [["", *(f"{column} {title}".strip() for column in columns for title in titles), "seconds"]]
    for (row, which), name in learners.items():
        cells = [
            show([run["meta_test"][i] for run in results[row, column]], which)
            for column in columns
            for i in range(len(tests))
        ]
        seconds = sum(run["seconds"] for column in columns for run in results[row, column])
        lines.append([name, *cells, "" if which else f"{seconds:.0f}"])
    return lines


def show(rows: Sequence[dict[str, Any]], which: int) -> str:
    """Mean over splits and its interval: of the learner if `which` is 0, else of the baseline with that number."""
    chosen = [row["baselines"][which - 1] if which else row for row in rows]
    if any("diverged" in row for row in chosen):
        return "diverged"
    score, scale = ("accuracy", 100) if "accuracy" in rows[0] else ("mse", 1)
    mean = scale * sum(row[score] for row in chosen) / len(chosen)
    half = scale * sum(row["ci95"] ** 2 for row in chosen) ** 0.5 / len(chosen)
    return f"{mean:.1f} ± {half:.1f}" if scale == 100 else f"{mean:.2f} ± {half:.2f}"


def streams(results: Results, rows: Sequence[str], columns: Sequence[str]) -> list[list[str]]:
    """The lines of a table of streams: the header, the rows, then a row for learning each task by itself.

    The columns, at the fewest shots: a round's mean regret on arrival, against the loss of the first row's learner on
    the same episodes at the end of the stream; accuracy on arrival; accuracy on earlier rounds at the end.
    """
    lines = [["", *(f"{column} {what}".strip() for column in columns for what in ("regret", "accuracy", "kept"))]]
    for row, prefix in [*((row, "") for row in rows), (rows[0], "independent_")]:
        cells: list[str] = []
        for column in columns:
            pairs = zip(results[row, column], results[rows[0], column], strict=True)
            figures = np.array([stream_figures(own, first, prefix) for own, first in pairs]).T
            cells += [
                f"{mean(seeds):.{d}f} ± {half_width(seeds):.{d}f}" for seeds, d in zip(figures, (3, 1, 1), strict=True)
            ]
        if prefix:  # learners of single tasks are not kept until the end
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
    """The mean of values."""
    return float(np.mean(values))


def half_width(values: np.ndarray) -> float:
    """Half the width of the 95 % interval of the mean of a few values, by Student's t."""
    from scipy.stats import t

    return float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)


if __name__ == "__main__":
    main()
