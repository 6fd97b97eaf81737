"""The weights that are drawn are those with which the head acts."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pokevla.model.heads.condition import HeadCondition
from pokevla.model.heads.poke import ActionHead
from pokevla.model.presets import ActionHeadConfig
from pokevla.policy.explanation.head_attention import poke_attention

CONFIG = ActionHeadConfig(num_layers=3, width=16, num_heads=4, num_queries=5, action_dim=7, proprio_dim=8)
HIDDEN = 24


def inputs(vision: int = 6) -> tuple[list[HeadCondition], torch.Tensor]:
    generator = torch.Generator().manual_seed(1)

    def states(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    conditions = [
        HeadCondition(states(2, vision, HIDDEN), states(2, 5, HIDDEN), states(2, HIDDEN))
        for _ in range(CONFIG.num_layers)
    ]
    return conditions, states(2, 1, HIDDEN)


def head(**changes: object) -> ActionHead:
    torch.manual_seed(0)
    module = ActionHead(dataclasses.replace(CONFIG, **changes), HIDDEN)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    return module


@pytest.mark.parametrize("changes", [{}, {"seg_injection": False}, {"gate": True}], ids=str)
@pytest.mark.parametrize("vision", [6, 200], ids=lambda n: f"{n} patches")
def test_the_recomputed_head_ends_with_the_actions_of_the_head(changes: dict[str, object], vision: int) -> None:
    module, (conditions, proprio) = head(**changes), inputs(vision)
    with torch.no_grad():
        attention = poke_attention(module, conditions, proprio)
        torch.testing.assert_close(attention.actions, module(conditions, proprio), atol=2e-5, rtol=1e-4)
    assert attention.vision.shape == (2, 3, 4, 8, vision)
    assert attention.queries.shape == (2, 3, 4, 8, 6)
    assert attention.shares.shape == (2, 3, 8, 3 if "seg_injection" in changes else 4)
    for weights in (attention.vision, attention.queries, attention.latents, attention.shares):
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_weights_times_values_are_what_the_vision_attention_returns() -> None:
    module, (conditions, proprio) = head(), inputs()
    layer, returned = module.layers[0], []
    handle = layer.vision_attention.register_forward_hook(lambda *call: returned.append(call[-1]))
    with torch.no_grad():
        module(conditions, proprio)
        handle.remove()
        weights = poke_attention(module, conditions, proprio).vision[:, 0]  # (B, H, K, N)
        values = conditions[0].vision @ layer.vision_attention.key_value.weight.chunk(2)[1].T
        heads = values.unflatten(-1, (4, -1)).transpose(1, 2)
        torch.testing.assert_close((weights @ heads).transpose(1, 2).flatten(2), returned[0], atol=1e-5, rtol=1e-4)


def test_a_key_that_points_along_the_query_gets_the_weight() -> None:
    module, (conditions, proprio) = head(), inputs()
    layer = module.layers[0].vision_attention
    with torch.no_grad():
        before = poke_attention(module, conditions, proprio).vision[:, 0]
        query = layer.query(module.layers[0].norm(module.latents.expand(2, -1, -1)))[:, 3]  # of latent 3
        key_weight = layer.key_value.weight.chunk(2)[0]
        conditions[0].vision[:, 2] += 9 * query @ key_weight
        after = poke_attention(module, conditions, proprio).vision[:, 0]
    assert (after[:, :, 3, 2] > before[:, :, 3, 2]).all()
    assert after[:, :, 3].argmax(-1).eq(2).float().mean() > 0.5
