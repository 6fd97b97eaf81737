"""Several samples in one sequence: where their tokens lie, and who attends to whom.

    [sample 0: text 0][its patches][text 1 .. n-1][sample 1: text 0] ... [padding]

Positions count from 0 in every sample, and attention stays inside a sample, so each has the states that it has alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pokevla.errors import UsageError
from pokevla.model.presets import Attention
from pokevla.model.sequence import check_right_padded


@dataclass(frozen=True)
class PackedLayout:
    """Positions of a batch of B samples in R sequences of L tokens. T text tokens and N vision tokens a sample."""

    source: Tensor  # (R, L) int64: index into the B * T text and then B * N vision embeddings
    position_ids: Tensor  # (R, L) int64: place in the sample; padding counts on from the last one
    sample: Tensor  # (R, L) int64; padding belongs to the sample before it
    valid: Tensor  # (R, L) bool: real token, not padding
    first: Tensor  # (B,) int64: index of each sample's first token in the flattened sequences
    num_vision: int
    has_image: Tensor | None  # (B,) bool; None: every sample has an image

    def num_vision_in(self, samples: Tensor) -> Tensor | int:
        """How many vision tokens these samples (n,) have: one number if it is the same for all."""
        return self.num_vision if self.has_image is None else self.has_image[samples].long() * self.num_vision


def packed_layout(
    attention_mask: Tensor,
    num_vision: int,
    has_image: Tensor | None,
    row: Tensor,
    start: Tensor,
    num_rows: int,
    length: int,
) -> PackedLayout:
    """Compute the layout of texts (B, T) bool, right padded, each with `num_vision` patches or, where `has_image` (B,)
    is False, none.

    Args:
        row: (B,) int64 sequence of each sample, not decreasing from 0 to num_rows - 1.
        start: (B,) int64 place of its first token there. Samples follow each other without gaps, from 0.
        length: L, tokens of the longest sequence.

    Raises:
        UsageError: samples overlap or leave gaps. On the CPU; on a GPU the check is an asynchronous device assertion.
    """
    check_right_padded(attention_mask)
    batch, num_text = attention_mask.shape
    device = attention_mask.device
    in_sample = num_vision if has_image is None else has_image.long() * num_vision  # vision tokens of each sample
    lengths = attention_mask.sum(dim=1) + in_sample
    _check_places(row, start, lengths, num_rows, length)
    first = row * length + start
    place = torch.arange(num_rows * length, device=device)
    sample = torch.searchsorted(first, place, right=True) - 1
    offset = place - first[sample]
    vision_of = num_vision if has_image is None else in_sample[sample]  # pyright: ignore[reportIndexIssue]
    after_vision = (offset - vision_of).clamp(0, num_text - 1)  # padding shows any token
    is_vision = (offset > 0) & (offset <= vision_of)
    text = sample * num_text + torch.where(offset == 0, 0, after_vision)
    vision = batch * num_text + sample * num_vision + offset - 1
    shape = (num_rows, length)
    return PackedLayout(
        source=torch.where(is_vision, vision, text).view(shape),
        position_ids=offset.view(shape),
        sample=sample.view(shape),
        valid=(offset < lengths[sample]).view(shape),
        first=first,
        num_vision=num_vision,
        has_image=has_image,
    )


def assemble_packed(text: Tensor, vision: Tensor, layout: PackedLayout) -> Tensor:
    """Put embeddings in place: text (B, T, D), vision (B, N, D) -> (R, L, D)."""
    joined = torch.cat([text.flatten(0, 1), vision.to(text.dtype).flatten(0, 1)])
    return joined.index_select(0, layout.source.flatten()).view(*layout.source.shape, -1)


def packed_attention_mask(layout: PackedLayout, attention: Attention) -> Tensor:
    """The mask (R, 1, L, L) for scaled-dot-product attention, True = attend: block-diagonal, one block per sample.

    Causal: each token attends to those of its sample up to itself. Bidirectional: to all real tokens of its sample.
    Padding attends to the sample before it, as it must attend to something, and no real token attends to padding.
    """
    sample = layout.sample
    mask = sample[:, :, None] == sample[:, None, :]
    mask = mask.tril() if attention == "causal" else mask & layout.valid[:, None, :]
    return mask[:, None]


def _check_places(row: Tensor, start: Tensor, lengths: Tensor, num_rows: int, length: int) -> None:
    """Check that samples fill their sequences from the start without gaps."""
    same = row[1:] == row[:-1]
    follows = torch.where(same, start[1:] == start[:-1] + lengths[:-1], (start[1:] == 0) & (row[1:] == row[:-1] + 1))
    good = (
        follows.all() & (start[0] == 0) & (row[0] == 0) & (row[-1] == num_rows - 1) & (start + lengths <= length).all()
    )
    if good.device.type != "cpu":
        torch._assert_async(good, "packed samples overlap or leave gaps")  # pyright: ignore[reportPrivateImportUsage]
    elif not bool(good):
        raise UsageError(
            "The places of packed samples overlap, leave gaps or do not fit their sequences.",
            "Give samples in the order of their places; each begins where the one before it ends.",
        )
