"""The position of every token in the language model's input.

    [text 0][patches of the last view] .. [patches of the first view][text 1 .. n-1][SEG][queries][padding]

Text is right-padded. SEG and the queries directly follow the last REAL text token of their row, and all padding moves
to the end. So positions count 0, 1, 2 ... in every row, and causal attention never sees padding.
Order after token 0: prismatic.py of TRI-ML/prismatic-vlms; SEG before the queries so that causal queries see it.
Rows of questions have as many patches as their images have, those of the first image first. A row without an image has
none: its text begins at once. Unused places are padding at the end of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pokevla.errors import UsageError
from pokevla.model.presets import Attention


@dataclass(frozen=True)
class SequenceLayout:
    """Positions of one batch. L = T text + N vision + S tail tokens."""

    source: Tensor  # (B, L) int64: index into the T + N + S embeddings
    valid: Tensor  # (B, L) bool: real token, not padding
    text_lengths: Tensor  # (B,) int64: real text tokens
    tail_positions: Tensor  # (B, S) int64
    num_vision: int
    row_vision: Tensor | None = None  # (B,) int64: vision tokens of each row; None: N in every row

    @property
    def position_ids(self) -> Tensor:
        """(1, L): the same for every row, because padding is at the end."""
        return torch.arange(self.source.shape[1], device=self.source.device)[None]

    @property
    def vision_slice(self) -> slice:
        """Vision tokens are always at positions 1 .. N of rows that have N."""
        return slice(1, 1 + self.num_vision)

    def num_vision_in(self, rows: Tensor) -> Tensor | int:
        """How many vision tokens these rows (N,) have: one number if it is the same for all."""
        return self.num_vision if self.row_vision is None else self.row_vision[rows]


@dataclass(frozen=True)
class TextInputs:
    """Everything about a batch's texts that does not depend on its images, so that it can be kept between calls."""

    embeddings: Tensor  # (B, T, D)
    tail: Tensor | None  # (B, S, D), appended after each row's last real token
    layout: SequenceLayout


def check_right_padded(attention_mask: Tensor) -> None:
    """Check that a text mask has no holes, left padding or empty rows.

    Raises:
        UsageError: on the CPU. On a GPU the check is an asynchronous device assertion, because reading the result back
            would make every step wait for the device.
    """
    mask = attention_mask.bool()
    good = (mask[:, 1:] <= mask[:, :-1]).all() & mask[:, 0].all()
    if mask.device.type != "cpu":
        torch._assert_async(good, "attention_mask must be right padded, with at least one token in each row")  # pyright: ignore[reportPrivateImportUsage]
    elif not bool(good):
        raise UsageError(
            "attention_mask has a hole, left padding or an empty row.",
            "Give right-padded text: each row some True values, then only False ones.",
        )


def splice_layout(
    attention_mask: Tensor, num_vision: int, num_tail: int, row_vision: Tensor | None = None
) -> SequenceLayout:
    """Compute the layout for text (B, T) bool, `num_vision` patch tokens and `num_tail` appended tokens.

    Row b has the first `row_vision[b]` of its vision tokens; (B,) int64 of at most `num_vision`. None: it has them all.
    """
    check_right_padded(attention_mask)
    batch, num_text = attention_mask.shape
    device = attention_mask.device
    lengths = attention_mask.sum(dim=1)[:, None]  # (B, 1)
    position = torch.arange(num_text + num_vision + num_tail, device=device)[None]  # (1, L)
    in_row = num_vision if row_vision is None else row_vision[:, None]
    after_vision = position - in_row  # text index, ignoring the tail
    tail_start = num_text + num_vision
    source = torch.where(
        after_vision < lengths,
        after_vision,
        torch.where(
            after_vision < lengths + num_tail,
            tail_start + after_vision - lengths,
            after_vision - num_tail,  # the padding
        ),
    )
    source = torch.where(position <= in_row, num_text + position - 1, source)
    source = torch.where(position == 0, 0, source)
    tail = lengths + in_row + torch.arange(num_tail, device=device)[None]
    return SequenceLayout(
        source=source,
        valid=position < lengths + in_row + num_tail,
        text_lengths=lengths[:, 0],
        tail_positions=tail.expand(batch, num_tail),
        num_vision=num_vision,
        row_vision=row_vision,
    )


def assemble(text: Tensor, vision: Tensor, tail: Tensor | None, layout: SequenceLayout) -> Tensor:
    """Put embeddings in place: text (B, T, D), vision (B, N, D), tail (B, S, D) or None -> (B, L, D)."""
    given = [text, vision] if tail is None else [text, vision, tail]
    joined = torch.cat([part.to(text.dtype) for part in given], dim=1)
    return take_rows(joined, layout.source)


def take_rows(values: Tensor, positions: Tensor) -> Tensor:
    """Pick rows: values (B, L, D), positions (B, S) -> (B, S, D)."""
    batch, length, width = values.shape
    offsets = torch.arange(batch, device=values.device)[:, None] * length
    flat = (positions + offsets).reshape(-1)
    return values.reshape(batch * length, width).index_select(0, flat).view(batch, -1, width)


def attention_mask_for(layout: SequenceLayout, attention: Attention) -> Tensor | None:
    """Return the mask for scaled-dot-product attention, True = attend; None = plain causal.

    Causal attention needs no padding mask: padding follows every real token, and no token attends to later ones.
    Without a mask the fused causal kernels can be used. Bidirectional: (B, 1, L, L), every token attends to every real
    token.
    """
    if attention == "causal":
        return None
    batch, length = layout.valid.shape
    return layout.valid[:, None, None, :].expand(batch, 1, length, length)
