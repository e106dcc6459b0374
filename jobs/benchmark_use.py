"""Measures what a meta-trained learner is worth in use, beside SetFit on the same episodes.

    python jobs/benchmark_use.py RUN speed
    python jobs/benchmark_use.py RUN accuracy --shots 5 --episodes 50 --setfit ENCODER --out results.jsonl
    python jobs/benchmark_use.py RUN help --shots 1 --episodes 200
    python jobs/benchmark_use.py RUN suggest --episodes 100
    python jobs/benchmark_use.py RUN several --shots 5 --episodes 100

- `speed`: seconds to adapt to ten classes from 50 texts, on one thread; the start of the process apart.
- `accuracy`: five-way meta-test episodes, through `Learner.adapt` and texts. With `--setfit`, SetFit is trained on the
  same texts with its own defaults, from ENCODER, the folder that the run's `model.path` names. Each episode's figures
  go to `--out`; a second call goes on from there. SetFit takes minutes for each episode.
- `help`: the same episodes with descriptions (the classes' names) and with texts without labels, paired. With
  `--beside OTHER`, the run OTHER too, and how far RUN is ahead of it on each.
- `suggest`: ten classes with one text each, and a pool in which a class has 3 to 15 texts; the accuracy after 5, 10, 20
  and 40 labels for suggested and for random texts of the pool, paired.
- `several`: ten classes, in which half of all texts have another class's text behind them and so two labels; F1 with
  the task's thresholds, beside one threshold of 0.5, and the likeliest class alone, paired.

Figures are means over episodes with 95 % intervals. RUN's own data are read for its meta-test texts.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import distmeta
from distmeta.report.statistics import mean_ci95
from distmeta.runs import directory
from distmeta.runs.settings import make_kinds
from distmeta.use.learner import Learner
from distmeta.use.several import figures
from distmeta.use.suggest import suggest

QUERIES, UNLABELLED = 5, 10  # texts of a class
LABELS = (5, 10, 20, 40)


class Episode(NamedTuple):
    """Texts and labels of support, query and the rest of each class."""

    support: tuple[list[str], list[str]]
    query: tuple[list[str], list[str]]
    rest: tuple[list[str], list[str]]


class Texts:
    """The meta-test texts of a run, by class.

    Args:
        run: its directory.
    """

    def __init__(self, run: Path) -> None:
        config, _ = directory.read(run, [])
        (name,) = config.families
        read: Any = make_kinds(config)[name].read(name, config.single(name))
        self.by_class = {label: read.source.texts_of([label]).to_pylist() for label in read.splits["meta_test"]}

    def episode(self, index: int, ways: int, shots: int, rest: Callable[[Any], int] = lambda generator: 0) -> Episode:
        """An episode of classes that have enough texts: a pure function of its arguments."""
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([index, ways, shots])))
        sizes = [rest(generator) for _ in range(ways)]
        most = shots + QUERIES + max(sizes)
        classes = [label for label, texts in self.by_class.items() if len(set(texts)) >= most]
        chosen = [classes[number] for number in generator.choice(len(classes), ways, replace=False)]
        parts: list[tuple[list[str], list[str]]] = [([], []), ([], []), ([], [])]
        for label, size in zip(chosen, sizes, strict=True):
            texts = list(dict.fromkeys(self.by_class[label]))
            picked = [texts[number] for number in generator.choice(len(texts), shots + QUERIES + size, replace=False)]
            ends = (0, shots, shots + QUERIES, shots + QUERIES + size)
            for part, start, end in zip(parts, ends, ends[1:], strict=False):
                part[0].extend(picked[start:end])
                part[1].extend([label] * (end - start))
        return Episode(*parts)


def main() -> None:
    """Measures and prints a table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's directory")
    parser.add_argument("what", choices=["speed", "accuracy", "help", "suggest", "several"])
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--setfit", type=Path, help="the folder of the encoder that SetFit starts from")
    parser.add_argument("--beside", type=Path, help="another run's directory, with the same data")
    parser.add_argument("--out", type=Path, help="a file for each episode's figures, to go on from")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    learner, texts = distmeta.load(arguments.run), Texts(arguments.run)
    if arguments.what == "speed":
        print("| texts | classes | adapt, median of 5, s | the first, which also builds the network, s |")
        print("|---:|---:|---:|---:|")
        first, *others = speed(learner, texts)
        print(f"| 50 | 10 | {np.median(others):.2f} | {first:.2f} |")
    elif arguments.what == "suggest":
        print(f"| texts | {' | '.join(f'{count} labels' for count in LABELS)} |\n|---|{'---:|' * len(LABELS)}")
        show(suggestions(learner, texts, arguments.episodes))
    elif arguments.what == "several":
        print("| | micro F1, % | behind | macro F1, % | behind |\n|---|---:|---:|---:|---:|")
        show_f1(list(label_sets(learner, texts, arguments.shots, arguments.episodes)))
    else:
        print("| | accuracy, % | ahead |\n|---|---:|---:|")
        found = list((helped if arguments.what == "help" else compared)(learner, texts, arguments))
        show_paired(found)
        if arguments.beside:
            print(f"\n| {arguments.beside} | accuracy, % | behind |\n|---|---:|---:|")
            others = list(helped(distmeta.load(arguments.beside), texts, arguments))
            for name in others[0]:
                own, other = (np.array([row[name] for row in rows]) for rows in (found, others))
                print(f"| {name} | {percent(other)} | {percent(own - other)} |")


def speed(learner: Learner, texts: Texts) -> Iterator[float]:
    """Seconds of adapting to ten classes with five texts each; the first also builds the network."""
    for index in range(6):
        support = texts.episode(index, 10, 5).support
        started = time.perf_counter()
        learner.adapt(*support)
        yield time.perf_counter() - started


def compared(learner: Learner, texts: Texts, arguments: argparse.Namespace) -> Iterator[dict[str, float]]:
    """The accuracy and seconds of each episode, of the learner and of SetFit if it is asked for."""
    out: Path | None = arguments.out
    done = [json.loads(line) for line in out.read_text().splitlines()] if out and out.exists() else []
    yield from done[: arguments.episodes]
    for index in range(len(done), arguments.episodes):
        episode = texts.episode(index, 5, arguments.shots)
        started = time.perf_counter()
        task = learner.adapt(*episode.support)
        figures = {"seconds": time.perf_counter() - started, "meta-trained": task.score(*episode.query)}
        if arguments.setfit:
            started = time.perf_counter()
            predict = train_setfit(arguments.setfit, *episode.support, seed=index)
            figures["seconds of SetFit"] = time.perf_counter() - started
            given = zip(predict(episode.query[0]), episode.query[1], strict=True)
            figures["SetFit"] = float(np.mean([found == label for found, label in given]))
        if out:
            with out.open("a") as file:
                file.write(json.dumps(figures) + "\n")
        yield figures


def train_setfit(encoder: Path, texts: list[str], labels: list[str], seed: int) -> Callable[[list[str]], list[str]]:
    """SetFit 1.2 with its defaults, from the encoder with mean pooling and features of unit length."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression

    body = Transformer(str(encoder), max_seq_length=64)
    modules = [body, Pooling(body.get_word_embedding_dimension(), "mean"), Normalize()]
    model = SetFitModel(SentenceTransformer(modules=modules, device="cpu"), labels=sorted(set(labels)))
    model.model_head = LogisticRegression()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = TrainingArguments(output_dir=folder, seed=seed, report_to="none", show_progress_bar=False)
        data = Dataset.from_dict({"text": texts, "label": labels})
        Trainer(model=model, args=options, train_dataset=data).train()
    return lambda queries: [str(label) for label in model.predict(queries, show_progress_bar=False)]


def helped(learner: Learner, texts: Texts, arguments: argparse.Namespace) -> Iterator[dict[str, float]]:
    """The accuracy of each episode from its support set alone, and with what may help."""
    for index in range(arguments.episodes):
        episode = texts.episode(index, 5, arguments.shots, lambda generator: UNLABELLED)
        names = {label: re.sub(r"^T[\d.]+ ", "", label) for label in episode.support[1]}  # ATT&CK's begin with a number
        helps: dict[str, dict[str, Any]] = {
            "support set": {},
            "with the classes' names": {"descriptions": names},
            f"with {UNLABELLED} texts a class without labels": {"unlabelled": episode.rest[0]},
            "with both": {"descriptions": names, "unlabelled": episode.rest[0]},
        }
        yield {
            what: learner.adapt(*episode.support, **options).score(*episode.query) for what, options in helps.items()
        }


def suggestions(learner: Learner, texts: Texts, episodes: int) -> dict[str, np.ndarray]:
    """(episodes, stages) accuracies after each number of labels, for suggested and for random texts."""
    found: dict[str, list[list[float]]] = {"suggested": [], "random": []}
    for index in range(episodes):
        episode = texts.episode(index, 10, 1, lambda generator: int(generator.integers(3, 16)))
        for how, rows in found.items():
            generator, task = np.random.default_rng(index), learner.adapt(*episode.support)
            pool, labels = (list(part) for part in episode.rest)
            rows.append([])
            for before, after in zip((0, *LABELS), LABELS, strict=False):
                count = min(after - before, len(pool))
                picks = (
                    suggest(task, pool, count)
                    if how == "suggested"
                    else generator.choice(len(pool), count, replace=False).tolist()
                )
                task = task.grow([pool[i] for i in picks], [labels[i] for i in picks])
                kept = sorted(set(range(len(pool))) - set(picks))
                pool, labels = [pool[i] for i in kept], [labels[i] for i in kept]
                rows[-1].append(task.score(*episode.query))
    return {how: np.array(rows) for how, rows in found.items()}


def label_sets(learner: Learner, texts: Texts, shots: int, episodes: int) -> Iterator[dict[str, dict[str, float]]]:
    """The figures of each episode of texts with one label or two, by how labels are chosen."""
    for index in range(episodes):
        generator, episode = np.random.default_rng(index), texts.episode(index, 10, shots)
        support, query = (joined(*part, generator) for part in (episode.support, episode.query))
        task = learner.adapt(*support)
        shares = task.predict_proba(query[0])
        truth = np.array([[name in labels for name in task.names] for labels in query[1]])
        chosen = {
            "a threshold for each class": shares >= np.array(task.thresholds),
            "one threshold of 0.5": shares >= 0.5,
            "the likeliest class": shares == shares.max(1, keepdims=True),
        }
        yield {how: figures(found, truth) for how, found in chosen.items()}


def joined(texts: list[str], labels: list[str], generator: np.random.Generator) -> tuple[list[str], list[list[str]]]:
    """The texts, half of them with the text of another class behind them, and their labels."""
    found: tuple[list[str], list[list[str]]] = ([], [])
    for text, label in zip(texts, labels, strict=True):
        others = [number for number, its in enumerate(labels) if its != label]
        other = int(generator.choice(others))
        twice = generator.random() < 0.5
        found[0].append(f"{text} {texts[other]}" if twice else text)
        found[1].append([label, labels[other]] if twice else [label])
    return found


def show_f1(rows: list[dict[str, dict[str, float]]]) -> None:
    """A row for each way of choosing labels, and how far it is behind the first."""
    first = next(iter(rows[0]))
    for how in rows[0]:
        cells = []
        for name in ("micro_f1", "macro_f1"):
            own, ahead = (np.array([row[its][name] for row in rows]) for its in (how, first))
            cells += [percent(own), "" if how == first else percent(ahead - own)]
        print(f"| {how} | {' | '.join(cells)} |")


def show(found: dict[str, np.ndarray]) -> None:
    """A row for each way of choosing, and their paired difference."""
    rows = {**found, "difference": found["suggested"] - found["random"]}
    for how, values in rows.items():
        print(f"| {how} | {' | '.join(percent(column) for column in values.T)} |")


def show_paired(rows: list[dict[str, float]]) -> None:
    """A row for each learner, and how far it is ahead of the first; seconds are medians."""
    names = [name for name in rows[0] if not name.startswith("seconds")]
    values = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    for name in names:
        ahead = "" if name == names[0] else percent(values[name] - values[names[0]])
        print(f"| {name} | {percent(values[name])} | {ahead} |")
    for name in sorted(values.keys() - set(names)):
        print(f"\n{name}: {np.median(values[name]):.2f}", end="")
    print()


def percent(values: np.ndarray) -> str:
    """Mean and interval in %."""
    mean, half = mean_ci95(values)
    return f"{100 * mean:.1f} ± {100 * half:.1f}"


if __name__ == "__main__":
    main()
