"""The contents of a micro-batch. `pokevla.data` fills these tensors; the model takes them as plain arguments.

Shapes: B batch, V views in the order of the embodiment, P proprio width, A action width, S image side, T text tokens, K
chunk, M mask side. For cached features: C channels and side G of a grid, or N tokens per view of width W.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from pokevla.errors import DataError

IGNORED_LABEL = -100


class StoredFeature(NamedTuple):
    """One field of cached teacher features of one sample, as stored.

    `values` are (V,C,G,G) or (V,N,W), int8 or float16, or (V,N,W/2) uint8 with two values in a byte; `scales` are
    float16, or None if the codec has none. `codec` is a key of `pokevla.features.codec.CODECS`.
    """

    values: np.ndarray
    scales: np.ndarray | None
    codec: str


class Skipped(NamedTuple):
    """A damaged sample that another one replaces in a batch (`data.damaged: skip`)."""

    shard: str
    """The dataset's shard that it is in."""
    key: str
    reason: str | None
    """The error that it gave; None if it was known to be damaged."""


class FeatureField(Protocol):
    """How one field of cached features is stored, per sample."""

    @property
    def name(self) -> str:
        """Name of the field."""
        ...

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of the stored values."""
        ...

    @property
    def dtype(self) -> str:
        """Type of the stored values."""
        ...

    @property
    def scale_shape(self) -> tuple[int, ...] | None:
        """Shape of the float16 scales; None without scales."""
        ...

    @property
    def codec(self) -> str:
        """Key of `pokevla.features.codec.CODECS`."""
        ...


class FeatureSource(Protocol):
    """Cached features of a dataset by row. `pokevla.features` implements it; `data` never imports it."""

    @property
    def fields(self) -> Sequence[FeatureField]:
        """The fields in the order of a record."""
        ...

    def read_row(self, row: int, buffers: Sequence[memoryview]) -> None:
        """Read the record of a row of the dataset into `buffers`: the values of all fields, then the scales of those
        that have any. Raises DataError if they are missing or damaged."""
        ...

    def ahead(self, rows: Sequence[int]) -> None:
        """This thread reads the records of `rows` next, in any order: from a slow source, it begins now."""
        ...


@dataclass
class QuantisedFeatures:
    """A batch of one field as stored. `pokevla.features.codec.dequantise` converts it to floats on the device."""

    values: Tensor
    """(B,V,C,G,G) or (B,V,N,W), int8 or float16; or (B,V,N,W/2) uint8, two values in a byte."""
    scales: Tensor | None
    """float16; None if the codec has none."""
    codec: str
    """Key of `pokevla.features.codec.CODECS`."""


@dataclass
class Colours:
    """Colour changes of a batch of images, each (B,V) float32, or None if no image has it. Applied by
    `pokevla.data.images.pixels.to_unit_range`."""

    brightness: Tensor | None
    """Added to values in [0,1]."""
    contrast: Tensor | None
    """Factor applied to the difference from the channel mean."""
    saturation: Tensor | None
    """Factor applied to HSV saturation."""
    hue: Tensor | None
    """Hue shift in turns."""


@dataclass
class Packing:
    """Where the samples of a batch lie in its sequences. They are in the order of their places."""

    row: Tensor
    """(B,) int64 sequence of each sample, not decreasing."""
    start: Tensor
    """(B,) int64 place of the sample's first token in its sequence."""
    blocks: tuple[tuple[int, int, int], ...]
    """Sequence, first token and token behind the last one of each sample, images included: plain numbers, because
    reading them back from a device would make the host wait."""


@dataclass
class VLMBatch:
    """Questions and answers, each about any number of images. I: the most images of one of them, at least 1."""

    keys: list[str]
    positions: Tensor
    """(B,) int64 place in the global sample order. Always in host memory: reading it must not wait for a device."""
    pixel_values: Tensor
    """(B,I,3,S,S) uint8; or float32 in [0,1]. Zeros in the places of images that a sample does not have."""
    input_ids: Tensor
    """(B,T) int64, right padded."""
    attention_mask: Tensor
    """(B,T) bool, True for real tokens."""
    labels: Tensor
    """(B,T) int64, -100 at positions without loss."""
    colours: Colours | None = None
    """Colour changes of the images; None to leave them."""
    trained: Tensor | None = None
    """(N,2) int64 row and column in `labels[:, 1:]` of the tokens with a loss. Found while collating: finding them on a
    GPU would make the host wait. None: they are found when needed."""
    num_images: Tensor | None = None
    """(B,) int64 images of each sample, the first ones of its `pixel_values`; None if every sample has exactly one."""
    present: Tensor | None = None
    """(N,) int64 numbers of the images that are there, of the B * I in order, so that no other is encoded; number 0 if
    there is none at all. Found while collating, like `trained`. None: all are encoded."""
    packing: Packing | None = None
    """Sequences of several samples each. None: every sample has a sequence of its own."""
    loss_divisor: float | None = None
    """What the sum of the losses of samples, or of tokens, is divided by; None: their number in this batch."""
    skipped: tuple[Skipped, ...] = ()
    """Damaged samples whose places others have taken."""

    @property
    def size(self) -> int:
        """B."""
        return len(self.keys)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The same batch on `device`. `non_blocking` copies from pinned memory return before they are done."""
        return map_tensors(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The same batch in pinned memory, from which a GPU copies by itself."""
        return map_tensors(self, Tensor.pin_memory)


@dataclass
class RobotBatch:
    """Frames of demonstrations, each with the action chunk that follows it."""

    keys: list[str]
    positions: Tensor
    """(B,) int64 place in the global sample order. Always in host memory: reading it must not wait for a device."""
    pixel_values: Tensor
    """(B,V,3,S,S) uint8; or float32 in [0,1]."""
    input_ids: Tensor
    """(B,T) int64, right padded."""
    attention_mask: Tensor
    """(B,T) bool."""
    proprio: Tensor
    """(B,P) float32, normalised to [-1,1]."""
    actions: Tensor
    """(B,K,A) float32, normalised; grippers 1 open, 0 closed."""
    masks: Tensor | None
    """(B,V,M,M) uint8 with values 0 and 1; None if no mask size was requested."""
    crop_boxes: Tensor
    """(B,V,4) float32 x1, y1, x2, y2 in [0,1] of the uncropped image: the area that image and mask show."""
    features: dict[str, QuantisedFeatures] = field(default_factory=dict)
    """Cached teacher features by field: `sam`, `vggt`, and those of other teachers."""
    colours: Colours | None = None
    """Colour changes of the images; None to leave them."""
    skipped: tuple[Skipped, ...] = ()
    """Damaged samples whose places others have taken."""

    @property
    def size(self) -> int:
        """B."""
        return len(self.keys)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The same batch on `device`. `non_blocking` copies from pinned memory return before they are done."""
        return map_tensors(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The same batch in pinned memory, from which a GPU copies by itself."""
        return map_tensors(self, Tensor.pin_memory)


BatchT = TypeVar("BatchT", "VLMBatch", "RobotBatch")


def swap_images(batch: BatchT) -> BatchT:
    """The same batch with each sample's images replaced by those of the sample half a batch away.

    The increase in loss measures how much the model uses its images. A sample of more images than the other one gets
    zeros, which are black, for the rest. A batch of one sample is returned unchanged.
    """

    def rolled(tensor: Tensor) -> Tensor:
        return tensor.roll(batch.size // 2, dims=0)

    return replace(batch, pixel_values=rolled(batch.pixel_values), colours=_mapped(batch.colours, rolled))


HOST_ONLY = ("positions",)
"""Fields that stay in host memory."""


def map_tensors(batch: BatchT, change: Callable[[Tensor], Tensor]) -> BatchT:
    """Copy of a batch with every tensor changed, except those that stay on the host."""
    changed = {name: _mapped(getattr(batch, name), change) for name in _names(batch) if name not in HOST_ONLY}
    return replace(batch, **changed)


def map_all_tensors(batch: Any, change: Callable[[Any], Any], kind: type = Tensor) -> Any:
    """Copy of a batch with each tensor changed, those on the host too. `kind`: what stands for a tensor in `batch`."""
    return replace(batch, **{name: _mapped(getattr(batch, name), change, kind) for name in _names(batch)})


def tensors_of(batch: VLMBatch | RobotBatch) -> list[Tensor]:
    """Every tensor that `map_tensors` changes."""
    found: list[Tensor] = []
    map_tensors(batch, lambda tensor: found.append(tensor) or tensor)  # pyright: ignore[reportArgumentType]
    return found


def _mapped(value: Any, change: Callable[[Any], Any], kind: type = Tensor) -> Any:
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, dict):
        return {name: _mapped(item, change, kind) for name, item in value.items()}
    if isinstance(value, QuantisedFeatures | Colours | Packing):
        return replace(value, **{name: _mapped(getattr(value, name), change, kind) for name in _names(value)})
    return value


def _names(value: Any) -> list[str]:
    return [entry.name for entry in fields(value)]


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
    lengths = np.array([len(text) for text in texts])
    ids = np.full((len(texts), lengths.max()), pad_id, dtype=np.int64)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text
    mask = np.arange(ids.shape[1]) < lengths[:, None]
    return torch.from_numpy(ids), torch.from_numpy(mask)


def trained_places(labels: Tensor) -> Tensor:
    """(N,2) int64 row and column in `labels[:, 1:]` of the tokens with a loss; labels (B,T)."""
    return (labels[:, 1:] != IGNORED_LABEL).nonzero()
