"""The losses. Each is a mean over samples of a mean within the sample.

Every micro-batch has the same number of samples, so averaging such a loss over micro-batches and ranks gives the mean
over the global batch: accumulation and world size do not change the gradient. No loss here is divided by a count that
varies between micro-batches (label tokens, visible masks); those means are taken within each sample.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FOCAL_ALPHA = 0.25
"""Weight of the foreground (sigmoid focal loss of RetinaNet; GLOVER++ model/GLOVER_plus.py)."""
FOCAL_GAMMA = 2.0
"""Focusing exponent that down-weights easy pixels (same sources)."""


def action_l1(actions: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of two chunks (B, K, A) in normalised units (OpenVLA-OFT's loss)."""
    return (actions.float() - target.float()).abs().mean()


def focal(logits: Tensor, target: Tensor) -> Tensor:
    """Sigmoid focal loss: mean over pixels of a map, then over maps.

    Args:
        logits: (B, V, M, M).
        target: (B, V, M, M) in [0, 1]. Empty maps (nothing visible) are included in the mean.

    Formula: BCE(x, t) * (1 - p_t)^gamma * alpha_t with p = sigmoid(x), p_t = p t + (1 - p)(1 - t) and alpha_t =
    alpha t + (1 - alpha)(1 - t).
    """
    logits, target = logits.float(), target.float()
    probability = logits.sigmoid()
    agreement = probability * target + (1 - probability) * (1 - target)
    alpha = FOCAL_ALPHA * target + (1 - FOCAL_ALPHA) * (1 - target)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (cross_entropy * (1 - agreement) ** FOCAL_GAMMA * alpha).mean()


def kl_divergence(logits: Tensor, target: Tensor) -> Tensor:
    """KL(T || P) of maps normalised to sum to one, in nats: mean over a sample's visible maps, then over samples.

    Args:
        logits: (B, V, M, M); P is sigmoid(logits) divided by its sum.
        target: (B, V, M, M) in [0, 1]; T is the target divided by its sum. Maps without foreground are excluded; a
            sample without any visible map contributes 0.
    """
    logits, target = logits.float().flatten(2), target.float().flatten(2)  # (B, V, M * M)
    mass = target.sum(dim=-1)  # (B, V)
    visible = mass > 0
    # log P = logsigmoid(x) - logsumexp(logsigmoid(x)): no division, no log of a rounded zero.
    log_sigmoid = F.logsigmoid(logits)
    log_p = log_sigmoid - log_sigmoid.logsumexp(dim=-1, keepdim=True)
    t = target / mass.clamp(min=1e-12)[..., None]
    per_map = (torch.xlogy(t, t) - t * log_p).sum(dim=-1)  # (B, V); 0 where nothing is visible, since t is 0
    return (per_map.sum(dim=1) / visible.sum(dim=1).clamp(min=1)).mean()


def cosine_alignment(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - cosine similarity per token, mean over tokens and samples (Spatial Forcing).

    Args:
        predicted: (B, V, P, T), projected vision states.
        target: (B, V, P, T), teacher features on the same patch grid.
    """
    return (1 - F.cosine_similarity(predicted.float(), target.float(), dim=-1, eps=1e-6)).mean()


def next_token(
    logits: Tensor, targets: Tensor, sample: Tensor, num_samples: int, divisor: float | None = None
) -> Tensor:
    """Cross-entropy: mean over a sample's trained tokens, then over samples.

    Prismatic averages over all tokens of the micro-batch, so the weight of an answer depends on the other samples of
    the batch (github.com/TRI-ML/prismatic-vlms, prismatic/training/strategies). A mean per sample avoids this.

    Args:
        logits: (N, vocab), the trained positions of the micro-batch only.
        targets: (N,) int64.
        sample: (N,) int64, the row of the micro-batch that each position belongs to.
        num_samples: B; a sample without trained tokens contributes 0.
        divisor: what the sum over samples is divided by; None: B. For micro-batches of different sizes it is the mean
            size, so that the mean over micro-batches is the mean over samples.
    """
    per_token = F.cross_entropy(logits.float(), targets, reduction="none")
    # Not bincount, which makes the host wait for a GPU to learn the length of its result.
    count = per_token.new_zeros(num_samples).index_add_(0, sample, torch.ones_like(per_token))
    return (per_token / count[sample]).sum() / (num_samples if divisor is None else divisor)


def next_token_of_all(logits: Tensor, targets: Tensor, divisor: float | None = None) -> Tensor:
    """Cross-entropy: the sum over trained tokens divided by `divisor`.

    Args:
        logits: (N, vocab), the trained positions of the micro-batch only.
        targets: (N,) int64.
        divisor: trained tokens of the global batch per micro-batch, so that the mean over micro-batches and ranks is
            the mean over all tokens; None: N.
    """
    total = F.cross_entropy(logits.float(), targets, reduction="sum")
    return total / (max(1, len(targets)) if divisor is None else divisor)
