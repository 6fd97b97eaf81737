"""`Policy.explain`: what a policy does with an observation, and what it looks at while it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pokevla.data.images.transforms import centre_crop_box
from pokevla.errors import UsageError
from pokevla.features.feature_crop import crop_image_features
from pokevla.model.heads.condition import HeadCondition
from pokevla.policy.explanation.head_attention import HEAD_READERS, SOURCES, HeadAttention
from pokevla.policy.explanation.language_attention import recorded_rows
from pokevla.policy.placement import place_mask_parts

if TYPE_CHECKING:
    from pokevla.policy.policy import Policy
    from pokevla.teachers.teacher import Teacher

SAM_FIELD = "sam"


@dataclass(frozen=True)
class Explanation:
    """N observations explained, as float32 arrays. V views in the order of the embodiment, G x G patches per view.

    All maps cover the test-time crop of a view, `crop_box`. Weights of a softmax sum to 1 over all its keys.
    """

    crop_box: tuple[float, float, float, float]
    """x1, y1, x2, y2 in [0, 1] of each view."""
    actions: np.ndarray
    """(N, K, A) raw, as `Policy.act` returns them."""
    coarse_logits: np.ndarray | None
    """(N, V, M, M) of the coarse mask; None without SAM features."""
    fine_logits: np.ndarray | None
    """(N, V, M, M) of the refined mask; positive inside."""
    head_vision: np.ndarray | None
    """(N, layers, heads, K, V, G, G): attention of the action head to image patches, which are all keys of this
    attention. None for a head whose attention cannot be read."""
    head_queries: np.ndarray | None
    """(N, layers, heads, K, Q + 1): its attention to the action queries and, last, to the robot's state."""
    head_latents: np.ndarray | None
    """(N, layers, heads, K, K): its attention to its own latents."""
    head_shares: np.ndarray | None
    """(N, layers, K, S): contribution of each of `sources` to the update of a latent; they sum to 1."""
    sources: tuple[str, ...]
    """Names along the last axis of `head_shares`."""
    seg_vision: np.ndarray | None
    """(N, layers, heads, V, G, G): attention of SEG in the language model to image patches. The rest is on text. None
    for a model without SEG."""
    query_vision: np.ndarray
    """(N, layers, heads, Q, V, G, G): the same of each action query; the rest is on text, SEG and queries."""


def explain(
    policy: Policy,
    images: np.ndarray,
    proprio: np.ndarray,
    instructions: Sequence[str],
    sam: Teacher | Tensor | None = None,
) -> Explanation:
    """See `Policy.explain`."""
    if policy.blank:
        raise UsageError("This policy sees blank images: there is nothing to look at.", "Explain the one with images.")
    model, box = policy.model, centre_crop_box(policy.crop_area)
    head_inputs: list[tuple[list[HeadCondition], Tensor]] = []
    handle = model.action_head.register_forward_pre_hook(lambda _, arguments: head_inputs.append(arguments))
    try:
        with torch.inference_mode():
            inputs = policy.prepare(images, proprio, instructions)
            layout = inputs.instructions.text.layout
            language = model.vlm.language_model
            patches = slice(1, 1 + policy.embodiment.num_views * model.config.vlm.num_patches)
            with recorded_rows(language, layout, model.config.vlm.attention, layout.tail_positions, patches) as rows:
                output = policy.run(inputs, _cropped_features(policy, images, sam, box))
            head = _read_head(model, *head_inputs[0])
            tail = torch.stack(rows, dim=1)  # (N, layers, heads, SEG and Q, V * P)
    finally:
        handle.remove()
    views = policy.embodiment.num_views
    return Explanation(
        crop_box=box,
        actions=policy.statistics.denormalise_actions(_numbers(output.actions)),
        coarse_logits=None if output.coarse_logits is None else _numbers(output.coarse_logits),
        fine_logits=None if output.fine_logits is None else _numbers(output.fine_logits),
        head_vision=None if head is None else _maps(head.vision, views),
        head_queries=None if head is None else _numbers(head.queries),
        head_latents=None if head is None else _numbers(head.latents),
        head_shares=None if head is None else _numbers(head.shares),
        sources=SOURCES[: head.shares.shape[-1]] if head is not None else (),
        seg_vision=_maps(tail[:, :, :, 0], views) if model.config.seg_token else None,
        query_vision=_maps(tail[:, :, :, int(model.config.seg_token) :], views),
    )


def _read_head(model: Any, conditions: list[HeadCondition], proprio: Tensor) -> HeadAttention | None:
    read = HEAD_READERS.get(model.config.action_head.kind)
    return None if read is None else read(model.action_head, conditions, proprio)


def _cropped_features(
    policy: Policy, images: np.ndarray, sam: Teacher | Tensor | None, box: tuple[float, float, float, float]
) -> Tensor | None:
    """SAM features (N, V, C, G, G) of the test-time crop, on the policy's device."""
    if sam is None:
        return None
    place_mask_parts(policy.model)
    device = policy.model.seg_token.device
    features = sam if isinstance(sam, Tensor) else sam.encode(torch.from_numpy(images))[SAM_FIELD]
    boxes = torch.tensor(box, device=device).expand(*images.shape[:2], 4)
    return crop_image_features(features.to(device), boxes)


def _numbers(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()


def _maps(weights: Tensor, views: int) -> np.ndarray:
    """Weights (..., V * P) in the order of the sequence, last view first -> (..., V, G, G), first view first."""
    side = round((weights.shape[-1] // views) ** 0.5)
    return _numbers(weights.unflatten(-1, (views, side, side)).flip(-3))
