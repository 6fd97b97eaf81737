"""Opens files of `torch.save` without running pickled code, and reads them one tensor at a time.

DeepSpeed's files hold three classes of its own beside plain values (listed by
`torch.serialization.get_unsafe_globals_in_checkpoint`; a test keeps the list complete). `torch.load` refuses them under
`weights_only=True` unless they are allowed. They are allowed here, but the inert stand-ins below are created instead:
no code of DeepSpeed runs, it need not even be installed, and a file that names any other class is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from pokevla.errors import CheckpointError


class StandIn:
    """Replaces an object that only DeepSpeed's own loading needs. Keeps its state and has no behaviour."""


KNOWN_CLASSES: list[tuple[type, str]] = [
    (StandIn, "deepspeed.runtime.fp16.loss_scaler.LossScaler"),
    (StandIn, "deepspeed.utils.tensor_fragment.fragment_address"),
    (int, "deepspeed.runtime.zero.config.ZeroStageEnum"),  # an enum of integers
]


@dataclass(frozen=True)
class StoredTensor:
    """A contiguous tensor inside a file, not loaded into memory."""

    path: Path
    offset_bytes: int  # of its first element, from the start of the file
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def read_into(self, target: Tensor, start: int = 0) -> None:
        """Fill `target` (1-D, contiguous, on the CPU, any dtype) with the elements from `start` on.

        Raises:
            CheckpointError: the file is too short.
        """
        raw = target if target.dtype == self.dtype else torch.empty_like(target, dtype=self.dtype)
        view = raw.view(torch.uint8).numpy().data
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset_bytes + start * self.dtype.itemsize)
            done = 0
            while done < len(view):  # one call reads at most 2 GiB (read(2))
                count = file.readinto(view[done:])
                if not count:
                    raise CheckpointError(f"{self.path} ends in the middle of a tensor.", "Use another checkpoint.")
                done += count
        if raw is not target:
            target.copy_(raw)

    def read(self, dtype: torch.dtype | None = None) -> Tensor:
        """The whole tensor, converted to `dtype` if given."""
        flat = torch.empty(self.numel, dtype=dtype or self.dtype)
        self.read_into(flat)
        return flat.view(self.shape)


def open_torch_file(path: Path) -> Any:
    """The saved object, with tensors on the `meta` device: their offsets are known, their data is not read.

    Raises:
        CheckpointError: the file is missing, not from `torch.save`, or names a class that is not in KNOWN_CLASSES.
    """
    try:
        with torch.serialization.safe_globals(list(KNOWN_CLASSES)):
            return torch.load(path, map_location="meta", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing.", "Use another checkpoint.") from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} cannot be read safely ({reason}).", "Use another checkpoint.") from error


def locate(path: Path, tensor: Tensor) -> StoredTensor:
    """Position in the file of a tensor of `open_torch_file(path)`.

    Raises:
        CheckpointError: the tensor is not contiguous, or the file does not record its position.
    """
    if not tensor.is_contiguous():
        raise CheckpointError(f"{path} holds a tensor that is not contiguous.", "Use another checkpoint.")
    # torch records the offset of each storage when it loads to `meta` (torch/serialization.py, load_tensor).
    start = tensor.untyped_storage()._checkpoint_offset
    if start is None:
        raise CheckpointError(f"{path} does not record the offsets of its tensors.", "Use another checkpoint.")
    offset = start + int(tensor.storage_offset()) * tensor.dtype.itemsize
    return StoredTensor(path, offset, tuple(tensor.shape), tensor.dtype)
