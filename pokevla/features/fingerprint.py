"""The fingerprint of a cache: everything it depends on as readable parts, and their hash, which names its directory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from pokevla.errors import RecipeError
from pokevla.features.codec import CODEC_VERSION, codec_for
from pokevla.features.layout import FieldLayout, RecordLayout
from pokevla.recipe.sections import CacheConfig, TeacherConfig
from pokevla.teachers.teacher import TeacherSpec, teacher_definition, teacher_spec


def cache_layout(cache: CacheConfig, num_views: int) -> RecordLayout:
    """Return the layout of the cache's records for a dataset of `num_views` views. Cheap: no weights are read.

    Raises:
        RecipeError: there is no teacher, a teacher does not exist, two output a field of the same name, or a codec
            cannot store a field.
        CheckpointError: a preset does not exist.
    """
    fields: dict[str, FieldLayout] = {}
    for place, teacher in cache.all_teachers.items():
        for name, shape in teacher_definition(teacher).fields(teacher.preset).items():
            if name in fields:
                raise RecipeError(f"{place}: {fields[name].teacher} and {teacher.kind} both output the field {name}.")
            try:
                codec = codec_for(shape, teacher.codec)
            except RecipeError as error:
                raise RecipeError(f"{place}, field {name}: {error.message}", error.remedy) from error
            fields[name] = FieldLayout(name, teacher.kind, (num_views, *shape), codec)
    if not fields:
        raise RecipeError("The cache names no teacher.", "Set cache.sam, cache.vggt or cache.teachers.")
    return RecordLayout(tuple(fields.values()))


def _teacher_parts(config: TeacherConfig, spec: TeacherSpec, layout: RecordLayout) -> dict[str, str]:
    origin = f"random (seed {config.seed}) " if spec.random else ""
    parts = {
        f"{spec.kind}.preset": spec.preset,
        f"{spec.kind}.weights": f"{origin}sha256:{spec.weights_hash}",
        f"{spec.kind}.preprocessing": spec.preprocessing,
        f"{spec.kind}.compute_dtype": spec.compute_dtype,
    }
    for field in (layout.field(name) for name in spec.fields):
        parts[f"{field.name}.output"] = " x ".join(map(str, field.shape))
        parts[f"{field.name}.codec"] = f"{field.stored_as.dtype} {field.stored_as.group} v{CODEC_VERSION}"
    return parts


def fingerprint_of(parts: dict[str, str]) -> str:
    """Return the first 16 hex digits of the sha256 over the parts, in canonical JSON."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def cache_fingerprint(
    cache: CacheConfig, dataset_fingerprint: str, num_views: int, specs: Sequence[TeacherSpec] | None = None
) -> tuple[str, dict[str, str]]:
    """Return (16 hex digits, readable parts) of the cache that `cache` specifies for a dataset of `num_views` views.

    Passing the `specs` of its teachers, in the order of `cache.all_teachers`, avoids hashing the weights again.

    Raises:
        RecipeError, CheckpointError: as `cache_layout`, or a weights file is missing.
    """
    layout = cache_layout(cache, num_views)
    teachers = list(cache.all_teachers.values())
    parts = {"dataset": dataset_fingerprint}
    for teacher, spec in zip(teachers, specs or map(teacher_spec, teachers), strict=True):
        parts |= _teacher_parts(teacher, spec, layout)
    return fingerprint_of(parts), parts


def differences(stored: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Return one clause per part that differs: `sam.weights is X in the cache, Y in the recipe`."""
    names = sorted(set(stored) | set(expected))
    return [
        f"{name} is `{stored.get(name, 'absent')}` in the cache, `{expected.get(name, 'absent')}` in the recipe"
        for name in names
        if stored.get(name) != expected.get(name)
    ]
