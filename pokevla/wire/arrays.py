"""msgpack with NumPy arrays, in the two spellings that policy servers use.

An array is a map with its bytes, its type and its shape. Nothing is unpickled, and what arrives is checked before
memory is taken for it. openpi spells the keys as bytes (Physical-Intelligence/openpi,
packages/openpi-client/src/openpi_client/msgpack_numpy.py), vla-eval as text (allenai/vla-evaluation-harness,
src/vla_eval/protocol/numpy_codec.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgpack
import numpy as np

from pokevla.errors import ProtocolError
from pokevla.wire.pictures import MARK as PICTURE_MARK
from pokevla.wire.pictures import read_picture

MAX_DEPTH = 16
"""Deepest nesting of lists and maps in a message."""
MAX_ENTRIES = 4096
"""Longest list or map in a message. Long data comes as arrays."""
MAX_DIMENSIONS = 8
_NUMBERS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
"""Types of arrays that are read: truth values, integers and floating-point numbers. No objects, no text."""


@dataclass(frozen=True)
class Spelling:
    """How one protocol writes arrays into a message."""

    name: str
    array: Any
    """Key that marks an array."""
    data: Any
    dtype: Any
    shape: Any
    scalar: Any = None
    """Key that marks a NumPy scalar; None: scalars become plain numbers."""
    has_pictures: bool = False
    """Whether compressed pictures are read (`pokevla.wire.pictures`)."""


OPENPI = Spelling("openpi", b"__ndarray__", b"data", b"dtype", b"shape", scalar=b"__npgeneric__")
VLA_EVAL = Spelling("vla-eval", "__ndarray__", "data", "dtype", "shape", has_pictures=True)


def pack(value: Any, spelling: Spelling) -> bytes:
    """The message of maps, lists, text, bytes, numbers and arrays.

    Raises:
        TypeError: the value holds something else, such as an array of objects. That is a mistake of the caller.
    """
    packed = msgpack.packb(value, default=partial(_write, spelling))
    assert packed is not None  # packb returns None only for a packer without autoreset
    return packed


def unpack(data: bytes, spelling: Spelling) -> Any:
    """The value of a message. Arrays are read-only and in native byte order.

    Raises:
        ProtocolError: the bytes are no message, or one that this protocol does not allow: an array of objects or of
            another size than it says, deep nesting, long lists, an extension type.
    """
    limits = {"max_array_len": MAX_ENTRIES, "max_map_len": MAX_ENTRIES, "max_ext_len": 0}
    hook: Callable[[dict[Any, Any]], Any] = partial(_read, spelling)
    try:
        value = msgpack.unpackb(data, object_hook=hook, raw=False, **limits)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        reason = str(error) or type(error).__name__
        raise ProtocolError(f"{len(data)} bytes are not a message of {spelling.name} ({reason}).") from error
    _refuse_strange(value, MAX_DEPTH)
    return value


def _write(spelling: Spelling, value: Any) -> Any:
    if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in "biuf":
        raise TypeError(f"{type(value).__name__} cannot be sent in a {spelling.name} message")
    if isinstance(value, np.ndarray):
        return {
            spelling.array: True,
            spelling.data: value.tobytes(),
            spelling.dtype: value.dtype.str,
            spelling.shape: value.shape,
        }
    if spelling.scalar is None:
        return value.item()
    return {spelling.scalar: True, spelling.data: value.item(), spelling.dtype: value.dtype.str}


def _read(spelling: Spelling, entry: dict[Any, Any]) -> Any:
    """A map of a message, or the array, scalar or picture that it stands for."""
    if spelling.array in entry:
        return _read_array(entry.get(spelling.data), entry.get(spelling.dtype), entry.get(spelling.shape))
    if spelling.scalar is not None and spelling.scalar in entry:
        value = entry.get(spelling.data)
        if not isinstance(value, bool | int | float):
            raise ProtocolError(f"a scalar of the message is a {type(value).__name__}, not a number.")
        return value
    if spelling.has_pictures and PICTURE_MARK in entry:
        if entry.get("format") == "raw":
            return _read_array(entry.get("data"), entry.get("dtype"), entry.get("shape"))
        return read_picture(entry)
    return entry


def _read_array(data: Any, dtype: Any, shape: Any) -> np.ndarray:
    if not isinstance(dtype, str) or not _NUMBERS.fullmatch(dtype):
        raise ProtocolError(f"an array of the message has the type {_shortened(dtype)}; only numbers are allowed.")
    sizes = shape if isinstance(shape, list) else None
    if sizes is None or len(sizes) > MAX_DIMENSIONS or not all(type(size) is int and size >= 0 for size in sizes):
        raise ProtocolError(f"an array of the message has the shape {_shortened(shape)}.")
    kind = np.dtype(dtype)
    expected = math.prod(sizes) * kind.itemsize
    if not isinstance(data, bytes) or len(data) != expected:
        have = f"{len(data)} bytes" if isinstance(data, bytes) else f"a {type(data).__name__}"
        raise ProtocolError(
            f"an array of the message with shape {sizes} and type {dtype} holds {have}, not {expected} bytes."
        )
    array = np.frombuffer(data, kind) if data else np.empty(0, kind)
    array = array.reshape(sizes).astype(kind.newbyteorder("="), copy=False)
    array.flags.writeable = False
    return array


def _refuse_strange(value: Any, depth: int) -> None:
    if depth < 0:
        raise ProtocolError(f"the message is nested more than {MAX_DEPTH} deep.")
    if isinstance(value, dict):
        for entry in value.values():
            _refuse_strange(entry, depth - 1)
    elif isinstance(value, list):
        for entry in value:
            _refuse_strange(entry, depth - 1)
    elif value is not None and not isinstance(value, bool | int | float | str | bytes | np.ndarray):
        raise ProtocolError(f"the message holds a {type(value).__name__}.")


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
