"""Compares two checkpoints, of one run or of two: recipe, progress and weights."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from checkpoints_tools.source import CheckpointSource, WeightsSource, opened_weights
from pokevla.recipe.schema import TrainRecipe
from pokevla.recipe.values import ABSENT, differences, flat_values

if TYPE_CHECKING:
    from torch import Tensor

    from pokevla.weights.named_tensors import Weights

CHUNK = 1 << 20
"""Elements compared at a time: their differences in float64 take 8 MiB, whatever the size of the tensor."""
FACTS = ("step", "position", "world_size", "zero_stage", "precision", "frozen_hash")


@dataclass
class PartDifference:
    """Difference between the weights of one part of the model."""

    name: str
    tensors: int = 0  # that both have with the same shape
    differing: int = 0  # tensors with at least one different element
    max_abs: float = 0.0  # largest absolute difference between finite elements
    relative: float = 0.0  # norm of the difference over the norm of the first
    non_finite: int = 0  # elements that are NaN or infinite on either side


@dataclass
class Difference:
    """What `diff` finds."""

    recipe: dict[str, list[Any]]  # field -> [first, second]
    facts: dict[str, list[Any]]
    parts: list[PartDifference]
    only_first: list[str]  # names of weights
    only_second: list[str]
    other_shape: dict[str, list[list[int]]]

    @property
    def weights_equal(self) -> bool:
        """Whether the weights in the files are bit-identical."""
        unequal = self.only_first or self.only_second or self.other_shape or any(part.differing for part in self.parts)
        return not unequal

    def as_json(self) -> dict[str, Any]:
        """For a script."""
        return {**asdict(self), "weights_equal": self.weights_equal}


def diff(first: CheckpointSource | WeightsSource, second: CheckpointSource | WeightsSource) -> Difference:
    """Compare two sources, tensor by tensor.

    For a checkpoint, compares the trained weights, and the hash of the frozen ones, which it does not store.
    Memory: two tensors.

    Raises:
        CheckpointError: files that cannot be read.
    """
    recipe, facts = {}, {}
    if isinstance(first, CheckpointSource) and isinstance(second, CheckpointSource):
        recipe = recipe_differences(first.recipe, second.recipe)
        facts = differences(*({name: getattr(source.info, name) for name in FACTS} for source in (first, second)))
    with opened_weights(first) as one, opened_weights(second) as two:
        shapes = {name: (one.specs[name].shape, two.specs[name].shape) for name in one.specs if name in two.specs}
        return Difference(
            recipe,
            facts,
            parts=_compare(one, two, [name for name, (left, right) in shapes.items() if left == right]),
            only_first=[name for name in one.specs if name not in two.specs],
            only_second=[name for name in two.specs if name not in one.specs],
            other_shape={name: [list(a), list(b)] for name, (a, b) in shapes.items() if a != b},
        )


def recipe_differences(first: TrainRecipe, second: TrainRecipe) -> dict[str, list[Any]]:
    """Differing fields of two resolved recipes: dotted name -> [first, second]; None if a recipe lacks the field."""
    rows = differences(flat_values(first), flat_values(second))
    return {name: [None if value is ABSENT else value for value in row] for name, row in rows.items()}


def _compare(one: Weights, two: Weights, names: list[str]) -> list[PartDifference]:
    from pokevla.weights.named_tensors import part_of

    by_name: dict[str, PartDifference] = {}
    squares: dict[str, list[float]] = {}  # part -> squared norms of the difference and of the first
    for name in names:
        part = by_name.setdefault(part_of(name), PartDifference(part_of(name)))
        sums = squares.setdefault(part.name, [0.0, 0.0])
        _add_tensor(part, sums, one.read(name), two.read(name))
    for part in by_name.values():
        difference, size = squares[part.name]
        # If the first weights are all zero the ratio is infinite, which JSON cannot express: report 1.
        part.relative = math.sqrt(difference / size) if size > 0 else float(difference > 0)
    return list(by_name.values())


def _add_tensor(part: PartDifference, squares: list[float], one: Tensor, two: Tensor) -> None:
    import torch

    part.tensors += 1
    differs = False
    for left, right in zip(one.view(-1).split(CHUNK), two.view(-1).split(CHUNK), strict=True):
        a, b = left.double(), right.double()
        squares[1] += float(torch.nan_to_num(a, 0.0, 0.0, 0.0).square().sum())
        if torch.equal(left.view(torch.uint8), right.view(torch.uint8)):
            continue  # bit-identical, NaN included
        differs = True
        difference = (a - b).abs()
        finite = torch.isfinite(difference)
        part.non_finite += int((~finite).sum())
        difference = difference[finite]
        if difference.numel():
            part.max_abs = max(part.max_abs, float(difference.max()))
            squares[0] += float(difference.square().sum())
    part.differing += differs
