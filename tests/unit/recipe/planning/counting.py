"""What a real forward and backward pass keeps and computes: the numbers that the plan's formulas must meet."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten


def storages(*owners: nn.Module | Tensor) -> set[int]:
    """Storages of parameters, buffers and given tensors."""
    tensors = [
        tensor
        for owner in owners
        for tensor in ([owner] if isinstance(owner, Tensor) else [*owner.parameters(), *owner.buffers()])
    ]
    return {tensor.untyped_storage()._cdata for tensor in tensors}


def leaf_tensors(value: Any) -> list[Tensor]:
    """Tensors of a batch (dataclasses and dictionaries)."""
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else vars(value).values() if hasattr(value, "__dict__") else ()
    return [tensor for item in items for tensor in leaf_tensors(item)]


class SavedBytes:
    """Bytes that autograd saves, each storage once, by the part (a named module) that saves it first."""

    def __init__(self, parts: Iterable[tuple[str, nn.Module]], known: set[int]) -> None:
        self.by_part: dict[str, int] = defaultdict(int)
        self._seen, self._held = set(known), []
        self._stack = ["losses"]
        self._parts = tuple(parts)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            self._held.append(tensor)  # so that no other tensor gets this storage's address
            self.by_part[self._stack[-1]] += storage.nbytes()
        return tensor

    @contextmanager
    def __call__(self) -> Iterator[None]:
        handles = []
        for name, module in self._parts:
            handles.append(module.register_forward_pre_hook(lambda *_, name=name: self._stack.append(name)))
            handles.append(module.register_forward_hook(lambda *_: self._stack.pop() and None))
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor):
                yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def total(self) -> int:
        """Over all parts."""
        return sum(self.by_part.values())


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that were made inside and are still alive, and their largest sum."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive = set(known)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._track(leaf.untyped_storage())
        return out

    def _track(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return
        self._alive.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


def _forward(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return sdpa_flop_count(query, _grouped(query, key), _grouped(query, value))


def _backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return sdpa_backward_flop_count(grad, query, _grouped(query, key), _grouped(query, value))


def _grouped(query: Any, key: Any) -> tuple[int, ...]:
    """The shape with the heads of grouped keys repeated, as they are computed."""
    return (key[0], query[1], *key[2:])


CPU_ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu: _forward,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
}
"""torch counts the GPU's fused kernels only."""


def count_flops(run: Callable[[], Tensor]) -> tuple[int, int]:
    """Operations of a forward and of its backward pass, as torch counts them: (matrix products, attention)."""
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        run().backward()
    counts = counter.get_flop_counts()["Global"]
    attention = sum(number for name, number in counts.items() if "attention" in str(name))
    return sum(counts.values()) - attention, attention
