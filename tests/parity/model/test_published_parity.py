"""Imported OpenVLA-OFT and VLA-Adapter against their mathematics written plainly, and what each quirk is worth."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pokevla.model.published.config import Normalisation, PublishedConfig
from pokevla.model.published.vla import PublishedVLA
from pokevla.policy.published import PublishedPolicy
from tests.published_checkpoints import IMAGE, PlainVLA, random_observation
from tests.unit.weights.formats.imports import import_published

IDS = {"openvla-oft": [1, 17, 203, 99, 45, 29871], "vla-adapter": [260, 17, 203, 99, 45, 261, 8]}
CASES = {
    "openvla-oft": ("openvla-oft", False),
    "vla-adapter original": ("vla-adapter", False),
    "vla-adapter pro": ("vla-adapter", True),
}


Pair = tuple[PlainVLA, PublishedPolicy]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    def build(kind: str, pro: bool) -> Pair:
        plain = PlainVLA(kind, pro=pro)
        return plain, PublishedPolicy.from_pretrained(import_published(plain, tmp_path_factory.mktemp("published")))

    return {name: build(*case) for name, case in CASES.items()}


@pytest.fixture(params=list(CASES))
def pair(request: pytest.FixtureRequest, pairs: dict[str, Pair]) -> Pair:
    return pairs[request.param]


def inputs(kind: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels (1, 2, 3, S, S), ids (1, T), normalised state (1, 8)."""
    images, _ = random_observation(1, size=IMAGE)
    pixels = torch.from_numpy(images).permute(0, 1, 4, 2, 3).float() / 255
    state = torch.linspace(-0.9, 0.8, 8)[None]
    return pixels, torch.tensor([IDS[kind]]), state


def run(model: PublishedVLA, kind: str) -> torch.Tensor:
    pixels, ids, state = inputs(kind)
    with torch.inference_mode():
        return model(pixels, ids, torch.ones_like(ids, dtype=torch.bool), state)[0]


def changed(policy: PublishedPolicy, change: Callable[[PublishedConfig], PublishedConfig]) -> PublishedVLA:
    """The model with another configuration and the same weights."""
    other = PublishedVLA(change(policy.model.config)).eval()
    other.load_state_dict(policy.model.state_dict(), strict=False)
    return other


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_the_whole_forward_pass_agrees_with_its_mathematics(pair: Pair, dtype: torch.dtype) -> None:
    plain, policy = copy.deepcopy(pair[0]).to(dtype), pair[1]
    # In fp32 the last bit of a state decides how it is rounded to bf16: both sides go without that quirk there.
    plain.head.rounding = dtype == torch.float64
    model = changed(policy, unchanged if plain.head.rounding else without_rounding).to(dtype)
    pixels, ids, state = inputs(plain.kind)
    expected = plain(pixels[0], ids[0].tolist(), state[0])
    worst = float((run(model, plain.kind) - expected).abs().max())
    print(f"{policy.kind} {plain.head.variant}, {dtype}: worst {worst:.1e} of {float(expected.abs().max()):.2f}")
    assert worst < 1e-5
    assert float(expected[0].std()) > 0.05


def test_only_the_original_adapter_repeats_one_action(pair: Pair) -> None:
    plain, policy = pair
    spread = float(run(policy.model, plain.kind).std(dim=0).max())
    assert spread < 1e-6 if plain.head.variant == "original" else spread > 1e-3


def test_rows_of_other_lengths_do_not_change_an_action(pair: Pair) -> None:
    plain, policy = pair
    pixels, ids, state = inputs(plain.kind)
    longer = torch.cat([ids, torch.full((1, 5), 50)], dim=1)
    rows = torch.cat([torch.nn.functional.pad(ids, (0, 5)), longer])
    mask = torch.ones_like(rows, dtype=torch.bool)
    mask[0, ids.shape[1] :] = False
    model = changed(policy, unchanged).double()
    with torch.inference_mode():
        both = model(pixels.expand(2, -1, -1, -1, -1), rows, mask, state.expand(2, -1))
    torch.testing.assert_close(both[0], run(model, plain.kind), atol=1e-5, rtol=0)


def sequence(**changes: object) -> Callable[[PublishedConfig], PublishedConfig]:
    return lambda config: dataclasses.replace(config, sequence=dataclasses.replace(config.sequence, **changes))


def vlm(**changes: object) -> Callable[[PublishedConfig], PublishedConfig]:
    return lambda config: dataclasses.replace(config, vlm=dataclasses.replace(config.vlm, **changes))


def bridge(**changes: object) -> Callable[[PublishedConfig], PublishedConfig]:
    def change(config: PublishedConfig) -> PublishedConfig:
        settings = config.action_head.bridge
        settings = dataclasses.replace(settings, quirks=dataclasses.replace(settings.quirks, **changes))
        return dataclasses.replace(config, action_head=dataclasses.replace(config.action_head, bridge=settings))

    return change


def unchanged(config: PublishedConfig) -> PublishedConfig:
    return config


def without_rounding(config: PublishedConfig) -> PublishedConfig:
    return sequence(bf16_proprio=False)(bridge(bf16_queries=False)(config))


def last_layer(config: PublishedConfig) -> PublishedConfig:
    return dataclasses.replace(config, action_head=dataclasses.replace(config.action_head, condition="last"))


def exact_means(config: PublishedConfig) -> PublishedConfig:
    return dataclasses.replace(config, normalisation=Normalisation())


def llama_epsilon(config: PublishedConfig) -> PublishedConfig:
    return vlm(language_model=dataclasses.replace(config.vlm.language_model, rms_eps=1e-5))(config)


EVERY_KIND = list(CASES)
ADAPTERS = EVERY_KIND[1:]
MISTAKES = {
    "states at their own position": (sequence(states_one_early=False), EVERY_KIND, 0.02),
    "exact instead of rounded means": (exact_means, EVERY_KIND, 1e-4),
    "epsilon of Llama-2": (llama_epsilon, EVERY_KIND, 1e-6),
    "no stop token": (sequence(stop_token=False), ["openvla-oft"], 1e-3),
    "placeholders with an embedding": (sequence(zero_placeholders=False), ["openvla-oft"], 1e-2),
    "causal attention": (vlm(attention="causal"), ["openvla-oft"], 0.1),
    "bidirectional attention": (vlm(attention="bidirectional"), ADAPTERS, 0.1),
    "vision from its own start": (sequence(vision_from_start=False), ADAPTERS, 1e-2),
    "state not rounded": (sequence(bf16_proprio=False), ADAPTERS, 1e-6),
    "queries not rounded": (bridge(bf16_queries=False), ADAPTERS, 1e-6),
    "a residual around each block": (bridge(no_residual=False), ADAPTERS, 0.1),
    "the last layer everywhere": (last_layer, ADAPTERS, 1e-2),
    "the gate on the values": (bridge(gate_scales_logits=False), ADAPTERS, 1e-2),
    "RoPE the usual way": (bridge(adjacent_rope_pairs=False), ["vla-adapter pro"], 1e-2),
}


@pytest.mark.parametrize(
    ("mistake", "name"), [(one, name) for one, (_, names, _) in MISTAKES.items() for name in names]
)
def test_without_a_quirk_the_actions_move(mistake: str, name: str, pairs: dict[str, Pair]) -> None:
    plain, policy = pairs[name]
    change, _, least = MISTAKES[mistake]
    other = changed(policy, change)
    moved = float((run(other, plain.kind) - run(policy.model, plain.kind)).abs().max())
    print(f"{name}, {mistake}: actions move by up to {moved:.1e}")
    assert moved > least


def test_actions_of_the_whole_policy_are_those_of_its_steps(pair: Pair) -> None:
    _, policy = pair
    images, proprio = random_observation(2)
    given = policy.prepare(images, proprio, ["Put the BOWL on the plate"])
    with torch.inference_mode():
        normalised = policy.model(given.pixel_values, given.input_ids, given.attention_mask, given.proprio)
    raw = policy.act(images, proprio, ["put the bowl on the plate"])
    assert raw.shape == (1, 8, 7)
    assert raw.dtype == np.float64
    np.testing.assert_array_equal(raw, policy.statistics.denormalise_actions(normalised.numpy()))


def test_an_import_holds_the_weights_in_the_types_of_the_source(tmp_path: Path) -> None:
    plain = PlainVLA("vla-adapter").bfloat16()
    policy = PublishedPolicy.from_pretrained(import_published(plain, tmp_path))
    assert {value.dtype for value in policy.model.parameters()} == {torch.bfloat16}
    assert policy.model.vlm.vision_backbone.mean.dtype == torch.float32
    images, proprio = random_observation(3)
    assert np.isfinite(policy.act(images, proprio, ["open the drawer"])).all()
