"""Weights that are read one at a time, for tools that work on checkpoints and exported models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pokevla.errors import CheckpointError, UsageError


@dataclass(frozen=True)
class WeightSpec:
    """Shape and dtype of a weight."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Size of the data in bytes."""
        return self.numel * self.dtype.itemsize


class Weights(Protocol):
    """Named tensors that are read into memory one at a time."""

    @property
    def specs(self) -> Mapping[str, WeightSpec]:
        """Shape and dtype by name, in the order of the model."""
        ...

    def read(self, name: str) -> Tensor:
        """One tensor, contiguous, on the CPU."""
        ...


def stored_dtype(dtype: torch.dtype) -> torch.dtype:
    """dtype in which a weight is stored: fp32 for floating point; integers and booleans keep theirs."""
    return torch.float32 if dtype.is_floating_point else dtype


USE_EARLIER = "Use an earlier checkpoint: `pokevla ckpt inspect RUN --step N` counts them."


def refuse_non_finite(name: str, tensor: Tensor, remedy: str = USE_EARLIER) -> None:
    """Refuse a weight that no model can use.

    Raises:
        CheckpointError: it holds NaN or infinity; says how many.
    """
    if not tensor.is_floating_point() or torch.isfinite(tensor).all():
        return
    count = int((~torch.isfinite(tensor)).sum())
    raise CheckpointError(
        f"{name} holds {count} of {tensor.numel()} numbers that are NaN or infinite.",
        remedy,
    )


def part_of(name: str) -> str:
    """Part of the model to which a weight belongs, named as in `pokevla.model.building.parameter_report`."""
    words = name.removeprefix("vlm.").split(".")
    return words[1] if words[0] == "vision_backbone" and len(words) > 1 else words[0]


_BASE = ".base_layer."
_DOWN, _UP = ".lora_A.", ".lora_B."


def has_adapters(weights: Weights) -> bool:
    """Whether the weights include LoRA, recognised by peft's names."""
    return any(_DOWN in name or _UP in name for name in weights.specs)


class MergedWeights:
    """Weights with LoRA merged, under the names of the plain modules: W + scaling · (B @ A), as peft computes it.

    Memory: one base weight and its update.
    """

    def __init__(self, weights: Weights, scaling: float) -> None:
        """`scaling` is alpha / rank.

        Raises:
            UsageError: the weights have no LoRA.
            CheckpointError: one matrix of an adapter, or its base weight, is missing.
        """
        if not has_adapters(weights):
            raise UsageError("These weights have no LoRA: they are already plain.")
        self._weights = weights
        self._scaling = scaling
        self._adapters: dict[str, tuple[str, str]] = {}  # name of the base weight -> (A, B)
        specs = weights.specs
        for name in specs:
            if _DOWN not in name:
                continue
            layer = name.partition(_DOWN)[0]
            base, up = f"{layer}{_BASE}weight", name.replace(_DOWN, _UP)
            if base not in specs or up not in specs:
                raise CheckpointError(f"{name} has no {base if base not in specs else up} beside it.")
            if base in self._adapters:
                raise CheckpointError(f"{layer} has several adapters; only one can be merged.")
            self._adapters[base] = (name, up)
        plain = [name for name in specs if _DOWN not in name and _UP not in name]
        self._sources = {name.replace(_BASE, "."): name for name in plain}  # plain name -> name in `weights`
        self._specs = {name: specs[source] for name, source in self._sources.items()}

    @property
    def specs(self) -> Mapping[str, WeightSpec]:
        """Shape and dtype by plain name."""
        return self._specs

    def read(self, name: str) -> Tensor:
        """One merged tensor.

        Raises:
            CheckpointError: merging gives a value that is not finite.
        """
        source = self._sources[name]
        weight = self._weights.read(source)
        if source in self._adapters:
            down, up = (self._weights.read(adapter) for adapter in self._adapters[source])
            weight += (up @ down) * self._scaling
            if not torch.isfinite(weight).all():
                raise CheckpointError(f"Merging LoRA into {name} gives NaN or infinity.", "Use an earlier checkpoint.")
        return weight
