"""Weights that are read one at a time: what tools over checkpoints and exported models share."""

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
    """What a weight is, without its data."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of the data."""
        return self.numel * self.dtype.itemsize


class Weights(Protocol):
    """Named tensors of which one at a time is in memory."""

    @property
    def specs(self) -> Mapping[str, WeightSpec]:
        """Shape and dtype by name, in the order of the model."""
        ...

    def read(self, name: str) -> Tensor:
        """One tensor, contiguous, on the CPU."""
        ...


def stored_dtype(dtype: torch.dtype) -> torch.dtype:
    """Every floating-point weight is handled in fp32; integers and booleans stay what they are."""
    return torch.float32 if dtype.is_floating_point else dtype


def part_of(name: str) -> str:
    """The part of the model that a weight belongs to, named as in `pokevla.model.building.parameter_report`."""
    words = name.removeprefix("vlm.").split(".")
    return words[1] if words[0] == "vision_backbone" and len(words) > 1 else words[0]


_BASE = ".base_layer."
_DOWN, _UP = ".lora_A.", ".lora_B."


def has_adapters(weights: Weights) -> bool:
    """Whether there is LoRA (as peft names it) in the weights."""
    return any(_DOWN in name or _UP in name for name in weights.specs)


class MergedWeights:
    """Weights with LoRA folded in, under the names of the plain modules: W + scaling · (B @ A), as peft computes it.

    Reading holds one base weight and its update at a time.
    """

    def __init__(self, weights: Weights, scaling: float) -> None:
        """`scaling` is alpha / rank.

        Raises:
            UsageError: there is no LoRA in the weights.
            CheckpointError: half of an adapter, or its base, is missing.
        """
        if not has_adapters(weights):
            raise UsageError("These weights hold no LoRA: they are plain already.")
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
                raise CheckpointError(f"{layer} carries several adapters; which one to merge is not said.")
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
                raise CheckpointError(f"Merging LoRA into {name} gives NaN or infinity.", "Take an earlier checkpoint.")
        return weight
