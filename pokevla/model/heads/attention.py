"""Attention of a few latents to a longer source, computed in whichever of two equal forms needs fewer operations.

Plain: project every source token to keys and values, then attend. Absorbed: a score is q . (W_k s) = (W_k^T q) . s, and
an output is sum_s p_s (W_v s) = W_v (sum_s p_s s). So the latents are projected into the source's space, one query per
latent and head, and no source token is projected (the same identity as the absorbed products of multi-head latent
attention, DeepSeek-V2, arXiv 2405.04434, section 2.1). The two forms differ only in rounding.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def is_absorption_cheaper(num_latents: int, num_source: int, width: int, source_width: int, num_heads: int) -> bool:
    """Compare the multiply-adds of both forms, for one sample: K latents of width W, S source tokens of width D."""
    absorbed = 2 * source_width * num_latents * (width + num_heads * num_source)
    plain = 2 * width * num_source * (source_width + num_latents)
    return absorbed < plain


def plain_attention(query: Tensor, source: Tensor, weight: Tensor) -> Tensor:
    """Attend to projected source tokens: query (B, H, K, d), source (B, S, D), weight (2 * H * d, D) -> (B, H, K, d).

    The first half of the rows of `weight` gives the keys, the second the values.
    """
    batch, num_heads, _, head_width = query.shape
    pair = F.linear(source, weight).view(batch, source.shape[1], 2, num_heads, head_width)
    key, value = pair.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, S, d)
    return F.scaled_dot_product_attention(query, key, value)


def absorbed_attention(query: Tensor, source: Tensor, weight: Tensor) -> Tensor:
    """The result of `plain_attention` from the unprojected source. Arguments and result are the same."""
    batch, num_heads, num_latents, head_width = query.shape
    key_weight, value_weight = weight.view(2, num_heads, head_width, -1).unbind(0)  # (H, d, D)
    absorbed = absorb_queries(query, key_weight)
    # One head of H * K queries, whose keys and values are the source itself. SDPA keeps the scores in fp32.
    mixed = F.scaled_dot_product_attention(absorbed[:, None], source[:, None], source[:, None], scale=head_width**-0.5)
    return project_mixtures(mixed.view(batch, num_heads, num_latents, -1), value_weight)


def absorb_queries(query: Tensor, key_weight: Tensor) -> Tensor:
    """W_k^T q of every head: query (B, H, K, d), key_weight (H, d, D) -> (B, H * K, D)."""
    batch, num_heads, num_latents, head_width = query.shape
    rows = query.transpose(0, 1).reshape(num_heads, batch * num_latents, head_width) @ key_weight  # (H, B * K, D)
    return rows.view(num_heads, batch, num_latents, -1).transpose(0, 1).reshape(batch, num_heads * num_latents, -1)


def project_mixtures(mixed: Tensor, value_weight: Tensor) -> Tensor:
    """W_v m of every head: weighted sums of source tokens (B, H, K, D), value_weight (H, d, D) -> (B, H, K, d)."""
    batch, num_heads, num_latents, source_width = mixed.shape
    rows = mixed.transpose(0, 1).reshape(num_heads, batch * num_latents, source_width) @ value_weight.transpose(1, 2)
    return rows.view(num_heads, batch, num_latents, -1).transpose(0, 1)


class KeyValueAttention(nn.Linear):
    """Key and value projections of a source (one Linear D -> 2W without bias), and the attention of queries to it.

    No bias: a key bias cancels in the softmax, and a value bias is a constant, which the projection after it has.
    A module of its own, because ZeRO stage 3 gathers a weight only for the forward pass of the module that owns it.
    """

    def __init__(self, source_width: int, width: int) -> None:
        super().__init__(source_width, 2 * width, bias=False)

    def forward(self, query: Tensor, source: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """query (B, H, K, d) attends to source (B, S, D) -> (B, H, K, d)."""
        _, num_heads, num_latents, _ = query.shape
        cheaper = is_absorption_cheaper(
            num_latents, source.shape[1], self.out_features // 2, self.in_features, num_heads
        )
        attend = absorbed_attention if cheaper else plain_attention
        return attend(query, source, self.weight)
