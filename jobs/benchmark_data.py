"""Measures how long it takes to read, split and look at a million labelled texts, and how much memory.

    python jobs/benchmark_data.py FOLDER
    python jobs/benchmark_data.py FOLDER --rows 100_000

Makes sentences of 10 to 20 words with 200 labels in FOLDER, as CSV, JSON lines and parquet. Each file is read in a
process of its own, on one core, with one thread. Memory is the peak of the process, libraries included. Needs Linux.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import random
import re
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

CLASSES, WORDS, PART = 200, 20_000, 50_000


def main() -> None:
    """Prints a table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the files are made")
    parser.add_argument("--rows", type=int, default=1_000_000, help="texts in each file")
    arguments = parser.parse_args()
    print("| file | rows | read, s | split, s | look, s | peak, MB |\n|---|---:|---:|---:|---:|---:|")
    for path in write(arguments.folder, arguments.rows):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            rows, seconds, peak = pool.submit(measure, path).result()
        print(
            f"| {path.name} | {rows:,} | {' | '.join(f'{value:.1f}' for value in seconds)} | {peak:,.0f} |", flush=True
        )


def write(folder: Path, rows: int) -> list[Path]:
    """The three files, written part by part."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"texts.{ending}" for ending in ("csv", "jsonl", "parquet")]
    schema = pa.schema({"text": pa.string(), "label": pa.string()})
    with paths[0].open("w", newline="") as delimited, paths[1].open("w") as lines:
        writer = csv.writer(delimited)
        writer.writerow(schema.names)
        with pq.ParquetWriter(paths[2], schema) as parquet:
            for part in parts(rows):
                writer.writerows(part)
                lines.writelines(json.dumps({"text": text, "label": label}) + "\n" for text, label in part)
                parquet.write_table(pa.table(list(zip(*part, strict=True)), schema))
    return paths


def parts(rows: int) -> Iterator[list[tuple[str, str]]]:
    """Texts and labels."""
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(WORDS)]
    for start in range(0, rows, PART):
        yield [
            (" ".join(chance.choices(words, k=chance.randint(10, 20))), f"class {chance.randrange(CLASSES):03}")
            for _ in range(min(PART, rows - start))
        ]


def measure(path: Path) -> tuple[int, list[float], float]:
    """Rows; seconds of reading, splitting and looking; and the process's peak memory in MB."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    from distmeta.config import DataConfig
    from distmeta.data.look import look
    from distmeta.data.sources import read_source
    from distmeta.data.splits import SPLITS, split_classes

    data, times = DataConfig(path=str(path)), [time.perf_counter()]
    source = read_source(data)
    times.append(time.perf_counter())
    splits = split_classes(source, data, ways=dict.fromkeys(SPLITS, 5), examples_per_class=1)
    times.append(time.perf_counter())
    look(source, splits, data.min_examples)
    times.append(time.perf_counter())
    seconds = [end - start for start, end in pairwise(times)]
    # Not the rusage of the process: a new process takes that of its parent over.
    peak = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return len(source.texts), seconds, int(peak[0]) / 1000


if __name__ == "__main__":
    main()
