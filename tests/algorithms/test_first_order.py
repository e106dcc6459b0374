"""The option inner.first_order of every gradient method."""

import pytest
import torch
from learner_helpers import episode_of, small_model

from distmeta.algorithms.base import registry
from distmeta.errors import ConfigError


def test_first_order_is_an_option_of_every_gradient_method_and_fomaml_is_maml_with_it() -> None:
    """Without second derivatives the meta-gradient is another one, the adapted learner the same."""
    for name in ("maml", "anil", "boil", "metasgd", "protomaml", "online"):
        model, episode = small_model("mlp", None), episode_of()
        exact, first = (registry.get(name)(inner_lr=0.5, inner_steps=2, inner_first_order=its) for its in (False, True))
        theta = exact.init(model, torch.Generator().manual_seed(0))
        gradients = [learner.meta_gradient(model, theta, episode)[0] for learner in (exact, first)]
        assert any(not torch.equal(gradients[0][its], gradients[1][its]) for its in theta), name
        adapted = [learner.adapt(model, theta, episode.support).stacked for learner in (exact, first)]
        assert all(torch.equal(adapted[0][its], adapted[1][its]) for its in adapted[0]), name
        if name == "maml":
            other, _ = registry.get("fomaml")(inner_lr=0.5, inner_steps=2).meta_gradient(model, theta, episode)
            assert all(torch.equal(other[its], gradients[1][its]) for its in theta)


@pytest.mark.parametrize("name", ["reptile", "multitask", "finetune"])
def test_first_order_is_refused_where_nothing_is_learned_through_the_steps(name: str) -> None:
    learner = registry.get(name)(inner_first_order=True)
    with pytest.raises(ConfigError, match=r"^inner.first_order: this algorithm does not differentiate"):
        learner.check(small_model("mlp", None), 2)
