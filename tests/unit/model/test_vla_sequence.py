"""Choices of the sequence: without SEG, with proprio in it, zero queries, and the layer that geometry aligns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pokevla.errors import UsageError
from pokevla.model.building import build_vla, parameter_report
from pokevla.model.heads.condition import HeadCondition
from pokevla.model.presets import PokeVLAConfig, preset
from pokevla.model.vla import PokeVLA

MakeInputs = Callable[..., dict[str, Tensor]]
OFT: dict[str, Any] = {"kind": "oft", "num_queries": 56, "proprio_in_sequence": True}


def tiny(*, seg_token: bool = True, layer: int | None = None, **head: Any) -> PokeVLAConfig:
    config = preset("tiny")
    return dataclasses.replace(
        config,
        seg_token=seg_token,
        geometry=dataclasses.replace(config.geometry, layer=layer),
        action_head=dataclasses.replace(config.action_head, **head),
    )


def by_hand(model: PokeVLA, inputs: dict[str, Tensor], row: int) -> tuple[Tensor, list[Tensor]]:
    """Embeddings of one row in the order of the sequence, unpadded, and the states after every layer."""
    length = int(inputs["attention_mask"][row].sum())
    words = model.vlm.language_model.get_input_embeddings()(inputs["input_ids"][row, :length])
    pixels = inputs["pixel_values"][row : row + 1]
    wrist_then_base = model.vlm.encode_images(pixels.flip(1))[0]
    parts = [words[:1], wrist_then_base]
    if model.config.action_head.proprio_in_sequence:
        parts.append(model.proprio_projector(inputs["proprio"][row])[None])
    parts += [words[1:], *([model.seg_token[None]] if model.config.seg_token else []), model.action_queries]
    embeddings = torch.cat(parts)
    states = model.vlm.language_model.model(inputs_embeds=embeddings[None], output_hidden_states=True).hidden_states
    return embeddings, [state[0] for state in states[1:]]


@pytest.mark.parametrize("seg_token", [True, False])
@torch.no_grad()
def test_oft_head_reads_the_states_of_its_placeholders(seg_token: bool, make_inputs: MakeInputs) -> None:
    model = build_vla(tiny(seg_token=seg_token, **OFT)).eval()
    inputs = {**make_inputs(model.config), "sam_features": None}
    actions = model(**inputs, with_geometry=False).actions
    for row in range(3):
        states = by_hand(model, inputs, row)[1][-1]
        queries = states[-56:].reshape(1, 8, -1)
        hidden = model.action_head.stem(queries)
        for block in model.action_head.blocks:
            hidden = block(hidden)
        expected = model.action_head.output(model.action_head.norm(hidden))
        torch.testing.assert_close(actions[row : row + 1], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("head", [{}, OFT], ids=["poke", "oft"])
@torch.no_grad()
def test_geometry_reads_the_vision_states_of_its_layer(
    layer: int, head: dict[str, Any], make_inputs: MakeInputs
) -> None:
    model = build_vla(tiny(layer=layer, **head)).eval()
    inputs = make_inputs(model.config)
    geometry = model(**inputs).geometry
    for row in range(3):
        wrist, base = by_hand(model, inputs, row)[1][layer - 1][1:9].chunk(2)
        expected = model.geometry_projector(torch.stack([base, wrist]))
        torch.testing.assert_close(geometry[row], expected, atol=1e-5, rtol=1e-4)


def test_the_last_layer_by_number_is_the_last_layer(make_inputs: MakeInputs) -> None:
    by_name, by_number = build_vla(tiny()), build_vla(tiny(layer=2))
    inputs = make_inputs(by_name.config)
    first, second = by_name(**inputs), by_number(**inputs)
    assert torch.equal(first.geometry, second.geometry)
    assert torch.equal(first.actions, second.actions)


def test_other_layers_and_a_head_without_its_seg_are_refused() -> None:
    with pytest.raises(UsageError, match="layer is 3, the language model has 2 layers"):
        build_vla(tiny(layer=3))
    with pytest.raises(UsageError, match="Switch seg_injection off"):
        build_vla(tiny(seg_token=False))


def test_without_seg_there_are_no_masks_and_its_vector_is_frozen(make_inputs: MakeInputs) -> None:
    model = build_vla(tiny(seg_token=False, seg_injection=False))
    inputs = make_inputs(model.config)
    assert not model.seg_token.requires_grad
    with pytest.raises(UsageError, match="Masks are decoded from <SEG>"):
        model(**inputs)
    output = model(**{**inputs, "sam_features": None})
    assert output.seg_hidden_state is None
    before = output.actions
    with torch.no_grad():
        model.seg_token.add_(1.0)
    assert torch.equal(model(**{**inputs, "sam_features": None}).actions, before)


def test_zero_queries_stay_zero_and_their_positions_alone_tell_them_apart(make_inputs: MakeInputs) -> None:
    model = build_vla(tiny(**OFT, zero_queries=True))
    assert not model.action_queries.any()
    assert not model.action_queries.requires_grad
    output = model(**make_inputs(model.config))
    assert not torch.allclose(output.actions[:, 0], output.actions[:, 1])
    output.actions.sum().backward()
    silent = [n for n, p in model.action_head.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("condition", ["last", "per_layer"])
def test_bridge_layers_read_the_language_layers(condition: str, make_inputs: MakeInputs) -> None:
    config = tiny(kind="bridge", condition=condition)
    model = build_vla(config).eval()
    inputs = {**make_inputs(config), "sam_features": None}
    states = by_hand(model, inputs, 0)[1]
    read = states if condition == "per_layer" else states[-1:] * 2
    conditions = [HeadCondition(state[None, 1:9], state[None, -4:], None) for state in read]
    expected = model.action_head(conditions, model.proprio_projector(inputs["proprio"][:1])[:, None])
    torch.testing.assert_close(model(**inputs).actions[:1], expected, atol=1e-5, rtol=1e-4)


def test_sizes_of_the_heads_at_pocket() -> None:
    totals = {}
    for kind, changes in {"bridge": {}, "oft": {"num_layers": 2, **OFT}}.items():
        config = preset("pocket")
        head = dataclasses.replace(config.action_head, **{**changes, "kind": kind})
        with torch.device("meta"):
            model = PokeVLA(dataclasses.replace(config, action_head=head))
        totals[kind] = {part: total for part, total, _ in parameter_report(model)}["action_head"]
    assert totals == {"bridge": 96_482_207, "oft": 7_252_231}
