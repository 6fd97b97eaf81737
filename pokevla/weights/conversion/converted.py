"""Converted weights, one tensor at a time: what the writers of files read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from pokevla.weights.conversion.name_maps import Move, Plan
from pokevla.weights.conversion.sources import Source
from pokevla.weights.conversion.transforms import TRANSFORMS
from pokevla.weights.conversion.weight_format import Shape
from pokevla.weights.named_tensors import Weights, WeightSpec


class ImportedWeights:
    """Our tensors, made from those of a source when they are read. Memory: the tensors of one row."""

    def __init__(
        self,
        source: Source,
        plan: Plan,
        targets: Mapping[str, Shape],
        new: Callable[[str], Tensor] | None = None,
    ) -> None:
        """`targets` gives shapes and order of our names; `new` makes the tensors that the source does not have."""
        self._source, self._targets, self._new = source, targets, new
        self._moves = {name: move for move in plan.moves for name in move.ours}
        self._specs = {
            name: WeightSpec(shape, source.tensors[self._moves[name].sources[0]].dtype)
            for name, shape in targets.items()
            if name in self._moves
        }
        self._made = {name: new(name) for name in plan.new} if new is not None else {}
        self._specs |= {name: WeightSpec(tuple(value.shape), value.dtype) for name, value in self._made.items()}

    @property
    def specs(self) -> Mapping[str, WeightSpec]:
        """Shape and type by our name."""
        return self._specs

    def read(self, name: str) -> Tensor:
        """One tensor of ours, in the type of the source.

        Raises:
            CheckpointError: the file ends too early, or the tensor is not contiguous.
        """
        if name in self._made:
            return self._made[name]
        move = self._moves[name]
        tensors = [self._source.tensors[one].read() for one in move.sources]
        shapes = [self._targets[one] for one in move.ours]
        return TRANSFORMS[move.transform].forward(tensors, shapes)[move.ours.index(name)]


class PublishedWeights:
    """The published form of our tensors, made when they are read. Memory: the tensors of one row."""

    def __init__(self, ours: Weights, moves: Iterable[Move], duplicates: Mapping[str, str]) -> None:
        """`duplicates`: second name -> published name of the same tensor.

        Raises:
            ValueError: a row cannot be reversed.
        """
        self._ours, self._duplicates = ours, dict(duplicates)
        self._moves = {name: move for move in moves for name in move.sources}
        self._specs: dict[str, WeightSpec] = {}
        for name, move in self._moves.items():
            if name not in self._specs:
                metas = [torch.empty(ours.specs[one].shape, device="meta") for one in move.ours]
                for one, tensor in zip(move.sources, _reversed(move, metas), strict=True):
                    self._specs[one] = WeightSpec(tuple(tensor.shape), ours.specs[move.ours[0]].dtype)
        self._specs |= {second: self._specs[name] for second, name in self._duplicates.items()}

    @property
    def specs(self) -> Mapping[str, WeightSpec]:
        """Shape and type by published name."""
        return self._specs

    def read(self, name: str) -> Tensor:
        """One published tensor."""
        name = self._duplicates.get(name, name)
        move = self._moves[name]
        return _reversed(move, [self._ours.read(one) for one in move.ours])[move.sources.index(name)]


def _reversed(move: Move, tensors: list[Tensor]) -> list[Tensor]:
    backward = TRANSFORMS[move.transform].backward
    if backward is None:
        raise ValueError(f"{move.sources[0]}: the transform {move.transform} cannot be reversed")
    return backward(tensors, len(move.sources))


class JoinedWeights:
    """Weights from several places under one set of names."""

    def __init__(self, parts: Iterable[tuple[str, Weights]], order: Iterable[str]) -> None:
        """`parts`: (prefix of our names, weights without it). `order`: all names, with prefixes."""
        places = {prefix + name: (weights, name) for prefix, weights in parts for name in weights.specs}
        self._places = {name: places[name] for name in order}

    @property
    def specs(self) -> Mapping[str, WeightSpec]:
        """Shape and type by name."""
        return {name: weights.specs[inner] for name, (weights, inner) in self._places.items()}

    def read(self, name: str) -> Tensor:
        """One tensor."""
        weights, inner = self._places[name]
        return weights.read(inner)
