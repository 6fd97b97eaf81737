"""Exported models: a folder that needs nothing else.

model.safetensors   fp32, LoRA merged
config.json         kind, preset, sizes, and how images and texts were prepared
statistics.json     normalisation of proprio and actions (PokeVLA)
tokenizer/
README.md           model card
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pokevla.checkpoint.base_model import build_base, exported_folder, model_config, tokenizer_folder
from pokevla.checkpoint.catalogue import STATE, CheckpointInfo, checkpoint_folder, latest_complete, verify
from pokevla.checkpoint.files import as_named_error, remove_folder, write_json_atomically, write_text_atomically
from pokevla.checkpoint.frozen import frozen_hash
from pokevla.checkpoint.groups import parameter_names_by_group
from pokevla.checkpoint.run import EXPORT, read_run_recipe
from pokevla.data.prompts import INSTRUCTION_TEMPLATE
from pokevla.data.statistics import Statistics
from pokevla.errors import CheckpointError, UsageError
from pokevla.model.building import build_vla, build_vlm, load_weights, merge_lora, save_model
from pokevla.model.presets import config_from_dict, to_dict, vlm_config_from_dict
from pokevla.model.vla import PokeVLA
from pokevla.model.vlm import PokeVLM
from pokevla.recipe.load import recipe_hash
from pokevla.recipe.schema import PosttrainRecipe, TrainRecipe

SCHEMA_VERSION = 1
OBJECTIVE_PREFIX = "model."
"""The engine trains an objective that holds the model under this name."""


def export_run(run_dir: Path, out: Path, step: int | None = None) -> Path:
    """Write the model of a run's newest (or given) checkpoint to the folder `out`, atomically. One process.

    The base is rebuilt and checked against the checkpoint's hash, trained weights come from the fp32 master copies,
    LoRA is merged.

    Raises:
        CheckpointError: no such checkpoint, damaged, or of another base model; `out` exists.
        DiskFullError: no room; nothing is left under the name `out`.
    """
    recipe = read_run_recipe(run_dir)
    folder, info = _pick(run_dir, step)
    if out.exists() and out != run_dir / EXPORT:
        raise CheckpointError(f"{out} exists.", "Name another folder.")
    model = trained_model(recipe, folder, info)
    temporary = out.with_name(f".tmp-{out.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _write(model, recipe, run_dir, info, temporary)
        if out.exists():
            remove_folder(out, "config.json")
        temporary.rename(out)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise as_named_error(error, out) from error
    return out


def _pick(run_dir: Path, step: int | None) -> tuple[Path, CheckpointInfo]:
    if step is not None:
        folder = checkpoint_folder(run_dir, step)
        return folder, verify(folder)
    found = latest_complete(run_dir)
    if found is None:
        raise CheckpointError(f"{run_dir} has no complete checkpoint.", f"Go on with: pokevla resume {run_dir}")
    return found


def trained_model(recipe: TrainRecipe, folder: Path, info: CheckpointInfo) -> PokeVLM | PokeVLA:
    """Rebuild a recipe's model with the trained weights of a checkpoint, LoRA merged, fp32, on the CPU.

    Raises:
        CheckpointError: the recipe or the frozen weights differ from those that were trained.
    """
    if info.recipe_hash != recipe_hash(recipe):
        raise CheckpointError(f"{folder} was made by another recipe than the run's recipe.yaml.", "Undo the change.")
    model = build_base(recipe)
    if info.frozen_hash != frozen_hash(model):
        raise CheckpointError(
            f"The base model is not the one {folder} was trained from.", "Restore what the recipe's model.vlm named."
        )
    state = consolidated_weights(folder, info, model)
    wanted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    missing = sorted(wanted - set(state))
    if missing:
        raise CheckpointError(f"{folder} lacks {len(missing)} trained weights (first: {missing[0]}).")
    model.load_state_dict(state, strict=False)
    return merge_lora(model)


def consolidated_weights(folder: Path, info: CheckpointInfo, model: nn.Module) -> dict[str, torch.Tensor]:
    """Trained weights of a checkpoint in fp32 by the model's names, from whatever shards the ZeRO stage has left.

    `model` is the one that was trained (`build_base`); only its names, shapes and order are read.
    """
    if info.zero_stage == 0:
        state = _stage_0_weights(folder, model)
    elif info.zero_stage == 1 and info.precision == "bf16":
        state = _stage_1_bf16_weights(folder, model, info.world_size)
    else:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        state = get_fp32_state_dict_from_zero_checkpoint(str(folder), tag=STATE) or {}
    return {
        name.removeprefix(OBJECTIVE_PREFIX): torch.as_tensor(value).float()
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }


def _stage_0_weights(folder: Path, model: nn.Module) -> dict[str, torch.Tensor]:
    """Stage 0 shards nothing, and DeepSpeed's own tool does not know it: all is in rank 0's file."""
    content = torch.load(folder / STATE / "mp_rank_00_model_states.pt", map_location="cpu", weights_only=False)
    state = dict(content["module"])
    masters = (content["optimizer"] or {}).get("fp32_groups")
    if masters is not None:  # bf16: the module's weights are rounded, the optimizer has the master copies
        for names, group in zip(parameter_names_by_group(model), masters, strict=True):
            state |= {OBJECTIVE_PREFIX + name: value.detach() for name, value in zip(names, group, strict=True)}
    return state


def _stage_1_bf16_weights(folder: Path, model: nn.Module, world_size: int) -> dict[str, torch.Tensor]:
    """Stage 1 with bf16 runs DeepSpeed's BF16_Optimizer, whose files DeepSpeed's own tool refuses.

    Each rank has an equal piece of each parameter group, flattened in the group's order and padded at the end.
    """
    pieces = [
        torch.load(
            folder / STATE / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt",
            map_location="cpu",
            weights_only=False,
        )["optimizer_state_dict"]["single_partition_of_fp32_groups"]
        for rank in range(world_size)
    ]
    content = torch.load(folder / STATE / "mp_rank_00_model_states.pt", map_location="cpu", weights_only=False)
    state = dict(content["module"])  # buffers; the weights in it are rounded
    parameters = dict(model.named_parameters())
    for group, names in enumerate(parameter_names_by_group(model)):
        flat = torch.cat([piece[group].detach() for piece in pieces])
        sizes = [parameters[name].numel() for name in names]
        for name, values in zip(names, flat[: sum(sizes)].split(sizes), strict=True):
            state[OBJECTIVE_PREFIX + name] = values.view(parameters[name].shape)
    return state


def _write(model: PokeVLM | PokeVLA, recipe: TrainRecipe, run_dir: Path, info: CheckpointInfo, folder: Path) -> None:
    save_model(model, folder)
    robot = isinstance(recipe, PosttrainRecipe)
    config = model_config(recipe.model, recipe.data.chunk_length)
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": "pokevla" if robot else "pokevlm",
        "preset": recipe.model.preset,
        "model": to_dict(config if robot else config.vlm),
        "system_prompt": recipe.data.system_prompt,
        "chunk_length": recipe.data.chunk_length,
        "crop_area": recipe.data.augment.crop_area,
        "image_size": config.vlm.image_size,
        "blank_images": recipe.data.blank_images,
        "instruction_template": INSTRUCTION_TEMPLATE,
        "step": info.step,
        "run": recipe.name,
    }
    write_json_atomically(folder / "config.json", content)
    shutil.copytree(
        tokenizer_folder(recipe), folder / "tokenizer", ignore=shutil.ignore_patterns("*.py", "__pycache__")
    )
    if robot:
        shutil.copyfile(run_dir / "statistics.json", folder / "statistics.json")
    write_text_atomically(folder / "README.md", _card(recipe, info, model))


def _card(recipe: TrainRecipe, info: CheckpointInfo, model: nn.Module) -> str:
    kind = "PokeVLA" if isinstance(recipe, PosttrainRecipe) else "PokeVLM"
    count = sum(parameter.numel() for parameter in model.parameters())
    sources = "\n".join(f"- `{source.path}`, weight {source.weight:g}" for source in recipe.data.datasets)
    start = f"`{recipe.model.vlm}`" if recipe.model.vlm else f"random weights of seed {recipe.seed}"
    lines = [
        f"# {recipe.name}",
        "",
        f"{kind}, preset `{recipe.model.preset}`, {count:,} parameters in fp32, LoRA merged.",
        "",
        f"Trained for {info.step:,} steps of {recipe.batch.global_} samples from {start} on:",
        "",
        sources,
        "",
    ]
    if isinstance(recipe, PosttrainRecipe) and recipe.cache is not None:
        random = [t.kind for t in (recipe.cache.sam, recipe.cache.vggt) if t.weights is None]
        if random:
            lines += [f"Teachers of random weights, which carry no knowledge: {', '.join(random)}.", ""]
    if recipe.data.blank_images:
        lines += ["Trained on blank images: a baseline that cannot see.", ""]
    return "\n".join([*lines, "Load it with `pokevla.policy.policy.Policy.from_pretrained(FOLDER)`.", ""])


def load_exported(path: Path) -> tuple[PokeVLM | PokeVLA, dict[str, Any], Path, Statistics | None]:
    """Load an exported model, or the one in a run directory.

    Returns:
        model in eval mode, config.json, tokenizer folder, statistics (None for a PokeVLM).

    Raises:
        CheckpointError: there is none, or a part of it is missing or does not fit.
    """
    folder = exported_folder(path)
    try:
        config = json.loads((folder / "config.json").read_text())
        kind, version = config["kind"], config["schema_version"]
        if version != SCHEMA_VERSION:
            raise CheckpointError(f"{folder} has schema version {version}, this program reads {SCHEMA_VERSION}.")
        statistics = None
        if kind == "pokevla":
            statistics = Statistics.from_dict(json.loads((folder / "statistics.json").read_text()))
            model: PokeVLM | PokeVLA = build_vla(config_from_dict(config["model"]))
        else:
            model = build_vlm(vlm_config_from_dict(config["model"]))
    except (OSError, ValueError, KeyError, UsageError) as error:
        raise CheckpointError(f"{folder} is not a whole exported model: {error}", "Export it again.") from error
    load_weights(model, folder)
    return model.eval(), config, folder / "tokenizer", statistics
