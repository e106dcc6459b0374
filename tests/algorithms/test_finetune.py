"""Fine-tuning and multi-task learning, against results worked out by hand."""

import pytest
import torch
import torch.nn.functional as F
from fakes import classification
from model_helpers import build, random_batch

from distmeta.algorithms.finetune import FineTune
from distmeta.algorithms.multitask import MultiTask
from distmeta.models.functional import FunctionalModel
from distmeta.models.mlp import MLP
from distmeta.types import Batch, Episode

TASK = classification("a", "b", "c", "d")


def small_model() -> FunctionalModel:
    model = build(MLP(embedding_size=4, hidden_sizes=(3,)), {"vocab_size": 12, "pad_id": 0}, TASK, 2, seed=1)
    model.network.double()
    return model


def test_the_head_starts_at_zero_and_one_step_is_worked_by_hand() -> None:
    """Features 2 and −1 of classes 0 and 1, one step of rate ½ over 1 + mean(4, 1) = 3.5.

    From zeros both classes have probability ½. The gradient of the mean loss in class 0's weight is
    ½ [(½ − 1) · 2 + ½ · (−1)] = −0.75, in its bias ½ [(½ − 1) + ½] = 0; class 1's are the opposite.
    """
    model = small_model()
    features = torch.tensor([[[2.0], [-1.0]]], dtype=torch.float64)
    model.dim = 1
    support = Batch({"features": features}, torch.tensor([[0, 1]]), torch.ones(1, 2, dtype=torch.float64), 2)
    theta = {"body.x": torch.zeros(1, dtype=torch.float64)}  # a body that the features were made by
    with torch.no_grad():
        adapted = FineTune(inner_lr=0.5, inner_steps=1).adapt(model, theta, support)
    moved = 0.5 / 3.5 * 0.75
    assert adapted.stacked["head.classification.weight"].flatten().tolist() == pytest.approx([moved, -moved])
    assert adapted.stacked["head.classification.bias"].flatten().tolist() == pytest.approx([0, 0])
    assert "body.x" in adapted.shared


def test_the_head_does_not_depend_on_the_length_of_features() -> None:
    """Features ten times as long (and no bias to speak of) give the same outputs."""
    model = small_model()
    generator = torch.Generator().manual_seed(0)
    features = 1e3 * torch.randn(1, 6, 3, generator=generator, dtype=torch.float64)
    targets = torch.tensor([[0, 1, 2, 0, 1, 2]])
    theta = {"body.x": torch.zeros(1, dtype=torch.float64)}
    outputs = []
    for scale in (1, 10):
        support = Batch({"features": scale * features}, targets, torch.ones(1, 6, dtype=torch.float64), 3)
        with torch.no_grad():
            adapted = FineTune().adapt(model, theta, support)
            outputs.append(FineTune().predict(model, adapted, support.inputs))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-4)
    assert outputs[0].abs().max() > 0.1


def test_multitask_is_cross_entropy_over_all_classes() -> None:
    model, learner = small_model(), MultiTask(scale=3.0)
    theta = learner.init(model, torch.Generator().manual_seed(2))
    assert theta["meta.classes.classification.weight"].shape == (4, 3)
    assert not any(name.startswith("head.") for name in theta)
    support, query = random_batch((2, 2, 5), 12, seed=3), random_batch((2, 3, 4), 12, seed=4)
    for batch in (support, query):
        batch.inputs["labels"] = torch.arange(batch.targets.numel()).view(batch.targets.shape) % 4
    episode = Episode("classification", support, query, (("a", "b"),) * 2)
    gradient, metrics = learner.meta_gradient(model, theta, episode)
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    losses, common = [], "meta.classes.classification"
    for t in range(2):  # task by task, text by text: no padding is involved
        single = []
        for batch in (support, query):
            for b in range(batch.targets.shape[1]):
                length = int(batch.inputs["attention_mask"][t, b].sum())
                tokens = batch.inputs["input_ids"][t, b, :length]
                mean = leaves["body.embedding.weight"][tokens].mean(0)
                feature = (leaves["body.hidden.0.weight"] @ mean + leaves["body.hidden.0.bias"]).relu()
                scores = 3.0 * (leaves[f"{common}.weight"] @ feature + leaves[f"{common}.bias"])
                single.append(F.cross_entropy(scores, batch.inputs["labels"][t, b]))
        losses.append(torch.stack(single).mean())
    expected = torch.autograd.grad(torch.stack(losses).sum(), list(leaves.values()))
    for name, value in zip(leaves, expected, strict=True):
        torch.testing.assert_close(gradient[name], value, msg=name)
    torch.testing.assert_close(metrics["loss"], torch.stack(losses).detach())


def test_fine_tuning_the_body_needs_no_head_in_theta() -> None:
    model = small_model()
    learner = FineTune(inner_adapt="all", inner_lr=0.1, inner_steps=3)
    theta = learner.init(model, torch.Generator())
    support = random_batch((2, 4, 5), 12, seed=3, classes=2)
    support = support._replace(targets=torch.tensor([[0, 1, 0, 1]] * 2))
    with torch.no_grad():
        adapted = learner.adapt(model, theta, support)
    assert adapted.shared == {}
    assert adapted.stacked["head.classification.weight"].shape == (2, 2, 3)
    assert not torch.equal(adapted.stacked["body.hidden.0.weight"][0], theta["body.hidden.0.weight"])
