"""What one micro-batch holds. The model takes these tensors as plain arguments; `data` fills them.

Shapes: B batch, V views ("base", "wrist"), S image side, T text tokens, K chunk, M mask side, C SAM channels,
G SAM grid, N geometry tokens per view, W geometry width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from pokevla.errors import DataError

VIEWS = ("base", "wrist")
IGNORED_LABEL = -100
CHANNEL_GROUP = 64
"""Values of one channel's flattened grid that share a scale: the best 8-bit SAM codec measured (facts: cache, 3)."""


class FeatureArrays(NamedTuple):
    """Cached teacher features of one sample; `None` where that teacher was not cached.

    `sam` (V,C,G,G) int8 or float16, `sam_scales` (V,C,ceil(G*G/64)) float16 or None,
    `vggt` (V,N,W) int8 or float16, `vggt_scales` (V,N) float16 or None.
    """

    sam: np.ndarray | None
    sam_scales: np.ndarray | None
    vggt: np.ndarray | None
    vggt_scales: np.ndarray | None


class FeatureSource(Protocol):
    """Cached features by sample key. `pokevla.teachers` implements it; `data` never imports teachers."""

    def read(self, key: str) -> FeatureArrays:
        """Features of the sample `key`; DataError when they are missing or damaged."""
        ...


@dataclass
class QuantisedFeatures:
    """A batch of cached features as stored; `dequantise` makes numbers of it on the device."""

    values: Tensor
    """SAM (B,V,C,G,G) or geometry (B,V,N,W); int8 or float16."""
    scales: Tensor | None
    """float16; None for float16 values."""
    group: str
    """`channel64`, `token` or `none`: which values share a scale."""

    def to(self, device: torch.device | str) -> Self:
        """The same features on `device`."""
        return _to_device(self, device)


@dataclass
class VLMBatch:
    """Questions and answers about one image each."""

    keys: list[str]
    positions: Tensor
    """(B,) int64 place in the global sample order."""
    pixel_values: Tensor
    """(B,1,3,S,S) float32 in [0,1]."""
    input_ids: Tensor
    """(B,T) int64, right padded."""
    attention_mask: Tensor
    """(B,T) bool, True for real tokens."""
    labels: Tensor
    """(B,T) int64, -100 where not trained."""

    @property
    def size(self) -> int:
        """B."""
        return len(self.keys)

    def to(self, device: torch.device | str) -> Self:
        """The same batch on `device`."""
        return _to_device(self, device)


@dataclass
class RobotBatch:
    """Frames of demonstrations with the action chunk that follows each."""

    keys: list[str]
    positions: Tensor
    """(B,) int64 place in the global sample order."""
    pixel_values: Tensor
    """(B,V,3,S,S) float32 in [0,1]."""
    input_ids: Tensor
    """(B,T) int64, right padded."""
    attention_mask: Tensor
    """(B,T) bool."""
    proprio: Tensor
    """(B,8) float32, normalised to [-1,1]."""
    actions: Tensor
    """(B,K,7) float32, normalised; gripper 1 open, 0 close."""
    masks: Tensor | None
    """(B,V,M,M) float32 of 0 and 1; None when no mask size was asked for."""
    crop_boxes: Tensor
    """(B,V,4) float32 x1, y1, x2, y2 in [0,1] of the clean image: what image and mask show of it."""
    sam: QuantisedFeatures | None = None
    vggt: QuantisedFeatures | None = None

    @property
    def size(self) -> int:
        """B."""
        return len(self.keys)

    def to(self, device: torch.device | str) -> Self:
        """The same batch on `device`."""
        return _to_device(self, device)


BatchT = TypeVar("BatchT", "VLMBatch", "RobotBatch")


def swap_images(batch: BatchT) -> BatchT:
    """The same batch with each sample's images taken from the sample half a batch away, all else in its place.

    What a model loses by this is what its looking is worth. A batch of one sample stays as it is.
    """
    return replace(batch, pixel_values=batch.pixel_values.roll(batch.size // 2, dims=0))


def _to_device(batch: Any, device: torch.device | str) -> Any:
    """Copy of a batch dataclass with every tensor inside moved."""
    moved = {
        field.name: value.to(device)
        for field in fields(batch)
        if isinstance(value := getattr(batch, field.name), Tensor | QuantisedFeatures)
    }
    return replace(batch, **moved)


def dequantise(features: QuantisedFeatures) -> Tensor:
    """Numbers of stored features: values times their group's scale, float32 on the features' own device.

    Returns the shape of `features.values`. Raises DataError for a group it does not know or scales that do not fit.
    """
    values, scales = features.values.float(), features.scales
    if features.group == "none":
        return values
    if scales is None:
        raise DataError(f"features of group {features.group} carry no scales.", "Rebuild the cache.")
    if features.group == "token":
        if scales.shape != values.shape[:-1]:
            raise DataError(f"scales {tuple(scales.shape)} do not fit token features {tuple(values.shape)}.")
        return values * scales.float().unsqueeze(-1)
    if features.group == "channel64":
        flat = values.flatten(-2)  # (..., C, G*G)
        cells = flat.shape[-1]
        if scales.shape != (*flat.shape[:-1], -(-cells // CHANNEL_GROUP)):
            raise DataError(f"scales {tuple(scales.shape)} do not fit channel features {tuple(values.shape)}.")
        spread = scales.float().repeat_interleave(CHANNEL_GROUP, dim=-1)[..., :cells]
        return (flat * spread).reshape(values.shape)
    raise DataError(f"unknown feature group {features.group!r}; known are channel64, token, none.")


def stack_features(
    values: Sequence[np.ndarray], scales: Sequence[np.ndarray | None], quantised_group: str
) -> QuantisedFeatures:
    """One batch of samples' features. float16 values need no scales and get the group `none`."""
    present = [s for s in scales if s is not None]
    stacked = torch.from_numpy(np.stack(values))
    if not present:
        return QuantisedFeatures(stacked, None, "none")
    return QuantisedFeatures(stacked, torch.from_numpy(np.stack(present)), quantised_group)


def pad_texts(texts: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Right padded ids (B,T) int64 and their mask (B,T) bool, T the longest text."""
    longest = max(len(text) for text in texts)
    ids = torch.full((len(texts), longest), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(texts), longest), dtype=torch.bool)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text, dtype=torch.int64)
        mask[row, : len(text)] = True
    return ids, mask
