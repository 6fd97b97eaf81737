"""Rules that join several fields of a recipe. They depend on the recipe only and run on every load."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from pokevla.files.labels import MAX_NAME
from pokevla.files.remote.urls import is_url
from pokevla.parts import (
    ACTION_HEADS,
    LANGUAGE_MODELS,
    METRIC_SINKS,
    OPTIMIZERS,
    TEACHERS,
    unknown_part,
)
from pokevla.recipe import schema
from pokevla.recipe.checking.mixtures import mixed_categories
from pokevla.recipe.checking.trials import trial_conflicts
from pokevla.recipe.kinds import kind_of
from pokevla.recipe.planning.sizes import PRESETS, TEACHER_FIELDS, preset_size, teacher_fields, teacher_presets

Finding = tuple[str, str]
"""(dotted field with the mistake, sentence)."""


def inconsistencies(recipe: BaseModel) -> list[Finding]:
    """All broken rules, each with the field whose line is shown."""
    findings: list[Finding] = []
    for rule in (_name, *_RULES.get(kind_of(recipe).name, ())):
        findings.extend(rule(recipe))
    return findings


def _length(recipe: schema.TrainRecipe) -> Iterator[Finding]:
    if recipe.steps is None and recipe.epochs is None:
        yield "steps", "the length of training is missing. Set steps or epochs."
    if recipe.steps is not None and recipe.epochs is not None:
        yield "epochs", "both steps and epochs are set. Set one of them to null."


def _adapters(recipe: schema.TrainRecipe) -> Iterator[Finding]:
    parts = recipe.trainable.model_dump()
    adapted = [name for name, how in parts.items() if how == "lora"]
    if adapted and recipe.lora is None:
        yield (
            f"trainable.{adapted[0]}",
            f"trainable.{adapted[0]} is lora, but there is no lora section. Add `lora: {{}}`.",
        )
    if recipe.lora is not None and not adapted:
        yield "lora", "there is a lora section, but no part is trained with lora. Set trainable.language_model: lora."


def _no_masks(recipe: schema.PretrainRecipe) -> Iterator[Finding]:
    if recipe.model.sam is not None:
        yield "model.sam", "model.sam starts the mask decoders of post-training; a PokeVLM has none. Leave it out."


def _packing(recipe: schema.PretrainRecipe) -> Iterator[Finding]:
    if recipe.packing is None:
        return
    if recipe.data.sort_by_length:
        yield (
            "packing",
            "packing and data.sort_by_length exclude each other: packed sequences need no sorting. Leave one out.",
        )
    if recipe.compile:
        yield (
            "compile",
            "compile does not work with packing, whose sequences are divided differently in every micro-batch. Set one "
            "of them to its default.",
        )


def _something_trains(recipe: schema.PretrainRecipe) -> Iterator[Finding]:
    if set(recipe.trainable.model_dump().values()) == {"frozen"}:
        yield "trainable", "every part of the model is frozen: nothing would be trained."


def _parts(recipe: schema.TrainRecipe) -> Iterator[Finding]:
    model = recipe.model
    named = (
        ("model.head", model.head, ACTION_HEADS),
        ("model.language_model", model.language_model, LANGUAGE_MODELS),
        ("optim.name", recipe.optim.name, OPTIMIZERS),
        *(("log.sinks", sink, METRIC_SINKS) for sink in recipe.log.sinks),
    )
    for field, name, table in named:
        unknown = unknown_part(name, table) if name is not None else None
        if unknown is not None:
            yield field, f"{field}: {unknown}"


def _sequence(recipe: schema.PosttrainRecipe) -> Iterator[Finding]:
    """The tokens of the sequence fit the head and the losses."""
    model = recipe.model
    if not model.seg_token and recipe.loss.segmentation.weight > 0:
        yield "model.seg_token", "loss.segmentation.weight is above 0, but without model.seg_token there are no masks."
    if not model.seg_token and model.head == "poke" and model.seg_injection:
        yield "model.seg_token", "the head attends to <SEG>: set model.seg_injection: false, or model.seg_token: true."
    if model.head == "oft" and model.oft.placeholders == "zeros" and model.query_text is not None:
        yield "model.query_text", "model.query_text has no queries to start: model.oft.placeholders is zeros."
    depth = preset_size(model).language_stack.layers
    if model.geometry_layer is not None and model.geometry_layer > depth:
        yield "model.geometry_layer", f"model.geometry_layer is {model.geometry_layer}, the language model has {depth}."


def _compile(recipe: schema.TrainRecipe) -> Iterator[Finding]:
    if recipe.compile and recipe.zero.stage == 3:
        yield "compile", "compile does not work with zero.stage 3, which gathers weights in hooks. Use zero.stage=2."
    if recipe.compile and recipe.activation_checkpointing:
        yield "compile", "compile does not work with activation_checkpointing. Set one of them to false."


def _sinks(recipe: schema.TrainRecipe) -> Iterator[Finding]:
    sinks = recipe.log.sinks
    if "jsonl" not in sinks:
        yield "log.sinks", "log.sinks should contain jsonl: `pokevla watch` and the report read metrics.jsonl."
    if len(set(sinks)) < len(sinks):
        yield "log.sinks", f"log.sinks should name each sink once, not {list(sinks)}."


def _schedule(recipe: schema.TrainRecipe) -> Iterator[Finding]:
    if not all(0.0 <= beta < 1.0 for beta in recipe.optim.betas):
        yield "optim.betas", f"optim.betas should lie in [0, 1), not {list(recipe.optim.betas)}."
    if not re.fullmatch(r"\d+:[0-5]\d:[0-5]\d", recipe.resources.time_limit):
        yield "resources.time_limit", f"resources.time_limit should be HH:MM:SS, not {recipe.resources.time_limit!r}."


def _guards(recipe: schema.TrainRecipe) -> Iterator[Finding]:
    guards = recipe.guards
    if guards.start_timeout_s < guards.step_timeout_s:
        yield (
            "guards.start_timeout_s",
            f"guards.start_timeout_s ({guards.start_timeout_s:g}) is below guards.step_timeout_s "
            f"({guards.step_timeout_s:g}): the start and a save take longer than a step.",
        )


def _cache(recipe: schema.PosttrainRecipe) -> Iterator[Finding]:
    weights = {"loss.segmentation.weight": recipe.loss.segmentation.weight, "loss.geometry": recipe.loss.geometry}
    used = [name for name, weight in weights.items() if weight > 0]
    if used and recipe.cache is None:
        yield (
            used[0],
            (
                f"{' and '.join(used)} need cached teacher features, but there is no cache section. "
                "Add `cache: {root: ...}`, or set the weight to 0."
            ),
        )
    if recipe.loss.action == 0 and not used:
        yield "loss.action", "all losses have weight 0: nothing would be learnt."


def _teachers(recipe: schema.PosttrainRecipe | schema.CacheRecipe) -> Iterator[Finding]:
    if recipe.cache is None:
        return
    kinds: dict[str, str] = {}
    for field, teacher in recipe.cache.all_teachers.items():
        own = field.removeprefix("cache.")
        unknown = unknown_part(teacher.kind, TEACHERS)
        if own in ("sam", "vggt") and teacher.kind != own:
            yield f"{field}.kind", f"{field}.kind should be {own}, not {teacher.kind}."
        elif unknown is not None:
            yield f"{field}.kind", f"{field}.kind: {unknown}"
        elif teacher.kind in kinds:
            yield f"{field}.kind", f"{field}.kind is {teacher.kind}, as {kinds[teacher.kind]} is: one of each kind."
        elif teacher.preset not in teacher_presets(teacher.kind):
            presets = ", ".join(teacher_presets(teacher.kind))
            yield f"{field}.preset", f"{field}.preset should be one of {presets}, not {teacher.preset}."
        kinds.setdefault(teacher.kind, field)
    if not kinds:
        yield "cache", "the cache names no teacher. Set cache.sam, cache.vggt or cache.teachers."


def _built_here(recipe: schema.CacheRecipe) -> Iterator[Finding]:
    if is_url(recipe.cache.root):
        yield "cache.root", "cache.root is a URL. Build the cache in a folder, and upload that."


def _features_fit(recipe: schema.PosttrainRecipe) -> Iterator[Finding]:
    """What the losses read is cached, and has the size that the model takes."""
    if recipe.cache is None or any(_teachers(recipe)):
        return
    size, teachers = PRESETS[recipe.model.preset], recipe.cache.all_teachers
    for name, fitting in (("sam", size.sam_shape), ("vggt", size.vggt_shape)):
        teacher = teachers.get(f"cache.{name}")
        if teacher is not None and teacher_fields(teacher)[name] != fitting:
            presets = [preset for preset, fields in TEACHER_FIELDS[name].items() if fields[name] == fitting]
            yield (
                f"cache.{name}.preset",
                f"features of cache.{name}.preset {teacher.preset} do not fit model.preset {recipe.model.preset}: "
                f"use {' or '.join(sorted(presets))}.",
            )
    cached = {name: shape for teacher in teachers.values() for name, shape in teacher_fields(teacher).items()}
    if recipe.loss.segmentation.weight > 0 and "sam" not in cached:
        yield "loss.segmentation.weight", "loss.segmentation.weight is above 0, but cache.sam is null."
    if recipe.loss.geometry > 0:
        yield from _geometry_fits(recipe, cached)


def _geometry_fits(recipe: schema.PosttrainRecipe, cached: Mapping[str, tuple[int, ...]]) -> Iterator[Finding]:
    name = recipe.loss.geometry_features
    if name not in cached:
        hint = f"It caches {', '.join(cached)}."
        yield "loss.geometry_features", f"loss.geometry_features: the cache has no field {name!r}. {hint}"
        return
    shape = cached[name]
    width = shape[0] if len(shape) == 3 else shape[-1]  # a grid (C, G, G), or tokens (N, T)
    takes = preset_size(recipe.model).vggt_shape[1]
    if width != takes and (name != "vggt" or recipe.model.geometry_width is not None):
        yield (
            "model.geometry_width",
            f"features {name} have width {width}, the model projects to {takes}: set model.geometry_width: {width}.",
        )


def _name(recipe: BaseModel) -> Iterator[Finding]:
    name = getattr(recipe, "name", "")
    if not re.fullmatch(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}", name):
        yield "name", f"name becomes a folder: use letters, digits, dot, dash and underscore, not {name!r}."


_RULES: dict[str, tuple[Callable[[Any], Iterator[Finding]], ...]] = {
    "pretrain": (
        _length,
        _parts,
        _sinks,
        _adapters,
        _no_masks,
        _packing,
        _something_trains,
        _schedule,
        _guards,
        _compile,
    ),
    "posttrain": (
        _length,
        _parts,
        _sinks,
        _adapters,
        _schedule,
        _guards,
        _compile,
        _cache,
        _teachers,
        _features_fit,
        _sequence,
    ),
    "cache": (_teachers, _built_here),
    "eval": (trial_conflicts,),
    "mixture": (mixed_categories,),
}
"""Rules of each kind of recipe, in addition to that for the name."""
