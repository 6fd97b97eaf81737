"""The head: one-key attention is a value projection, a gate of zero disables its branch, steps differ."""

from __future__ import annotations

import dataclasses

import torch
from torch.nn import functional as F

from pokevla.model.heads.condition import HeadCondition
from pokevla.model.heads.poke import ActionHead, Attention
from pokevla.model.presets import preset

CONFIG = preset("tiny").action_head


def condition() -> HeadCondition:
    generator = torch.Generator().manual_seed(0)
    return HeadCondition(
        torch.randn(2, 8, 32, generator=generator),
        torch.randn(2, 4, 32, generator=generator),
        torch.randn(2, 32, generator=generator),
    )


def test_attention_to_one_key_is_its_value_projection() -> None:
    attention = Attention(32, 32, 4)
    source = torch.randn(2, 1, 32)
    value = F.linear(source, attention.key_value.weight[32:])
    torch.testing.assert_close(attention(torch.randn(2, 8, 32), source), value.expand(2, 8, 32))


def test_attention_equals_torch_multihead_attention() -> None:
    attention = Attention(32, 32, 4)
    reference = torch.nn.MultiheadAttention(32, 4, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([attention.query.weight, attention.key_value.weight]))
        reference.in_proj_bias.copy_(torch.cat([attention.query.bias, torch.zeros(64)]))
        reference.out_proj.weight.copy_(torch.eye(32))
        reference.out_proj.bias.zero_()
    latents, source = torch.randn(2, 8, 32), torch.randn(2, 5, 32)
    torch.testing.assert_close(attention(latents, source), reference(latents, source, source)[0])


def test_steps_of_a_chunk_differ() -> None:
    actions = ActionHead(CONFIG, 32)([condition()] * 2, torch.randn(2, 1, 32))
    assert actions.shape == (2, 8, 7)
    assert not torch.allclose(actions[:, 0], actions[:, 1])


def test_shut_gates_silence_all_conditions() -> None:
    head = ActionHead(dataclasses.replace(CONFIG, gate=True), 32)
    actions = head([condition()] * 2, torch.randn(2, 1, 32))
    torch.testing.assert_close(actions[0], actions[1])


def test_without_injection_seg_has_no_say() -> None:
    proprio, seen = torch.randn(2, 1, 32), condition()
    assert seen.seg is not None
    changed = dataclasses.replace(seen, seg=seen.seg + 1)
    for injection in (True, False):
        head = ActionHead(dataclasses.replace(CONFIG, seg_injection=injection), 32)
        same = torch.equal(head([seen] * 2, proprio), head([changed] * 2, proprio))
        assert same is not injection
