"""How one sample's features are stored: quantised values and scales behind a fixed header.

A record is `[header, 64 B][zeros][payload]`. The payload holds raw little-endian tensors one after the other:
SAM values, VGGT values, SAM scales, VGGT scales (an fp16 audit cache has no scales). The zeros are as many as it takes
for the payload to start at a multiple of 4 KiB in the file, so that it can be read without the page cache.

Scales are rounded up to the next float16, so no value is ever clipped and |x - x'| <= scale / 2. int8 in groups of 64
was the best 8-bit code for SAM, one scale per token is enough for VGGT, whose direction alone is used.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pokevla.data.batch import CHANNEL_GROUP, FeatureArrays
from pokevla.errors import DataError

Group = Literal["channel64", "token", "none"]

MAGIC = b"PKVF"
CODEC_VERSION = 1
ALIGNMENT = 4096  # page size, and the sector size that O_DIRECT wants
HEADER = struct.Struct("<4sHHIQ5I3I")  # magic, version, dtypes, payload offset, payload bytes, shapes; see _pack_header
HEADER_BYTES = 64
_DTYPE_CODES = {"int8": 1, "float16": 2}
_FLOAT16_MAX = float(np.finfo(np.float16).max)
_INT8_MAX = 127.0


@dataclass(frozen=True)
class FieldLayout:
    """One teacher's part of a record. `shape` is (V, C, G, G) for SAM and (V, N, T) for VGGT."""

    shape: tuple[int, ...]
    dtype: Literal["int8", "float16"]
    group: Group

    @property
    def scale_shape(self) -> tuple[int, ...] | None:
        """Shape of the float16 scales, None where there are none."""
        if self.group == "none":
            return None
        if self.group == "token":
            return self.shape[:-1]
        views, channels, height, width = self.shape
        return views, channels, num_groups(height * width)

    @property
    def value_bytes(self) -> int:
        """Bytes of the values."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def scale_bytes(self) -> int:
        """Bytes of the scales."""
        return 2 * int(np.prod(self.scale_shape)) if self.scale_shape is not None else 0


@dataclass(frozen=True)
class RecordLayout:
    """What every record of a cache looks like."""

    sam: FieldLayout
    vggt: FieldLayout

    @property
    def payload_bytes(self) -> int:
        """Bytes of one record without its header."""
        return self.sam.value_bytes + self.vggt.value_bytes + self.sam.scale_bytes + self.vggt.scale_bytes

    def new_arrays(self) -> FeatureArrays:
        """Return uninitialised arrays that one record fits into."""
        return FeatureArrays(_empty(self.sam), _empty_scales(self.sam), _empty(self.vggt), _empty_scales(self.vggt))

    def to_dict(self) -> dict[str, Any]:
        """Return the layout as plain values, fit for JSON."""
        return {
            name: {"shape": list(field.shape), "dtype": field.dtype, "group": field.group}
            for name, field in (("sam", self.sam), ("vggt", self.vggt))
        }

    @staticmethod
    def from_dict(values: dict[str, Any]) -> RecordLayout:
        """Rebuild a layout from `to_dict`'s output."""
        fields = {
            name: FieldLayout(tuple(values[name]["shape"]), values[name]["dtype"], values[name]["group"])
            for name in ("sam", "vggt")
        }
        return RecordLayout(fields["sam"], fields["vggt"])


def in_file_order(features: FeatureArrays) -> list[np.ndarray]:
    """Return the arrays as they follow each other in a payload."""
    candidates = (features.sam, features.vggt, features.sam_scales, features.vggt_scales)
    return [array for array in candidates if array is not None]


def _empty(field: FieldLayout) -> np.ndarray:
    return np.empty(field.shape, dtype=field.dtype)


def _empty_scales(field: FieldLayout) -> np.ndarray | None:
    return None if field.scale_shape is None else np.empty(field.scale_shape, dtype=np.float16)


def num_groups(cells: int) -> int:
    """Return how many groups of 64 a channel's `cells` flattened values make (the last one may be shorter)."""
    return -(-cells // CHANNEL_GROUP)


def record_layout(
    sam_shape: tuple[int, int, int, int], vggt_shape: tuple[int, int, int], sam_codec: str, vggt_codec: str
) -> RecordLayout:
    """Return the layout of records with the given feature shapes, (V, C, G, G) and (V, N, T), and codecs."""
    return RecordLayout(_field(sam_shape, sam_codec, "channel64"), _field(vggt_shape, vggt_codec, "token"))


def _field(shape: tuple[int, ...], codec: str, group: Group) -> FieldLayout:
    return FieldLayout(shape, "int8", group) if codec == "int8" else FieldLayout(shape, "float16", "none")


# ------------------------------------------------------------------------------------------------ numbers


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


def quantise_channel64(values: np.ndarray, what: str = "SAM feature") -> tuple[np.ndarray, np.ndarray]:
    """Quantise (..., G, G) float32 to int8 with a float16 scale per 64 consecutive cells of the flattened grid.

    Returns the int8 values in the same shape, and the scales (..., ceil(G*G / 64)).

    Raises:
        DataError: a value is not finite, or larger than float16 scales can express (8.3e6).
    """
    _check_finite(values, what)
    lead, cells = values.shape[:-2], values.shape[-2] * values.shape[-1]
    groups = num_groups(cells)
    flat = np.zeros((*lead, groups * min(CHANNEL_GROUP, cells)), dtype=np.float32)  # a short last group ends in zeros
    flat[..., :cells] = values.reshape(*lead, cells)
    grouped = flat.reshape(*lead, groups, -1)
    scales = _scales(np.abs(grouped).max(axis=-1), what)
    codes = _round(grouped, scales).reshape(*lead, -1)[..., :cells]
    return np.ascontiguousarray(codes).reshape(values.shape), scales


def quantise_token(values: np.ndarray, what: str = "VGGT feature") -> tuple[np.ndarray, np.ndarray]:
    """Quantise (..., N, T) float32 to int8 with one float16 scale per token: values (..., N, T), scales (..., N).

    Raises:
        DataError: a value is not finite, or larger than float16 scales can express (8.3e6).
    """
    _check_finite(values, what)
    values = values.astype(np.float32, copy=False)
    scales = _scales(np.abs(values).max(axis=-1), what)
    return _round(values, scales), scales


def to_float16(values: np.ndarray, what: str) -> np.ndarray:
    """Return `values` as float16.

    Raises:
        DataError: a value is not finite or outside float16's range.
    """
    _check_finite(values, what)
    if values.size and float(np.abs(values).max()) > _FLOAT16_MAX:
        raise DataError(f"{what} holds {float(np.abs(values).max()):.3g}, above float16's range.", "Store it as int8.")
    return values.astype(np.float16)


def encode_features(sam: np.ndarray, vggt: np.ndarray, layout: RecordLayout) -> list[FeatureArrays]:
    """Quantise a batch of teacher outputs: sam (B, V, C, G, G), vggt (B, V, N, T), float32, one entry a sample.

    Raises:
        DataError: shapes that are not the layout's, values that are not finite or too large.
    """
    for name, array, field in (("SAM", sam, layout.sam), ("VGGT", vggt, layout.vggt)):
        if array.shape[1:] != field.shape:
            raise DataError(f"{name} features have shape {array.shape[1:]}, the cache stores {field.shape}.")
    if layout.sam.group == "none":
        sam_codes, sam_scales = to_float16(sam, "SAM feature"), None
    else:
        sam_codes, sam_scales = quantise_channel64(sam)
    if layout.vggt.group == "none":
        vggt_codes, vggt_scales = to_float16(vggt, "VGGT feature"), None
    else:
        vggt_codes, vggt_scales = quantise_token(vggt)
    return [
        FeatureArrays(
            sam_codes[i],
            None if sam_scales is None else sam_scales[i],
            vggt_codes[i],
            None if vggt_scales is None else vggt_scales[i],
        )
        for i in range(len(sam))
    ]


# ------------------------------------------------------------------------------------------------ bytes


def payload_offset(start: int) -> int:
    """Return the payload's offset inside a record that begins at byte `start` of its file: 64 B to 4 KiB + 63 B."""
    return -(-(start + HEADER_BYTES) // ALIGNMENT) * ALIGNMENT - start


def _pack_header(layout: RecordLayout, offset: int) -> bytes:
    views, channels, grid, _ = layout.sam.shape
    _, tokens, width = layout.vggt.shape
    dtypes = _DTYPE_CODES[layout.sam.dtype] | _DTYPE_CODES[layout.vggt.dtype] << 8
    scales = [int(np.prod(field.scale_shape)) if field.scale_shape else 0 for field in (layout.sam, layout.vggt)]
    sizes = (views, channels, grid, tokens, width)
    return HEADER.pack(MAGIC, CODEC_VERSION, dtypes, offset, layout.payload_bytes, *sizes, *scales, 0)


def encode_record(features: FeatureArrays, layout: RecordLayout, start: int = 0) -> bytes:
    """Return the bytes of one record that will begin at byte `start` of its file."""
    offset = payload_offset(start)
    header = _pack_header(layout, offset)
    payload = [np.ascontiguousarray(array).tobytes() for array in in_file_order(features)]
    record = b"".join([header, bytes(offset - len(header)), *payload])
    if len(record) != offset + layout.payload_bytes:
        raise DataError(f"A record has {len(record) - offset} B of payload, its layout {layout.payload_bytes} B.")
    return record


def decode_record(record: bytes, layout: RecordLayout, where: str = "record") -> FeatureArrays:
    """Return the features of one record.

    Raises:
        DataError: `where` is truncated, has another header, or its sizes are not those of `layout`.
    """
    if len(record) < HEADER_BYTES:
        raise DataError(f"{where} is truncated: {len(record)} B, its header alone has {HEADER_BYTES} B.")
    magic, version, *_rest = HEADER.unpack_from(record)
    if magic != MAGIC:
        raise DataError(f"{where} does not begin with {MAGIC!r}: it is not a feature record.")
    if version != CODEC_VERSION:
        raise DataError(f"{where} has codec version {version}, this program reads {CODEC_VERSION}.")
    offset = HEADER.unpack_from(record)[3]
    if record[: HEADER.size] != _pack_header(layout, offset):
        raise DataError(f"{where} has shapes or types other than the manifest's.", "Rebuild the cache.")
    if len(record) != offset + layout.payload_bytes:
        raise DataError(f"{where} has {len(record)} B, not {offset + layout.payload_bytes}: truncated or overlong.")
    features = layout.new_arrays()
    position = offset
    for array in in_file_order(features):
        array.view(np.uint8).reshape(-1)[:] = np.frombuffer(record, np.uint8, array.nbytes, position)
        position += array.nbytes
    return features
