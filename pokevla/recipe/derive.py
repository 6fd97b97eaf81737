"""Values that follow from a recipe, computed in this one place: batch arithmetic, steps, warm-up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pokevla.errors import RecipeError
from pokevla.recipe.schema import TrainRecipe
from pokevla.recipe.sections import BatchConfig


@dataclass(frozen=True)
class DerivedBatch:
    """`global_batch = micro * accumulation * world_size`, in samples per step."""

    global_batch: int
    micro: int
    accumulation: int
    world_size: int


def derive_batch(batch: BatchConfig, world_size: int, *, begun: bool = False) -> DerivedBatch:
    """Accumulation that makes the global batch come out.

    Raises:
        RecipeError: the global batch is no multiple of micro-batch times ranks. It names values that are: of a run that
            has `begun`, whose global batch cannot change, the micro-batch or the numbers of ranks.
    """
    per_round = batch.micro * world_size
    accumulation, rest = divmod(batch.global_, per_round)
    if rest == 0:
        return DerivedBatch(batch.global_, batch.micro, accumulation, world_size)
    micro = _fitting_micro(batch, world_size)
    if begun:
        remedy = f"Resume with batch.micro={micro}"
        if micro is None:
            *ranks, last = _divisors(batch.global_)
            remedy = f"Resume with {', '.join(map(str, ranks))} or {last} ranks" if ranks else "Resume with 1 rank"
    else:
        below, above = accumulation * per_round, (accumulation + 1) * per_round
        remedy = f"Use batch.global={' or '.join(str(value) for value in (below, above) if value > 0)}"
        remedy += f", or batch.micro={micro}" if micro is not None else ""
    raise RecipeError(
        f"batch.global {batch.global_} is not a multiple of batch.micro {batch.micro} x {world_size} "
        f"rank(s) = {per_round}.",
        f"{remedy}.",
    )


def _fitting_micro(batch: BatchConfig, world_size: int) -> int | None:
    """Nearest micro-batch that divides the global batch over `world_size` ranks; None if there is none."""
    share, odd = divmod(batch.global_, world_size)
    return None if odd else min(_divisors(share), key=lambda value: (abs(value - batch.micro), value))


def _divisors(number: int) -> list[int]:
    low = [value for value in range(1, math.isqrt(number) + 1) if number % value == 0]
    return sorted({*low, *(number // value for value in low)})


def total_steps(recipe: TrainRecipe, dataset_sizes: Sequence[int] | int | None = None) -> int:
    """Optimizer steps of the whole run.

    `steps` of the recipe, or `epochs` times all samples of the mixture (`dataset_sizes`: training samples of each
    dataset, or their sum) over the global batch, rounded up. One epoch draws as many samples as the datasets have
    together, whatever the weights. RecipeError if `epochs` is set and the sizes are unknown.
    """
    if recipe.steps is not None:
        return recipe.steps
    if recipe.epochs is None:
        raise RecipeError("the length of training is missing.", "Set steps or epochs.")
    if dataset_sizes is None:
        raise RecipeError("epochs need the size of the datasets, which do not exist yet.", "Set steps instead.")
    samples = dataset_sizes if isinstance(dataset_sizes, int) else sum(dataset_sizes)
    if samples <= 0:
        raise RecipeError("epochs of an empty mixture: its datasets have no training samples.")
    return max(1, math.ceil(recipe.epochs * samples / recipe.batch.global_))


def warmup_steps(recipe: TrainRecipe, steps: int) -> int:
    """Steps of linear warm-up within a run of `steps` steps, rounded to the nearest."""
    return round(recipe.optim.warmup_fraction * steps)
