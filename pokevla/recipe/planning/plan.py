"""Plan of a training job: batch arithmetic, steps, memory per GPU and ZeRO stage, compute, hours, disk."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import ceil
from typing import Any

from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.libero import LIBERO
from pokevla.errors import DataError, PokeVLAError, UsageError
from pokevla.files.remote.urls import is_url
from pokevla.recipe.checking.datasets import count_usable, read_dataset_info, read_mixture_embodiment
from pokevla.recipe.derive import DerivedBatch, derive_batch, total_steps, warmup_steps
from pokevla.recipe.kinds import AnyRecipe, DataKind, data_kind_of, training_of
from pokevla.recipe.planning.cache_job import BuildPlan, build_plan
from pokevla.recipe.planning.compute import (
    GIB,
    Memory,
    Parameters,
    memory_by_stage,
    parameters_by_part,
    trainable_parameters,
)
from pokevla.recipe.planning.parts import ModelCost, average_sample, mean_images, model_cost, num_views
from pokevla.recipe.planning.precision import PRECISIONS
from pokevla.recipe.planning.sizes import cache_record_bytes
from pokevla.recipe.schema import PretrainRecipe, TrainRecipe

# Bytes of one view of a sample in the shards: a 256 px JPEG at quality 95 and a mask PNG (robot), a 336 px JPEG (VLM).
# Ours; `pokevla data stats` measures the real one.
VIEW_BYTES: dict[DataKind, int] = {"vlm": 60_000, "robot": 25_000}
SHARD_BYTES = 512 * 1024**2
# A global batch may be longer than the mean, and its packed sequences are not equally long. Ours, from `pack` on
# log-normal lengths: sequences that the mean fills to more than 95 % have usually become one more per micro-batch.
SPREAD = 1.05
EXPECTED = "expected_samples of the recipe"


@dataclass(frozen=True)
class Disk:
    """Bytes on disk. None where the number of samples is unknown."""

    dataset: int | None
    cache: int | None
    cache_shards: int | None
    checkpoint: int
    """One checkpoint."""
    checkpoints: int
    """All that are kept, and one being written."""


@dataclass(frozen=True)
class Sequences:
    """Packed sequences, as samples of average length fill them. Longer samples need more."""

    per_micro_batch: int
    tokens: int
    """Tokens of one."""
    limit: int
    """Tokens that one may have, `packing.tokens`."""
    tokens_per_step: int


@dataclass(frozen=True)
class Plan:
    """Everything `pokevla plan` prints. Hours are None without a GPU: no peak is known for CPU ranks."""

    name: str
    kind: str
    preset: str
    batch: DerivedBatch
    samples: int | None
    """Training samples of the mixture: those that the loader draws from."""
    samples_from: str
    """Where `samples` comes from."""
    steps: int | None
    warmup_steps: int | None
    epochs: float | None
    parameters: dict[str, Parameters]
    """By part of the model (`pokevla.recipe.planning.parts.TITLES`), and of all LoRA adapters as `lora`."""
    tokens_per_sample: int
    sequences: Sequences | None
    """None unless samples are packed."""
    flops_per_sample: float
    """Forward and backward, without recomputation: what `expected_mfu` and the logged `mfu` are shares of."""
    recomputed_flops_per_sample: float
    """What activation checkpointing computes a second time."""
    total_flops: float | None
    """Of the whole training, without recomputation."""
    hours: float | None
    memory: tuple[Memory, ...]
    """One per ZeRO stage, 0 to 3."""
    stage: int
    gpu_memory_gib: float
    disk: Disk
    cache_build: BuildPlan | None
    """Building the features that the training reads; None without a cache."""
    notes: tuple[str, ...]

    @property
    def total_parameters(self) -> int:
        """Parameters in memory."""
        return sum(part.total for part in self.parameters.values())

    @property
    def trainable_parameters(self) -> int:
        """Parameters that train."""
        return sum(part.trainable for part in self.parameters.values())

    @property
    def fits(self) -> bool:
        """Whether the recipe's ZeRO stage fits into a GPU's memory."""
        return self.memory[self.stage].total <= self.gpu_memory_gib

    def to_dict(self) -> dict[str, Any]:
        """JSON form, with the sums."""
        values = dataclasses.asdict(self)
        values["cache_build"] = self.cache_build.to_dict() if self.cache_build is not None else None
        values["memory"] = [{**dataclasses.asdict(row), "total": row.total} for row in self.memory]
        sums = {"total_parameters": self.total_parameters, "trainable_parameters": self.trainable_parameters}
        return values | sums | {"fits": self.fits}


def plan(job: AnyRecipe) -> Plan:
    """Plan a training recipe. UsageError for another kind, RecipeError if the batch arithmetic does not work out."""
    recipe = training_of(job)
    if recipe is None:
        raise UsageError(f"{job.kind} recipes have no training to plan.", "Name a pretrain or posttrain recipe.")
    batch = derive_batch(recipe.batch, recipe.resources.world_size)
    embodiment = read_mixture_embodiment(recipe.dataset_paths)
    counted = count_samples(recipe)
    samples = counted.training
    steps = total_steps(recipe, samples) if recipe.steps is not None or samples is not None else None
    images = mean_images(recipe)
    cost = model_cost(recipe, embodiment, average_sample(recipe, embodiment, images))
    total = cost.flops * batch.global_batch * steps if steps is not None else None
    return Plan(
        name=recipe.name,
        kind=recipe.kind,
        preset=recipe.model.preset,
        batch=batch,
        samples=samples,
        samples_from=counted.origin,
        steps=steps,
        warmup_steps=warmup_steps(recipe, steps) if steps is not None else None,
        epochs=steps * batch.global_batch / samples if steps is not None and samples else recipe.epochs,
        parameters=parameters_by_part(cost),
        tokens_per_sample=cost.tokens,
        sequences=packed_sequences(recipe, cost.tokens),
        flops_per_sample=cost.flops,
        recomputed_flops_per_sample=cost.recomputed,
        total_flops=total,
        hours=_hours(recipe, batch, total),
        memory=memory_by_stage(recipe, batch.world_size, cost),
        stage=recipe.zero.stage,
        gpu_memory_gib=recipe.resources.gpu_memory_gib,
        disk=disk_needs(recipe, counted.stored, embodiment, images),
        cache_build=_cache_build(recipe, counted, embodiment),
        notes=_notes(recipe, cost, steps, counted.origin),
    )


def packed_sequences(recipe: TrainRecipe, tokens: int) -> Sequences | None:
    """The packed sequences of a recipe whose samples have `tokens` tokens each; None if it packs none.

    As `pokevla.data.loading.packing` deals them: as few as the limit allows, and at most one for each sample, with
    some room because lengths differ.
    """
    if not isinstance(recipe, PretrainRecipe) or recipe.packing is None:
        return None
    micro, limit = recipe.batch.micro, recipe.packing.tokens
    number = min(micro, ceil(SPREAD * micro * tokens / max(limit, tokens)))
    return Sequences(number, round(micro * tokens / number), limit, recipe.batch.global_ * tokens)


@dataclass(frozen=True)
class SampleCount:
    """Samples of a mixture. None if the size of one of its datasets is unknown."""

    training: int | None
    """Those that are trained on: of the training split, and with a whole chunk of actions after them."""
    stored: int | None
    """All of them, which is what datasets and caches take on the disk."""
    origin: str
    """Where the numbers come from, or why there are none."""


def count_samples(recipe: TrainRecipe) -> SampleCount:
    """Count the samples of a recipe's mixture, as the loader will.

    Raises:
        DataError: a table of a dataset is missing or damaged.
    """
    training, stored, expected = 0, 0, False
    for source in recipe.data.datasets:
        try:
            info = read_dataset_info(source.path)
        except DataError as error:
            if source.expected_samples is None:
                problem = error.message.rstrip(".") if is_url(source.path) else f"{source.path} does not exist yet"
                return SampleCount(None, None, f"{problem} and has no expected_samples")
            training, stored, expected = training + source.expected_samples, stored + source.expected_samples, True
            continue
        training += count_usable(info, recipe.data.train_split, recipe.data.chunk_length)
        stored += info.num_samples
    return SampleCount(training, stored, EXPECTED if expected else "the datasets")


def planned_steps(recipe: TrainRecipe) -> int | None:
    """Steps of the whole training; None if counting them needs datasets that cannot be read here."""
    if recipe.steps is not None:
        return recipe.steps
    try:
        samples = count_samples(recipe).training
        return None if samples is None else total_steps(recipe, samples)
    except PokeVLAError:
        return None


def _hours(recipe: TrainRecipe, batch: DerivedBatch, total_flops: float | None) -> float | None:
    """Hours at the expected MFU, which a measured one replaces: both leave recomputation out."""
    resources = recipe.resources
    if total_flops is None or resources.gpus_per_node == 0:
        return None
    speed = batch.world_size * resources.gpu_bf16_tflops * 1e12 * resources.expected_mfu
    return total_flops / speed / 3600 / PRECISIONS[recipe.precision].peak_share


def _cache_build(recipe: TrainRecipe, counted: SampleCount, embodiment: Embodiment) -> BuildPlan | None:
    cache, tflops = recipe.feature_cache, recipe.resources.gpu_bf16_tflops
    if cache is None:
        return None
    return build_plan(cache, embodiment.num_views, counted.stored, counted.origin, tflops)


def disk_needs(recipe: TrainRecipe, samples: int | None, embodiment: Embodiment = LIBERO, images: float = 1) -> Disk:
    """Disk space of the job. Dataset and cache are None if the number of `samples` (of all splits) is unknown.
    `images`: of one question, on average."""
    # Frozen weights are not stored.
    checkpoint = trainable_parameters(recipe, embodiment) * PRECISIONS[recipe.precision].checkpoint_bytes
    # The newest, the one being written, the newest healthy one and the next that may become it.
    kept = recipe.checkpoint.keep_last + 1 + 2
    if recipe.checkpoint.keep_every_steps and recipe.steps:
        kept += recipe.steps // recipe.checkpoint.keep_every_steps
    cache = shards = None
    if recipe.feature_cache is not None and samples is not None:
        cache = cache_record_bytes(recipe.feature_cache, embodiment.num_views) * samples
        shards = -(-cache // SHARD_BYTES)
    sample_bytes = VIEW_BYTES[data_kind_of(recipe)] * num_views(recipe, embodiment, images)
    dataset = round(sample_bytes * samples) if samples is not None else None
    return Disk(dataset, cache, shards, checkpoint, kept * checkpoint)


def _notes(recipe: TrainRecipe, cost: ModelCost, steps: int | None, samples_from: str) -> tuple[str, ...]:
    notes = []
    if steps is None:
        notes.append(f"The number of steps is unknown: epochs need the number of samples, and {samples_from}.")
    elif samples_from == EXPECTED:
        notes.append("Some datasets do not exist yet: the numbers of samples are those that the recipe expects.")
    if recipe.resources.gpus_per_node == 0:
        notes.append("CPU ranks: hours are not estimated. Run some steps and see samples_per_s in metrics.jsonl.")
    notes += [*uncounted_notes(recipe, cost), *_padding_notes(recipe)]
    text, mfu = cost.sample.text_tokens, recipe.resources.expected_mfu
    if cost.sample.views != 1 and data_kind_of(recipe) == "vlm":
        notes.append(f"Compute and memory count {cost.sample.views:.2f} images per sample, the mean of the datasets.")
    notes.append(f"Compute counts {text} text tokens per sample and an expected_mfu of {mfu:g}.")
    if cost.recomputed:
        hfu = mfu * (1 + cost.recomputed / cost.flops)
        notes.append(
            f"Activation checkpointing computes {cost.recomputed / cost.flops:.0%} more. MFU leaves it out, like the "
            f"logged mfu; with it (HFU), the GPUs reach {hfu:.2f} of their peak."
        )
    notes.append("Hours and the fixed overhead of memory are estimates; everything else is counted (docs/model.md).")
    return tuple(notes)


def _padding_notes(recipe: TrainRecipe) -> list[str]:
    """What padding adds to compute and memory."""
    if not isinstance(recipe, PretrainRecipe):
        return []
    if recipe.packing is None:
        return ["Padding is not counted: every sample of a micro-batch takes what its longest one takes."]
    return [
        "Packed sequences: compute and memory are those of the samples, whose attention stays inside each. Padding is "
        "next to none."
    ]


def uncounted_notes(recipe: TrainRecipe, cost: ModelCost) -> list[str]:
    """What the counts of a model leave out or assume, one sentence each."""
    notes = []
    if "action_head" in cost.uncounted:
        notes.append(
            f"The action head {recipe.model.head!r} is not counted: its parameters, compute and memory come on top."
        )
    if recipe.model.language_model not in (None, "qwen2"):
        notes.append(f"The language model {recipe.model.language_model!r} is counted with Qwen2's layers.")
    return notes


def gib(size_bytes: float) -> float:
    """Bytes as GiB."""
    return size_bytes / GIB
