"""Weights as safetensors, written and read one tensor at a time, in one file or in several with an index.

FOLDER/model.safetensors                                                       one file
FOLDER/model-00001-of-00003.safetensors ... model.safetensors.index.json       several, in Hugging Face's layout
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from typing_extensions import TypedDict

from pokevla.errors import CheckpointError, DiskFullError
from pokevla.files.labels import lies_within
from pokevla.files.records import as_type
from pokevla.files.texts import read_json, write_json
from pokevla.weights.named_tensors import USE_EARLIER, Weights, WeightSpec, refuse_non_finite, stored_dtype

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
FREE_SPACE = "Free some space, or write to another disk."
WRITE_AGAIN = "Write it again."
_HEADER_ALIGNMENT = 8  # bytes; the format's own (github.com/huggingface/safetensors, README)
_DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_weights(
    weights: Weights,
    folder: Path,
    *,
    metadata: Mapping[str, str],
    max_file_bytes: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    remedy: str = USE_EARLIER,
) -> None:
    """Write weights into a folder from `atomic_folder`. Memory: one tensor.

    `metadata` goes into the header of every file. `max_file_bytes` splits the weights into several files (never a
    tensor); `on_progress` is called after each tensor with the bytes written and the total. `remedy` belongs to the
    error about a weight that is not finite.

    Raises:
        DiskFullError: less room than the weights need; checked before the first byte is written.
        CheckpointError: a weight is not finite, or cannot be read.
        OSError: a write fails.
    """
    specs = weights.specs
    total = sum(spec.size_bytes for spec in specs.values())
    free = shutil.disk_usage(folder).free
    if total > free:
        raise DiskFullError(
            f"The disk of {folder.name} has {free / 2**30:.1f} GiB free, the weights need {total / 2**30:.1f} GiB.",
            FREE_SPACE,
        )
    files = _plan_files(specs, max_file_bytes)
    done = 0
    for file, names in files.items():
        parts = {name: specs[name] for name in names}
        with (folder / file).open("wb") as target:
            target.write(_header(parts, metadata))
            for name, spec in parts.items():
                _write_tensor(target, name, spec, weights.read(name), remedy)
                done += spec.size_bytes
                on_progress(done, total)
    if len(files) > 1:
        places = {name: file for file, names in files.items() for name in names}
        content = {"metadata": {**metadata, "total_size": total}, "weight_map": places}
        write_json(folder / INDEX, content, sort_keys=True)


def _plan_files(specs: Mapping[str, WeightSpec], max_file_bytes: int | None) -> dict[str, list[str]]:
    """File name -> names of its tensors, in the order in which they are written."""
    groups: list[list[str]] = [[]]
    size = 0
    for name, spec in specs.items():
        if max_file_bytes is not None and groups[-1] and size + spec.size_bytes > max_file_bytes:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += spec.size_bytes
    # Wide elements first, so that every tensor is aligned to its element.
    ordered = [sorted(group, key=lambda name: -specs[name].dtype.itemsize) for group in groups]
    if len(ordered) == 1:
        return {SINGLE: ordered[0]}
    return {f"model-{k + 1:05d}-of-{len(ordered):05d}.safetensors": names for k, names in enumerate(ordered)}


def _write_tensor(file: BinaryIO, name: str, spec: WeightSpec, tensor: Tensor, remedy: str) -> None:
    if (tuple(tensor.shape), tensor.dtype) != (spec.shape, spec.dtype):
        raise ValueError(f"{name} is {tuple(tensor.shape)} {tensor.dtype}, expected {spec}")
    refuse_non_finite(name, tensor, remedy)
    file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)


def _header(specs: Mapping[str, WeightSpec], metadata: Mapping[str, str]) -> bytes:
    """Header of a safetensors file: length and JSON."""
    content: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    offset = 0
    for name, spec in specs.items():
        place = [offset, offset + spec.size_bytes]
        content[name] = {"dtype": _DTYPE_NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": place}
        offset += spec.size_bytes
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


class FileWeights:
    """The weights in a folder, read one at a time. A context manager, within which the files stay open (mapped)."""

    def __init__(self, folder: Path) -> None:
        """Open the folder.

        Raises:
            CheckpointError: there are no safetensors, or a file is missing or truncated.
        """
        self._stack = contextlib.ExitStack()
        self._files: dict[str, Any] = {}  # name of the weight -> open file
        self.metadata: dict[str, str] = {}
        try:
            for path in weight_files(folder):
                file = self._stack.enter_context(safe_open(path, framework="pt"))
                self.metadata |= file.metadata() or {}
                self._files |= dict.fromkeys(file.keys(), file)
        except (SafetensorError, OSError) as error:
            self._stack.close()
            raise CheckpointError(f"{folder}: not readable safetensors ({error}).", "Write it again.") from error
        slices = {name: file.get_slice(name) for name, file in self._files.items()}
        dtypes = {name: dtype for dtype, name in _DTYPE_NAMES.items()}
        self._specs = {  # other floating-point types, as in imported models, become fp32
            name: WeightSpec(tuple(part.get_shape()), stored_dtype(dtypes.get(part.get_dtype(), torch.float32)))
            for name, part in slices.items()
        }

    @property
    def specs(self) -> Mapping[str, WeightSpec]:
        """Shape and dtype by name."""
        return self._specs

    def read(self, name: str) -> Tensor:
        """One tensor."""
        tensor = self._files[name].get_tensor(name)
        return tensor.to(stored_dtype(tensor.dtype))

    def __enter__(self) -> FileWeights:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class _Index(TypedDict):
    weight_map: dict[str, str]  # name of the weight -> file


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: the single one, or those in its index.

    Raises:
        CheckpointError: there are none, or the index cannot be read.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    path = folder / INDEX
    if not path.exists():
        raise CheckpointError(f"{folder} holds no weights (no {SINGLE}).", "Check the path.")
    content = read_json(path, kind=CheckpointError, remedy=WRITE_AGAIN)
    index = as_type(content, _Index, path, kind=CheckpointError, remedy=WRITE_AGAIN)
    names = sorted(set(index["weight_map"].values()))
    if outside := [name for name in names if not lies_within(name)]:
        raise CheckpointError(f"{path} names the file {outside[0]!r}, which does not lie in its folder.", WRITE_AGAIN)
    return [folder / name for name in names]
