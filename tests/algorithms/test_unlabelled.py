"""Examples without labels: one step of soft k-means for prototypes, and the learner's own labels for any other."""

from pathlib import Path
from typing import Any

import pytest
import torch
from use_helpers import ALGORITHMS, untrained

from distmeta.algorithms.protonet import prototypes
from distmeta.algorithms.unlabelled import with_guesses
from distmeta.types import UNLABELLED, Batch, Params
from distmeta.use.learner import Learner

TEMPERATURE = 2.0


def _support(learner: Learner, labelled: int, unlabelled: int) -> Batch:
    """Three classes; two tasks that differ in their texts."""
    tasks = []
    for task in range(2):
        texts = [f"topic{n % 3 + task} word{n}" for n in range(labelled + unlabelled)]
        examples = [{"text": text, "label": f"class {n % 3}"} for n, text in enumerate(texts)]
        tasks.append(learner.codecs["classification"].encode(examples, ["class 0", "class 1", "class 2"]))
    inputs = {name: torch.cat([batch.inputs[name] for batch in tasks]) for name in tasks[0].inputs}
    mark = torch.zeros(2, labelled + unlabelled)
    mark[:, labelled:] = TEMPERATURE
    weights = torch.ones(2, labelled + unlabelled)
    weights[:, labelled:] = 0
    targets = torch.cat([batch.targets for batch in tasks])
    targets[:, labelled:] = 0  # nobody knows
    return Batch({**inputs, UNLABELLED: mark}, targets, weights, 3)


def _labelled(support: Batch, count: int) -> Batch:
    inputs = {name: value[:, :count] for name, value in support.inputs.items() if name != UNLABELLED}
    return Batch(inputs, support.targets[:, :count], support.weights[:, :count], 3)


def _theta(learner: Learner) -> Params:
    return learner.models["classification"].own(learner.theta)


def test_prototypes_take_a_step_of_soft_k_means(tmp_path: Path) -> None:
    """Equation 3 of the paper, task by task and class by class."""
    learner = untrained(tmp_path, "protonet")
    model, algorithm, support = learner.models["classification"], learner.algorithm, _support(learner, 6, 4)
    model.train(False)
    with torch.no_grad():
        found = algorithm.adapt(model, _theta(learner), support).stacked["prototypes"]
        features = model.features(_theta(learner), {}, _labelled(support, 10).inputs)
        start = prototypes(features[:, :6], _labelled(support, 6))
    for task in range(2):
        for n in range(3):
            members = [features[task, i] for i in range(6) if i % 3 == n]
            shares = []
            for j in range(6, 10):
                distances = (features[task, j] - start[task]).square().sum(-1)
                shares.append((-distances / TEMPERATURE).softmax(-1)[n])
            total = torch.stack(members).sum(0)
            total = total + sum(share * features[task, j] for share, j in zip(shares, range(6, 10), strict=True))
            expected = total / (len(members) + sum(shares))
            assert torch.allclose(found[task, n], expected, atol=1e-5)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_each_stands_for_its_guesses(tmp_path: Path, name: str) -> None:
    """Weights of an example add up to 1, or it stands once with its likeliest class if the body is adapted."""
    learner = untrained(tmp_path, name)
    model, algorithm, support = learner.models["classification"], learner.algorithm, _support(learner, 6, 4)
    model.train(False)
    theta = _theta(learner)
    with torch.no_grad():
        whole = with_guesses(algorithm, model, theta, support)
        adapted = algorithm.adapt(model, theta, _labelled(support, 6))
        unknown = {n: value[:, 6:] for n, value in support.inputs.items() if n != UNLABELLED}
        shares = (algorithm.predict(model, adapted, unknown) / TEMPERATURE).softmax(-1)
        assert UNLABELLED not in whole.inputs
        assert whole.weights[:, :6].eq(1).all()
        if any(key.startswith("body.") for key in algorithm.adapts(list(theta))):
            assert whole.targets[:, 6:].equal(shares.argmax(-1))
            assert torch.allclose(whole.weights[:, 6:], shares.max(-1).values, atol=1e-5)
        else:
            assert torch.allclose(whole.weights[:, 6:].view(2, 4, 3), shares, atol=1e-5)
            assert whole.targets[:, 6:].tolist() == [[0, 1, 2] * 4] * 2
        before = algorithm.predict(model, adapted, unknown)
        after = algorithm.predict(model, algorithm.adapt(model, theta, support), unknown)
        assert not torch.allclose(before, after), "they change what is learned"
        again = algorithm.predict(model, algorithm.adapt(model, theta, whole), unknown)
        assert torch.allclose(after, again, atol=1e-5)


@pytest.mark.parametrize("name", ["protonet", "protomaml", "maml"])
def test_gradients_pass_through_their_features_and_not_through_the_guesses(tmp_path: Path, name: str) -> None:
    """Float64, against the same loss with the guesses put in as numbers, by central differences along a direction."""
    learner = untrained(tmp_path, name)
    model: Any = learner.models["classification"]
    model.network.double()
    model.train(False)
    support = _support(learner, 6, 4)
    support = support._replace(weights=support.weights.double())
    support.inputs[UNLABELLED] = support.inputs[UNLABELLED].double()
    theta = {key: value.double().requires_grad_() for key, value in _theta(learner).items()}
    query = {key: value[:, :3] for key, value in support.inputs.items() if key != UNLABELLED}

    def loss(params: Params, batch: Batch) -> torch.Tensor:
        adapted = learner.algorithm.adapt(model, params, batch)
        return learner.algorithm.predict(model, adapted, query).log_softmax(-1)[..., 0].sum()

    gradients = torch.autograd.grad(loss(theta, support), list(theta.values()), allow_unused=True)
    with torch.no_grad():
        guessed = with_guesses(learner.algorithm, model, theta, support)
    # The same guesses with inputs that the body reads.
    ways = 1 if "input_ids" in guessed.inputs else 3
    raw = {
        key: torch.cat([value[:, :6], value[:, 6:].repeat_interleave(ways, dim=1)], dim=1)
        for key, value in support.inputs.items()
        if key != UNLABELLED
    }
    fixed = guessed._replace(inputs=raw)
    generator = torch.Generator().manual_seed(0)
    direction = {
        key: torch.randn(value.shape, generator=generator, dtype=torch.float64) for key, value in theta.items()
    }
    step = 1e-6
    ends = []
    for sign in (1, -1):
        moved = {key: value.detach() + sign * step * direction[key] for key, value in theta.items()}
        ends.append(float(loss(moved, fixed).detach()))
    numeric = (ends[0] - ends[1]) / (2 * step)
    analytic = sum(float((g * d).sum()) for g, d in zip(gradients, direction.values(), strict=True) if g is not None)
    assert analytic == pytest.approx(numeric, rel=1e-5)
