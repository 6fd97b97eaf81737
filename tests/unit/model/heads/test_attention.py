"""Absorbed key and value products are the plain attention: outputs, gradients, precision in bf16, and the choice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pokevla.model.heads.attention import (
    KeyValueAttention,
    absorbed_attention,
    is_absorption_cheaper,
    plain_attention,
)
from pokevla.model.presets import preset

BATCH, HEADS, LATENTS, WIDTH, SOURCE, SOURCE_WIDTH = 2, 4, 8, 96, 70, 80


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(BATCH, HEADS, LATENTS, WIDTH // HEADS, generator=generator)
    source = torch.randn(BATCH, SOURCE, SOURCE_WIDTH, generator=generator)
    weight = torch.randn(2 * WIDTH, SOURCE_WIDTH, generator=generator) / SOURCE_WIDTH**0.5
    query, source, weight = (tensor.to(dtype).requires_grad_() for tensor in (query, source, weight))
    return query, source, weight


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 4e-6)])
def test_both_forms_agree_in_outputs_and_gradients(dtype: torch.dtype, tolerance: float) -> None:
    values = inputs(dtype)
    upstream = torch.randn(BATCH, HEADS, LATENTS, WIDTH // HEADS, generator=torch.Generator().manual_seed(1))
    results = []
    for attend in (plain_attention, absorbed_attention):
        output = attend(*values)
        results.append((output, *torch.autograd.grad(output, values, upstream.to(dtype))))
    for plain, absorbed in zip(*results, strict=True):
        assert (plain - absorbed).abs().max() <= tolerance * plain.abs().max()


def test_bf16_is_as_exact_as_the_plain_form() -> None:
    values = inputs(torch.bfloat16)
    exact = plain_attention(*(value.double() for value in values))
    errors = [
        (attend(*values).double() - exact).square().mean().sqrt() for attend in (plain_attention, absorbed_attention)
    ]
    assert errors[1] < 1.15 * errors[0]


@pytest.mark.parametrize("tokens", [LATENTS, SOURCE])
def test_module_takes_the_form_with_fewer_operations(tokens: int) -> None:
    query, _, _ = inputs(torch.float32)
    source = torch.randn(BATCH, tokens, SOURCE_WIDTH)
    module = KeyValueAttention(SOURCE_WIDTH, WIDTH)
    counts = []
    for attend in (lambda: module(query, source), lambda: plain_attention(query, source, module.weight),
                   lambda: absorbed_attention(query, source, module.weight)):  # fmt: skip
        with FlopCounterMode(display=False) as counter:
            attend()
        counts.append(counter.get_total_flops())
    assert counts[0] == min(counts[1:])


def test_pocket_absorbs_vision_and_queries_but_not_the_latents_themselves() -> None:
    head, num_vision = preset("pocket").action_head, 2 * preset("pocket").vlm.num_patches
    width = preset("pocket").vlm.language_model.hidden_size
    choices = [
        is_absorption_cheaper(head.chunk_length, tokens, head.width, width, head.num_heads)
        for tokens in (num_vision, head.num_queries + 1, head.chunk_length)
    ]
    assert choices == [True, True, False]
