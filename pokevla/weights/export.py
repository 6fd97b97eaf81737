"""Exported models: self-contained folders.

model.safetensors   fp32, LoRA merged
config.json         kind, preset, sizes, the robot (PokeVLA), and how images and texts were prepared
statistics.json     normalisation of proprio and actions (PokeVLA)
tokenizer/
README.md           model card
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pokevla.data.mixture import dataset_names
from pokevla.data.prompts import INSTRUCTION_TEMPLATE
from pokevla.data.statistics import Statistics
from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.reading import KEY, read_embodiment
from pokevla.errors import CheckpointError, DataError, UsageError, command_line
from pokevla.files.checksums import measure_file, with_checksum, without_checksum
from pokevla.files.ownership import refuse_foreign
from pokevla.files.texts import read_json_object, write_json, write_text
from pokevla.files.writing import atomic_folder
from pokevla.model.building import build_vla, build_vlm, load_weights
from pokevla.model.presets import config_from_dict, to_dict, vlm_config_from_dict
from pokevla.model.vla import PokeVLA
from pokevla.model.vlm import PokeVLM
from pokevla.recipe.checking.recorded import TRAINED_ON
from pokevla.recipe.kinds import MODEL_TITLES, model_of
from pokevla.recipe.schema import TrainRecipe
from pokevla.runs.checkpoints import CheckpointInfo, checkpoint_folder
from pokevla.runs.directory import EXPORT, EXPORT_CONFIG, EXPORT_WEIGHTS, STATISTICS, read_run_recipe
from pokevla.runs.directory import TRAINED_ON as TRAINED_ON_FILE
from pokevla.runs.verification import verify
from pokevla.weights.base_model import exported_folder, model_config, tokenizer_folder
from pokevla.weights.export_files import (
    EXPORT_AGAIN,
    FILES,
    read_export_config,
    read_trained_on,
    refuse_damaged_export,
)
from pokevla.weights.safetensors_files import FREE_SPACE, write_weights
from pokevla.weights.trained import merged, open_trained

SCHEMA_VERSION = 1
MARKER = EXPORT_CONFIG
"""Deleted first when an export is replaced: a folder without it is not an export."""


def export_run(run_dir: Path, step: int, out: Path) -> None:
    """`export_checkpoint` for the last step of a run. An earlier checkpoint would not be the model that was trained.

    Raises:
        CheckpointError: the checkpoint of `step` is missing or damaged, or as in `export_checkpoint`.
        DiskFullError: disk full.
    """
    folder = checkpoint_folder(run_dir, step)
    try:
        info = verify(folder)
    except CheckpointError as error:
        raise CheckpointError(error.message, f"Repeat the last steps: {command_line('resume', run_dir)}") from error
    export_checkpoint(run_dir, read_run_recipe(run_dir), folder, info, out)


def export_checkpoint(
    run_dir: Path,
    recipe: TrainRecipe,
    folder: Path,
    info: CheckpointInfo,
    out: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the model of a verified checkpoint to the folder `out`, atomically. Called by one process.

    The base model is rebuilt and checked against the checkpoint's hash, trained weights come from the fp32 master
    copies, LoRA is merged. Memory: the base model once, and three tensors of the largest layer.

    Raises:
        CheckpointError: the base model differs, or `out` exists (only the run's own export is replaced, and only if
            nothing else lies in it).
        DiskFullError: disk full; nothing is left under the name `out`.
    """
    proof = refuse_replacing_export if out.resolve() == (run_dir / EXPORT).resolve() else None
    with atomic_folder(out, replaces=proof, kind=CheckpointError, remedy=FREE_SPACE) as new:
        trained = open_trained(recipe, folder, info)
        weights = merged(trained, recipe)
        write_weights(weights, new, metadata={}, on_progress=on_progress)
        count = sum(spec.numel for name, spec in weights.specs.items() if name not in trained.buffers)
        _describe(recipe, run_dir, info, count, new)


def refuse_replacing_export(folder: Path) -> None:
    """Refuse to replace a folder that is not an export, or holds anything else.

    Raises:
        CheckpointError: names what stands in the way.
    """
    if not (folder / MARKER).is_file():
        raise CheckpointError(f"{folder} exists and is not an exported model.", "Remove it, or choose another name.")
    files = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "README.md")
    refuse_foreign(folder, "exported model", [*files, MARKER, STATISTICS, "tokenizer/**"], kind=CheckpointError)


def _describe(recipe: TrainRecipe, run_dir: Path, info: CheckpointInfo, num_parameters: int, folder: Path) -> None:
    """Write everything but the weights."""
    model = model_of(recipe)
    robot = model == "pokevla"
    embodiment = read_embodiment(info.embodiment, run_dir)
    config = model_config(recipe.model, recipe.data.chunk_length, embodiment)
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": model,
        "preset": recipe.model.preset,
        "model": to_dict(config if robot else config.vlm),
        "system_prompt": recipe.data.system_prompt,
        "chunk_length": recipe.data.chunk_length,
        "crop_area": recipe.data.augment.crop_area,
        "image_size": config.vlm.image_size,
        "image_filter": recipe.data.image_filter,
        "blank_images": recipe.data.blank_images,
        "max_text_tokens": recipe.data.max_text_tokens,
        "instruction_template": INSTRUCTION_TEMPLATE,
        "step": info.step,
        "run": recipe.name,
    }
    if robot:
        content[KEY] = embodiment.to_dict()
        if (run_dir / TRAINED_ON_FILE).is_file():  # runs of earlier versions have none
            content[TRAINED_ON] = read_trained_on(run_dir).to_dict()
    shutil.copytree(
        tokenizer_folder(recipe), folder / "tokenizer", ignore=shutil.ignore_patterns("*.py", "__pycache__")
    )
    if robot:
        write_json(folder / STATISTICS, read_statistics(run_dir, embodiment).to_dict(), sort_keys=True)
    names = [EXPORT_WEIGHTS, *([STATISTICS] if robot else [])]
    content[FILES] = [asdict(measure_file(folder, name)) for name in names]
    write_json(folder / MARKER, with_checksum(content), sort_keys=True)
    write_text(folder / "README.md", _card(recipe, info, num_parameters))


def _card(recipe: TrainRecipe, info: CheckpointInfo, num_parameters: int) -> str:
    model = MODEL_TITLES[model_of(recipe)]
    names, spelled = dataset_names(recipe), recipe.paths_as_written  # not the paths of this machine
    sources = "\n".join(f"- `{names[str(source.path)]}`, weight {source.weight:g}" for source in recipe.data.datasets)
    base = spelled.get("model.vlm", recipe.model.vlm)
    start = f"`{base}`" if recipe.model.vlm else f"random weights of seed {recipe.seed}"
    if recipe.model.sam is not None:
        start += f" and, for the mask decoders, `{spelled.get('model.sam', recipe.model.sam)}`"
    published = {name: spelled.get(f"model.initial.{name}", path) for name, path in recipe.model.initial if path}
    if published:
        start += f" and published weights of {', '.join(f'{name} (`{path}`)' for name, path in published.items())}"
    lines = [
        f"# {recipe.name}",
        "",
        f"{model}, preset `{recipe.model.preset}`, {num_parameters:,} parameters in fp32, LoRA merged.",
        "",
        f"Trained for {info.step:,} steps of {recipe.batch.global_} samples from {start} on:",
        "",
        sources,
        "",
    ]
    cache = recipe.feature_cache
    if cache is not None:
        random = [teacher.kind for teacher in cache.all_teachers.values() if teacher.weights is None]
        if random:
            lines += [f"Teachers with random weights, which carry no knowledge: {', '.join(random)}.", ""]
    if recipe.data.blank_images:
        lines += ["Trained on blank images, as a baseline without vision.", ""]
    return "\n".join([*lines, "Load it with `pokevla.policy.policy.Policy.from_pretrained(FOLDER)`.", ""])


def read_statistics(folder: Path, embodiment: Embodiment) -> Statistics:
    """The normalisation statistics of a run or an exported model.

    Raises:
        DataError: they are missing or damaged, or not those of this embodiment. The message names the file.
    """
    path = folder / STATISTICS
    content = without_checksum(read_json_object(path), path)
    try:
        return Statistics.from_dict(content, embodiment)
    except DataError as error:
        raise DataError(f"{path}: {error.message}", error.remedy) from error


def load_exported(path: Path) -> tuple[PokeVLM | PokeVLA, dict[str, Any], Path, Statistics | None]:
    """Load an exported model, or the one in a run directory.

    Returns:
        model in eval mode, config.json, tokenizer folder, statistics (None for a PokeVLM).

    Raises:
        CheckpointError: there is no export, or a file of it is missing or damaged or does not fit.
    """
    folder = exported_folder(path)
    refuse_damaged_export(folder)
    config = read_export_config(folder)
    try:
        kind, version = config["kind"], config["schema_version"]
        if version != SCHEMA_VERSION:
            raise CheckpointError(f"{folder} has schema version {version}, this program reads {SCHEMA_VERSION}.")
        statistics = None
        if kind == "pokevla":
            embodiment = read_embodiment(config.get(KEY), folder / EXPORT_CONFIG)
            statistics = read_statistics(folder, embodiment)
            model: PokeVLM | PokeVLA = build_vla(config_from_dict(config["model"]))
        else:
            model = build_vlm(vlm_config_from_dict(config["model"]))
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, UsageError, DataError) as error:
        raise CheckpointError(f"{folder} is not a complete exported model: {error}", EXPORT_AGAIN) from error
    load_weights(model, folder)
    return model.eval(), config, folder / "tokenizer", statistics
