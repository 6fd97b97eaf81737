"""Codecs of cached features: from numbers to stored values and scales, and back on the device.

Scales are rounded up to the next float16, so no value is ever clipped and |x - x'| <= scale / 2. One scale per 64
values of a channel was the best 8-bit code for SAM's image embedding. One scale per token is enough for VGGT, of whose
tokens only the direction is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from pokevla.data.batch import QuantisedFeatures
from pokevla.errors import DataError
from pokevla.recipe.sections import FeatureCodec

CODEC_VERSION = 1
"""Version of the numbers below; part of every fingerprint."""
CHANNEL_GROUP = 64
"""Values of one channel's flattened grid that share a scale (ours)."""
_FLOAT16_MAX = float(np.finfo(np.float16).max)
_INT8_MAX = 127.0


@dataclass(frozen=True)
class Codec:
    """How one field is stored. Shapes are those of a sample or of a batch: only the last axes count."""

    dtype: Literal["int8", "float16"]
    """Of the stored values."""
    group: str
    """Which values share a scale: `channel64`, `token` or `none`. In fingerprints and in manifests of version 1."""
    scale_shape: Callable[[tuple[int, ...]], tuple[int, ...] | None]
    """Shape of the values -> shape of the float16 scales; None where there are none."""
    quantise: Callable[[np.ndarray, str], tuple[np.ndarray, np.ndarray | None]]
    """(float32 values, name of the field for errors) -> (stored values of the same shape, scales). DataError for values
    that are not finite or too large."""
    dequantise: Callable[[Tensor, Tensor | None], Tensor]
    """(stored values, scales) -> float32 of the same shape, on the device of the values."""


def quantise_channel64(values: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Quantise (..., G, G) float32 to int8 with a float16 scale per 64 consecutive cells of the flattened grid.

    Returns the int8 values in the same shape, and the scales (..., ceil(G*G / 64)).

    Raises:
        DataError: a value is not finite, or larger than float16 scales can express (8.3e6).
    """
    _check_finite(values, what)
    lead, cells = values.shape[:-2], values.shape[-2] * values.shape[-1]
    groups = _num_groups(cells)
    flat = np.zeros((*lead, groups * min(CHANNEL_GROUP, cells)), dtype=np.float32)  # a short last group ends in zeros
    flat[..., :cells] = values.reshape(*lead, cells)
    grouped = flat.reshape(*lead, groups, -1)
    scales = _scales(np.abs(grouped).max(axis=-1), what)
    codes = _round(grouped, scales).reshape(*lead, -1)[..., :cells]
    return np.ascontiguousarray(codes).reshape(values.shape), scales


def quantise_token(values: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Quantise (..., N, T) float32 to int8 with one float16 scale per token: values (..., N, T), scales (..., N).

    Raises:
        DataError: a value is not finite, or larger than float16 scales can express (8.3e6).
    """
    _check_finite(values, what)
    values = values.astype(np.float32, copy=False)
    scales = _scales(np.abs(values).max(axis=-1), what)
    return _round(values, scales), scales


def to_float16(values: np.ndarray, what: str) -> tuple[np.ndarray, None]:
    """Return `values` as float16; there are no scales.

    Raises:
        DataError: a value is not finite or outside float16's range.
    """
    _check_finite(values, what)
    if values.size and float(np.abs(values).max()) > _FLOAT16_MAX:
        raise DataError(f"{what} holds {float(np.abs(values).max()):.3g}, above float16's range.", "Store it as int8.")
    return values.astype(np.float16), None


def _dequantise_channel64(values: Tensor, scales: Tensor | None) -> Tensor:
    flat = values.float().flatten(-2)  # (..., C, G*G)
    cells = flat.shape[-1]
    scales = _checked(scales, (*flat.shape[:-1], _num_groups(cells)), values)
    spread = scales.float().repeat_interleave(CHANNEL_GROUP, dim=-1)[..., :cells]
    return (flat * spread).reshape(values.shape)


def _dequantise_token(values: Tensor, scales: Tensor | None) -> Tensor:
    return values.float() * _checked(scales, tuple(values.shape[:-1]), values).float().unsqueeze(-1)


CODECS: dict[str, Codec] = {
    "int8_channel64": Codec(
        "int8",
        "channel64",
        lambda shape: (*shape[:-2], _num_groups(shape[-2] * shape[-1])),
        quantise_channel64,
        _dequantise_channel64,
    ),
    "int8_token": Codec("int8", "token", lambda shape: shape[:-1], quantise_token, _dequantise_token),
    "fp16": Codec("float16", "none", lambda _: None, to_float16, lambda values, _: values.float()),
}
"""Codecs by the name that a manifest gives them. A new one is one entry, and keeps its name for good."""


def codec_for(view_shape: tuple[int, ...], stored_as: FeatureCodec) -> str:
    """Name of the codec of a field whose shape for one view is (C, G, G) or (N, T), stored as the recipe says."""
    if stored_as == "fp16":
        return "fp16"
    return "int8_channel64" if len(view_shape) == 3 else "int8_token"


def dequantise(features: QuantisedFeatures) -> Tensor:
    """Numbers of stored features: float32 on the features' own device, in the shape of `features.values`.

    Raises:
        DataError: an unknown codec, or scales that are missing or do not fit.
    """
    if features.codec not in CODECS:
        raise DataError(f"unknown codec of features {features.codec!r}; known are {', '.join(CODECS)}.")
    return CODECS[features.codec].dequantise(features.values, features.scales)


def _checked(scales: Tensor | None, expected: tuple[int, ...], values: Tensor) -> Tensor:
    if scales is None:
        raise DataError(f"features {tuple(values.shape)} carry no scales.", "Rebuild the cache.")
    if tuple(scales.shape) != expected:
        raise DataError(f"scales {tuple(scales.shape)} do not fit features {tuple(values.shape)}.")
    return scales


def _num_groups(cells: int) -> int:
    """How many groups of 64 a channel's `cells` flattened values make (the last one may be shorter)."""
    return -(-cells // CHANNEL_GROUP)


def _scales(largest: np.ndarray, what: str) -> np.ndarray:
    """Return `largest / 127` as float16, rounded up."""
    exact = largest.astype(np.float32) / np.float32(_INT8_MAX)
    if exact.size and float(exact.max()) > _FLOAT16_MAX:
        raise DataError(f"{what} holds {float(largest.max()):.3g}: too large for int8 with float16 scales.")
    scales = exact.astype(np.float16)
    too_small = scales.astype(np.float32) * np.float32(_INT8_MAX) < largest
    scales[too_small] = np.nextafter(scales[too_small], np.float16(np.inf))
    if not np.isfinite(scales).all():
        raise DataError(f"{what} holds {float(largest.max()):.3g}: too large for int8 with float16 scales.")
    return scales


def _round(grouped: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Divide (..., n, k) by scales (..., n), round to int8. A scale of 0 stands for a group of zeros."""
    divisor = scales.astype(np.float32)[..., None]
    divisor = np.where(divisor == 0.0, np.float32(1.0), divisor)
    return np.rint(grouped / divisor).astype(np.int8)


def _check_finite(values: np.ndarray, what: str) -> None:
    if not np.isfinite(values).all():
        raise DataError(f"{what} holds a value that is not finite.", "Check the teacher's weights and its input.")
