"""The record of one sample: its named fields, and their bytes behind a fixed header.

A record is `[header, 64 B][zeros][payload]`. The payload holds raw little-endian tensors, concatenated: the values of
all fields, then the scales of those that have any. The zeros align the payload to a multiple of 4 KiB in the file, so
that it can be read with direct I/O.

The manifest of a cache lists the fields; the header follows from that list. Version 1 of the header contains the shapes
of SAM and VGGT and is written for exactly these two, in the codecs that it knows. Version 2, for any other set of
fields, contains a digest of the list.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from pokevla.data.batch import StoredFeature
from pokevla.errors import DataError
from pokevla.features.codec import CODECS, Codec

Features = dict[str, StoredFeature]
"""Stored fields of one sample, in the order of the record."""

REBUILD = "Build it with: pokevla cache build RECIPE"
MAGIC = b"PKVF"
MAX_SIDE, MAX_VALUES = 1 << 16, 1 << 30
"""Largest side and size of a field of one record; VGGT's tokens of two views are 3 million values."""
ALIGNMENT = 4096  # page size, and the alignment that O_DIRECT requires
HEADER_BYTES = 64
# Both start with magic, version, a 16-bit number, payload offset and payload bytes, and have 52 bytes.
_HEADER_1 = struct.Struct("<4sHHIQ5I3I")  # dtypes of SAM and VGGT; V, C, G, N, T; numbers of scales
_HEADER_2 = struct.Struct("<4sHHIQ32s")  # number of fields; sha256 of their list
_DTYPE_CODES = {"int8": 1, "float16": 2}


@dataclass(frozen=True)
class FieldLayout:
    """One field of a record. `shape` is (V, C, G, G) for a grid and (V, N, T) for tokens."""

    name: str
    teacher: str
    shape: tuple[int, ...]
    codec: str

    @property
    def stored_as(self) -> Codec:
        """The codec of the field."""
        return CODECS[self.codec]

    @property
    def dtype(self) -> str:
        """Type of the stored values."""
        return self.stored_as.dtype

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of the stored values."""
        return self.stored_as.stored_shape(self.shape)

    @property
    def scale_shape(self) -> tuple[int, ...] | None:
        """Shape of the float16 scales, or None without scales."""
        return self.stored_as.scale_shape(self.shape)

    @cached_property
    def num_bytes(self) -> int:
        """Number of bytes of values and scales."""
        scale_bytes = 2 * prod(self.scale_shape) if self.scale_shape is not None else 0
        return prod(self.stored_shape) * np.dtype(self.stored_as.dtype).itemsize + scale_bytes

    def new_arrays(self) -> StoredFeature:
        """Uninitialised arrays for the field of one record."""
        scales = None if self.scale_shape is None else np.empty(self.scale_shape, dtype=np.float16)
        return StoredFeature(np.empty(self.stored_shape, dtype=self.stored_as.dtype), scales, self.codec)

    def to_dict(self) -> dict[str, Any]:
        """The entry of the field in a manifest."""
        return {
            "name": self.name,
            "teacher": self.teacher,
            "shape": list(self.shape),
            "dtype": self.stored_as.dtype,
            "codec": self.codec,
        }


@dataclass(frozen=True)
class RecordLayout:
    """The layout of every record of a cache."""

    fields: tuple[FieldLayout, ...]

    @cached_property
    def payload_bytes(self) -> int:
        """Number of bytes of one record without header and padding."""
        return sum(field.num_bytes for field in self.fields)

    def field(self, name: str) -> FieldLayout:
        """The field called `name`. Raises KeyError if there is none."""
        return {field.name: field for field in self.fields}[name]

    def new_arrays(self) -> Features:
        """Uninitialised arrays for one record."""
        return {field.name: field.new_arrays() for field in self.fields}

    def to_list(self) -> list[dict[str, Any]]:
        """The list of fields in the form of a manifest."""
        return [field.to_dict() for field in self.fields]

    @staticmethod
    def from_manifest(manifest: Mapping[str, Any]) -> RecordLayout:
        """The layout described by a manifest of version 1 (SAM and VGGT under `layout`) or 2 (`fields`).

        Raises:
            DataError: a codec is unknown, or entries are missing.
        """
        try:
            if "layout" in manifest:
                fields = tuple(_field_of_version_1(name, manifest["layout"][name]) for name in ("sam", "vggt"))
            else:
                fields = tuple(
                    FieldLayout(entry["name"], entry["teacher"], tuple(entry["shape"]), entry["codec"])
                    for entry in manifest["fields"]
                )
        except (KeyError, TypeError, StopIteration) as error:
            raise DataError(f"A cache's manifest does not describe its fields ({error!r}).", REBUILD) from error
        unknown = [field.codec for field in fields if not isinstance(field.codec, str) or field.codec not in CODECS]
        if unknown:
            raise DataError(f"A cache has fields of the unknown codec {unknown[0]!s:.60}.", REBUILD)
        odd = [field for field in fields if not _is_plausible(field)]
        if odd:
            raise DataError(f"A cache's field {odd[0].name!r:.60} has the shape {odd[0].shape!r:.60}.", REBUILD)
        layout = RecordLayout(fields)
        if manifest.get("payload_bytes", layout.payload_bytes) != layout.payload_bytes:  # before arrays are allocated
            raise DataError(
                f"A cache's manifest gives its records {manifest['payload_bytes']} B, its fields "
                f"{layout.payload_bytes} B.",
                REBUILD,
            )
        return layout


def _is_plausible(field: FieldLayout) -> bool:
    """Whether name and shape can be those of a field: checked before arrays of that shape are allocated."""
    sides = all(type(side) is int and 0 < side <= MAX_SIDE for side in field.shape)
    if not (isinstance(field.name, str) and len(field.shape) in (3, 4) and sides and prod(field.shape) <= MAX_VALUES):
        return False
    return field.stored_as.can_store(field.shape)


def _field_of_version_1(name: str, entry: Mapping[str, Any]) -> FieldLayout:
    stored = (entry["dtype"], entry["group"])
    codec = next(name for name, codec in CODECS.items() if (codec.dtype, codec.group) == stored)
    return FieldLayout(name, name, tuple(entry["shape"]), codec)


def encode_features(
    outputs: Mapping[str, np.ndarray], layout: RecordLayout, keys: Sequence[str] | None = None
) -> list[Features]:
    """Quantise a batch of teacher outputs, float32 (B, V, ...) by field. Returns one entry per sample.

    Raises:
        DataError: fields or shapes differ from the layout, or values are not finite or too large. Names the sample by
            its entry of `keys`.
    """
    stored: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    for field in layout.fields:
        values = outputs.get(field.name)
        shape = None if values is None else values.shape[1:]
        if values is None or shape != field.shape:
            raise DataError(f"Features of field {field.name} have shape {shape}, the cache stores {field.shape}.")
        stored[field.name] = _quantise(field, values, keys)
    count = min(len(values) for values, _ in stored.values())
    return [
        {
            field.name: StoredFeature(values[i], None if scales is None else scales[i], field.codec)
            for field in layout.fields
            for values, scales in [stored[field.name]]
        }
        for i in range(count)
    ]


def _quantise(
    field: FieldLayout, values: np.ndarray, keys: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray | None]:
    what = f"A feature of field {field.name}"
    try:
        return field.stored_as.quantise(values, what)
    except DataError:
        for key, one in zip(keys or (), values, strict=keys is not None):
            field.stored_as.quantise(one[None], f"Sample {key}: a feature of field {field.name}")  # names the sample
        raise


def in_file_order(features: Features) -> list[np.ndarray]:
    """The arrays in the order of the payload: all values, then all scales."""
    values = [field.values for field in features.values()]
    return [*values, *(field.scales for field in features.values() if field.scales is not None)]


def payload_offset(start: int) -> int:
    """Return the payload's offset inside a record that starts at byte `start` of its file: 64 B to 4 KiB + 63 B."""
    return -(-(start + HEADER_BYTES) // ALIGNMENT) * ALIGNMENT - start


def encode_record(features: Features, layout: RecordLayout, start: int = 0) -> bytes:
    """Return the bytes of one record that starts at byte `start` of its file. Fields are in the layout's order."""
    offset = payload_offset(start)
    header = _pack_header(layout, offset)
    payload = [np.ascontiguousarray(array).tobytes() for array in in_file_order(features)]
    record = b"".join([header, bytes(offset - len(header)), *payload])
    if len(record) != offset + layout.payload_bytes:
        raise DataError(f"A record has {len(record) - offset} B of payload, its layout {layout.payload_bytes} B.")
    return record


def decode_record(record: bytes, layout: RecordLayout, where: str = "record") -> Features:
    """Return the features of one record.

    Raises:
        DataError: the record is truncated, has another header, or its sizes differ from `layout`. The message starts
            with `where`.
    """
    if len(record) < HEADER_BYTES:
        raise DataError(f"{where} is truncated: {len(record)} B, its header alone has {HEADER_BYTES} B.")
    magic, version, _, offset, *_rest = _HEADER_2.unpack_from(record)
    if magic != MAGIC:
        raise DataError(f"{where} does not begin with {MAGIC!r}: it is not a feature record.")
    if version not in (1, 2):
        raise DataError(f"{where} has record version {version}, this program reads 1 and 2.", REBUILD)
    expected = _pack_header(layout, offset)
    if record[: len(expected)] != expected:
        raise DataError(f"{where} has fields, shapes or types other than the manifest's.", REBUILD)
    if len(record) != offset + layout.payload_bytes:
        raise DataError(f"{where} has {len(record)} B, not {offset + layout.payload_bytes}: truncated or overlong.")
    features = layout.new_arrays()
    position = offset
    for array in in_file_order(features):
        array.view(np.uint8).reshape(-1)[:] = np.frombuffer(record, np.uint8, array.nbytes, position)
        position += array.nbytes
    return features


def _pack_header(layout: RecordLayout, offset: int) -> bytes:
    is_known = all(field.dtype in _DTYPE_CODES for field in layout.fields)
    if is_known and [(field.name, len(field.shape)) for field in layout.fields] == [("sam", 4), ("vggt", 3)]:
        sam, vggt = layout.fields
        return _pack_header_1(sam, vggt, layout.payload_bytes, offset)
    digest = hashlib.sha256(json.dumps(layout.to_list(), sort_keys=True, separators=(",", ":")).encode()).digest()
    return _HEADER_2.pack(MAGIC, 2, len(layout.fields), offset, layout.payload_bytes, digest)


def _pack_header_1(sam: FieldLayout, vggt: FieldLayout, payload_bytes: int, offset: int) -> bytes:
    views, channels, grid, _ = sam.shape
    _, tokens, width = vggt.shape
    dtypes = _DTYPE_CODES[sam.stored_as.dtype] | _DTYPE_CODES[vggt.stored_as.dtype] << 8
    scales = [prod(field.scale_shape) if field.scale_shape else 0 for field in (sam, vggt)]
    return _HEADER_1.pack(MAGIC, 1, dtypes, offset, payload_bytes, views, channels, grid, tokens, width, *scales, 0)
