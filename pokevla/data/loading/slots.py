"""A batch in memory that two processes share: one makes it there, the other gets its tensors without a copy.

A slot is an anonymous file in memory (memfd), which unlike `/dev/shm` has no size limit of its own and vanishes with
the last process that has it. It grows to the largest batch that was put into it. Only where each tensor lies goes
through a pipe.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pokevla.data.batch import RobotBatch, VLMBatch, map_all_tensors
from pokevla.data.loading.memory import PAGE_BYTES, page_aligned
from pokevla.errors import EnvironmentSetupError

_TENSOR_BYTES = 64
"""Alignment of a tensor that was copied into the slot."""
_SPARE = 1.25
"""A slot that is too small grows to this multiple of what is needed: the texts of the next batch may be longer."""


@dataclass(frozen=True)
class Placed:
    """Where a tensor lies in a slot."""

    offset: int  # bytes
    shape: tuple[int, ...]
    dtype: torch.dtype


def new_slot() -> int:
    """The file descriptor of an empty slot."""
    return os.memfd_create("pokevla-batch", os.MFD_CLOEXEC)


class SlotWriter:
    """The side that makes batches. One thread at a time."""

    def __init__(self, descriptor: int, largest: list[int]) -> None:
        """`largest`: the size of the largest of all slots, which they share: a new one begins with it."""
        self._descriptor, self._largest = descriptor, largest
        self._memory = np.empty(0, dtype=np.uint8)
        self._used = self._lacking = 0  # bytes; `_lacking` is what was allocated elsewhere

    def begin(self) -> None:
        """Begin a new batch: what the slot holds is no longer needed."""
        self._used = self._lacking = 0
        if self._largest[0] > len(self._memory):
            self._grow(self._largest[0])

    @property
    def used(self) -> int:
        """Bytes of the slot that the last batch takes."""
        return self._used

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array at a page of the slot, with any content; ordinary memory where the slot is full."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        start = _aligned(self._used, PAGE_BYTES)
        if start + size > len(self._memory):
            self._lacking += _aligned(size, PAGE_BYTES) + PAGE_BYTES
            return page_aligned(shape, dtype)
        self._used = start + size
        return self._memory[start : start + size].view(kind).reshape(shape)

    def pack(self, batch: VLMBatch | RobotBatch) -> tuple[Any, int]:
        """(the batch with a `Placed` for each tensor, bytes of the slot). Copies the tensors that lie elsewhere."""
        copies: list[tuple[int, Tensor]] = []

        def place(tensor: Tensor) -> Any:
            tensor = tensor.contiguous()
            offset = tensor.data_ptr() - self._memory.ctypes.data
            if tensor.numel() == 0 or not 0 <= offset < len(self._memory):
                offset = _aligned(self._used, _TENSOR_BYTES)
                self._used = offset + tensor.nbytes
                copies.append((offset, tensor))
            return Placed(offset, tuple(tensor.shape), tensor.dtype)

        packed = map_all_tensors(batch, place)
        if self._used > len(self._memory):
            self._grow(
                _aligned(int((self._used + self._lacking) * _SPARE), PAGE_BYTES)
            )  # what lies in the slot stays where it is
        for offset, tensor in copies:
            if tensor.numel():
                self._memory[offset : offset + tensor.nbytes] = tensor.reshape(-1).view(torch.uint8).numpy()
        return packed, len(self._memory)

    def _grow(self, size: int) -> None:
        try:
            os.ftruncate(self._descriptor, size)
            self._memory = np.frombuffer(_mapped(self._descriptor, size), dtype=np.uint8)
            self._largest[0] = max(size, self._largest[0])
        except OSError as error:
            raise EnvironmentSetupError(
                f"{size / 2**20:.0f} MiB of memory for a batch cannot be had ({error.strerror}).",
                "Set data.prefetch_batches or batch.micro lower.",
            ) from error


class SlotReader:
    """The side that uses batches. The slot may be written again once no tensor of its batch is left."""

    def __init__(self, descriptor: int, pin: Callable[[np.ndarray], None] | None = None) -> None:
        """`pin` is called with the memory of the slot, and again with all of it when it has grown."""
        self._descriptor, self._pin = descriptor, pin
        self._mapped: mmap.mmap | None = None

    def unpack(self, packed: Any, size: int, when_free: Callable[[], None]) -> Any:
        """The batch that `pack` has put into the slot. `when_free` is called when its last tensor is gone."""
        if self._mapped is None or len(self._mapped) < size:
            self._mapped = _mapped(self._descriptor, size)
            if self._pin is not None:
                self._pin(np.frombuffer(self._mapped, dtype=np.uint8))
        memory = np.frombuffer(self._mapped, dtype=np.uint8)  # every tensor holds this object
        weakref.finalize(memory, when_free)

        def tensor(placed: Placed) -> Tensor:
            count = int(np.prod(placed.shape, dtype=np.int64))
            if count == 0:
                return torch.empty(placed.shape, dtype=placed.dtype)
            flat = torch.frombuffer(memory, dtype=placed.dtype, count=count, offset=placed.offset)
            return flat.reshape(placed.shape)

        return map_all_tensors(packed, tensor, kind=Placed)


def pin_for_cuda(memory: np.ndarray) -> None:
    """Register memory with CUDA, so that a GPU copies from it by itself, until the process ends.

    Raises:
        EnvironmentSetupError: CUDA refuses.
    """
    runtime: Any = torch.cuda.cudart()
    result = runtime.cudaHostRegister(memory.ctypes.data, len(memory), 0)
    if int(result) != 0:
        raise EnvironmentSetupError(
            f"CUDA does not pin {len(memory) / 2**20:.0f} MiB for batches (error {int(result)}).",
            "Set data.loader=threads, or data.prefetch_batches lower.",
        )


def _mapped(descriptor: int, size: int) -> mmap.mmap:
    # Populated: otherwise the first batch in a slot would pay a page fault for every 4 KiB.
    return mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
