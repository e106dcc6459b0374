"""What is settled before a run starts."""

import json
from pathlib import Path
from typing import Any

import pytest
from toy import evaluated, toy_config

from distmeta.algorithms.protonet import ProtoNet
from distmeta.runs.experiment import build_experiment


@pytest.mark.parametrize(("adapt", "kept"), [("head", True), ("all", False), ("body", False), ("body.banks.*", False)])
def test_features_are_kept_only_where_the_body_is_not_adapted(tmp_path: Path, adapt: str, kept: bool) -> None:
    """Features of θ would be wrong for tasks that change the body; on few episodes keeping them does not pay."""
    experiment = build_experiment(toy_config(tmp_path, inner__adapt=adapt))
    stream = evaluated(experiment, "meta_test", 1)  # 4 classes of 8 texts; an episode takes 3 · (1 + 2)
    assert experiment.work(experiment.learner, stream, episodes=4).cache_features == kept
    assert not experiment.work(experiment.learner, stream, episodes=3).cache_features
    assert experiment.work(ProtoNet(), stream, episodes=4).cache_features


def test_evaluation_episodes_do_not_depend_on_the_seed_of_training(tmp_path: Path) -> None:
    first, other = (build_experiment(toy_config(tmp_path, seed=seed)) for seed in (0, 1))
    assert evaluated(first, "meta_test", 1) == evaluated(other, "meta_test", 1)
    assert first.setup.training.stream != other.setup.training.stream


def test_what_decides_a_result_is_in_the_identity_and_nothing_else(tmp_path: Path) -> None:
    def identity(**overrides: object) -> dict[str, Any]:
        return build_experiment(toy_config(tmp_path, **overrides)).identity

    same = identity()
    assert identity(cluster__workers=7, checkpoint__every=9, evaluation__episodes=50, data__cache=str(tmp_path)) == same
    for change in ({"inner__lr": 0.2}, {"cluster__tasks_per_unit": 1}, {"seed": 3}, {"data__max_length": 5}):
        assert identity(**change) != same, change
    stale = [
        identity(cluster__max_staleness=bound, cluster__staleness_alpha=alpha)
        for bound, alpha in ((0, 0.5), (1, 0.5), (2, 0.5), (2, 1.0))
    ]
    assert stale[0] == same
    assert len({json.dumps(its["settings"], sort_keys=True) for its in stale}) == len(stale)
    frozen = [identity(model__freeze=["body.*"], seed=seed)["frozen_params"] for seed in (0, 1)]
    assert frozen[0] != frozen[1]
