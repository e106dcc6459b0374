"""What a task computes, as one network: tokens of texts → features → logits of its classes."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from distmeta.models.base import Network
from distmeta.protocols import Model
from distmeta.types import Adapted, Inputs, Params
from distmeta.use.task import Task

PROBES = 8  # random features at which a function is compared with a linear one
LINEAR = 1e-6  # the largest difference from linear, as a share of the largest output


class Linear(NamedTuple):
    """Logits as a linear function of features: weight (N, D), bias (N,), float64."""

    weight: Tensor
    bias: Tensor


class Classifier(nn.Module):
    """Token ids and mask (B, L) → calibrated logits and probabilities, (B, N) each.

    It holds the network with the task's own parameters, and is all that its algorithm sees of a model.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.family, self.algorithm, self.adapted = task.family, task.learner.algorithm, task.adapted
        self.temperature = task.calibration["temperature"] if task.calibration else 1.0
        self.network = network_of(task)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        logits = self.logits({"input_ids": input_ids.unsqueeze(0), "attention_mask": attention_mask.unsqueeze(0)})
        return logits, logits.softmax(-1)

    def logits(self, inputs: Inputs) -> Tensor:
        """Inputs of B texts (1, B, …), or their features (1, B, D) → (B, N)."""
        return self.algorithm.predict(cast(Model, self), self.adapted, inputs)[0] / self.temperature

    def encode(self, shared: Params, adapted: Iterable[str], inputs: Inputs) -> Inputs:
        """See `distmeta.protocols.Model`."""
        return {"features": self.features(shared, {}, inputs)}

    def features(self, shared: Params, stacked: Params, inputs: Inputs) -> Tensor:
        """See `distmeta.protocols.Model`. The parameters are those of the network."""
        return self._run(inputs, elements_only=True)

    def outputs(self, shared: Params, stacked: Params, inputs: Inputs, dropout: float = 0.0) -> Tensor:
        """See `distmeta.protocols.Model`. The parameters are those of the network."""
        return self._run(inputs, elements_only=False)

    def _run(self, inputs: Inputs, elements_only: bool) -> Tensor:
        found: Tensor = self.network({n: v[0] for n, v in inputs.items()}, self.family, elements_only).unsqueeze(0)
        return found


def network_of(task: Task) -> Network:
    """A copy of the task's network, in evaluation mode, with the parameters that were adapted or built for the task."""
    model, adapted = task.learner.models[task.family], task.adapted
    own = {name: value[0] for name, value in adapted.stacked.items()}
    network = copy.deepcopy(model.network)
    values = {**model.frozen, **adapted.shared, **own}
    prefix = f"head.{task.family}."
    sizes = [len(value) for name, value in values.items() if name.startswith(prefix)]
    with torch.random.fork_rng(devices=[]):
        network.head[task.family] = model.head.module(model.dim, sizes[0] if sizes else len(task.names))
    known = dict(network.named_parameters())
    network.load_state_dict({name: value for name, value in values.items() if name in known}, strict=False)
    return network.eval().requires_grad_(False)


def linear(task: Task) -> Linear | None:
    """The task's calibrated logits as a linear function of a text's features, up to a term that all classes share.

    They are found at the origin and at each unit vector, and compared at random features.

    Returns:
        None if they are not linear.
    """
    classifier = Classifier(task)
    classifier.network.double()
    classifier.adapted = Adapted(_double(task.adapted.shared), _double(task.adapted.stacked))
    dim = task.learner.models[task.family].dim
    generator = torch.Generator().manual_seed(0)
    probes = torch.randn(PROBES, dim, generator=generator, dtype=torch.float64)
    features = torch.cat([torch.zeros(1, dim, dtype=torch.float64), torch.eye(dim, dtype=torch.float64), probes])
    with torch.no_grad():
        logits = classifier.logits({"features": features.unsqueeze(0)})
    logits = logits - logits.mean(-1, keepdim=True)
    bias, weight = logits[0], (logits[1 : dim + 1] - logits[0]).T
    expected, found = probes @ weight.T + bias, logits[dim + 1 :]
    if not float((expected - found).abs().max()) <= LINEAR * float(found.abs().max()):
        return None
    return Linear(weight, bias)


def _double(params: Params) -> dict[str, Any]:
    return {name: value.double() for name, value in params.items()}
