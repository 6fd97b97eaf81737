"""Builds the model that a recipe starts from. Checkpoints do not store it; it is rebuilt on resume."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from pokevla.data.prompts import encode_text
from pokevla.embodiment.description import Embodiment
from pokevla.errors import CheckpointError, RecipeError, command_line
from pokevla.model.building import TrainableSpec, apply_trainable, build_vla, build_vlm
from pokevla.model.heads.settings import BridgeSettings
from pokevla.model.presets import ActionHeadConfig, PokeVLAConfig, preset
from pokevla.model.tokenizers.loading import MINI_TOKENIZER, load_tokenizer
from pokevla.model.vla import PokeVLA
from pokevla.model.vlm import PokeVLM
from pokevla.recipe.kinds import MODEL_TITLES, model_of
from pokevla.recipe.schema import TrainRecipe
from pokevla.recipe.sections import LossConfig, ModelConfig
from pokevla.runs.directory import EXPORT_CONFIG, EXPORT_WEIGHTS, find_export, holds_recipe
from pokevla.weights.export_files import read_export_config, refuse_damaged_export
from pokevla.weights.initial import load_initial
from pokevla.weights.mask_decoders import start_mask_decoders


def model_config(settings: ModelConfig, chunk_length: int, embodiment: Embodiment) -> PokeVLAConfig:
    """The model configuration: the preset for an embodiment, with the recipe's changes."""
    config = preset(settings.preset, embodiment)
    language_model = config.vlm.language_model
    if settings.language_model is not None:
        language_model = dataclasses.replace(language_model, kind=settings.language_model)
    geometry = config.geometry
    if settings.geometry_width is not None:
        geometry = dataclasses.replace(geometry, target_dim=settings.geometry_width)
    if settings.geometry_layer is not None:
        geometry = dataclasses.replace(geometry, layer=settings.geometry_layer)
    return dataclasses.replace(
        config,
        vlm=dataclasses.replace(config.vlm, attention=settings.attention, language_model=language_model),
        geometry=geometry,
        action_head=_head_config(config.action_head, settings, chunk_length),
        seg_token=settings.seg_token,
    )


def _head_config(preset_head: ActionHeadConfig, settings: ModelConfig, chunk_length: int) -> ActionHeadConfig:
    """The preset's head with the recipe's changes, and the queries that its kind needs."""
    head = dataclasses.replace(
        preset_head,
        condition=settings.head_condition,
        seg_injection=settings.seg_injection,
        chunk_length=chunk_length,
        kind=settings.head,
        bridge=BridgeSettings(settings.bridge.variant),
    )
    if settings.head != "oft":
        return head
    return dataclasses.replace(
        head,
        num_layers=settings.oft.num_blocks,
        num_queries=chunk_length * head.action_dim,
        zero_queries=settings.oft.placeholders == "zeros",
        proprio_in_sequence=True,
    )


def trainable_spec(recipe: TrainRecipe) -> TrainableSpec:
    """The recipe's `trainable` and `lora` sections as arguments of the model."""
    parts = recipe.trainable
    if recipe.lora is None:
        return TrainableSpec(parts.vision, parts.projector, parts.language_model)
    lora = recipe.lora
    return TrainableSpec(
        parts.vision, parts.projector, parts.language_model, lora.rank, lora.alpha, lora.dropout, lora.targets
    )


def build_base(recipe: TrainRecipe, embodiment: Embodiment) -> PokeVLM | PokeVLA:
    """Build the model of a recipe in fp32 on the CPU, with LoRA adapters, in its state before the first step.

    A pure function of the recipe, the widths of the embodiment, and the files that `model.vlm` and `model.sam` name. A
    PokeVLM is the same for every robot.

    Raises:
        CheckpointError: `model.vlm`, `model.sam`, or what `model.initial` names, does not exist or does not fit.
        RecipeError: `model.query_text` has more tokens than there are action queries.
    """
    config = model_config(recipe.model, recipe.data.chunk_length, embodiment)
    weights = exported_folder(recipe.model.vlm) if recipe.model.vlm is not None else None
    if weights is not None:
        refuse_other_vlm(weights)
        refuse_damaged_export(weights)
    model: PokeVLM | PokeVLA
    if model_of(recipe) == "pokevlm":
        model = build_vlm(config.vlm, seed=recipe.seed, weights=weights)
        load_initial(model, recipe.model.initial)
    else:
        model = build_vla(config, seed=recipe.seed, vlm_weights=weights)
        load_initial(model.vlm, recipe.model.initial)
        if recipe.model.sam is not None:
            start_mask_decoders(model, recipe.model.sam)
        if recipe.model.query_text is not None:
            start_queries(model, encode_text(load_tokenizer(tokenizer_folder(recipe)), recipe.model.query_text))
    apply_trainable(model, trainable_spec(recipe), seed=recipe.seed)
    if isinstance(model, PokeVLA) and recipe.loss_weights is not None:
        freeze_what_no_loss_reaches(model, recipe.loss_weights)
    return model


def start_queries(model: PokeVLA, token_ids: list[int]) -> None:
    """Initialise the first action queries with the embeddings of these tokens; the others stay random.

    Raises:
        RecipeError: there is no token, or more tokens than queries.
    """
    queries = model.action_queries
    if model.config.action_head.zero_queries:
        raise RecipeError("model.query_text has no queries to start: model.oft.placeholders is zeros.", "Leave it out.")
    if not 0 < len(token_ids) <= queries.shape[0]:
        raise RecipeError(
            f"model.query_text is {len(token_ids)} tokens long, the model has {queries.shape[0]} action queries.",
            "Shorten the text, or leave it out." if token_ids else "Leave it out (null).",
        )
    with torch.no_grad():
        queries[: len(token_ids)] = model.vlm.language_model.get_input_embeddings()(torch.tensor(token_ids))


def freeze_what_no_loss_reaches(model: PokeVLA, loss: LossConfig) -> None:
    """Freeze the mask decoders or the geometry projector if their loss has weight 0.

    Parameters without a gradient would still be sharded, saved and decayed.
    """
    if loss.segmentation.weight == 0:
        for module in (
            model.seg_projector,
            model.coarse_prompt_encoder,
            model.coarse_mask_decoder,
            model.fine_prompt_encoder,
            model.fine_mask_decoder,
        ):
            module.requires_grad_(False)
    if loss.geometry == 0:
        model.geometry_projector.requires_grad_(False)


def exported_folder(path: Path) -> Path:
    """Folder of the exported model at `path`, which is that folder or a run directory.

    Raises:
        CheckpointError: there is no exported model.
    """
    folder = find_export(path)
    if folder is not None:
        return folder
    if holds_recipe(path):
        raise CheckpointError(
            f"{path} is a run without an exported model: it is not finished.",
            f"Finish it ({command_line('resume', path)}) "
            f"or export a checkpoint ({command_line('ckpt', 'export', path)} OUT).",
        )
    raise CheckpointError(f"{path} holds no exported model (no {EXPORT_WEIGHTS}).", "Check the path.")


def refuse_other_vlm(folder: Path) -> None:
    """Refuse an export that is not a PokeVLM.

    Raises:
        CheckpointError: it is a PokeVLA, or imported weights of something else.
    """
    path = folder / EXPORT_CONFIG
    kind = read_export_config(folder).get("kind") if path.is_file() else None
    if kind is not None and kind != "pokevlm":
        title = MODEL_TITLES.get(kind, f"model of kind {kind}")
        raise CheckpointError(f"{folder} is a {title}; model.vlm takes a PokeVLM.", "Name a pre-training run.")


def tokenizer_folder(recipe: TrainRecipe) -> Path:
    """Folder of the recipe's tokenizer: `model.tokenizer`, or the one that comes with the preset."""
    return recipe.model.tokenizer if recipe.model.tokenizer is not None else MINI_TOKENIZER
