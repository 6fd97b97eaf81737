"""What one micro-batch holds. The model takes these tensors as plain arguments; `data` fills them.

Shapes: B batch, V views in the order of the embodiment, P and A its proprio and action width, S image side, T text
tokens, K chunk, M mask side; of cached features C channels and G side of a grid, N tokens per view and W their width.
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

    `values` are (V,C,G,G) or (V,N,W), int8 or float16; `scales` are float16, or None where the codec has none. `codec`
    is a name of `pokevla.features.codec.CODECS`.
    """

    values: np.ndarray
    scales: np.ndarray | None
    codec: str


class FeatureSource(Protocol):
    """Cached features by sample key. `pokevla.features` implements it; `data` never imports it."""

    def read(self, key: str) -> Mapping[str, StoredFeature]:
        """Fields of the sample `key` by name; DataError when they are missing or damaged."""
        ...


@dataclass
class QuantisedFeatures:
    """A batch of one field as stored; `pokevla.features.codec.dequantise` makes numbers of it on the device."""

    values: Tensor
    """(B,V,C,G,G) or (B,V,N,W); int8 or float16."""
    scales: Tensor | None
    """float16; None where the codec has none."""
    codec: str
    """Name of `pokevla.features.codec.CODECS`."""

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
    """(B,P) float32, normalised to [-1,1]."""
    actions: Tensor
    """(B,K,A) float32, normalised; grippers 1 open, 0 closed."""
    masks: Tensor | None
    """(B,V,M,M) float32 of 0 and 1; None when no mask size was asked for."""
    crop_boxes: Tensor
    """(B,V,4) float32 x1, y1, x2, y2 in [0,1] of the clean image: what image and mask show of it."""
    features: dict[str, QuantisedFeatures] = field(default_factory=dict)
    """Cached teacher features by field: `sam`, `vggt`, and those of further teachers."""

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

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: moved(item) for name, item in value.items()}
        return value.to(device) if isinstance(value, Tensor | QuantisedFeatures) else value

    return replace(batch, **{entry.name: moved(getattr(batch, entry.name)) for entry in fields(batch)})


def stack_features(samples: Sequence[Mapping[str, StoredFeature]]) -> dict[str, QuantisedFeatures]:
    """One batch of samples' features by field; empty when no sample has any.

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
    """Right padded ids (B,T) int64 and their mask (B,T) bool, T the longest text."""
    longest = max(len(text) for text in texts)
    ids = torch.full((len(texts), longest), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(texts), longest), dtype=torch.bool)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text, dtype=torch.int64)
        mask[row, : len(text)] = True
    return ids, mask
