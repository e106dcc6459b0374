"""Tables of many runs: every row on every data set and class split, each a run of `distmeta train` that is kept.

    python jobs/leaderboard.py jobs/leaderboard.yaml intents runs/leaderboard

A run that is finished is only read, and one that was stopped goes on. The table is printed as Markdown; each run's own
figures and log stay in its directory. Seconds are those of whole commands, start and evaluation included. The interval
of a mean over splits is that of the mean of independent means: it says how sure the figure is for these classes, not
for others.
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

import yaml


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
    """Runs what is missing, and returns the table as Markdown: the rows, then the baselines of the first row."""
    columns = table.get("columns", {"": []})
    results = {
        (row, column): [
            finish(
                table["config"],
                [*table.get("settings", []), *where, *its, *settings, *([f"data.split={split}"] if split else [])],
                out / re.sub(r"[^\w.-]+", "_", "-".join(str(part) for part in (row, column, split) if part)).lower(),
            )
            for split in table.get("splits", [None])
        ]
        for row, its in table["rows"].items()
        for column, where in columns.items()
    }
    first = next(iter(table["rows"]))
    learners = {(row, 0): row for row in table["rows"]}
    baselines = results[first, next(iter(columns))][0]["meta_test"][0]["baselines"]
    learners |= {(first, 1 + number): base["name"] for number, base in enumerate(baselines) if number}
    shots = [row["shots"] for row in results[first, next(iter(columns))][0]["meta_test"]]
    lines = [["", *(f"{column} {number}-shot".strip() for column in columns for number in shots), "seconds"]]
    for (row, which), name in learners.items():
        cells = [
            show([run["meta_test"][i] for run in results[row, column]], which)
            for column in columns
            for i in range(len(shots))
        ]
        seconds = sum(run["seconds"] for column in columns for run in results[row, column])
        lines.append([name, *cells, "" if which else f"{seconds:.0f}"])
    lines.insert(1, ["---", *["---:"] * (len(lines[0]) - 1)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def finish(config: str, settings: Sequence[str], run_dir: Path) -> dict[str, Any]:
    """The result of a run, which is started, resumed or only read."""
    written, took = run_dir / "evaluation.json", run_dir.with_suffix(".seconds")
    if not written.exists():
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        begun = any((run_dir / "checkpoints").glob("step-*"))
        what = ["--resume", str(run_dir)] if begun else [config, *settings, f"run_dir={run_dir}"]
        command = [str(Path(sys.executable).with_name("distmeta")), "train", *what]
        print(" ".join(command), file=sys.stderr, flush=True)
        started = time.monotonic()
        with run_dir.with_suffix(".log").open("a", encoding="utf-8") as log:
            code = subprocess.run(command, stderr=log, check=False).returncode
        with took.open("a", encoding="utf-8") as file:  # a line an attempt
            file.write(f"{time.monotonic() - started:.1f}\n")
        if code:
            sys.exit(f"it ended with exit code {code}; see {run_dir.with_suffix('.log')}")
    result: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
    return {**result, "seconds": sum(map(float, took.read_text(encoding="utf-8").split()))}


def show(rows: Sequence[dict[str, Any]], which: int) -> str:
    """Mean over splits and its interval: of the learner (0) or of its baseline of that number."""
    chosen = [row["baselines"][which - 1] if which else row for row in rows]
    score, scale = ("accuracy", 100) if "accuracy" in rows[0] else ("mse", 1)
    mean = scale * sum(row[score] for row in chosen) / len(chosen)
    half = scale * sum(row["ci95"] ** 2 for row in chosen) ** 0.5 / len(chosen)
    return f"{mean:.1f} ± {half:.1f}" if scale == 100 else f"{mean:.2f} ± {half:.2f}"


if __name__ == "__main__":
    main()
