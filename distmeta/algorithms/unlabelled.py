"""Examples without labels, which join a support set with the labels that the learner itself gives them.

For learners that compare with class means this is one step of soft k-means: Mengye Ren, Eleni Triantafillou, Sachin
Ravi, Jake Snell, Kevin Swersky, Joshua B. Tenenbaum, Hugo Larochelle, Richard S. Zemel. Meta-Learning for
Semi-Supervised Few-Shot Classification. ICLR 2018. https://arxiv.org/abs/1803.00676. For learners that take gradient
steps these are pseudo-labels: Dong-Hyun Lee, 2013, but soft.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distmeta.protocols import MetaLearner, Model
from distmeta.types import UNLABELLED, Batch, Inputs, Params


def with_guesses(learner: MetaLearner, model: Model, meta_params: Params, support: Batch) -> Batch:
    """The support set without marks: examples without a label, which have weight 0, now stand for their guesses.

    The learner adapts to the labelled examples and gives the others probabilities p_n, softened by their temperature.
    An example then stands once for each class n, with weight p_n; or, if the body is adapted and would run on each of
    them, once for its likeliest class. The guesses count as constants in gradients.

    Args:
        learner: the algorithm.
        model: of the family, whose targets are classes of single elements.
        meta_params: θ.
        support: T tasks. The examples without labels stand behind the others, as many in each task.
    """
    if UNLABELLED not in support.inputs:
        return support
    names = learner.adapts(list(meta_params))
    encoded = model.encode(meta_params, names, {n: v for n, v in support.inputs.items() if n != UNLABELLED})
    count = int((support.inputs[UNLABELLED][0] > 0).sum())
    known = {name: value[:, :-count] for name, value in encoded.items()}
    unknown = {name: value[:, -count:] for name, value in encoded.items()}
    labelled = Batch(known, support.targets[:, :-count], support.weights[:, :-count], support.outputs)
    with torch.no_grad():
        adapted = learner.adapt(model, meta_params, labelled)
        shares = learner.predict(model, adapted, unknown) / support.inputs[UNLABELLED][:, -count:, None]
    shares = shares.softmax(-1).to(support.weights.dtype)
    if "features" in encoded:
        ways = support.outputs
        guessed = {name: value.repeat_interleave(ways, dim=1) for name, value in unknown.items()}
        targets = torch.arange(ways, device=shares.device).repeat(len(shares), count)
        weights = shares.flatten(1)
    else:
        guessed, (weights, targets) = unknown, shares.max(-1)
    return _joined(labelled, guessed, targets, weights)


def _joined(labelled: Batch, guessed: Inputs, targets: Tensor, weights: Tensor) -> Batch:
    inputs = {name: torch.cat([value, guessed[name]], dim=1) for name, value in labelled.inputs.items()}
    targets = torch.cat([labelled.targets, targets], dim=1)
    return Batch(inputs, targets, torch.cat([labelled.weights, weights], dim=1), labelled.outputs)
