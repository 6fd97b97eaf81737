"""PokeVLA: shapes, attention, and gradients that reach every trainable parameter."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pokevla.errors import UsageError
from pokevla.model.building import build_vla
from pokevla.model.lora import TrainableSpec, apply_trainable
from pokevla.model.presets import ActionHeadConfig, PokeVLAConfig, preset
from pokevla.model.vla import PokeVLA, VLAOutput


def loss_of(output: VLAOutput) -> Tensor:
    assert output.fine_logits is not None
    assert output.geometry is not None
    target = torch.linspace(-1, 1, output.geometry.shape[-1])
    geometry = 1 - torch.cosine_similarity(output.geometry, target, dim=-1).mean()
    masks = torch.nn.functional.binary_cross_entropy_with_logits(
        output.fine_logits, (output.fine_logits > 0).logical_not().float()
    )
    return (output.actions - 1).abs().mean() + masks + geometry


def with_head(config: PokeVLAConfig, **changes: object) -> PokeVLAConfig:
    head: ActionHeadConfig = dataclasses.replace(config.action_head, **changes)  # pyright: ignore[reportArgumentType]
    return dataclasses.replace(config, action_head=head)


def test_shapes_follow_the_contract(tiny_vla: PokeVLA, make_inputs: Callable[..., dict[str, Tensor]]) -> None:
    output = tiny_vla(**make_inputs(tiny_vla.config))
    assert output.actions.shape == (3, 8, 7)
    assert output.coarse_logits.shape == output.fine_logits.shape == (3, 2, 16, 16)
    assert output.vision_hidden_states.shape == (3, 2, 4, 32)
    assert output.seg_hidden_state.shape == (3, 32)
    assert output.geometry.shape == (3, 2, 4, 24)


def test_the_base_view_stands_last_and_sees_the_wrist_view(
    tiny_vla: PokeVLA, make_inputs: Callable[..., dict[str, Tensor]]
) -> None:
    """Attention is causal, so earlier tokens do not depend on later ones."""
    inputs = make_inputs(tiny_vla.config)
    states = tiny_vla(**inputs).vision_hidden_states
    for view, unchanged in ((0, [1]), (1, [])):
        pixels = inputs["pixel_values"].clone()
        pixels[:, view] = 1 - pixels[:, view]
        other = tiny_vla(**{**inputs, "pixel_values": pixels}).vision_hidden_states
        assert [v for v in range(2) if torch.equal(other[:, v], states[:, v])] == unchanged


def test_inference_skips_masks_and_geometry_and_gives_the_same_actions(
    tiny_vla: PokeVLA, make_inputs: Callable[..., dict[str, Tensor]]
) -> None:
    inputs = make_inputs(tiny_vla.config)
    full = tiny_vla(**inputs)
    lean = tiny_vla(**{**inputs, "sam_features": None}, with_geometry=False)
    assert lean.coarse_logits is lean.fine_logits is lean.geometry is None
    assert torch.equal(lean.actions, full.actions)


@pytest.mark.parametrize("condition", ["last", "per_layer"])
@pytest.mark.parametrize("seg_injection", [True, False])
@pytest.mark.parametrize("gate", [True, False])
def test_every_trainable_parameter_gets_a_gradient(
    condition: str, seg_injection: bool, gate: bool, make_inputs: Callable[..., dict[str, Tensor]]
) -> None:
    config = with_head(preset("tiny"), condition=condition, seg_injection=seg_injection, gate=gate)
    model = build_vla(config)
    if gate:  # a gate of zero blocks the gradient of its branch in the first step
        for layer in model.action_head.layers:
            torch.nn.init.ones_(layer.gate)
    loss_of(model(**make_inputs(config))).backward()
    silent = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert silent == []


def test_with_lora_every_trainable_parameter_gets_a_gradient(
    tiny_vla: PokeVLA, make_inputs: Callable[..., dict[str, Tensor]]
) -> None:
    apply_trainable(tiny_vla, TrainableSpec(lora_rank=2, lora_alpha=4))
    loss_of(tiny_vla(**make_inputs(tiny_vla.config))).backward()
    missing = [n for n, p in tiny_vla.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_frozen_parts_get_no_gradient(tiny_vla: PokeVLA, make_inputs: Callable[..., dict[str, Tensor]]) -> None:
    loss_of(tiny_vla(**make_inputs(tiny_vla.config))).backward()
    assert [n for n, p in tiny_vla.named_parameters() if not p.requires_grad and p.grad is not None] == []


@pytest.mark.parametrize("term", ["actions", "fine_logits", "geometry"])
def test_each_loss_reaches_every_shared_parameter(
    term: str, tiny_vla: PokeVLA, make_inputs: Callable[..., dict[str, Tensor]]
) -> None:
    output = getattr(tiny_vla(**make_inputs(tiny_vla.config)), term)
    shared = tiny_vla.shared_parameters()
    gradients = torch.autograd.grad(output.square().mean(), shared, allow_unused=True)
    assert shared
    assert all(gradient is not None for gradient in gradients)


def test_padding_changes_nothing(tiny_vla: PokeVLA, make_inputs: Callable[..., dict[str, Tensor]]) -> None:
    inputs = make_inputs(tiny_vla.config, (3, 8))
    batched = tiny_vla(**inputs)
    text = ("input_ids", "attention_mask")
    alone = tiny_vla(**{n: v[:1, :3] if n in text else v[:1] for n, v in inputs.items()})
    torch.testing.assert_close(batched.actions[:1], alone.actions, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(batched.fine_logits[:1], alone.fine_logits, atol=1e-5, rtol=1e-4)


def test_queries_see_seg_and_seg_does_not_see_queries(
    tiny_vla: PokeVLA, make_inputs: Callable[..., dict[str, Tensor]]
) -> None:
    inputs = {**make_inputs(tiny_vla.config), "sam_features": None}
    before = tiny_vla(**inputs)
    with torch.no_grad():
        tiny_vla.action_queries.add_(1.0)
    after = tiny_vla(**inputs)
    assert torch.equal(before.seg_hidden_state, after.seg_hidden_state)
    assert not torch.equal(before.actions, after.actions)


def test_both_views_share_one_seg_and_actions_depend_on_both(
    tiny_vla: PokeVLA, make_inputs: Callable[..., dict[str, Tensor]]
) -> None:
    inputs = make_inputs(tiny_vla.config)
    inputs["sam_features"][:, 1] = inputs["sam_features"][:, 0]
    output = tiny_vla(**inputs)
    torch.testing.assert_close(output.fine_logits[:, 0], output.fine_logits[:, 1])
    for view in (0, 1):
        changed = {**inputs, "pixel_values": inputs["pixel_values"].clone()}
        changed["pixel_values"][:, view] = 0
        assert not torch.equal(tiny_vla(**changed).actions, output.actions)


def test_head_layers_read_the_language_layers_in_order() -> None:
    model = build_vla(with_head(preset("tiny"), num_layers=4, condition="per_layer"))
    states = [object(), object()]
    assert model._spread(states) == [states[0], states[0], states[1], states[1]]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pixel_values", torch.rand(3, 1, 3, 28, 28)),
        ("proprio", torch.rand(3, 9)),
        ("sam_features", torch.rand(3, 2, 16, 8, 8)),
    ],
)
def test_wrong_shapes_are_named(
    name: str, value: Tensor, tiny_vla: PokeVLA, make_inputs: Callable[..., dict[str, Tensor]]
) -> None:
    with pytest.raises(UsageError, match=name):
        tiny_vla(**{**make_inputs(tiny_vla.config), name: value})
