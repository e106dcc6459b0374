"""Which of the classes, or tasks, meta-training draws from."""

from pathlib import Path
from typing import Any

import pytest
from streams import stream_config, write_tasks
from toy import toy_config, training_stream

from distmeta.errors import ConfigError
from distmeta.runs.check import summarise
from distmeta.runs.experiment import Experiment, build_experiment
from distmeta.tasks.base import manifest, manifest_sha256
from distmeta.tasks.visits import schedule_of
from distmeta.types import Stream


def drawn(experiment: Experiment, split: str = "meta_train", episodes: int = 40) -> set[str]:
    """The classes that episodes are of."""
    family, ways = experiment.setup.families["classification"], training_stream(experiment.setup)["ways"]
    stream = Stream.of("classification", split, 0, ways=ways, shots=1, queries=1)
    return {name for index in range(episodes) for name in family.draw(stream, index).names}


def test_meta_training_draws_from_the_classes_that_a_pattern_fits(tmp_path: Path) -> None:
    """Meta-validation and meta-test are what they were, episode by episode; so are the tokens, which trials share."""
    every = build_experiment(toy_config(tmp_path))
    names = every.splits["classification"]["meta_train"].classes
    some = build_experiment(toy_config(tmp_path, episodes__only=[names[0], f"*{names[2][-1]}", names[3], names[5]]))
    assert drawn(every) == set(names)
    wanted = {name for name in names if name in (names[0], names[3], names[5]) or name.endswith(names[2][-1])}
    assert drawn(some) == wanted
    assert len(wanted) < len(names)
    for split in ("meta_validation", "meta_test"):
        stream = Stream.of("classification", split, 0, ways=3, shots=1, queries=2)
        digests = [manifest_sha256(manifest(its.setup.families["classification"], stream, 30)) for its in (every, some)]
        assert digests[0] == digests[1]
    assert every.identity["data"] == some.identity["data"]
    assert every.identity["settings"] != some.identity["settings"]
    assert summarise(some)["splits"]["meta_train"]["classes"] == sorted(wanted)


def test_with_tasks_it_draws_from_those(tmp_path: Path) -> None:
    write_tasks(tmp_path / "data.csv")
    shape = {"data__task": "domain", "episodes__ways": 2}
    every = build_experiment(toy_config(tmp_path, **shape))
    first, second = sorted({name.split("/")[0] for name in every.splits["classification"]["meta_train"].classes})[:2]
    some = build_experiment(toy_config(tmp_path, **shape, episodes__only=[first, second]))
    assert drawn(some) == {f"{domain}/{label}" for domain in (first, second) for label in (0, 1)}
    assert drawn(some, "meta_validation") == drawn(every, "meta_validation")
    with pytest.raises(ConfigError, match=r"episodes\.only: 'd9\*' fits none of the \d that meta_train has"):
        build_experiment(toy_config(tmp_path, **shape, episodes__only=["d9*"]))


@pytest.mark.parametrize("kind", [{}, {"data__task": None, "data__label": "domain"}])
def test_a_stream_is_of_those_too(tmp_path: Path, kind: dict[str, Any]) -> None:
    """Of tasks, and of classes that are put together anew in each round."""

    def arrived(experiment: Experiment) -> set[str]:
        schedule = schedule_of(experiment.setup.families["classification"])
        return {name.split("/")[0] for task in schedule.tasks for name in task}

    every = build_experiment(stream_config(tmp_path, **kind))
    domains = {name.split("/")[0] for name in every.splits["classification"]["meta_train"].classes}
    others = domains - {min(arrived(every))}
    some = build_experiment(stream_config(tmp_path, **kind, episodes__only=sorted(others)))
    assert arrived(some) <= others


@pytest.mark.parametrize(
    ("only", "message"),
    [
        (["class 99"], "episodes.only: 'class 99' fits none of the 8 that meta_train has; "),
        (["nothing*"], "episodes.only: 'nothing*' fits none of the 8 that meta_train has; widen it"),
        (["{}", "{}"], "episodes.only: fits 2 classes, but episodes have 3 ways; widen it, or lower episodes.ways"),
        ([], "episodes.only: "),
    ],
)
def test_classes_that_do_not_do_are_named(tmp_path: Path, only: list[str], message: str) -> None:
    names = build_experiment(toy_config(tmp_path)).splits["classification"]["meta_train"].classes
    only = [pattern.format(name) for pattern, name in zip(only, names, strict=False)]
    with pytest.raises(ConfigError) as caught:
        build_experiment(toy_config(tmp_path, episodes__only=only))
    assert message in str(caught.value)


def test_a_run_that_draws_from_all_is_the_one_it_always_was(tmp_path: Path) -> None:
    """A run that was begun before there was a choice goes on; what it was known by then."""
    experiment = build_experiment(toy_config(tmp_path, episodes__only=["*"]))
    assert experiment.identity["settings"] == {
        **{"episodes.ways": 3, "episodes.shots": 2, "episodes.queries": 2},
        **{"model.embedding_size": 8, "model.filters": 4, "model.widths": [2], "model.min_count": 1},
        **{"inner.lr": 0.1, "inner.steps": 2},
        **{"outer.lr": 0.01, "outer.meta_batch_size": 5, "outer.clip_norm": 1.0},
    }
