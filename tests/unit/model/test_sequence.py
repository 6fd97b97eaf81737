"""The sequence is [first][patches][rest of text][tail][padding], row by row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pokevla.errors import UsageError
from pokevla.model.sequence import assemble, attention_mask_for, splice_layout, take_rows


def mask_of(lengths: list[int], width: int) -> torch.Tensor:
    return torch.arange(width)[None] < torch.tensor(lengths)[:, None]


@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    extra=st.integers(0, 3),
    num_vision=st.integers(0, 5),
    num_tail=st.integers(0, 4),
)
@settings(max_examples=60, deadline=None)
def test_layout_equals_a_row_by_row_list(lengths: list[int], extra: int, num_vision: int, num_tail: int) -> None:
    width = max(lengths) + extra
    layout = splice_layout(mask_of(lengths, width), num_vision, num_tail)
    text = [f"t{i}" for i in range(width)]
    vision, tail = [f"v{i}" for i in range(num_vision)], [f"s{i}" for i in range(num_tail)]
    given_order = text + vision + tail
    for row, length in enumerate(lengths):
        expected = text[:1] + vision + text[1:length] + tail + text[length:]
        assert [given_order[i] for i in layout.source[row]] == expected
        assert layout.valid[row].tolist() == [i < length + num_vision + num_tail for i in range(len(expected))]
        assert [expected[i] for i in layout.tail_positions[row]] == tail
    assert layout.position_ids.tolist() == [list(range(width + num_vision + num_tail))]


@given(
    rows=st.lists(st.tuples(st.integers(1, 7), st.integers(0, 3)), min_size=1, max_size=4),
    per_image=st.integers(1, 5),
    num_tail=st.integers(0, 2),
)
@settings(max_examples=60, deadline=None)
def test_rows_have_the_vision_tokens_of_their_images(
    rows: list[tuple[int, int]], per_image: int, num_tail: int
) -> None:
    lengths, num_images = [length for length, _ in rows], torch.tensor([count for _, count in rows])
    width, num_vision = max(lengths), 3 * per_image
    layout = splice_layout(mask_of(lengths, width), num_vision, num_tail, num_images * per_image)
    given_order = [f"t{i}" for i in range(width)] + [f"v{i}" for i in range(num_vision)] + ["s"] * num_tail
    in_row = layout.num_vision_in(torch.arange(len(rows)))
    assert isinstance(in_row, torch.Tensor)
    for row, (length, count) in enumerate(rows):
        vision = [f"v{i}" for i in range(count * per_image)]
        real = ["t0"] + vision + [f"t{i}" for i in range(1, length)] + ["s"] * num_tail
        assert [given_order[i] for i in layout.source[row][: len(real)]] == real
        assert layout.valid[row].tolist() == [i < len(real) for i in range(layout.source.shape[1])]
        assert [real[int(in_row[row]) + i] for i in range(1, length)] == [f"t{i}" for i in range(1, length)]


def test_embeddings_and_gradients_arrive_where_the_layout_says() -> None:
    text, vision, tail = torch.randn(2, 4, 3), torch.randn(2, 2, 3), torch.randn(2, 1, 3, requires_grad=True)
    layout = splice_layout(mask_of([2, 4], 4), 2, 1)
    joined = assemble(text, vision, tail, layout)
    assert torch.equal(joined[0, :5], torch.cat([text[0, :1], vision[0], text[0, 1:2], tail[0]]))
    assert torch.equal(joined[:, layout.vision_slice], vision)
    take_rows(joined, layout.tail_positions).sum().backward()
    assert torch.equal(tail.grad, torch.ones_like(tail))


@pytest.mark.parametrize("rows", [[[0, 1, 1]], [[1, 0, 1]], [[0, 0, 0]]])
def test_text_that_is_not_right_padded_is_refused(rows: list[list[int]]) -> None:
    with pytest.raises(UsageError, match="right-padded"):
        splice_layout(torch.tensor(rows).bool(), 2, 0)


def test_masks_are_none_for_causal_and_padding_only_for_bidirectional() -> None:
    layout = splice_layout(mask_of([1, 3], 3), 1, 1)
    assert attention_mask_for(layout, "causal") is None
    mask = attention_mask_for(layout, "bidirectional")
    assert mask is not None
    assert mask.shape == (2, 1, 5, 5)
    assert mask[0, 0].all(dim=0).tolist() == [True, True, True, False, False]
    assert mask[1].all()
