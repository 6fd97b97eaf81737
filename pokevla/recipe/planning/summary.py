"""The card of a model: parts, parameters, operations, activations, and memory per ZeRO stage."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from pokevla.embodiment.libero import LIBERO
from pokevla.errors import UsageError
from pokevla.recipe.checking.datasets import read_mixture_embodiment
from pokevla.recipe.kinds import AnyRecipe, TrainingRecipe, training_of
from pokevla.recipe.messages import nearest
from pokevla.recipe.planning.compute import Memory, memory_by_stage
from pokevla.recipe.planning.parts import TITLES, ModelCost, average_sample, mean_images, model_cost
from pokevla.recipe.planning.plan import uncounted_notes
from pokevla.recipe.planning.sizes import PRESETS, TEACHER_PARAMETERS
from pokevla.recipe.schema import PosttrainRecipe

BACKBONE = ("dino", "siglip", "language_model")
BACKBONE_NOTE = "the paper's 1.22 B (arXiv 2604.20834): encoders and language model"


@dataclass(frozen=True)
class Summary:
    """Everything that `pokevla model summary` prints."""

    preset: str
    model: str
    recipe: TrainingRecipe
    cost: ModelCost
    """As the recipe trains, but without activation checkpointing."""
    checkpointed: ModelCost
    """The same with activation checkpointing."""
    memory: tuple[Memory, ...]
    """One per ZeRO stage, 0 to 3, checkpointing as the recipe says."""
    backbone: int
    """Parameters of both encoders and the language model."""
    teachers: dict[str, int]
    """Parameters of the published teachers whose features the recipe caches, by `kind preset`."""
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON form. Operations and bytes are those of one sample."""
        again = {part.name: part for part in self.checkpointed.parts}
        return {
            "preset": self.preset,
            "model": self.model,
            "tokens_per_sample": self.cost.tokens,
            "sample": dataclasses.asdict(self.cost.sample),
            "parts": [
                {
                    "name": part.name,
                    "title": TITLES[part.name],
                    "counted": part.is_counted,
                    "parameters": part.parameters,
                    "trainable": part.trainable,
                    "lora": part.adapters,
                    "matrix_flops": dataclasses.asdict(part.matrix),
                    "attention_flops": dataclasses.asdict(part.attention),
                    "activation_bytes": part.kept,
                    "activation_bytes_checkpointed": again[part.name].kept,
                }
                for part in self.cost.parts
            ],
            "parameters": self.cost.parameters,
            "lora": self.cost.adapters,
            "trainable": self.cost.trainable,
            "trainable_share": self.cost.trainable / self.cost.parameters,
            "dino_siglip_language_model": self.backbone,
            "flops": self.cost.flops,
            "recomputed_flops": self.checkpointed.recomputed,
            "activation_bytes": self.cost.activation_bytes,
            "activation_bytes_checkpointed": self.checkpointed.activation_bytes,
            "micro_batch": self.recipe.batch.micro,
            "ranks": self.recipe.resources.world_size,
            "activation_checkpointing": self.recipe.activation_checkpointing,
            "precision": self.recipe.precision,
            "memory_gib": [{**dataclasses.asdict(row), "total": row.total} for row in self.memory],
            "teachers": self.teachers,
            "notes": list(self.notes),
        }


def default_recipe(preset: str) -> PosttrainRecipe:
    """Post-training of a preset as in `recipes/base/posttrain_libero.yaml`: LoRA of rank 64 on the whole VLM, bf16, 8
    GPUs with 8 samples each.

    Raises:
        UsageError: there is no such preset.
    """
    if preset not in PRESETS:
        guess = nearest(preset, PRESETS)
        hint = f"Did you mean {guess}?" if guess else f"Choose one of {', '.join(PRESETS)}."
        raise UsageError(f"{preset!r} is not a model preset.", hint)
    sam, vggt = ("vit_b", "vggt_1b") if preset == "pocket" else (preset, preset)
    return PosttrainRecipe.model_validate(
        {
            "kind": "posttrain",
            "name": preset,
            "data": {"datasets": [{"path": "none"}]},
            "model": {"preset": preset},
            "trainable": dict.fromkeys(("vision", "projector", "language_model"), "lora"),
            "lora": {"rank": 64, "alpha": 128},
            "cache": {"root": "none", "sam": {"preset": sam}, "vggt": {"preset": vggt}},
            "optim": {"lr": 1e-4},
            "batch": {"global": 64, "micro": 8},
            "steps": 1,
            "resources": {"gpus_per_node": 8},
        }
    )


def summarise(job: AnyRecipe) -> Summary:
    """Count the model of a training recipe.

    Raises:
        UsageError: the recipe trains no model.
    """
    recipe = training_of(job)
    if recipe is None:
        raise UsageError(f"{job.kind} recipes train no model.", "Name a pretrain or posttrain recipe, or --preset.")
    embodiment = read_mixture_embodiment(recipe.dataset_paths) or LIBERO
    sample = average_sample(recipe, embodiment, mean_images(recipe))
    plain, checkpointed = (
        model_cost(recipe.model_copy(update={"activation_checkpointing": flag}), embodiment, sample)
        for flag in (False, True)
    )
    cache = recipe.feature_cache
    teachers = [(teacher.kind, teacher.preset) for teacher in (cache.all_teachers.values() if cache else ())]
    used = checkpointed if recipe.activation_checkpointing else plain
    return Summary(
        preset=recipe.model.preset,
        model="PokeVLA" if isinstance(recipe, PosttrainRecipe) else "PokeVLM",
        recipe=recipe,
        cost=plain,
        checkpointed=checkpointed,
        memory=memory_by_stage(recipe, recipe.resources.world_size, used),
        backbone=sum(part.parameters for part in plain.parts if part.name in BACKBONE),
        teachers={" ".join(key): TEACHER_PARAMETERS[key] for key in teachers if key in TEACHER_PARAMETERS},
        notes=tuple(uncounted_notes(recipe, plain)),
    )
