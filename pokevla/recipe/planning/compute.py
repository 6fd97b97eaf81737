"""Memory of a training job per GPU and ZeRO stage, and short forms of the counts of `pokevla.recipe.planning.parts`."""

from __future__ import annotations

from dataclasses import dataclass

from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.libero import LIBERO
from pokevla.recipe.planning.parts import ModelCost, average_sample, model_cost
from pokevla.recipe.planning.precision import PRECISIONS
from pokevla.recipe.schema import TrainRecipe

GIB = 1024**3
FP32_BYTES = 4
# CUDA context, cuBLAS workspaces, communication buckets, fragmentation. Ours.
OVERHEAD_GIB = 3.0


@dataclass(frozen=True)
class Parameters:
    """Number of parameters of one part: all, and trained ones."""

    total: int
    trainable: int


@dataclass(frozen=True)
class Memory:
    """GPU memory of one rank at one ZeRO stage, in GiB."""

    stage: int
    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """Everything, with the fixed overhead."""
        return self.weights + self.gradients + self.optimizer + self.activations + OVERHEAD_GIB


def parameters_by_part(cost: ModelCost) -> dict[str, Parameters]:
    """Parameters of each part, and those of all LoRA adapters together as `lora`."""
    counted = {part.name: Parameters(part.parameters, part.trainable) for part in cost.parts if part.parameters}
    return counted | ({"lora": Parameters(cost.adapters, cost.adapters)} if cost.adapters else {})


def trainable_parameters(recipe: TrainRecipe, embodiment: Embodiment = LIBERO) -> int:
    """Parameters that train, adapters included."""
    return model_cost(recipe, embodiment).trainable


def flops_per_sample(recipe: TrainRecipe, embodiment: Embodiment = LIBERO, images: float = 1) -> float:
    """Operations of one training sample, forward and backward, without recomputation and without teachers.
    `images`: of one question, on average.

    `mfu` of the metrics and `resources.expected_mfu` are shares of these (PaLM, arXiv 2204.02311, appendix B).
    """
    return model_cost(recipe, embodiment, average_sample(recipe, embodiment, images)).flops


def memory_per_gpu(recipe: TrainRecipe, world_size: int, stage: int, cost: ModelCost) -> Memory:
    """Memory of one rank (ZeRO, arXiv 1910.02054, section 3).

    Bytes per weight are those of `pokevla.recipe.planning.precision`.
    """
    precision = PRECISIONS[recipe.precision]
    # DeepSpeed's ZeRO optimizers step a partition of their own, also where the weights are fp32 already.
    master_bytes = FP32_BYTES if stage >= 1 and not precision.master_weights else 0
    optimizer_bytes = precision.optimizer_bytes + master_bytes
    return Memory(
        stage=stage,
        weights=cost.parameters * precision.weight_bytes / (world_size if stage >= 3 else 1) / GIB,
        gradients=cost.trainable * precision.gradient_bytes / (world_size if stage >= 2 else 1) / GIB,
        optimizer=cost.trainable * optimizer_bytes / (world_size if stage >= 1 else 1) / GIB,
        activations=recipe.batch.micro * cost.activation_bytes / GIB,
    )


def memory_by_stage(recipe: TrainRecipe, world_size: int, cost: ModelCost) -> tuple[Memory, ...]:
    """Memory of one rank at ZeRO stages 0 to 3."""
    return tuple(memory_per_gpu(recipe, world_size, stage, cost) for stage in range(4))
