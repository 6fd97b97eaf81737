"""The two tasks of training: what a recipe's kind means for model, data and losses. The loop knows neither."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pokevla.data.dataset import mixture_fingerprints, open_mixture, usable_rows
from pokevla.data.loader import TrainLoader, build_robot_loader, build_vlm_loader, validation_batches
from pokevla.distributed.environment import RankInfo
from pokevla.errors import RecipeError
from pokevla.features.feature_reader import FeatureReader, open_features
from pokevla.model.tokenizer import load_tokenizer
from pokevla.model.vla import PokeVLA
from pokevla.model.vlm import PokeVLM
from pokevla.recipe.schema import PosttrainRecipe, PretrainRecipe, TrainRecipe
from pokevla.runs.directory import STATISTICS
from pokevla.training.objectives import Objective, PosttrainObjective, PretrainObjective
from pokevla.weights.base_model import build_base, model_config, tokenizer_folder
from pokevla.weights.frozen_hash import frozen_hash

VALIDATION_BATCHES = 4
"""Micro-batches of the split `val` that each rank judges at every checkpoint."""


@dataclass(frozen=True)
class Task:
    """What the loop needs of a task."""

    objective: Objective  # the module that is trained; its forward pass maps a batch to (loss, values to log)
    frozen_hash: str  # of the weights that are not trained, in fp32
    datasets: dict[str, str]  # path -> fingerprint
    dataset_sizes: list[int]  # training samples of each dataset
    make_loader: Callable[[int], TrainLoader[Any]]  # start position -> endless micro-batches of this rank
    validation: list[Any]  # fixed micro-batches of this rank; the same number on every rank, possibly none
    caches: dict[str, str] = field(default_factory=dict)  # dataset -> fingerprint of the cache read beside it


def build_task(recipe: TrainRecipe, info: RankInfo) -> Task:
    """Build model, losses and data of a recipe.

    Raises:
        DataError, CacheMismatchError: data or cache are missing or do not fit.
        CheckpointError: the model's weights or tokenizer are missing or do not fit.
    """
    base = build_base(recipe)
    hash_of_frozen = frozen_hash(base)
    base.set_activation_checkpointing(recipe.activation_checkpointing)
    if isinstance(recipe, PretrainRecipe) and isinstance(base, PokeVLM):
        return _pretrain(recipe, base, hash_of_frozen, info)
    if isinstance(recipe, PosttrainRecipe) and isinstance(base, PokeVLA):
        return _posttrain(recipe, base, hash_of_frozen, info)
    raise RecipeError(f"A recipe of kind {type(recipe).__name__} trains no model.")


def _pretrain(recipe: PretrainRecipe, model: PokeVLM, hash_of_frozen: str, info: RankInfo) -> Task:
    tokenizer = load_tokenizer(tokenizer_folder(recipe))
    arguments: dict[str, Any] = {"tokenizer": tokenizer, "image_size": model.config.image_size}
    return Task(
        PretrainObjective(model),
        hash_of_frozen,
        mixture_fingerprints(recipe.data),
        _sizes(recipe, "vlm"),
        lambda position: build_vlm_loader(
            recipe, rank=info.rank, world_size=info.world_size, start_position=position, **arguments
        ),
        _validation(recipe, info, arguments),
    )


def _posttrain(recipe: PosttrainRecipe, model: PokeVLA, hash_of_frozen: str, info: RankInfo) -> Task:
    config = model_config(recipe.model, recipe.data.chunk_length)
    features = _features(recipe)
    arguments: dict[str, Any] = {
        "tokenizer": load_tokenizer(tokenizer_folder(recipe)),
        "image_size": config.vlm.image_size,
        "mask_size": config.segmentation.mask_size if recipe.loss.segmentation.weight > 0 else None,
        "feature_reader": features,
    }
    return Task(
        PosttrainObjective(model, recipe.loss),
        hash_of_frozen,
        mixture_fingerprints(recipe.data),
        _sizes(recipe, "robot"),
        lambda position: build_robot_loader(
            recipe, rank=info.rank, world_size=info.world_size, start_position=position, **arguments
        ),
        _validation(recipe, info, arguments),
        {str(recipe.data.datasets[number].path): one.fingerprint for number, one in enumerate(features or [])},
    )


def _features(recipe: PosttrainRecipe) -> list[FeatureReader] | None:
    needed = recipe.loss.segmentation.weight > 0 or recipe.loss.geometry > 0
    if not needed:
        return None
    if recipe.cache is None:
        raise RecipeError("The segmentation or geometry loss has a weight, but there is no cache.", "Add `cache:`.")
    return open_features(recipe.cache, open_mixture(recipe.data, "robot"))


def _validation(recipe: TrainRecipe, info: RankInfo, arguments: dict[str, Any]) -> list[Any]:
    """This rank's share of a few full micro-batches, evenly spread over the split `val`; none if it is too small."""
    if not isinstance(recipe, PretrainRecipe | PosttrainRecipe) or recipe.data.train_split == "all":
        return []
    robot = isinstance(recipe, PosttrainRecipe)
    datasets = open_mixture(recipe.data, "robot" if robot else "vlm")
    chunk = recipe.data.chunk_length if robot else 1
    available = sum(len(usable_rows(dataset, "val", chunk)) for dataset in datasets)
    per_round = recipe.batch.micro * info.world_size
    rounds = min(VALIDATION_BATCHES, available // per_round)
    if rounds == 0:
        return []
    batches = validation_batches(
        recipe, batch_size=recipe.batch.micro, split="val", max_samples=rounds * per_round, **arguments
    )
    return [batch for index, batch in enumerate(batches) if index % info.world_size == info.rank]


def _sizes(recipe: PretrainRecipe | PosttrainRecipe, kind: Literal["vlm", "robot"]) -> list[int]:
    chunk = recipe.data.chunk_length if kind == "robot" else 1
    datasets = open_mixture(recipe.data, kind)
    return [len(usable_rows(dataset, recipe.data.train_split, chunk)) for dataset in datasets]


def save_statistics(loader: TrainLoader[Any], run_dir: Path) -> None:
    """Keep the normalisation of a robot mixture in the run, so that an export needs no dataset."""
    if loader.statistics is not None:
        from pokevla.files.texts import write_json

        write_json(run_dir / STATISTICS, loader.statistics.to_dict(), sort_keys=True)
