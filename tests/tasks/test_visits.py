"""Tasks that persist, and the episodes of those that arrive in rounds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_helpers import episodes
from streams import STREAM, stream_config, visit, write_tasks
from toy import changed, evaluated, toy_config

from distmeta.algorithms.maml import MAML
from distmeta.config import DataConfig, RunConfig
from distmeta.data.sources import read_source
from distmeta.data.splits import split_tasks
from distmeta.errors import DataError, UserError
from distmeta.runs.experiment import build_experiment
from distmeta.tasks.classification import Classification
from distmeta.tasks.rounds import Schedule, check_stream
from distmeta.tasks.visits import kept_rows, schedule_of


def kind_of(config: RunConfig) -> tuple[Classification, Schedule]:
    family = build_experiment(config).setup.families["classification"]
    assert isinstance(family, Classification)
    return family, schedule_of(family)


def test_an_episode_is_of_one_task_in_label_order(tmp_path: Path) -> None:
    kind, its = kind_of(stream_config(tmp_path))
    training = visit((2, 2, 2))
    assert len(its.sources) == 4 * 3 * 5
    assert its.sources[0] == its.sources[1]
    drawn = [
        kind.draw(changed(training, seed=seed), index).support.tolist() for seed, index in ((0, 0), (0, 1), (1, 0))
    ]
    assert drawn[0] != drawn[1]
    assert drawn[0] != drawn[2]
    for index, round in enumerate(its.sources):
        draw = kind.draw(training, index)
        domain = draw.names[0].split("/")[0]
        assert draw.names == its.tasks[round] == (f"{domain}/0", f"{domain}/1")
        for name, rows in zip(draw.names, np.hstack([draw.support, draw.query]), strict=True):
            assert len(set(rows)) == 4
            assert set(rows) <= set(its.share(int(round), name, kind.corpus.rows_of(name))[1])
    plain = evaluated(build_experiment(stream_config(tmp_path)), "meta_test", 1)
    domains = {tuple(name.split("/")[0] for name in kind.draw(plain, i).names) for i in range(30)}
    assert all(first == second for first, second in domains)
    assert len(domains) == 2


def test_evaluation_sees_only_what_training_never_does(tmp_path: Path) -> None:
    kind, its = kind_of(stream_config(tmp_path))
    training = episodes(kind, visit((2, 2, 2), neighbours=2), 0, 60)
    trained = {int(row) for batch in (training.support, training.query) for row in batch.inputs["rows"].flatten()}
    for round in range(4):
        held_out = episodes(kind, visit((2, 2, 2), round=round), 0, 30)
        seen = {int(row) for batch in (held_out.support, held_out.query) for row in batch.inputs["rows"].flatten()}
        assert not seen & trained
        assert set(held_out.names) == {its.tasks[round]}


def test_a_replayed_episode_takes_only_what_is_kept(tmp_path: Path) -> None:
    kind, its = kind_of(stream_config(tmp_path))
    replayed = [i for i in range(60) if its.sources[i] < its.round_at(i)]
    assert len(replayed) == 3 * 3 * 2
    for index in replayed:
        draw = kind.draw(visit((2, 2, 2)), index)
        kept = kept_rows(kind.corpus, its, int(its.sources[index]))
        assert kept.shape == (2, 5)
        for its_rows, rows in zip(kept, np.hstack([draw.support, draw.query]), strict=True):
            assert set(rows) <= set(its_rows)


def test_what_is_kept_of_the_nearest_rounds_comes_along(tmp_path: Path) -> None:
    kind, its = kind_of(stream_config(tmp_path))
    near_by, bare = (visit((2, 1, 1), round=2, neighbours=n) for n in (2, 0))
    own, support = episodes(kind, bare, 0, 3).support, episodes(kind, near_by, 0, 3).support
    assert support.inputs["rows"].shape == (3, 2 * 2 * 5 + 2)
    assert support.inputs["rows"][:, 20:].tolist() == own.inputs["rows"].tolist()
    assert support.weights.tolist() == [[0.0] * 20 + [1.0] * 2] * 3
    assert support.targets[0, :20].tolist() == ([0] * 5 + [1] * 5) * 2
    near, far = its.edges(2, 2, 2)
    expected = [near.weight] * 10 + [far.weight] * 10 + [0.0] * 2
    assert support.inputs["memory"][1].tolist() == pytest.approx(expected)
    assert support.inputs["rows"][0, :10].tolist() == kept_rows(kind.corpus, its, near.round).flatten().tolist()
    training = visit((2, 1, 1), neighbours=2)
    again = next(i for i in range(60) if its.sources[i] < its.round_at(i) == 3)
    replayed = episodes(kind, training, again, 1).support
    (only,) = its.edges(3, int(its.sources[again]), 2)  # it is no neighbour of its own
    assert replayed.inputs["memory"].tolist() == [[only.weight] * 10 + [0.0] * 12]
    first = episodes(kind, changed(near_by, round=0), 0, 1).support
    assert first.inputs["memory"].tolist() == [[0.0] * 22]
    both = episodes(kind, training, 14, 2).support  # the last of round 0 and the first of round 1
    assert (both.inputs["memory"].sum(1) > 0).tolist() == [False, True]


def test_rounds_are_alike_as_their_first_support_is_to_what_was_kept(tmp_path: Path) -> None:
    """Worked out text by text, under the values that training starts from, and without dropout."""
    experiment = build_experiment(stream_config(tmp_path, model__dropout=0.5))
    kind, its = kind_of(stream_config(tmp_path, model__dropout=0.5))
    model, theta = experiment.model, experiment.model.init()
    model.train(False)

    def mean(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            each = [model.features(theta, {}, kind.collate(np.array([[row]])))[0, 0] for row in rows.flatten()]
        return torch.stack(each).double().mean(0).numpy()

    for now, earlier in ((1, 0), (3, 1), (3, 2)):
        a, b = mean(kept_rows(kind.corpus, its, now)[:, :2]), mean(kept_rows(kind.corpus, its, earlier))
        expected = a @ b / np.sqrt((a @ a) * (b @ b))
        assert its.similarity[now, earlier] == pytest.approx(expected, abs=1e-6)
        assert abs(expected) < 0.999


def test_without_a_task_column_a_task_is_a_set_of_classes_drawn_once(tmp_path: Path) -> None:
    config = toy_config(
        tmp_path,
        **{"stream": {**STREAM["stream"], "tasks": 2, "examples": 1, "replay": 0}, "outer__steps": 6},
        **{"episodes": {"ways": 3, "shots": 1, "queries": 1}, "evaluation__shots": [1], "evaluation__queries": 1},
        algorithm__name="online",
    )
    kind, made = kind_of(config)
    assert len(set(made.tasks)) == 2
    for task in made.tasks:
        assert len(set(task)) == 3
        assert set(task) <= set(kind.corpus.splits["meta_train"])
    names = [kind.draw(visit((3, 1, 1)), i).names for i in range(3)]
    assert names == [made.tasks[0]] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stream__steps_per_task": 0}, "stream.steps_per_task: 0, but online is for tasks that arrive in rounds; set"),
        (
            {"stream__steps_per_task": 0, "algorithm__name": "proximal"},
            "stream.steps_per_task: 0, but proximal is for tasks that arrive in rounds",
        ),
        ({"algorithm": {"name": "distill", "teacher": "t"}}, "algorithm.teacher: set together with a stream; leave"),
        ({"stream__replay": 0.95}, "stream.replay: 0.95 of 5 episodes is 5; leave it out"),
        ({"evaluation__shots": [9]}, "in round 0 of the stream: 10 of 11 examples to evaluate on"),
        ({"outer__steps": 10}, "outer.steps: 10; set it to 12 for this stream"),
        ({"stream__replay": 0.05}, "stream.replay: 0.05 of 5 episodes is 0; leave it out"),
        ({"stream__examples": 3}, "stream.examples: 3 per class, but an episode needs 4; set it to 4 or more"),
        ({"stream__neighbours": 3}, "stream.neighbours: 3 of 2 remembered rounds; set it to 2 or less"),
        ({"algorithm__name": "maml"}, "stream.neighbours: maml starts from θ alone; set it to 0"),
        ({"algorithm__name": "proximal"}, "stream.replay: proximal keeps nothing of earlier tasks; set it to 0"),
        ({"stream__recurrence": 0.0, "stream__tasks": 5, "outer__steps": 15}, "stream.tasks: 5, but meta_train has 4"),
        ({"stream__gap": 4, "stream__tasks": 5, "outer__steps": 15}, "stream.gap: 4, but meta_train has 4 tasks, all"),
        ({"stream__examples": 30}, "in round 0 of the stream: 10 of 4 examples to evaluate on, and 10 of 30 to train"),
        (
            {"cluster__max_staleness": 2},
            "cluster.max_staleness: with a stream, whose rounds are in order; leave it out",
        ),
        ({"episodes__label_mixing": 0.5}, "episodes.label_mixing: mixed tasks with a stream; leave it out"),
        ({"episodes__ways": 3}, "task 'd0' (data.task): 2 classes, and episodes of meta_train have 3 ways; set"),
        ({"data__task": "domian"}, "no column 'domian' among 'text', 'label', 'domain'; set data.task=domain"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    merged: dict[str, Any] = {"stream": dict(STREAM["stream"]), "episodes": dict(STREAM["episodes"])}
    for key, value in change.items():
        section, _, name = key.partition("__")
        if section in merged:
            merged[section][name] = value
        else:
            merged[key] = value
    with pytest.raises(UserError) as caught:
        build_experiment(stream_config(tmp_path, **merged))
    assert message in str(caught.value)


def test_no_stream_means_no_checks() -> None:
    check_stream(RunConfig(), MAML())


def rows_of(folder: Path, rows: list[str]) -> DataConfig:
    (folder / "rows.csv").write_text("\n".join(["text,label,domain,shop", *rows]) + "\n", encoding="utf-8")
    thirds = {"train": 0.34, "validation": 0.33, "test": 0.33}
    return DataConfig.model_validate({"path": str(folder / "rows.csv"), "task": "domain", "splits": thirds})


WAYS = dict.fromkeys(("meta_train", "meta_validation", "meta_test"), 2)


def test_whole_tasks_go_into_a_split(tmp_path: Path) -> None:
    """Six tasks of two labels, and one whose second label has a single example."""
    rows = [f"t{n},{label},d{domain},s" for domain in range(6) for label in (10, 9) for n in range(3)]
    data = rows_of(tmp_path, [*rows, "t,9,small,s", "t,10,small,s", "u,10,small,s"])
    source = read_source(data)
    assert (source.labels[0].as_py(), source.tasks and source.tasks[0].as_py()) == ("d0/10", "d0")
    data = data.model_copy(update={"min_examples": 2})
    splits, tasks = split_tasks(source, data, ways=WAYS, examples_per_class=2)
    assert sorted(len(its) for its in tasks.values()) == [2, 2, 2]
    assert sorted(name for its in tasks.values() for name, _ in its) == [f"d{domain}/10" for domain in range(6)]
    for split, its in tasks.items():
        assert splits[split] == sorted(name for task in its for name in task)
        assert all(task == (task[0], task[0].replace("/10", "/9")) for task in its)


@pytest.mark.parametrize(
    ("extra", "change", "message"),
    [
        (["t,x,d0,s"], {}, "task 'd0' (data.task): 3 classes, and episodes of"),
        (["t,1,odd,s"], {}, "task 'odd' (data.task): 1 classes, and episodes of"),
        (["t,1,d0,other"], {"group": "shop"}, "class 'd0' is in group 'other', but at"),
        ([], {"min_examples": 4}, "data.splits: meta_train: none of 3 tasks; use more tasks"),
    ],
)
def test_tasks_that_do_not_do_are_named(tmp_path: Path, extra: list[str], change: dict[str, Any], message: str) -> None:
    rows = [f"t{n},{label},d{domain},s{domain}" for domain in range(3) for label in (0, 1) for n in range(3)]
    data = rows_of(tmp_path, [*rows, *extra]).model_copy(update=change)
    with pytest.raises(DataError) as caught:
        split_tasks(read_source(data), data, ways=WAYS, examples_per_class=2)
    assert message in str(caught.value)


def test_a_split_file_lists_tasks(tmp_path: Path) -> None:
    rows = [f"t{n},{label},d{domain},s" for domain in range(3) for label in (0, 1) for n in range(3)]
    (tmp_path / "splits.json").write_text('{"train": ["d2"], "validation": ["d0"], "test": ["d1"]}', encoding="utf-8")
    data = rows_of(tmp_path, rows).model_copy(update={"splits": str(tmp_path / "splits.json")})
    _, tasks = split_tasks(read_source(data), data, ways=WAYS, examples_per_class=2)
    assert tasks["meta_train"] == (("d2/0", "d2/1"),)
    assert tasks["meta_test"] == (("d1/0", "d1/1"),)


def test_classes_of_different_tasks_are_not_mixed(tmp_path: Path) -> None:
    write_tasks(tmp_path / "data.csv")
    shape = {"ways": 2, "shots": 2, "queries": 2, "label_mixing": 0.5}
    config = toy_config(tmp_path, data__task="domain", episodes=shape)
    with pytest.raises(UserError, match=r"classes of different tasks \(data\.task\) do not mix"):
        build_experiment(config)


def test_a_column_of_tasks_does_not_go_with_attack() -> None:
    with pytest.raises(DataError, match=r"data\.task: 'task' with data\.path=attack"):
        read_source(DataConfig(path="attack", task="task"))
