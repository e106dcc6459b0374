"""The interfaces stretch to families that the package does not have, and several families to one run."""

from pathlib import Path
from typing import Any

import pytest
import ray
import tiny_families
import torch
from model_helpers import episodes
from toy import toy_config

import distmeta
from distmeta.algorithms.base import concatenate
from distmeta.report.progress import Reporter
from distmeta.runs import train as driver
from distmeta.runs.experiment import build_experiment
from distmeta.types import Batch, Params, Stream

ray.cloudpickle.register_pickle_by_value(tiny_families)  # a user's package would be installed on every node
SIZES: dict[str, Any] = {"name": "text_rnn", "embedding_size": 16, "hidden_size": 16, "min_count": 1}
LEARNED = {"maml": {"lr": 0.5, "steps": 3}, "protonet": {}, "protomaml": {"lr": 0.1, "steps": 2}}


def config_of(folder: Path, kind: str, **overrides: Any) -> Any:
    settings: dict[str, Any] = {
        **{"data": {"kind": kind}, "episodes": {"shots": 4, "queries": 4}, "model": SIZES},
        **{"outer__steps": 3, "evaluation__shots": [2, 4], "evaluation__queries": 3, **overrides},
    }
    return toy_config(folder, **settings)


def run(folder: Path, name: str, kind: str, **overrides: Any) -> dict[str, Any]:
    return driver.train(config_of(folder, kind, **overrides), folder / name, Reporter())


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        ("tags", "protomaml"),
        pytest.param("spans", "maml", marks=pytest.mark.nightly),
        pytest.param("tags", "maml", marks=pytest.mark.nightly),
        pytest.param("tags", "protonet", marks=pytest.mark.nightly),
    ],
)
def test_a_family_from_elsewhere_meta_trains_to_the_same_bits_here_and_on_ray(
    tmp_path: Path, ray_session: None, kind: str, algorithm: str
) -> None:
    chosen: dict[str, Any] = {"algorithm__name": algorithm, "inner": LEARNED[algorithm]}
    here = run(tmp_path, "here", kind, **chosen)
    there = run(tmp_path, "there", kind, **chosen, cluster__backend="ray")
    assert here["meta_params_sha256"] == there["meta_params_sha256"]
    assert here["meta_test"] == there["meta_test"]
    assert [row["title"] for row in here["meta_test"]] == ["2-shot", "4-shot"]
    assert {row["family"] for row in here["meta_test"]} == {kind}


@pytest.mark.parametrize(
    ("kind", "algorithm", "least"), [("tags", "protonet", 0.9), ("tags", "maml", 0.8), ("spans", "maml", 0.8)]
)
def test_a_family_from_elsewhere_is_learned(tmp_path: Path, kind: str, algorithm: str, least: float) -> None:
    inner = LEARNED[algorithm]
    steps: dict[str, Any] = {"outer": {"lr": 0.02, "steps": 60, "meta_batch_size": 8}, "cluster__tasks_per_unit": 8}
    few = {"evaluation__episodes": 30, "evaluation__shots": [4], "evaluation__curve_steps": 0}
    result = run(tmp_path, "run", kind, algorithm__name=algorithm, inner=inner, **steps, **few)
    (row,) = result["meta_test"]
    untrained = row["baselines"][0]
    score = row["score"]["name"]
    assert row[score] > least > untrained[score] + 0.1

    learner = distmeta.load(result["run_dir"])  # and through its codec
    family = tiny_families.Tags(kind) if kind == "tags" else tiny_families.Spans(kind)
    draw = family.draw(Stream.of(kind, "meta_test", 7, shots=4, queries=8), 0)
    support, query = (
        [{"words": words, "answer": answer} for words, answer in zip(draw.texts[n], draw.answers[n], strict=True)]
        for n in (0, 1)
    )
    found = learner.predict(support, [{"words": example["words"]} for example in query])
    right = [its["answer"] == example["answer"] for its, example in zip(found, query, strict=True)]
    assert sum(right) >= 5


@pytest.mark.parametrize("kind", ["tags", "spans"])
def test_the_meta_gradient_is_the_derivative(tmp_path: Path, kind: str) -> None:
    """In float64, against finite differences along a random direction."""
    experiment = build_experiment(config_of(tmp_path, kind, inner={"lr": 0.5, "steps": 2}))
    model, learner = experiment.model, experiment.learner
    model.network.double()
    theta = {name: value.double() for name, value in learner.init(model, torch.Generator()).items()}
    episode = episodes(model.task, experiment.streams[kind]["meta_train"][0], 0, 3)
    gradient, _ = learner.meta_gradient(model, theta, episode)
    generator = torch.Generator().manual_seed(1)
    direction = {
        name: torch.randn(value.shape, generator=generator, dtype=torch.float64) for name, value in theta.items()
    }

    def loss(step: float) -> float:
        moved: Params = {name: value + step * direction[name] for name, value in theta.items()}
        adapted = learner.adapt(model, moved, episode.support)
        outputs = learner.predict(model, adapted, episode.query.inputs)
        return float(model.task.loss(outputs, episode.query).sum().detach())

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    expected = sum(float((gradient[name] * direction[name]).sum()) for name in theta)
    assert slope == pytest.approx(expected, rel=1e-6)


def _length(batch: Batch) -> int:
    return batch.inputs["input_ids"].shape[-1]


@pytest.mark.parametrize("kind", ["tags", "spans"])
def test_padding_has_no_say(tmp_path: Path, kind: str) -> None:
    """A support set joined with a longer one: the loss of all is the mean of both, by their elements or texts."""
    experiment = build_experiment(config_of(tmp_path, kind))
    model, family = experiment.model, experiment.model.task
    theta = model.init()
    stream = Stream.of(kind, "meta_train", 0, shots=1, queries=4)
    made = (episodes(family, stream, index, 2) for index in range(20))
    support, query = next((its.support, its.query) for its in made if _length(its.support) < _length(its.query))
    joined = concatenate(support, query)
    both = family.statistics(model.outputs(theta, {}, joined.inputs).detach(), joined)
    parts = [family.statistics(model.outputs(theta, {}, its.inputs).detach(), its) for its in (support, query)]
    for name, value in both.items():
        torch.testing.assert_close(value, parts[0][name] + parts[1][name], rtol=1e-5, atol=1e-5, check_dtype=False)


def test_prototypes_are_refused_where_targets_are_no_classes(tmp_path: Path) -> None:
    with pytest.raises(
        Exception, match=r"^algorithm.name: prototypes stand for classes, and these tasks have no classes"
    ):
        build_experiment(config_of(tmp_path, "spans", algorithm__name="protonet", inner={}))
