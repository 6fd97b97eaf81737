"""Samples packed into one sequence have the states and gradients that they have alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from pokevla.errors import UsageError
from pokevla.model.building import build_vlm
from pokevla.model.language_models import build_llama
from pokevla.model.packing import PackedLayout, assemble_packed, packed_attention_mask, packed_layout
from pokevla.model.presets import Attention, preset
from pokevla.model.vlm import PokeVLM

CONFIG = preset("tiny").vlm
LENGTHS, HAS_IMAGE = [7, 3, 9, 1, 5], [True, False, True, True, False]
ROW = torch.tensor([0, 0, 0, 1, 1])
TEXT = max(LENGTHS) + 2


def samples() -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (5, 1, 3, S, S), ids (5, T) and their mask: texts of all lengths, some without a picture."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.rand(5, 1, 3, CONFIG.image_size, CONFIG.image_size, generator=generator)
    ids = torch.randint(0, 1000, (5, TEXT), generator=generator)
    return pixels, ids, torch.arange(TEXT)[None] < torch.tensor(LENGTHS)[:, None]


def layout_of(mask: Tensor, num_vision: int, extra: int = 0) -> PackedLayout:
    """Three samples in the first sequence and two in the second, with `extra` tokens of padding behind the longest."""
    has_image = torch.tensor(HAS_IMAGE)
    lengths = torch.tensor(LENGTHS) + num_vision * has_image
    start = torch.cat([lengths[:3].cumsum(0) - lengths[:3], lengths[3:].cumsum(0) - lengths[3:]])
    return packed_layout(mask, num_vision, has_image, ROW, start, 2, int((start + lengths).max()) + extra)


def model_of(attention: Attention = "causal") -> PokeVLM:
    return build_vlm(dataclasses.replace(CONFIG, attention=attention), seed=0)


def alone(model: PokeVLM, pixels: Tensor, ids: Tensor, number: int) -> Tensor:
    """(length, D) states of one sample in a sequence of its own without padding."""
    views = pixels[number : number + 1, : 1 if HAS_IMAGE[number] else 0]
    text = ids[number : number + 1, : LENGTHS[number]]
    states, _ = model.run_sequence(model.encode_images(views), text, torch.ones_like(text, dtype=torch.bool))
    return states[-1][0]


def packed_states(model: PokeVLM, pixels: Tensor, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """(length, D) states of each sample."""
    vision = model.encode_images(pixels)
    layout = layout_of(mask, vision.shape[1], extra=2)
    flat = model.run_packed(vision, ids, layout).flatten(0, 1)
    lengths = [length + vision.shape[1] * has for length, has in zip(LENGTHS, HAS_IMAGE, strict=True)]
    return [flat[start : start + n] for start, n in zip(layout.first.tolist(), lengths, strict=True)]


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_packed_samples_have_the_states_and_gradients_of_samples_alone(attention: Attention, kind: str) -> None:
    pixels, ids, mask = samples()
    model = model_of(attention)
    if kind == "llama":
        model.language_model = build_llama(CONFIG.language_model)
    weights = [torch.randn(300, 32, generator=torch.Generator().manual_seed(n)) for n in range(5)]

    def gradients(states: list[Tensor]) -> list[Tensor]:
        model.zero_grad()
        torch.stack([(each * weights[n][: len(each)]).sum() for n, each in enumerate(states)]).sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    expected, found = [alone(model, pixels, ids, n) for n in range(5)], packed_states(model, pixels, ids, mask)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)
    for one, other in zip(gradients(expected), gradients(found), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5 * float(one.abs().max().clamp(min=1)))


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_no_sample_sees_another(attention: Attention) -> None:
    pixels, ids, mask = samples()
    model = model_of(attention)
    with torch.no_grad():
        before = packed_states(model, pixels, ids, mask)
        for changed in range(5):
            other_pixels, other_ids = pixels.clone(), (ids.clone() + 1) % 1000
            other_pixels[changed] = 1 - pixels[changed]
            other_ids = torch.where(torch.arange(5)[:, None] == changed, other_ids, ids)
            after = packed_states(model, other_pixels, other_ids, mask)
            same = [torch.equal(one, other) for one, other in zip(before, after, strict=True)]
            assert same == [number != changed for number in range(5)]


def test_layout_equals_a_list_of_the_samples() -> None:
    _, _, mask = samples()
    layout = layout_of(mask, 2, extra=1)
    text = [f"t{n}.{t}" for n in range(5) for t in range(TEXT)]
    names = [*text, *(f"v{n}.{v}" for n in range(5) for v in range(2))]
    for row, numbers in enumerate(([0, 1, 2], [3, 4])):
        expected, places = [], []
        for n in numbers:
            vision = [f"v{n}.0", f"v{n}.1"] if HAS_IMAGE[n] else []
            one = [f"t{n}.0", *vision, *(f"t{n}.{t}" for t in range(1, LENGTHS[n]))]
            expected += one
            places += range(len(one))
        assert [names[i] for i in layout.source[row]][: len(expected)] == expected
        assert layout.position_ids[row][: len(expected)].tolist() == places
        assert layout.valid[row].tolist() == [i < len(expected) for i in range(layout.valid.shape[1])]


def test_masks_are_blocks_and_every_token_attends_to_something() -> None:
    _, _, mask = samples()
    layout = layout_of(mask, 2, extra=3)
    causal, whole = (packed_attention_mask(layout, kind) for kind in ("causal", "bidirectional"))
    length = layout.source.shape[1]
    for row in range(2):
        for i in range(length):
            block = [bool(layout.sample[row, i] == layout.sample[row, j]) for j in range(length)]
            assert causal[row, 0, i].tolist() == [same and j <= i for j, same in enumerate(block)]
            assert whole[row, 0, i].tolist() == [same and bool(layout.valid[row, j]) for j, same in enumerate(block)]
    assert causal.any(dim=-1).all()
    assert whole.any(dim=-1).all()


def test_embeddings_of_padding_get_no_gradient() -> None:
    _, _, mask = samples()
    layout = layout_of(mask, 2, extra=3)
    text, vision = torch.randn(5, TEXT, 4, requires_grad=True), torch.randn(5, 2, 4, requires_grad=True)
    assemble_packed(text, vision, layout)[layout.valid].sum().backward()
    assert text.grad is not None
    assert vision.grad is not None
    assert torch.equal(text.grad.bool().any(dim=-1), mask)
    assert vision.grad.bool().all(dim=-1).all(dim=-1).tolist() == HAS_IMAGE


@pytest.mark.parametrize(
    ("row", "start", "length"),
    [
        ([0, 0], [0, 4], 9),  # the first has 5 tokens
        ([0, 0], [0, 6], 12),
        ([0, 0], [0, 5], 9),
        ([0, 2], [0, 0], 9),
        ([1, 1], [0, 5], 10),
        ([0, 1], [0, 1], 9),
    ],
    ids=["overlap", "gap", "too short", "no row 1", "no row 0", "late"],
)
def test_places_that_do_not_fit_are_refused(row: list[int], start: list[int], length: int) -> None:
    mask = torch.ones(2, 3, dtype=torch.bool)
    packed_layout(mask, 2, None, torch.tensor([0, 0]), torch.tensor([0, 5]), 1, 10)
    with pytest.raises(UsageError, match="overlap, leave gaps or do not fit"):
        packed_layout(mask, 2, None, torch.tensor(row), torch.tensor(start), max(row) + 1, length)
