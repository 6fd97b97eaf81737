"""PokeVLM: padding has no effect, masks are respected."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pokevla.errors import UsageError
from pokevla.model.building import build_vlm
from pokevla.model.presets import Attention, preset
from pokevla.model.vlm import PokeVLM


def build(attention: Attention = "causal") -> PokeVLM:
    return build_vlm(dataclasses.replace(preset("tiny").vlm, attention=attention), seed=1).eval()


def text_inputs(make_inputs: Callable[..., dict[str, Tensor]], *lengths: int) -> dict[str, Tensor]:
    inputs = make_inputs(preset("tiny"), lengths)
    return {name: inputs[name] for name in ("pixel_values", "input_ids", "attention_mask")}


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_padding_changes_nothing_for_real_tokens(
    attention: Attention, make_inputs: Callable[..., dict[str, Tensor]]
) -> None:
    model, inputs = build(attention), text_inputs(make_inputs, 4, 9)
    patches = 2 * model.config.num_patches
    batched = model(**inputs)
    alone = {name: value[:1] if name == "pixel_values" else value[:1, :4] for name, value in inputs.items()}
    torch.testing.assert_close(batched[:1, : 4 + patches], model(**alone), atol=1e-5, rtol=1e-4)


def test_causal_model_never_looks_ahead_and_bidirectional_does(
    make_inputs: Callable[..., dict[str, Tensor]],
) -> None:
    inputs = text_inputs(make_inputs, 6)
    changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][0, -1] += 1
    for attention, expected in (("causal", True), ("bidirectional", False)):
        model = build(attention)
        before, after = model(**inputs)[:, :-1], model(**changed)[:, :-1]
        assert torch.equal(before, after) is expected


def test_position_angles_survive_a_bfloat16_model() -> None:
    rotary = build().bfloat16().language_model.model.rotary_emb
    cos, _ = rotary(torch.zeros(1), torch.tensor([[600]]))  # fp32 in, fp32 out
    torch.testing.assert_close(cos[0, 0, 0], torch.tensor(600.0).cos())


def test_bfloat16_model_runs(make_inputs: Callable[..., dict[str, Tensor]]) -> None:
    logits = build().bfloat16()(**text_inputs(make_inputs, 4))
    assert logits.dtype == torch.bfloat16
    assert torch.isfinite(logits).all()


def test_activation_checkpointing_gives_the_same_gradients(
    make_inputs: Callable[..., dict[str, Tensor]],
) -> None:
    inputs = text_inputs(make_inputs, 5, 7)
    gradients = []
    for enabled in (False, True):
        model = build().train()
        model.set_activation_checkpointing(enabled)
        model(**inputs).square().mean().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_wrong_shapes_are_named(make_inputs: Callable[..., dict[str, Tensor]]) -> None:
    model, inputs = build(), text_inputs(make_inputs, 5)
    with pytest.raises(UsageError, match="pixel_values"):
        model(**{**inputs, "pixel_values": torch.rand(1, 2, 3, 30, 30)})
    with pytest.raises(UsageError, match="attention_mask"):
        model(**{**inputs, "attention_mask": inputs["attention_mask"][:, :3]})


def test_kernels_that_would_ignore_the_mask_are_refused(
    make_inputs: Callable[..., dict[str, Tensor]],
) -> None:
    model = build()
    model.language_model.set_attn_implementation("eager")
    with pytest.raises(UsageError, match="eager"):
        model(**text_inputs(make_inputs, 5))
