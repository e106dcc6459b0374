"""Sequential pretraining: without a penalty it is fine-tuning to the bit; with one, θ stays near where it came from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from arrays import f32
from model_helpers import episodes
from streams import STREAM, stream_config

from distmeta.algorithms.base import concatenate
from distmeta.algorithms.proximal import Proximal
from distmeta.config import OuterConfig
from distmeta.engine.params import sha256
from distmeta.engine.server import ParameterServer
from distmeta.errors import ConfigError
from distmeta.report.progress import Reporter
from distmeta.runs import train as driver
from distmeta.runs.experiment import build_experiment
from distmeta.types import Stream, Unit, UnitResult

ALONE: dict[str, Any] = {
    "algorithm__name": "proximal",
    "stream": {**STREAM["stream"], "replay": 0, "neighbours": 0},
    "outer__clip_norm": None,
    "cluster__tasks_per_unit": 5,
}


def run(folder: Path, name: str, **overrides: Any) -> dict[str, Any]:
    return driver.train(stream_config(folder, **{**ALONE, **overrides}), folder / name, Reporter())


def test_without_a_penalty_it_is_sequential_fine_tuning_to_the_bit(tmp_path: Path) -> None:
    """Against a loop written out: Adam on the mean loss of all examples of five episodes, one task after another."""
    result = run(tmp_path, "run", algorithm__proximal_weight=0.0, outer__lr=0.01)
    experiment = build_experiment(stream_config(tmp_path, **ALONE))
    model, setup = experiment.model, experiment.setup
    family, stream = setup.families["classification"], setup.training.stream
    assert isinstance(stream, Stream)
    theta = torch.tensor(setup.meta_params, requires_grad=True)
    optimizer = torch.optim.Adam([theta], lr=0.01, fused=True)
    model.train(True)
    for step in range(12):
        episode = episodes(family, stream, 5 * step, 5)
        batch = concatenate(episode.support, episode.query)
        params = {
            name: value.requires_grad_() for name, value in setup.layout.unflatten(theta.detach().numpy()).items()
        }
        outputs = model.outputs(params, {}, batch.inputs).flatten(0, 1)
        losses = F.cross_entropy(outputs, batch.targets.flatten(), reduction="none").view(5, -1).mean(1)
        gradients = torch.autograd.grad(losses.sum(), list(params.values()))
        theta.grad = torch.cat([gradient.flatten() for gradient in gradients]) / 5
        optimizer.step()
    assert sha256(theta.detach().numpy()) == result["meta_params_sha256"]


def apply(its: ParameterServer, *gradient: float) -> list[float]:
    its.apply([UnitResult(Unit(0, 0, 1), f32(*gradient), {"loss": np.zeros(1)}, (), "0", 0.1)])
    return [float(value) for value in its.meta_params]


def test_a_proximal_step_on_a_quadratic() -> None:
    """min ½(θ − c)² + λ(θ − a)², λ = ½: its gradient is (θ − c) + (θ − a), 0 at (c + a)/2.

    With rate ¼ each step halves the distance to that. Round 0 has a = 0 and c = 4: from 0 to 1, then 1.5. Round 1 has
    a = 1.5 and c = −0.5: from 1.5 towards 0.5, so 1, then 0.75.
    """
    outer = OuterConfig(optimizer="sgd", lr=0.25)
    its = ParameterServer(Proximal(proximal_weight=0.5).outer(outer), f32(0.0), anchor_every=2)
    theta = 0.0
    for step, (centre, expected) in enumerate([(4, 1.0), (4, 1.5), (-0.5, 1.0), (-0.5, 0.75)]):
        (theta,) = apply(its, theta - centre)
        assert theta == expected, step


def test_the_anchor_goes_with_the_state() -> None:
    """Stopped in the middle of a round, θ is pulled back to where the round began, not to where it was stopped."""
    outer = Proximal(proximal_weight=0.3).outer(OuterConfig(optimizer="adam", lr=0.1))
    straight = ParameterServer(outer, f32(1.0, -2.0), anchor_every=3)
    stopped = ParameterServer(outer, f32(1.0, -2.0), anchor_every=3)
    gradients = np.random.default_rng(0).normal(size=(7, 2)).tolist()
    for gradient in gradients:
        apply(straight, *gradient)
    for gradient in gradients[:5]:
        apply(stopped, *gradient)
    resumed = ParameterServer(outer, f32(1.0, -2.0), anchor_every=3)
    resumed.load(stopped.state())
    for gradient in gradients[5:]:
        apply(resumed, *gradient)
    assert resumed.meta_params.tobytes() == straight.meta_params.tobytes()


def test_the_penalty_keeps_theta_near_where_it_was(tmp_path: Path) -> None:
    start = build_experiment(stream_config(tmp_path, **ALONE)).setup
    assert start.anchor_every == 3
    free, tied = (run(tmp_path, f"run-{w}", algorithm__proximal_weight=w, checkpoint__every=0) for w in (0.0, 5.0))
    assert free["meta_params_sha256"] != tied["meta_params_sha256"]
    from distmeta.runs.checkpoint import load

    moved = [
        np.linalg.norm(load(tmp_path / f"run-{w}")[0].arrays["meta_params"] - start.meta_params) for w in (0.0, 5.0)
    ]
    assert moved[1] < 0.7 * moved[0]


def test_one_penalty_is_enough(tmp_path: Path) -> None:
    config = stream_config(tmp_path, **ALONE, outer__regularizer="l2", outer__regularizer_weight=0.1)
    with pytest.raises(ConfigError, match=r"outer\.regularizer: l2, but proximal has its own; leave it out and set"):
        build_experiment(config)
