"""The contents of a micro-batch. `pokevla.data` fills these tensors; the model takes them as plain arguments.

Shapes: B batch, V views in the order of the embodiment, P proprio width, A action width, S image side, T text tokens, K
chunk, M mask side. For cached features: C channels and side G of a grid, or N tokens per view of width W.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from pokevla.errors import DataError

IGNORED_LABEL = -100


class StoredFeature(NamedTuple):
    """One field of cached teacher features of one sample, as stored.

    `values` are (V,C,G,G) or (V,N,W), int8 or float16; `scales` are float16, or None if the codec has none. `codec`
    is a key of `pokevla.features.codec.CODECS`.
    """

    values: np.ndarray
    scales: np.ndarray | None
    codec: str


class FeatureSource(Protocol):
    """Cached features by sample key. `pokevla.features` implements it; `data` never imports it."""

    def read(self, key: str) -> Mapping[str, StoredFeature]:
        """Fields of the sample `key` by name. Raises DataError if they are missing or damaged."""
        ...


@dataclass
class QuantisedFeatures:
    """A batch of one field as stored. `pokevla.features.codec.dequantise` converts it to floats on the device."""

    values: Tensor
    """(B,V,C,G,G) or (B,V,N,W); int8 or float16."""
    scales: Tensor | None
    """float16; None if the codec has none."""
    codec: str
    """Key of `pokevla.features.codec.CODECS`."""

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
    """(B,T) int64, -100 at positions without loss."""

    @property
    def size(self) -> int:
        """B."""
        return len(self.keys)

    def to(self, device: torch.device | str) -> Self:
        """The same batch on `device`."""
        return _to_device(self, device)


@dataclass
class RobotBatch:
    """Frames of demonstrations, each with the action chunk that follows it."""

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
    """(B,P) float32, normalised to [-1,1]."""
    actions: Tensor
    """(B,K,A) float32, normalised; grippers 1 open, 0 closed."""
    masks: Tensor | None
    """(B,V,M,M) float32 with values 0 and 1; None if no mask size was requested."""
    crop_boxes: Tensor
    """(B,V,4) float32 x1, y1, x2, y2 in [0,1] of the uncropped image: the area that image and mask show."""
    features: dict[str, QuantisedFeatures] = field(default_factory=dict)
    """Cached teacher features by field: `sam`, `vggt`, and those of other teachers."""

    @property
    def size(self) -> int:
        """B."""
        return len(self.keys)

    def to(self, device: torch.device | str) -> Self:
        """The same batch on `device`."""
        return _to_device(self, device)


BatchT = TypeVar("BatchT", "VLMBatch", "RobotBatch")


def swap_images(batch: BatchT) -> BatchT:
    """The same batch with each sample's images replaced by those of the sample half a batch away.

    The increase in loss measures how much the model uses its images. A batch of one sample is returned unchanged.
    """
    return replace(batch, pixel_values=batch.pixel_values.roll(batch.size // 2, dims=0))


def _to_device(batch: Any, device: torch.device | str) -> Any:
    """Copy of a batch dataclass with every tensor moved to `device`."""

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: moved(item) for name, item in value.items()}
        return value.to(device) if isinstance(value, Tensor | QuantisedFeatures) else value

    return replace(batch, **{entry.name: moved(getattr(batch, entry.name)) for entry in fields(batch)})


def stack_features(samples: Sequence[Mapping[str, StoredFeature]]) -> dict[str, QuantisedFeatures]:
    """Stack the features of samples into one batch per field. Empty if no sample has features.

    Raises:
        DataError: the samples have different fields.
    """
    names = list(samples[0])
    if any(list(sample) != names for sample in samples):
        raise DataError(
            "The datasets of the mixture have different cached features.", "Build the cache of each from one recipe."
        )
    stacked = {}
    for name in names:
        stored = [sample[name] for sample in samples]
        scales = [feature.scales for feature in stored if feature.scales is not None]
        stacked[name] = QuantisedFeatures(
            torch.from_numpy(np.stack([feature.values for feature in stored])),
            torch.from_numpy(np.stack(scales)) if scales else None,
            stored[0].codec,
        )
    return stacked


def pad_texts(texts: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Right-padded ids (B,T) int64 and their mask (B,T) bool. T is the length of the longest text."""
    longest = max(len(text) for text in texts)
    ids = torch.full((len(texts), longest), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(texts), longest), dtype=torch.bool)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text, dtype=torch.int64)
        mask[row, : len(text)] = True
    return ids, mask
