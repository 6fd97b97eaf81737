"""Several samples in one sequence: where their tokens lie, and who attends to whom.

    [sample 0: text 0][its patches][text 1 .. n-1][sample 1: text 0] ... [padding]

Positions count from 0 in every sample, and attention stays inside a sample, so each has the states that it has alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pokevla.errors import UsageError
from pokevla.model.presets import Attention
from pokevla.model.sequence import check_right_padded


class Block(NamedTuple):
    """The tokens of one sample in the sequences."""

    row: int
    start: int
    stop: int


class SampleBlocks(Tensor):
    """Stands for the block-diagonal attention mask (R, 1, L, L) of packed samples, without having its values.

    Scaled-dot-product attention with it runs for each sample by itself, with the kernel that a sample alone has: no
    mask is read, and no time is spent on pairs of tokens that do not see each other. Padding gets zeros. PyTorch's
    CausalBias works in this way too (pytorch/pytorch, torch/nn/attention/bias.py).
    """

    blocks: Sequence[Block]
    is_causal: bool

    @staticmethod
    def of(blocks: Sequence[Block], shape: tuple[int, int], is_causal: bool, device: torch.device) -> SampleBlocks:
        """The mask of `blocks`, in the order of their places, in sequences of `shape` (R, L)."""
        rows, length = shape
        like = torch.empty((), dtype=torch.bool, device=device).expand(rows, 1, length, length)
        mask: SampleBlocks = Tensor._make_subclass(SampleBlocks, like)
        mask.blocks, mask.is_causal = blocks, is_causal
        return mask

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Attention goes block by block; anything else is done with the tensor."""
        if func is F.scaled_dot_product_attention:
            return _attend(*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs or {})


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: SampleBlocks,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **kwargs: Any,
) -> Tensor:
    """Scaled-dot-product attention (R, H, L, D) within each block."""
    if is_causal:
        raise UsageError("is_causal does not go with a mask of packed samples, which says itself whether it is causal.")
    rows: list[list[Tensor]] = [[] for _ in range(query.shape[0])]
    for row, start, stop in attn_mask.blocks:
        part = (slice(row, row + 1), slice(None), slice(start, stop))
        one = F.scaled_dot_product_attention(
            query[part], key[part], value[part], dropout_p=dropout_p, is_causal=attn_mask.is_causal, **kwargs
        )
        rows[row].append(one)
    ends = [sum(one.shape[2] for one in row) for row in rows]
    padded = [
        torch.cat([*row, row[0].new_zeros(*row[0].shape[:2], query.shape[2] - end, row[0].shape[3])], dim=2)
        for row, end in zip(rows, ends, strict=True)
    ]
    return torch.cat(padded)


@dataclass(frozen=True)
class PackedLayout:
    """Positions of a batch of B samples in R sequences of L tokens. T text tokens and N vision tokens a sample."""

    source: Tensor  # (R, L) int64: index into the B * T text and then B * N vision embeddings
    position_ids: Tensor  # (R, L) int64: place in the sample; padding counts on from the last one
    first: Tensor  # (B,) int64: index of each sample's first token in the flattened sequences
    blocks: Sequence[Block]  # B of them
    num_vision: int
    row_vision: Tensor | None  # (B,) int64: vision tokens of each sample; None: N in every sample

    def num_vision_in(self, samples: Tensor) -> Tensor | int:
        """How many vision tokens these samples (n,) have: one number if it is the same for all."""
        return self.num_vision if self.row_vision is None else self.row_vision[samples]


def packed_layout(
    attention_mask: Tensor,
    num_vision: int,
    row_vision: Tensor | None,
    row: Tensor,
    start: Tensor,
    blocks: Sequence[Block],
) -> PackedLayout:
    """Compute the layout of texts (B, T) bool, right padded, each with patches.

    Args:
        num_vision: vision embeddings of each sample.
        row_vision: (B,) int64 how many of them, the first ones, are in its sequence; None: all.
        row: (B,) int64 sequence of each sample, not decreasing from 0.
        start: (B,) int64 place of its first token there. Samples follow each other without gaps, from 0.
        blocks: the same in host memory, with the place behind each sample's last token.

    Raises:
        UsageError: samples overlap or leave gaps; or, on the CPU, `row`, `start` and the lengths are not those of
            `blocks`. On a GPU the latter is an asynchronous device assertion.
    """
    _check_blocks(blocks)
    num_rows, length = blocks[-1].row + 1, max(block.stop for block in blocks)
    check_right_padded(attention_mask)
    batch, num_text = attention_mask.shape
    device = attention_mask.device
    lengths = attention_mask.sum(dim=1) + (num_vision if row_vision is None else row_vision)
    first = row * length + start
    _check_places(first, lengths, blocks, length)
    place = torch.arange(num_rows * length, device=device)
    sample = torch.searchsorted(first, place, right=True) - 1
    offset = place - first[sample]
    vision_of = num_vision if row_vision is None else row_vision[sample]
    after_vision = (offset - vision_of).clamp(0, num_text - 1)  # padding shows any token
    is_vision = (offset > 0) & (offset <= vision_of)
    text = sample * num_text + torch.where(offset == 0, 0, after_vision)
    vision = batch * num_text + sample * num_vision + offset - 1
    shape = (num_rows, length)
    return PackedLayout(
        source=torch.where(is_vision, vision, text).view(shape),
        position_ids=offset.view(shape),
        first=first,
        blocks=blocks,
        num_vision=num_vision,
        row_vision=row_vision,
    )


def assemble_packed(text: Tensor, vision: Tensor, layout: PackedLayout) -> Tensor:
    """Put embeddings in place: text (B, T, D), vision (B, N, D) -> (R, L, D)."""
    joined = torch.cat([text.flatten(0, 1), vision.to(text.dtype).flatten(0, 1)])
    return joined.index_select(0, layout.source.flatten()).view(*layout.source.shape, -1)


def packed_attention_mask(layout: PackedLayout, attention: Attention) -> SampleBlocks:
    """The mask for scaled-dot-product attention: each token attends to those of its sample, in causal attention up to
    itself. No token attends to padding."""
    rows, length = layout.source.shape
    return SampleBlocks.of(layout.blocks, (rows, length), attention == "causal", layout.source.device)


def _check_blocks(blocks: Sequence[Block]) -> None:
    """Check that samples fill sequences 0, 1, ... one after the other, from the start without gaps."""
    expected = [(0, 0)]
    for block in blocks:
        if (block.row, block.start) not in expected or block.stop <= block.start:
            raise UsageError(
                f"A packed sample has tokens {block.start} to {block.stop} of sequence {block.row}; it should begin at "
                f"{' or '.join(f'{place} of {row}' for row, place in expected)}.",
                "Give samples in the order of their places; each begins where the one before it ends.",
            )
        expected = [(block.row, block.stop), (block.row + 1, 0)]


def _check_places(first: Tensor, lengths: Tensor, blocks: Sequence[Block], length: int) -> None:
    """Check that the tensors say what the blocks say. On a GPU only what can be told without copying the blocks."""
    if first.device.type == "cpu":
        if first.tolist() != [block.row * length + block.start for block in blocks] or lengths.tolist() != [
            block.stop - block.start for block in blocks
        ]:
            raise UsageError(
                "The lengths of packed samples are not those of their places.",
                "Compute the places from the attention mask and the number of vision tokens.",
            )
    else:
        good = (first[1:] >= first[:-1] + lengths[:-1]).all()
        torch._assert_async(good, "packed samples overlap")  # pyright: ignore[reportPrivateImportUsage]
