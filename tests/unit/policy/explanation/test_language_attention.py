"""Recomputed weights times values are what each attention layer of the language model returns."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from pokevla.errors import UsageError
from pokevla.model.building import build_vlm
from pokevla.model.presets import Attention, preset
from pokevla.model.sequence import splice_layout
from pokevla.policy.explanation.language_attention import attention_rows, recorded_rows, visible_keys

NUM_VISION, TAIL = 4, 3


@pytest.fixture(params=["causal", "bidirectional"])
def attention(request: pytest.FixtureRequest) -> Attention:
    return request.param


def run(attention: Attention, record: bool) -> tuple[Any, ...]:
    config = dataclasses.replace(preset("tiny").vlm, attention=attention)
    model = build_vlm(config, seed=3).eval()
    generator = torch.Generator().manual_seed(5)
    vision = torch.randn(2, NUM_VISION, 32, generator=generator)
    tail = torch.randn(2, TAIL, 32, generator=generator)
    ids = torch.randint(0, 1000, (2, 7), generator=generator)
    mask = torch.arange(7)[None] < torch.tensor([[7], [4]])
    layout = splice_layout(mask, NUM_VISION, TAIL)
    calls: list[tuple[dict[str, Any], torch.Tensor]] = []
    layers = [layer.self_attn for layer in model.language_model.model.layers]
    handles = [
        layer.register_forward_hook(lambda _, __, options, output: calls.append((options, output[0])), with_kwargs=True)
        for layer in layers
    ]
    with torch.no_grad():
        if record:
            rows = layout.tail_positions
            with recorded_rows(model.language_model, layout, attention, rows, layout.vision_slice) as recorded:
                model.run_sequence(vision, ids, mask, tail)
        else:
            recorded = []
            model.run_sequence(vision, ids, mask, tail)
    for handle in handles:
        handle.remove()
    return layers, layout, calls, recorded


def test_weights_times_values_are_the_layers_output(attention: Attention) -> None:
    layers, layout, calls, _ = run(attention, record=False)
    assert len(calls) == 2
    rows = torch.arange(layout.source.shape[1]).expand(2, -1)
    visible = visible_keys(layout, rows, attention)
    for layer, (options, output) in zip(layers, calls, strict=True):
        hidden = options["hidden_states"]
        with torch.no_grad():
            weights = attention_rows(layer, hidden, options["position_embeddings"], rows, visible)
            values = layer.v_proj(hidden).unflatten(-1, (-1, layer.head_dim)).transpose(1, 2)
            values = values.repeat_interleave(weights.shape[1] // values.shape[1], dim=1)
            mixed = layer.o_proj((weights @ values).transpose(1, 2).flatten(2))
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        torch.testing.assert_close(mixed[layout.valid], output[layout.valid], atol=1e-6, rtol=1e-4)


def test_recorded_rows_are_those_of_the_tail_over_the_patches(attention: Attention) -> None:
    layers, layout, calls, recorded = run(attention, record=True)
    assert [weights.shape for weights in recorded] == [(2, 4, TAIL, NUM_VISION)] * 2
    options, _ = calls[1]
    rows = layout.tail_positions
    with torch.no_grad():
        whole = attention_rows(
            layers[1], options["hidden_states"], options["position_embeddings"], rows,
            visible_keys(layout, rows, attention),
        )  # fmt: skip
    assert torch.equal(recorded[1], whole[..., 1 : 1 + NUM_VISION])
    assert not any(layer._forward_pre_hooks for layer in layers), "the hooks are gone"


def test_no_token_looks_at_a_later_one_or_at_padding() -> None:
    _, layout, calls, _ = run("causal", record=False)
    rows = layout.tail_positions
    visible = visible_keys(layout, rows, "causal")
    assert visible.sum(-1).equal(rows + 1)
    assert visible_keys(layout, rows, "bidirectional").sum(-1).equal(layout.valid.sum(1)[:, None].expand(-1, TAIL))
    assert len(calls) == 2


def test_a_language_model_of_another_build_is_refused() -> None:
    layout = splice_layout(torch.ones(1, 3, dtype=torch.bool), NUM_VISION, 1)
    with (
        pytest.raises(UsageError, match=r"attention of Linear cannot be read.*q_proj"),
        recorded_rows(nn.Linear(2, 2), layout, "causal", layout.tail_positions, layout.vision_slice),
    ):
        pass
