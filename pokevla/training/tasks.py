"""The two training tasks: model, data and losses for each kind of recipe. The loop depends on neither."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pokevla.data.loader import SampleMaker, TrainLoader, batch_maker, build_loader, validation_batches
from pokevla.data.loading.process_loader import DataProcess, ProcessLoader
from pokevla.data.loading.skipping import skipping_damage
from pokevla.data.loading.watch import answer_within
from pokevla.data.loading.worker import MakeBatch
from pokevla.data.mixture import Mixture, open_mixture
from pokevla.data.samples import RobotSampleMaker, VLMSampleMaker
from pokevla.distributed.environment import RankInfo
from pokevla.embodiment.libero import LIBERO
from pokevla.errors import RecipeError
from pokevla.features.feature_reader import FeatureReader, open_features
from pokevla.files.checksums import with_checksum
from pokevla.files.remote.urls import is_url
from pokevla.files.texts import write_json
from pokevla.model.compilation import compile_if_possible
from pokevla.model.tokenizers.loading import load_tokenizer
from pokevla.model.vla import PokeVLA
from pokevla.model.vlm import PokeVLM
from pokevla.recipe.checking.datasets import ALL_SPLITS
from pokevla.recipe.kinds import data_kind_of
from pokevla.recipe.schema import PosttrainRecipe, PretrainRecipe, TrainRecipe
from pokevla.runs.directory import STATISTICS, TRAINED_ON
from pokevla.training.objectives.objective import Objective, PosttrainObjective, PretrainObjective
from pokevla.weights.base_model import build_base, tokenizer_folder
from pokevla.weights.frozen_hash import frozen_hash

VALIDATION_BATCHES = 4
"""Number of micro-batches of the split `val` that each rank evaluates per validation."""


class PictureSizes(NamedTuple):
    """Sides of images and masks in a batch, in pixels, and tokens of an image in the sequence."""

    image: int
    mask: int | None  # None: no masks
    tokens: int


@dataclass(frozen=True)
class Task:
    """What the loop needs from a task."""

    objective: Objective  # the module that is trained; its forward pass maps a batch to (loss, values to log)
    frozen_hash: str  # of the frozen weights, in fp32
    mixture: Mixture
    samples: SampleMaker[Any]  # makes the batches of training and validation
    picture: PictureSizes  # of these batches
    validation: list[Any]  # fixed micro-batches of this rank; the same number on every rank, possibly none
    caches: dict[str, str] = field(default_factory=dict)  # dataset -> fingerprint of its feature cache


def build_task(recipe: TrainRecipe, info: RankInfo) -> Task:
    """Build model, losses and data of a recipe.

    Raises:
        DataError, CacheMismatchError: a dataset or cache is missing or does not match.
        RecipeError: the datasets are of robots that cannot be mixed.
        CheckpointError: the model's weights or tokenizer are missing or do not match.
    """
    mixture = open_mixture(recipe.data, data_kind_of(recipe))
    base = build_base(recipe, mixture.embodiment or LIBERO)
    hash_of_frozen = frozen_hash(base)
    base.set_activation_checkpointing(recipe.activation_checkpointing)
    if recipe.compile:
        compile_if_possible(base, "cuda" if recipe.resources.gpus_per_node else "cpu")
    if isinstance(recipe, PretrainRecipe) and isinstance(base, PokeVLM):
        return _pretrain(recipe, base, hash_of_frozen, mixture, info)
    if isinstance(recipe, PosttrainRecipe) and isinstance(base, PokeVLA):
        return _posttrain(recipe, base, hash_of_frozen, mixture, info)
    raise RecipeError(f"A recipe of kind {type(recipe).__name__} does not train a model.")


def _pretrain(recipe: PretrainRecipe, model: PokeVLM, hash_of_frozen: str, mixture: Mixture, info: RankInfo) -> Task:
    picture = PictureSizes(model.config.image_size, None, model.config.num_patches)
    samples, _ = build_samples(recipe, mixture, picture)
    validation = held_out_batches(mixture, samples, recipe.batch.micro, info)
    return Task(PretrainObjective(model, recipe.loss.average), hash_of_frozen, mixture, samples, picture, validation)


def _posttrain(recipe: PosttrainRecipe, model: PokeVLA, hash_of_frozen: str, mixture: Mixture, info: RankInfo) -> Task:
    mask_size = model.config.segmentation.mask_size if recipe.supervises_masks else None
    picture = PictureSizes(model.config.vlm.image_size, mask_size, model.config.vlm.num_patches)
    samples, features = build_samples(recipe, mixture, picture)
    caches = {
        str(dataset.root): reader.fingerprint
        for dataset, reader in zip(mixture.datasets if features else (), features or (), strict=True)
    }
    validation = held_out_batches(mixture, samples, recipe.batch.micro, info)
    objective = PosttrainObjective(model, recipe.loss)
    return Task(objective, hash_of_frozen, mixture, samples, picture, validation, caches)


def build_samples(
    recipe: TrainRecipe, mixture: Mixture, picture: PictureSizes
) -> tuple[SampleMaker[Any], list[FeatureReader] | None]:
    """What makes the batches of a recipe, and the readers of cached features, one per dataset, if a loss needs them.

    Raises:
        DataError, CacheMismatchError: a cache is missing or does not match, or a dataset has no masks.
        CheckpointError: the tokenizer is missing.
    """
    tokenizer = load_tokenizer(tokenizer_folder(recipe))
    if not isinstance(recipe, PosttrainRecipe):
        questions = VLMSampleMaker(mixture, recipe.seed, tokenizer, picture.image)
        return skipping_damage(questions, recipe, mixture), None
    features = _features(recipe, mixture)
    frames = RobotSampleMaker(mixture, recipe.seed, tokenizer, picture.image, picture.mask, features)
    return skipping_damage(frames, recipe, mixture), features


def open_batches(recipe: TrainRecipe, picture: PictureSizes) -> MakeBatch:
    """Open the data of a recipe in the process of the loader. Raises what `open_mixture` and `build_samples` raise."""
    mixture = open_mixture(recipe.data, data_kind_of(recipe))
    return batch_maker(recipe, mixture, build_samples(recipe, mixture, picture)[0], picture.tokens)


def build_task_loader(
    recipe: TrainRecipe, task: Task, info: RankInfo, start_position: int, process: DataProcess | None, *, pin: bool
) -> TrainLoader[Any] | ProcessLoader:
    """The loader of this rank's training batches: in `process` (`start_data_process`), or else with threads."""
    if process is None:
        return build_loader(
            recipe,
            task.mixture,
            task.samples,
            rank=info.rank,
            world_size=info.world_size,
            start_position=start_position,
            pin_memory=pin,
            num_vision=task.picture.tokens,
        )
    return ProcessLoader(
        process,
        open_batches,
        (recipe, task.picture),
        rank=info.rank,
        world_size=info.world_size,
        micro=recipe.batch.micro,
        start_position=start_position,
        threads=recipe.data.reader_threads,
        prefetch=recipe.data.prefetch_batches,
        pin_memory=pin,
    )


def _features(recipe: PosttrainRecipe, mixture: Mixture) -> list[FeatureReader] | None:
    """One reader of cached features per dataset, or None if no loss needs them."""
    if not recipe.supervises_masks and recipe.loss.geometry == 0:
        return None
    if recipe.cache is None:
        raise RecipeError("The segmentation or geometry loss has a weight, but there is no cache.", "Add `cache:`.")
    cache, root = recipe.cache, recipe.cache.root
    if is_url(root):
        return open_features(cache, mixture.datasets)
    timeout_s = mixture.storage.settings.timeout_s
    return answer_within(timeout_s, root, lambda: open_features(cache, mixture.datasets))


def held_out_batches(mixture: Mixture, samples: SampleMaker[Any], micro: int, info: RankInfo) -> list[Any]:
    """This rank's share of a few full micro-batches, evenly spread over the split `val`.

    Empty if all samples are used for training, or if the split is too small for one micro-batch per rank.
    """
    if mixture.config.train_split == ALL_SPLITS:
        return []
    per_round = micro * info.world_size
    rounds = min(VALIDATION_BATCHES, len(mixture.samples_of("val")) // per_round)
    if rounds == 0:
        return []
    batches = validation_batches(mixture, samples, micro, max_samples=rounds * per_round)
    return [batch for index, batch in enumerate(batches) if index % info.world_size == info.rank]


def save_statistics(mixture: Mixture, run_dir: Path) -> None:
    """Write the statistics of a robot mixture, and how its images and instructions are, to the run directory, so that
    an export needs no dataset."""
    if mixture.statistics is not None:
        write_json(run_dir / STATISTICS, with_checksum(mixture.statistics.to_dict()), sort_keys=True)
        write_json(run_dir / TRAINED_ON, with_checksum(mixture.recorded.to_dict()), sort_keys=True)
