"""Codecs of cached features: quantise floats to stored values and scales, and dequantise them on the device.

Scales are rounded up to the next float16, so no value is ever clipped and |x - x'| <= scale / 2. One scale per 64
values of a channel was the best 8-bit code for SAM's image embedding. One scale per token is enough for VGGT, because
only the direction of its tokens is used; four bits (`pokevla.features.int4`) turn it by a known small angle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pokevla.data.batch import QuantisedFeatures
from pokevla.errors import DataError, RecipeError
from pokevla.features import int4
from pokevla.recipe.sections import TokenCodec

CODEC_VERSION = 1
"""Version of the codecs' numerics; part of every fingerprint."""
CHANNEL_GROUP = 64
"""Number of values of one channel's flattened grid that share a scale (ours)."""
_FLOAT16_MAX = float(np.finfo(np.float16).max)
_INT8_MAX = 127.0


def _same(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape


@dataclass(frozen=True)
class Codec:
    """How one field is stored. Works on a sample or a batch: only the last axes matter."""

    dtype: Literal["int8", "uint8", "float16"]
    """Data type of the stored values."""
    group: str
    """Which values share a scale: `channel64`, `token`, `token64` or `none`. Used in fingerprints and in version 1
    manifests."""
    scale_shape: Callable[[tuple[int, ...]], tuple[int, ...] | None]
    """Shape of the field -> shape of the float16 scales, or None without scales."""
    quantise: Callable[[np.ndarray, str], tuple[np.ndarray, np.ndarray | None]]
    """(float32 values, name of the field for errors) -> (stored values, scales). Raises DataError for values that are
    not finite or too large."""
    dequantise: Callable[[Tensor, Tensor | None], Tensor]
    """(stored values, scales) -> float32 in the shape of the field, on the device of the values."""
    stored_shape: Callable[[tuple[int, ...]], tuple[int, ...]] = _same
    """Shape of the field -> shape of the stored values."""
    can_store: Callable[[tuple[int, ...]], bool] = lambda _: True
    """Whether a field of this shape, (V, C, G, G) or (V, N, T), can be stored."""


def quantise_channel64(values: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Quantise (..., G, G) float32 to int8 with a float16 scale per 64 consecutive cells of the flattened grid.

    Returns the int8 values in the same shape, and the scales (..., ceil(G*G / 64)).

    Raises:
        DataError: a value is not finite, or larger than float16 scales can express (8.3e6).
    """
    _check_finite(values, what)
    lead, cells = values.shape[:-2], values.shape[-2] * values.shape[-1]
    groups = _num_groups(cells)
    flat = np.zeros((*lead, groups * min(CHANNEL_GROUP, cells)), dtype=np.float32)  # the last group is zero-padded
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
    """Return `values` as float16, without scales.

    Raises:
        DataError: a value is not finite or outside float16's range.
    """
    _check_finite(values, what)
    _check_float16(values, what)
    return values.astype(np.float16), None


def quantise_int4(values: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Quantise (..., N, T) float32, T even, to four bits: uint8 (..., N, T / 2), low bits first, and float16 scale and
    minimum of each 64 values of a token, (..., N, ceil(T / 64), 2).

    Raises:
        DataError: a value is not finite or outside float16's range.
    """
    _check_finite(values, what)
    _check_float16(values, what)
    packed, scales = int4.encode(torch.from_numpy(values.astype(np.float32, copy=False)))
    return packed.numpy(), scales.numpy()


def _dequantise_channel64(values: Tensor, scales: Tensor | None) -> Tensor:
    flat = values.float().flatten(-2)  # (..., C, G*G)
    cells = flat.shape[-1]
    scales = _checked(scales, (*flat.shape[:-1], _num_groups(cells)), values)
    spread = scales.float().repeat_interleave(CHANNEL_GROUP, dim=-1)[..., :cells]
    return (flat * spread).reshape(values.shape)


def _dequantise_token(values: Tensor, scales: Tensor | None) -> Tensor:
    return values.float() * _checked(scales, tuple(values.shape[:-1]), values).float().unsqueeze(-1)


def _dequantise_int4(values: Tensor, scales: Tensor | None) -> Tensor:
    groups = int4.num_groups(2 * values.shape[-1])
    return int4.decode(values, _checked(scales, (*values.shape[:-1], groups, 2), values))


CODECS: dict[str, Codec] = {
    "int8_channel64": Codec(
        "int8",
        "channel64",
        lambda shape: (*shape[:-2], _num_groups(shape[-2] * shape[-1])),
        quantise_channel64,
        _dequantise_channel64,
    ),
    "int8_token": Codec("int8", "token", lambda shape: shape[:-1], quantise_token, _dequantise_token),
    "int4_token64": Codec(
        "uint8",
        "token64",
        lambda shape: (*shape[:-1], int4.num_groups(shape[-1]), 2),
        quantise_int4,
        _dequantise_int4,
        stored_shape=lambda shape: (*shape[:-1], shape[-1] // 2),
        can_store=lambda shape: len(shape) == 3 and shape[-1] % 2 == 0,
    ),
    "fp16": Codec("float16", "none", lambda _: None, to_float16, lambda values, _: values.float()),
}
"""Codecs by their name in a manifest. A new codec is one entry; names must never change."""


def codec_for(view_shape: tuple[int, ...], stored_as: TokenCodec) -> str:
    """Name of the codec for a field with shape (C, G, G) or (N, T) per view, stored as the recipe says.

    Raises:
        RecipeError: int4 for a grid, or for tokens of an odd width.
    """
    if stored_as == "fp16":
        return "fp16"
    if stored_as == "int8":
        return "int8_channel64" if len(view_shape) == 3 else "int8_token"
    if not CODECS["int4_token64"].can_store((1, *view_shape)):
        raise RecipeError(
            f"int4 stores tokens of an even width, and this field is {' x '.join(map(str, view_shape))} a view.",
            "Choose int8 or fp16.",
        )
    return "int4_token64"


def codecs_for(view_shape: tuple[int, ...]) -> list[str]:
    """Names of all codecs that a recipe can choose for a field with shape (C, G, G) or (N, T) per view."""
    choices: list[TokenCodec] = ["int8", "fp16"]
    if CODECS["int4_token64"].can_store((1, *view_shape)):
        choices.insert(1, "int4")
    return [codec_for(view_shape, choice) for choice in choices]


def dequantise(features: QuantisedFeatures) -> Tensor:
    """Convert stored features to float32, on their own device: (B, V, C, G, G) or (B, V, N, T).

    Raises:
        DataError: the codec is unknown, or scales are missing or have the wrong shape.
    """
    if features.codec not in CODECS:
        raise DataError(f"unknown codec of features {features.codec!r}; known are {', '.join(CODECS)}.")
    return CODECS[features.codec].dequantise(features.values, features.scales)


def _checked(scales: Tensor | None, expected: tuple[int, ...], values: Tensor) -> Tensor:
    if scales is None:
        raise DataError(f"features {tuple(values.shape)} have no scales.", "Rebuild the cache.")
    if tuple(scales.shape) != expected:
        raise DataError(f"scales {tuple(scales.shape)} do not match features {tuple(values.shape)}.")
    return scales


def _num_groups(cells: int) -> int:
    """Number of groups of 64 in a channel of `cells` flattened values. The last group may be shorter."""
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
    """Divide (..., n, k) by scales (..., n) and round to int8. A scale of 0 means that the whole group is 0."""
    divisor = scales.astype(np.float32)[..., None]
    divisor = np.where(divisor == 0.0, np.float32(1.0), divisor)
    return np.rint(grouped / divisor).astype(np.int8)


def _check_float16(values: np.ndarray, what: str) -> None:
    if values.size and float(np.abs(values).max()) > _FLOAT16_MAX:
        raise DataError(f"{what} holds {float(np.abs(values).max()):.3g}, above float16's range.", "Store it as int8.")


def _check_finite(values: np.ndarray, what: str) -> None:
    if not np.isfinite(values).all():
        raise DataError(f"{what} holds a value that is not finite.", "Check the teacher's weights and its input.")
