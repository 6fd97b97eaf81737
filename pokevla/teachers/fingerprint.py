"""What a cache depends on, as readable parts, and the hash of them that names its directory."""

from __future__ import annotations

import hashlib
import json

from pokevla.recipe.sections import CacheConfig, TeacherConfig
from pokevla.teachers.codec import CODEC_VERSION, FieldLayout, RecordLayout, record_layout
from pokevla.teachers.encoders import TeacherSpec, output_shape, teacher_spec

NUM_VIEWS = 2  # base and wrist


def cache_layout(cache: CacheConfig) -> RecordLayout:
    """Return what a record of the cache looks like. Cheap: no weights are read."""
    channels, grid, _ = output_shape(cache.sam)
    tokens, width = output_shape(cache.vggt)
    return record_layout(
        (NUM_VIEWS, channels, grid, grid), (NUM_VIEWS, tokens, width), cache.sam_codec, cache.vggt_codec
    )


def _teacher_parts(name: str, config: TeacherConfig, spec: TeacherSpec, field: FieldLayout) -> dict[str, str]:
    origin = f"random (seed {config.seed}) " if spec.random else ""
    return {
        f"{name}.preset": spec.preset,
        f"{name}.weights": f"{origin}sha256:{spec.weights_hash}",
        f"{name}.preprocessing": spec.preprocessing,
        f"{name}.output": " x ".join(map(str, field.shape)),
        f"{name}.compute_dtype": spec.compute_dtype,
        f"{name}.codec": f"{field.dtype} {field.group} v{CODEC_VERSION}",
    }


def fingerprint_of(parts: dict[str, str]) -> str:
    """Return the first 16 hex digits of the sha256 over the parts, in canonical JSON."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def cache_fingerprint(
    cache: CacheConfig, dataset_fingerprint: str, specs: tuple[TeacherSpec, TeacherSpec] | None = None
) -> tuple[str, dict[str, str]]:
    """Return (16 hex digits, readable parts) of the cache that `cache` names for one dataset.

    `specs` of SAM and VGGT, if they are known, save hashing the weights once more.

    Raises:
        CheckpointError: a teacher preset that does not exist, or a weights file that is not there.
    """
    layout = cache_layout(cache)
    sam, vggt = specs if specs is not None else (teacher_spec(cache.sam), teacher_spec(cache.vggt))
    parts = {
        "dataset": dataset_fingerprint,
        **_teacher_parts("sam", cache.sam, sam, layout.sam),
        **_teacher_parts("vggt", cache.vggt, vggt, layout.vggt),
    }
    return fingerprint_of(parts), parts


def differences(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """Return one clause per part that differs: `sam.weights was X, is now Y`."""
    names = sorted(set(found) | set(wanted))
    return [
        f"{name} is `{found.get(name, 'absent')}` in the cache, `{wanted.get(name, 'absent')}` in the recipe"
        for name in names
        if found.get(name) != wanted.get(name)
    ]
