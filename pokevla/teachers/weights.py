"""Reads and hashes teacher weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pokevla.errors import CheckpointError
from pokevla.files.foreign.torch_archives import UNREADABLE, is_archive, read_archive
from pokevla.weights.conversion.importing import open_part
from pokevla.weights.named_tensors import refuse_non_finite
from pokevla.weights.safetensors_files import weight_files

_CHUNK_BYTES = 1 << 22
_ANOTHER_FILE = "Check that `weights` are of this kind, and that `preset` is their size."


def file_hash(path: Path) -> str:
    """Return the sha256 of the weights at `path` in hex: a file, or the safetensors of a folder, one after another.

    Raises:
        CheckpointError: there is no such file, or the folder holds no safetensors.
    """
    if not path.exists():
        raise CheckpointError(f"Teacher weights {path} do not exist.", "Correct `weights`, or leave it out.")
    digest = hashlib.sha256()
    for one in weight_files(path) if path.is_dir() else [path]:
        with one.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def state_hash(module: nn.Module) -> str:
    """Return the sha256 over names, types, shapes and values of all tensors of a module, in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{array.dtype}|{tuple(array.shape)}|".encode())
        digest.update(array.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors` file, or a `torch.save` file that holds tensors only, onto the CPU.

    Raises:
        CheckpointError: the file is missing or damaged, or is not a mapping from names to tensors.
    """
    if not path.is_file():
        problem = "are a folder; this teacher reads a file" if path.is_dir() else "do not exist"
        raise CheckpointError(f"Teacher weights {path} {problem}.", "Correct `weights`, or leave it out.")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        if is_archive(path):
            read_archive(path, {})  # sizes, offsets and classes are possible before torch allocates anything by them
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (*UNREADABLE, safetensors.SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"Teacher weights {path} cannot be read: {reason}.", "Download the file again."
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} is not a mapping from names to tensors.", "Give a file of weights.")
    return cast(dict[str, Tensor], dict(state))


def load_part(module: nn.Module, kind: str, path: Path, left_out: tuple[str, ...] = ()) -> None:
    """Load `module` from published files of `kind` (an entry of `pokevla.parts.WEIGHT_FORMATS`), or from what
    `pokevla model import` made of them. Memory: one tensor beside the module.

    `left_out` are patterns of published names that belong to other parts.

    Raises:
        CheckpointError: as `open_part`, or a number is not finite.
    """
    state = module.state_dict()
    try:
        weights = open_part(kind, path, {name: tuple(value.shape) for name, value in state.items()}, left_out=left_out)
        for name, target in state.items():
            tensor = weights.read(name)
            refuse_non_finite(name, tensor, _ANOTHER_FILE)
            target.copy_(tensor)
    except CheckpointError as error:
        raise CheckpointError(f"Teacher weights: {error.message}", _ANOTHER_FILE) from error


def load_file(module: nn.Module, path: Path) -> None:
    """Load `module` from a file that holds exactly its tensors. Raises the errors of `read_state` and
    `load_strictly`."""
    load_strictly(module, read_state(path), path)


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Copy `state` into `module`. Every name and shape must match.

    Raises:
        CheckpointError: lists the first tensors that are missing, unknown or of another shape.
    """
    target = module.state_dict()
    missing = [name for name in target if name not in state]
    unknown = [name for name in state if name not in target]
    reshaped = [name for name in target if name in state and state[name].shape != target[name].shape]
    if missing or unknown or reshaped:
        lists = (("lacks", missing), ("has the unknown", unknown), ("has another shape for", reshaped))
        parts = [f"{verb} {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}" for verb, names in lists if names]
        raise CheckpointError(f"{path} {' and '.join(parts)}.", "Check that `preset` is the size of these weights.")
    module.load_state_dict(state)
