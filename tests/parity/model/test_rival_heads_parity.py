"""The bridge and oft heads against their published computation, written out plainly from weights alone."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pokevla.model.heads.bridge import BridgeHead
from pokevla.model.heads.condition import HeadCondition
from pokevla.model.heads.oft import OFTHead
from pokevla.model.heads.settings import BridgeQuirks, BridgeSettings, BridgeVariant
from pokevla.model.presets import ActionHeadConfig

BATCH, WIDTH, HEADS, BLOCKS, CHUNK, ACTION, QUERIES, PATCHES = 3, 48, 4, 5, 8, 7, 6, 20
CONFIG = ActionHeadConfig(BLOCKS, WIDTH, HEADS, QUERIES, ACTION, 8, CHUNK, condition="per_layer")
Weights = dict[str, Tensor]


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", torch.zeros(()))


def normed(x: Tensor, weights: Weights, name: str) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    scale = (centred.square().mean(dim=-1, keepdim=True) + 1e-5).rsqrt()
    return centred * scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def turned(x: Tensor, *, adjacent: bool) -> Tensor:
    """Rotate one head's rows (S, d) by position, channel by channel."""
    length, depth = x.shape
    result = torch.empty_like(x)
    for position in range(length):
        for channel in range(depth):
            if adjacent:
                partner, sign = (channel + 1, -1) if channel % 2 == 0 else (channel - 1, 1)
            else:
                low = channel < depth // 2
                partner, sign = (channel + depth // 2, -1) if low else (channel - depth // 2, 1)
            angle = position * 10000 ** (-2 * (channel % (depth // 2)) / depth)
            result[position, channel] = x[position, channel] * math.cos(angle) + sign * x[position, partner] * math.sin(
                angle
            )
    return result


def plain_bridge_block(x: Tensor, sources: list[Tensor], weights: Weights, at: str, head: BridgeHead) -> Tensor:
    """One sample: latents (K, W), sources [latents, queries and proprio, vision] -> (K, W)."""
    pro, quirks = head.config.bridge.variant == "pro", head.quirks
    depth, gate = WIDTH // HEADS, torch.tanh(weights[f"{at}.gate"])
    attended = []
    for number in range(HEADS):
        part = slice(number * depth, (number + 1) * depth)
        query = linear(x, weights, f"{at}.query")[:, part]
        query = turned(query, adjacent=quirks.adjacent_rope_pairs) if pro else query
        scores, values = [], []
        for name, source in zip(("latents", "queries", "vision"), sources, strict=True):
            place = f"{at}.sources.{name if pro else 'shared'}"
            key = linear(source, weights, f"{place}.key")[:, part]
            key = turned(key, adjacent=quirks.adjacent_rope_pairs) if pro else key
            scores.append(query @ key.T / math.sqrt(depth))
            values.append(linear(source, weights, f"{place}.value")[:, part])
        if quirks.gate_scales_logits:
            share = torch.softmax(torch.cat([scores[0], scores[1], scores[2] * gate], dim=1), dim=1)
            attended.append(share @ torch.cat(values))
        else:
            near = torch.softmax(torch.cat(scores[:2], dim=1), dim=1) @ torch.cat(values[:2])
            attended.append(near + gate * (torch.softmax(scores[2], dim=1) @ values[2]))
    update = linear(torch.cat(attended, dim=1), weights, f"{at}.output")
    inner = torch.relu(linear(normed(x + update, weights, f"{at}.ffn.0"), weights, f"{at}.ffn.1"))
    return inner if quirks.no_residual else x + update + inner


def plain_bridge(head: BridgeHead, conditions: list[HeadCondition], proprio: Tensor) -> Tensor:
    weights = dict(head.state_dict())
    rows = []
    for row in range(BATCH):
        if head.quirks.zero_latents:
            x = normed(torch.zeros(CHUNK, ACTION * WIDTH), weights, "stem.0")
            x = torch.relu(linear(x, weights, "stem.1"))
        else:
            x = weights["latents"]
        for index, seen in enumerate(conditions):
            queries = torch.cat([seen.queries[row], proprio[row]])
            if head.quirks.bf16_queries:
                queries = queries.bfloat16().float()
            x = plain_bridge_block(x, [x, queries, seen.vision[row]], weights, f"blocks.{index}", head)
        rows.append(linear(normed(x, weights, "norm"), weights, "output"))
    return torch.stack(rows)


def randomised(head: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def conditions(num_queries: int) -> list[HeadCondition]:
    torch.manual_seed(4)
    return [
        HeadCondition(
            torch.randn(BATCH, PATCHES, WIDTH), torch.randn(BATCH, num_queries, WIDTH), torch.randn(BATCH, WIDTH)
        )
        for _ in range(BLOCKS)
    ]


@pytest.mark.parametrize("published", [True, False], ids=["published", "ours"])
@pytest.mark.parametrize("variant", ["original", "pro"])
@torch.no_grad()
def test_bridge_head_equals_its_formulas(variant: BridgeVariant, published: bool) -> None:
    quirks = BridgeQuirks.published() if published else BridgeQuirks()
    head = BridgeHead(dataclasses.replace(CONFIG, bridge=BridgeSettings(variant, quirks)), WIDTH).eval()
    randomised(head)
    seen, proprio = conditions(QUERIES), torch.randn(BATCH, 1, WIDTH)
    worst = (head(seen, proprio) - plain_bridge(head, seen, proprio)).abs().max().item()
    print(f"{variant}, {'published' if published else 'ours'}: worst difference {worst:.1e}")
    assert worst < 1e-5


@torch.no_grad()
def test_oft_head_equals_its_formulas() -> None:
    head = OFTHead(dataclasses.replace(CONFIG, num_layers=2, num_queries=CHUNK * ACTION), WIDTH).eval()
    randomised(head)
    seen, weights = conditions(CHUNK * ACTION), dict(head.state_dict())
    rows = []
    for row in range(BATCH):
        steps = [seen[-1].queries[row, ACTION * step : ACTION * (step + 1)].flatten() for step in range(CHUNK)]
        x = F.relu(linear(normed(torch.stack(steps), weights, "stem.0"), weights, "stem.1"))
        for index in range(2):
            x = x + F.relu(linear(normed(x, weights, f"blocks.{index}.ffn.0"), weights, f"blocks.{index}.ffn.1"))
        rows.append(linear(normed(x, weights, "norm"), weights, "output"))
    worst = (head(seen[-2:], torch.zeros(BATCH, 1, WIDTH)) - torch.stack(rows)).abs().max().item()
    print(f"oft: worst difference {worst:.1e}")
    assert worst < 1e-5
