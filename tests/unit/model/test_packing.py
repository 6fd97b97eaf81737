"""Samples packed into one sequence have the states and gradients that they have alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pokevla.errors import UsageError
from pokevla.model.building import build_vlm
from pokevla.model.language_models import build_llama
from pokevla.model.packing import (
    Block,
    PackedLayout,
    assemble_packed,
    packed_attention_mask,
    packed_layout,
)
from pokevla.model.presets import Attention, preset
from pokevla.model.vlm import PokeVLM

CONFIG = preset("tiny").vlm
LENGTHS, NUM_IMAGES = [7, 3, 9, 1, 5], [1, 0, 3, 2, 0]
ROW = torch.tensor([0, 0, 0, 1, 1])
TEXT = max(LENGTHS) + 2


def samples() -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (5, 3, 3, S, S), ids (5, T) and their mask: texts of all lengths, with no, one or several pictures."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.rand(5, 3, 3, CONFIG.image_size, CONFIG.image_size, generator=generator)
    ids = torch.randint(0, 1000, (5, TEXT), generator=generator)
    return pixels, ids, torch.arange(TEXT)[None] < torch.tensor(LENGTHS)[:, None]


def layout_of(mask: Tensor, num_vision: int) -> PackedLayout:
    """Three samples in the first sequence and two in the second, which ends in padding. `num_vision`: of 3 images."""
    row_vision = torch.tensor(NUM_IMAGES) * (num_vision // 3)
    lengths = torch.tensor(LENGTHS) + row_vision
    start = torch.cat([lengths[:3].cumsum(0) - lengths[:3], lengths[3:].cumsum(0) - lengths[3:]])
    places = zip(ROW.tolist(), start.tolist(), (start + lengths).tolist(), strict=True)
    return packed_layout(mask, num_vision, row_vision, ROW, start, [Block(*place) for place in places])


def model_of(attention: Attention = "causal") -> PokeVLM:
    return build_vlm(dataclasses.replace(CONFIG, attention=attention), seed=0)


def alone(model: PokeVLM, pixels: Tensor, ids: Tensor, number: int) -> Tensor:
    """(length, D) states of one sample in a sequence of its own without padding."""
    views = pixels[number : number + 1, : NUM_IMAGES[number]]
    text = ids[number : number + 1, : LENGTHS[number]]
    states, _ = model.run_sequence(model.encode_images(views), text, torch.ones_like(text, dtype=torch.bool))
    return states[-1][0]


def packed_states(model: PokeVLM, pixels: Tensor, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """(length, D) states of each sample. Only the images that are there are encoded."""
    present = (torch.arange(3) < torch.tensor(NUM_IMAGES)[:, None]).flatten().nonzero()[:, 0]
    vision = model.encode_images(pixels, present)
    layout = layout_of(mask, vision.shape[1])
    flat = model.run_packed(vision, ids, layout).flatten(0, 1)
    of_an_image = vision.shape[1] // 3
    lengths = [length + of_an_image * count for length, count in zip(LENGTHS, NUM_IMAGES, strict=True)]
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


def test_activations_that_are_computed_again_are_the_same() -> None:
    pixels, ids, mask = samples()
    outcomes = []
    for checkpointing in (False, True):
        model = model_of()
        model.set_activation_checkpointing(checkpointing)
        torch.cat(packed_states(model, pixels, ids, mask)).square().sum().backward()
        outcomes.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*outcomes, strict=True))


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
    layout = layout_of(mask, 6)
    text = [f"t{n}.{t}" for n in range(5) for t in range(TEXT)]
    names = [*text, *(f"v{n}.{v}" for n in range(5) for v in range(6))]
    for row, numbers in enumerate(([0, 1, 2], [3, 4])):
        expected, places = [], []
        for n in numbers:
            vision = [f"v{n}.{v}" for v in range(2 * NUM_IMAGES[n])]
            one = [f"t{n}.0", *vision, *(f"t{n}.{t}" for t in range(1, LENGTHS[n]))]
            expected += one
            places += range(len(one))
        assert [names[i] for i in layout.source[row]][: len(expected)] == expected
        assert layout.position_ids[row][: len(expected)].tolist() == places


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_attention_is_that_of_a_block_diagonal_mask(attention: Attention) -> None:
    _, _, mask = samples()
    layout = layout_of(mask, 6)
    rows, length = layout.source.shape
    generator = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(rows, 4, length, 8, generator=generator) for _ in range(3))
    blocks = torch.zeros(rows, 1, length, length, dtype=torch.bool)
    real = torch.zeros(rows, length, dtype=torch.bool)
    for row, start, stop in layout.blocks:
        blocks[row, 0, start:stop, start:stop] = True
        real[row, start:stop] = True
    if attention == "causal":
        blocks = blocks.tril()
    found = F.scaled_dot_product_attention(
        query, key, value, attn_mask=packed_attention_mask(layout, attention), scale=0.5
    ).transpose(1, 2)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=blocks, scale=0.5).transpose(1, 2)
    torch.testing.assert_close(found[real], expected[real], rtol=1e-5, atol=1e-5)
    assert not found[~real].any()
    with pytest.raises(UsageError, match="is_causal"):
        F.scaled_dot_product_attention(query, key, value, packed_attention_mask(layout, attention), is_causal=True)


def test_gradients_arrive_at_the_embeddings_of_real_tokens_only() -> None:
    _, _, mask = samples()
    layout = layout_of(mask, 6)
    text, vision = torch.randn(5, TEXT, 4, requires_grad=True), torch.randn(5, 6, 4, requires_grad=True)
    placed = assemble_packed(text, vision, layout)
    torch.stack([placed[row, start:stop].sum() for row, start, stop in layout.blocks]).sum().backward()
    assert text.grad is not None
    assert vision.grad is not None
    assert torch.equal(text.grad.bool().any(dim=-1), mask)
    assert vision.grad.bool().all(dim=-1).sum(dim=-1).tolist() == [2 * count for count in NUM_IMAGES]


@pytest.mark.parametrize(
    "places",
    [
        [(0, 0, 5), (0, 4, 9)],
        [(0, 0, 5), (0, 6, 11)],
        [(0, 0, 5), (2, 0, 5)],
        [(1, 0, 5), (1, 5, 10)],
        [(0, 1, 6), (0, 6, 11)],
        [(0, 0, 5), (1, 1, 6)],
        [(0, 0, 5), (0, 5, 5)],
    ],
    ids=["overlap", "gap", "no row 1", "no row 0", "no start", "late", "empty"],
)
def test_places_that_overlap_or_leave_gaps_are_refused(places: list[tuple[int, int, int]]) -> None:
    mask, blocks = torch.ones(2, 3, dtype=torch.bool), [Block(*place) for place in places]
    row, start = (torch.tensor([place[column] for place in places]) for column in (0, 1))
    with pytest.raises(UsageError, match="each begins where the one before it ends"):
        packed_layout(mask, 2, None, row, start, blocks)


@pytest.mark.parametrize("stop", [4, 6])
def test_places_of_other_lengths_are_refused(stop: int) -> None:
    mask, row, start = torch.ones(2, 3, dtype=torch.bool), torch.tensor([0, 0]), torch.tensor([0, 5])
    packed_layout(mask, 2, None, row, start, [Block(0, 0, 5), Block(0, 5, 10)])
    with pytest.raises(UsageError, match="lengths of packed samples are not those"):
        packed_layout(mask, 2, None, row, torch.tensor([0, stop]), [Block(0, 0, stop), Block(0, stop, 10)])
