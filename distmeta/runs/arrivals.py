"""Evaluates the rounds of a stream: on arrival (before any training on them), at their end, and in hindsight.

The regret of a round is the loss on its held-out queries after adaptation to k examples a class, minus the loss of the
stream's last θ on the same episodes (Finn et al. 2019, §2, with that θ in place of the best one in hindsight).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distmeta.backends.base import Coordination
from distmeta.engine.interfaces import Evaluation, Work
from distmeta.errors import CheckpointError
from distmeta.report import figures
from distmeta.report.statistics import mean_ci95
from distmeta.report.tables import cell
from distmeta.runs import directory
from distmeta.runs.experiment import Experiment
from distmeta.storage import parse_object, require_format
from distmeta.tasks.rounds import Schedule, nearest
from distmeta.tasks.visits import of_round, schedule_of
from distmeta.tracking import Tracker

FORMAT = 1  # of stream.json
STREAM, GRAPH, TABLE = "stream.json", "task_graph.png", "task_graph.csv"
Row = dict[str, Any]
Wanted = tuple[int, int, bool]  # round, shots, whether from the first θ with nothing carried over


class Arrivals:
    """Evaluates the rounds of a run. The results are written to the run's directory, where a resumed run reads them.

    Args:
        experiment: a run with a stream.
        coordination: runs the evaluations.
        run_dir: the run's directory.
        tracker: where `stream/…` is logged.
        done: outer steps so far. Results on file of later rounds are evaluated again.

    Raises:
        CheckpointError: the file cannot be read, or its evaluations had other settings.
    """

    def __init__(
        self,
        experiment: Experiment,
        coordination: Coordination,
        run_dir: Path,
        tracker: Tracker,
        note: Callable[[str], None],
        done: int,
    ) -> None:
        self.experiment, self.coordination, self.tracker, self.note = experiment, coordination, tracker, note
        ((name, self.family),) = experiment.setup.families.items()
        self.stream, self.path = experiment.streams[name]["meta_train"][0], run_dir / STREAM
        self.schedule = schedule_of(self.family)
        self.shots = experiment.config.evaluation.shots
        evaluation = experiment.config.evaluation
        self.settings = {"shots": self.shots, "queries": evaluation.queries, "seed": evaluation.seed}
        self.rows: dict[tuple[int, int], Row] = {}
        if done:
            self.rows = {(row["round"], row["shots"]): row for row in self._read()}

    def arrive(self, round: int, done: int) -> None:
        """Evaluates a round before it is trained on, and the round that has just ended."""
        wanted = [(round, False), (round, True), *([(round - 1, False)] if round else [])]
        found = self._evaluate([(r, shots, alone) for r, alone in wanted for shots in self.shots])
        for shots in self.shots:
            now, alone = found[round, shots, False], found[round, shots, True]
            self.rows[round, shots] = {
                **{"round": round, "task": self.schedule.title(round), "shots": shots},
                **now,
                **{f"independent_{name}": value for name, value in alone.items()},
            }
            logged = dict(list(self.rows[round, shots].items())[3:])
            if round:
                ended = found[round - 1, shots, False]
                learned = {f"learned_{name}": value for name, value in ended.items()}
                self.rows[round - 1, shots] |= learned
                logged |= learned
            self.tracker.log(done, {f"stream/{name}_{shots}shot": value for name, value in logged.items()})
        self._write({"rounds": self._listed()})

    def finish(self, done: int) -> Row:
        """Evaluates all rounds under the last θ, draws the graph, and returns all results."""
        wanted = [(round, shots, False) for round in range(len(self.schedule.tasks)) for shots in self.shots]
        for (round, shots, _), last in self._evaluate(wanted).items():
            self.rows[round, shots] |= {f"final_{name}": value for name, value in last.items()}
        score = self.family.score.name
        result = {"rounds": self._listed(), "summary": [summarise(self._listed(k), k, score) for k in self.shots]}
        for row in result["summary"]:
            values = {f"stream/{name}_{row['shots']}shot": value for name, value in row.items() if name != "shots"}
            self.tracker.log(done, values, again=True)
        self._write(result)
        if self.schedule.similarity.any():
            edges = edge_rows(self.schedule)
            table, graph = self.path.parent / TABLE, self.path.parent / GRAPH
            with table.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(edges[0]))
                writer.writeheader()
                writer.writerows({key: cell(value) for key, value in row.items()} for row in edges)
            titles = [self.schedule.title(round) for round in range(len(self.schedule.tasks))]
            drawn = [(row["round"], row["earlier_round"], row["start_weight"]) for row in edges if row["start_weight"]]
            drawn = drawn or [(row["round"], row["earlier_round"], row["replay_weight"]) for row in edges]

            def draw() -> Iterator[Path]:
                figures.task_graph(titles, drawn, graph)
                yield graph

            for path in (table, *figures.attempt(self.note, draw)):
                self.tracker.log_artifact(path)
        self.tracker.log_artifact(self.path)
        return result

    def _evaluate(self, wanted: Sequence[Wanted]) -> dict[Wanted, dict[str, float]]:
        """Figures of the held-out episodes of each round that is wanted."""
        evaluated = self.coordination.evaluate([self._evaluation(*key) for key in wanted])
        return {key: self.family.figures(found.require()) for key, found in zip(wanted, evaluated, strict=True)}

    def _evaluation(self, round: int, shots: int, independent: bool) -> Evaluation:
        experiment, config = self.experiment, self.experiment.config
        neighbours = 0 if independent else config.stream.neighbours
        stream = of_round(self.stream, round, shots, config.evaluation, neighbours)
        cached = experiment.setup.training.cache_features
        work = Work(stream, experiment.learner, training=False, cache_features=cached)
        return Evaluation(work, 0, config.stream.episodes, config.evaluation.episodes_per_unit, initial=independent)

    def _listed(self, shots: int | None = None) -> list[Row]:
        return [self.rows[key] for key in sorted(self.rows) if shots in (None, key[1])]

    def _write(self, content: Row) -> None:
        aside = self.path.with_suffix(".part")
        directory.write_json(aside, {"format": FORMAT, "evaluation": self.settings, **content})
        aside.replace(self.path)

    def _read(self) -> list[Row]:
        try:
            content = parse_object(self.path.read_text(encoding="utf-8"))
            require_format(content, self.path, FORMAT)
            written, rows = content["evaluation"], list[Row](content["rounds"])
        except (OSError, ValueError, LookupError) as error:
            remedy = "restore it from a backup, or start a new run"
            raise CheckpointError(str(self.path), f"cannot be read ({error})", remedy) from error
        if written != self.settings:
            found = f"its rounds so far were evaluated with {written}, not {self.settings}"
            raise CheckpointError(str(self.path), found, "give the same evaluation.shots, queries and seed")
        return rows


def stored(run_dir: Path) -> Row | None:
    """What `Arrivals.finish` returned; None if the run has not finished."""
    if not (run_dir / STREAM).exists():
        return None
    content: Row = json.loads((run_dir / STREAM).read_text(encoding="utf-8"))
    return {name: content[name] for name in ("rounds", "summary")} if "summary" in content else None


def summarise(rows: Sequence[Row], shots: int, score: str) -> Row:
    """Means over rounds with their 95 % intervals; differences are paired by round.

    Args:
        rows: one a round. Each holds `loss` and `score` of the learner on arrival. Prefixes: `independent_` for the
            independent learner, `learned_` at the round's end (all rounds but the last), `final_` after the stream.
        shots: examples a class that were adapted to.
        score: the name of the task kind's score.

    Returns:
        `regret` of both learners; `ahead_loss`, the independent learner's loss minus the learner's on arrival;
        `ahead_` and the score, the learner's minus the independent one's; `earlier_` and the score, of earlier rounds
        after the stream; `forgetting`, the part of that score that was lost since the round's end.
    """

    def column(name: str, among: Sequence[Row] = rows) -> np.ndarray:
        return np.array([row[name] for row in among])

    best, earlier = column("final_loss"), rows[:-1]
    values = {
        "regret": column("loss") - best,
        "independent_regret": column("independent_loss") - best,
        "ahead_loss": column("independent_loss") - column("loss"),
        score: column(score),
        f"independent_{score}": column(f"independent_{score}"),
        f"ahead_{score}": column(score) - column(f"independent_{score}"),
    }
    if len(earlier) > 1:
        final = column(f"final_{score}", earlier)
        values |= {f"earlier_{score}": final, "forgetting": column(f"learned_{score}", earlier) - final}
    result: Row = {"shots": shots}
    for name, series in values.items():
        result[name], result[f"{name}_ci95"] = mean_ci95(series)
    return result


def edge_rows(schedule: Schedule) -> list[Row]:
    """The graph as a table: each round with all rounds that are remembered when it arrives, nearest first."""
    per_round, rows = len(schedule.sources) // len(schedule.tasks), []
    for round in range(1, len(schedule.tasks)):
        own = schedule.sources[round * per_round : (round + 1) * per_round]
        start = {edge.round: edge.weight for edge in schedule.edges(round, round, schedule.config.neighbours)}
        rows += [
            {
                "round": round,
                "task": schedule.title(round),
                "earlier_round": edge.round,
                "earlier_task": schedule.title(edge.round),
                "similarity": float(schedule.similarity[round, edge.round]),
                "start_weight": start.get(edge.round, 0.0),
                "replay_weight": edge.weight,
                "replayed_episodes": int((own == edge.round).sum()),
            }
            for edge in nearest(schedule.similarity[round], schedule.buffer(round), schedule.config, None)
        ]
    return rows
