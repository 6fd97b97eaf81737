"""Reads the files of `torch.save` without running pickled code, without decompressing, and within bounds.

A file is a zip: `data.pkl` describes objects and tensors, `data/KEY` holds the bytes of one storage, uncompressed. Only
functions of this module and the classes that the caller names are called while `data.pkl` is read, so a file can claim
any size or offset without anything being allocated. Tensors become `StoredTensor`s.
"""

from __future__ import annotations

import math
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from pokevla.errors import CheckpointError
from pokevla.files.texts import open_regular

Classes = Mapping[tuple[str, str], Any]
"""(module, name) of a class in a pickle -> what is called instead."""
USE_ANOTHER = "Use another checkpoint."
MAX_PICKLE_BYTES = 64 << 20
"""Largest `data.pkl` that is read. That of a model of 10,000 weights has 2 MB."""
UNREADABLE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, OverflowError, MemoryError, RecursionError,
    struct.error, pickle.UnpicklingError, zipfile.BadZipFile, NotImplementedError,
)  # fmt: skip
"""What reading damaged bytes can raise."""
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # github.com/pkware: APPNOTE.TXT, 4.3.7
_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """A tensor inside a file, not loaded into memory."""

    path: Path
    offset_bytes: int  # of its first element, from the start of the file
    shape: tuple[int, ...]
    dtype: torch.dtype
    is_contiguous: bool = True

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def read_into(self, target: Tensor, start: int = 0) -> None:
        """Fill `target` (1-D, contiguous, on the CPU, any dtype) with the elements from `start` on.

        Raises:
            CheckpointError: the file is too short, or the tensor is not contiguous.
        """
        if not self.is_contiguous:
            raise CheckpointError(f"{self.path} holds a tensor that is not contiguous.", USE_ANOTHER)
        raw = target if target.dtype == self.dtype else torch.empty_like(target, dtype=self.dtype)
        view = raw.view(torch.uint8).numpy().data
        try:
            self._fill(view, self.offset_bytes + start * self.dtype.itemsize)
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read ({error.strerror}).", USE_ANOTHER) from error
        if raw is not target:
            target.copy_(raw)

    def _fill(self, view: memoryview, offset: int) -> None:
        with self.path.open("rb", buffering=0) as file:
            file.seek(offset)
            done = 0
            while done < len(view):  # one call reads at most 2 GiB (read(2))
                count = file.readinto(view[done:])
                if not count:
                    raise CheckpointError(f"{self.path} ends in the middle of a tensor.", USE_ANOTHER)
                done += count

    def read(self, dtype: torch.dtype | None = None) -> Tensor:
        """The whole tensor, converted to `dtype` if given. Raises what `read_into` raises."""
        if not self.is_contiguous:  # its shape may claim far more than the file holds
            raise CheckpointError(f"{self.path} holds a tensor that is not contiguous.", USE_ANOTHER)
        flat = torch.empty(self.numel, dtype=dtype or self.dtype)
        self.read_into(flat)
        return flat.view(self.shape)


def is_archive(path: Path) -> bool:
    """Whether the file is a zip, which `torch.save` has written since torch 1.6."""
    with open_regular(path) as file:
        return file.read(4) == b"PK\x03\x04"


def read_archive(path: Path, classes: Classes) -> Any:
    """The saved object, with a `StoredTensor` for each tensor. `classes` are allowed besides those of torch.

    Raises:
        One of UNREADABLE: the file is damaged, compressed, or names another class.
    """
    with open_regular(path) as file:
        entries = _entries(file)
        names = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
        if len(names) != 1:
            raise ValueError(f"it has {len(names)} data.pkl instead of one")
        root = names[0].removesuffix("data.pkl")
        if f"{root}byteorder" in entries and _content(file, *entries[f"{root}byteorder"]) != b"little":
            raise ValueError("its numbers are not little-endian")
        content = _content(file, *entries[names[0]])
    storages = {name.removeprefix(f"{root}data/"): place for name, place in entries.items()}
    return _Unpickler(content, path, storages, classes).load()


def _entries(file: BinaryIO) -> dict[str, tuple[int, int]]:
    """(offset, size) of the content of every entry of a zip, in bytes."""
    entries: dict[str, tuple[int, int]] = {}
    size, end = os.fstat(file.fileno()).st_size, 0
    with zipfile.ZipFile(file) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
            file.seek(info.header_offset)
            header = _LOCAL_HEADER.unpack(_read_exactly(file, _LOCAL_HEADER.size))
            start = info.header_offset + _LOCAL_HEADER.size + header[-2] + header[-1]
            if header[0] != b"PK\x03\x04" or info.flag_bits & 1:
                raise ValueError(f"its entry {info.filename} is damaged or encrypted")
            if info.compress_type != zipfile.ZIP_STORED or header[3] != zipfile.ZIP_STORED:
                raise ValueError(f"its entry {info.filename} is compressed; save it again with torch.save")
            if info.header_offset < end or start + info.file_size > size or info.filename in entries:
                raise ValueError(f"its entry {info.filename} overlaps another one or the end of the file")
            end = start + info.file_size
            entries[info.filename] = (start, info.file_size)
    return entries


def _content(file: BinaryIO, start: int, size: int) -> bytes:
    if size > MAX_PICKLE_BYTES:
        raise ValueError(f"its data.pkl has {size} bytes, more than {MAX_PICKLE_BYTES}")
    file.seek(start)
    return _read_exactly(file, size)


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    content = bytearray()
    while len(content) < size and (chunk := file.read(size - len(content))):
        content += chunk
    if len(content) != size:
        raise EOFError("it ends too early")
    return bytes(content)


@dataclass(frozen=True)
class _Storage:
    """Bytes of one storage in the file."""

    offset: int
    numel: int
    dtype: torch.dtype


class _Unpickler(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Calls nothing but what `find_class` returns. Pure Python: the C version allocates whatever memo index it is told
    (https://github.com/python/cpython/issues/115952)."""

    def __init__(self, content: bytes, path: Path, places: Mapping[str, tuple[int, int]], classes: Classes) -> None:
        super().__init__(BytesIO(content))
        self._path, self._places, self._classes = path, places, classes

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._classes:
            return self._classes[module, name]
        if (module, name) in _FUNCTIONS:
            return _FUNCTIONS[module, name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        raise pickle.UnpicklingError(f"it names the class {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, numel = pid
        offset, size = self._places[key]
        if not isinstance(dtype, torch.dtype) or type(numel) is not int or numel * dtype.itemsize != size:
            raise ValueError(f"its storage {key} has {size} bytes for {numel} numbers of {dtype}")
        return _Storage(offset, numel, dtype)

    def _tensor(self, storage: _Storage, start: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Any:
        numbers = [start, *size, *stride]
        if len(size) != len(stride) or any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError(f"a tensor has the shape {tuple(size)} and the strides {tuple(stride)}")
        last = start + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and last >= storage.numel:
            raise ValueError(f"a tensor ends at element {last} of a storage of {storage.numel}")
        offset = storage.offset + start * storage.dtype.itemsize
        return StoredTensor(self._path, offset, tuple(size), storage.dtype, _is_contiguous(size, stride))


def _is_contiguous(size: Sequence[int], stride: Sequence[int]) -> bool:
    """As torch defines it: dimensions of one element may have any stride."""
    expected = 1
    for count, step in zip(reversed(size), reversed(stride), strict=True):
        if count != 1 and step != expected and 0 not in size:
            return False
        expected *= count
    return True


def _encode(text: str, encoding: str) -> bytes:
    """`_codecs.encode`, by which protocol 2 writes bytes."""
    if encoding != "latin1":
        raise ValueError(f"bytes are encoded as {encoding}")
    return text.encode("latin1")


def _without_type(rebuild: Any, _type: None, arguments: Sequence[Any], _state: Any) -> Any:
    """`torch._tensor._rebuild_from_type_v2`, by which a tensor with attributes is written. They are left out."""
    return rebuild(*arguments)


_FUNCTIONS: Classes = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    ("torch", "device"): str,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch._tensor", "_rebuild_from_type_v2"): _without_type,
    ("torch", "Tensor"): None,  # only named, as a type
    ("torch.nn.parameter", "Parameter"): None,
    ("_codecs", "encode"): _encode,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}
"""Functions and classes of torch and Python in our files, and what is called instead."""
