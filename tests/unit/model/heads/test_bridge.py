"""The bridge head: its published sizes, and what each quirk of the published code changes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from pokevla.errors import UsageError
from pokevla.model.heads.bridge import BridgeHead, rotary_angles, rotate
from pokevla.model.heads.condition import HeadCondition
from pokevla.model.heads.settings import BridgeQuirks, BridgeSettings, BridgeVariant
from pokevla.model.presets import ActionHeadConfig, preset

WIDTH = 32
NO_FILM = dataclasses.replace(BridgeQuirks.published(), unused_film=False)


def tiny(variant: BridgeVariant = "original", **quirks: bool) -> ActionHeadConfig:
    bridge = BridgeSettings(variant, BridgeQuirks(**quirks))
    return dataclasses.replace(preset("tiny").action_head, kind="bridge", bridge=bridge)


def build(config: ActionHeadConfig, gate: float = 0.7) -> BridgeHead:
    torch.manual_seed(0)
    head = BridgeHead(config, WIDTH).eval()
    for block in head.blocks:
        torch.nn.init.constant_(block.gate, gate)  # pyright: ignore[reportArgumentType]
    return head


def condition(seed: int = 0) -> HeadCondition:
    generator = torch.Generator().manual_seed(seed)
    return HeadCondition(
        torch.randn(2, 9, WIDTH, generator=generator),
        torch.randn(2, 4, WIDTH, generator=generator),
        torch.randn(2, WIDTH, generator=generator),
    )


def act(head: BridgeHead, seen: HeadCondition) -> Tensor:
    proprio = torch.randn(2, 1, WIDTH, generator=torch.Generator().manual_seed(9))
    return head([seen] * 2, proprio)


@pytest.mark.parametrize(
    ("variant", "quirks", "size"),
    [
        ("original", BridgeQuirks.published(), 102_129_695),
        ("pro", BridgeQuirks.published(), 217_864_223),
        ("pro", NO_FILM, 179_286_047),
        ("original", BridgeQuirks(), 96_482_207),  # learned latents (8, 896) in place of the stem, no key biases
        ("pro", BridgeQuirks(), 173_660_063),
    ],
)
def test_sizes_at_the_published_width(variant: BridgeVariant, quirks: BridgeQuirks, size: int) -> None:
    config = dataclasses.replace(preset("pocket").action_head, bridge=BridgeSettings(variant, quirks))
    with torch.device("meta"):
        head = BridgeHead(config, 896)
    assert sum(parameter.numel() for parameter in head.parameters()) == size


@pytest.mark.parametrize("variant", ["original", "pro"])
def test_every_parameter_gets_a_gradient(variant: BridgeVariant) -> None:
    head = build(tiny(variant))
    act(head, condition()).square().sum().backward()
    lost = [name for name, value in head.named_parameters() if value.grad is None or not value.grad.any()]
    assert lost == []


def test_original_with_zero_latents_repeats_one_action_and_ours_does_not() -> None:
    published = act(build(tiny(zero_latents=True)), condition())
    torch.testing.assert_close(published, published[:, :1].expand_as(published))
    ours = act(build(tiny()), condition())
    assert not torch.allclose(ours[:, 0], ours[:, 1])


@pytest.mark.parametrize("variant", ["original", "pro"])
def test_shut_gate_silences_vision_only_in_our_form(variant: BridgeVariant) -> None:
    seen = condition()
    other = dataclasses.replace(seen, vision=condition(seed=1).vision)
    ours, published = build(tiny(variant), gate=0.0), build(tiny(variant, gate_scales_logits=True), gate=0.0)
    torch.testing.assert_close(act(ours, seen), act(ours, other))
    assert not torch.allclose(act(published, seen), act(published, other))


def test_noise_is_new_in_each_training_forward_and_one_for_the_batch() -> None:
    head = build(tiny("pro", zero_latents=True, latent_noise=True))
    seen = condition()
    torch.testing.assert_close(act(head, seen), act(head, seen))
    head.train()
    assert not torch.allclose(act(head, seen), act(head, seen))
    alike = HeadCondition(seen.vision[:1].expand(2, -1, -1), seen.queries[:1].expand(2, -1, -1), None)
    rows = head([alike] * 2, torch.zeros(2, 1, WIDTH))
    torch.testing.assert_close(rows[0], rows[1])


def test_block_without_residual_cannot_pass_its_input_on() -> None:
    for without, same in ((False, True), (True, False)):
        head = build(tiny(no_residual=without))
        with torch.no_grad():
            for block in head.blocks:
                for layer in (block.output, block.ffn[1]):  # pyright: ignore
                    torch.nn.init.zeros_(layer.weight)  # pyright: ignore
                    torch.nn.init.zeros_(layer.bias)  # pyright: ignore
        passed = head.output(head.norm(head.latents)).expand(2, -1, -1)
        assert torch.allclose(act(head, condition()), passed) is same


def test_query_states_are_rounded_only_as_a_quirk() -> None:
    seen = condition()
    nudged = dataclasses.replace(seen, queries=seen.queries * (1 + 1e-5))
    for rounded in (True, False):
        head = build(tiny(bf16_queries=rounded))
        coarse = dataclasses.replace(seen, queries=seen.queries.to(torch.bfloat16).float())
        assert torch.equal(act(head, seen), act(head, coarse)) is rounded
    assert not torch.equal(act(build(tiny()), seen), act(build(tiny()), nudged))


def test_scores_depend_on_distance_alone_when_pairs_are_right() -> None:
    query, key = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    angles = rotary_angles(12, 8, torch.device("cpu"), torch.float32)
    for adjacent, depends in ((False, True), (True, False)):
        turned = [rotate(row.expand(1, 1, 12, 8), angles, adjacent=adjacent)[0, 0] for row in (query, key)]
        scores = turned[0] @ turned[1].T
        assert torch.allclose(scores.diagonal(2), scores[0, 2].expand(10), atol=1e-5) is depends


def test_angles_in_bf16_lose_positions_above_256() -> None:
    exact = rotary_angles(512, 8, torch.device("cpu"), torch.float32)[0]
    rounded = rotary_angles(512, 8, torch.device("cpu"), torch.bfloat16)[0].float()
    assert torch.equal(rounded[257], rounded[256])
    assert (exact - rounded)[256:, 0].abs().max() > 0.9


@pytest.mark.parametrize("quirk", [field.name for field in dataclasses.fields(BridgeQuirks)])
def test_every_quirk_builds_and_acts_alone(quirk: str) -> None:
    head = build(tiny("pro", **{quirk: True}))
    assert act(head, condition()).shape == (2, 8, 7)


def test_widths_that_cannot_work_are_refused() -> None:
    with pytest.raises(UsageError, match="its width 32 must be the language model's 48"):
        BridgeHead(tiny(), 48)
    assert BridgeHead(tiny("pro"), 48).blocks[0].sources["vision"].key.in_features == 48  # pyright: ignore
    with pytest.raises(UsageError, match="must divide by twice its num_heads"):
        BridgeHead(dataclasses.replace(tiny("pro"), num_heads=32), WIDTH)
