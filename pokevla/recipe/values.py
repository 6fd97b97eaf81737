"""The values of a recipe: nested, flat, and those that may change when a run is resumed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from pokevla.recipe.paths import AS_WRITTEN

NEUTRAL = (
    "resources", "batch.micro", "log", "checkpoint",
    "workers", "worker_timeout_s", "step_timeout_s", "retries", "trials_per_process", "pin_workers", "validation",
    "policies.*.timeout_s", "cache.checksums", "data.loader", "data.damaged", "data.max_damaged",
    "data.storage",
)  # fmt: skip
"""Sections and fields that do not change what is learnt or measured. `micro` times accumulation times ranks stays the
global batch; the loss is a mean over samples of a mean within the sample, so how a batch is divided does not affect the
gradient."""
LENGTH = ("steps", "epochs")
"""Fields that may change when a run is resumed, to train longer. They are a part of the recipe's hash, because the
learning rate follows from them."""
LOCATIONS = re.compile(r"data\.datasets\.\d+\.path|cache\.root|cache\.(sam|vggt|teachers\.\d+)\.weights")
"""Paths that may change when a run is resumed, because a fingerprint shows that what lies there is the same."""
ADDED: dict[str, Any] = {
    "extensions": [],
    "model.sam": None,
    "data.image_filter": "bilinear",
    "data.loader": "process",
    "data.reduce_in_decoder": False,
    "data.sort_by_length": False,
    "data.damaged": "stop",
    "data.max_damaged": 0.01,
    "data.storage.mib_in_flight": 256,
    "data.storage.attempts": 6,
    "data.storage.timeout_s": 120.0,
    "data.storage.gap_kib": 256,
    "data.storage.staging": None,
    "model.head": "poke",
    "model.initial": {"dino": None, "siglip": None, "language_model": None},
    "model.language_model": None,
    "model.geometry_width": None,
    "model.geometry_layer": None,
    "model.seg_token": True,
    "model.bridge": {"variant": "original"},
    "model.oft": {"num_blocks": 2, "placeholders": "learned"},
    "packing": None,
    "loss": {"average": "samples"},
    "loss.geometry_features": "vggt",
    "cache.teachers": [],
    "cache.checksums": "every_read",
    "cache.sam.precision": "fp32",
    "cache.vggt.precision": "fp32",
    "cache.teachers.*.precision": "fp32",
    "optim.name": "adamw",
    "log.sinks": ["jsonl", "tensorboard"],
    "trials.environment": "libero",
    "trials.until": None,
    "trials.placements": "shipped",
    "trials.fixtures": "fixed",
    "trials.perturbations": None,
    "trials.subset": None,
    "trials.libero_plus": None,
    "trials.libero_plus_assets": None,
    "trials.instructions": "clean",
    "trials.robot_init": "published",
    "policies.*.statistics": None,
    "policies.*.images": "published",
    "policies.*.url": None,
    "policies.*.protocol": None,
    "policies.*.keys": {
        "images": ["observation/image", "observation/wrist_image"],
        "proprio": "observation/state",
        "instruction": "prompt",
        "actions": "actions",
    },
    "compile": False,
    "accept_differences": [],
}
"""Fields added after the first runs, with the value that stands for the earlier behaviour. With that value they are
left out of the recipe's hash and of its neutral settings, so that older runs can be resumed. `*` is every entry of a
list."""

DEFAULTS_WITHOUT_MODEL: dict[str, Any] = {
    "image_size": 256,
    "fast_rendering": False,
    "trials.instructions": "clean",
}
"""Fields of an evaluation that are null where the models say what they were trained with
(`pokevla.evaluation.conditions`), with the value that stands for null where no model says so. It was the default before
models could, and is what null is hashed as."""


class _Absent:
    """Value of a field that a recipe does not have."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Any = _Absent()


def plain_values(recipe: BaseModel) -> dict[str, Any]:
    """All values of a recipe as JSON types, defaults included, by their names in the file. `paths_as_written` is there
    only in the recipe of a run or job."""
    values = recipe.model_dump(mode="json", by_alias=True)
    if not values.get(AS_WRITTEN, True):
        del values[AS_WRITTEN]
    return {"kind": values.pop("kind"), **values} if "kind" in values else values


def flat_values(recipe: BaseModel) -> dict[str, Any]:
    """All values by dotted field: `{"batch.micro": 2, "data.datasets.0.path": ...}`, without `paths_as_written`."""

    def walk(value: Any, path: str) -> dict[str, Any]:
        if isinstance(value, dict) and value:
            items = list(value.items())
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            items = list(enumerate(value))
        else:
            return {path: value}
        parts = [walk(item, f"{path}.{key}" if path else str(key)) for key, item in items]
        return {name: leaf for part in parts for name, leaf in part.items()}

    return walk({name: value for name, value in plain_values(recipe).items() if name != AS_WRITTEN}, "")


def is_neutral(field: str) -> bool:
    """Whether a dotted field may change when a run is resumed."""
    return any(field == name or field.startswith(f"{name}.") for name in NEUTRAL)


def learnt_values(recipe: BaseModel) -> dict[str, Any]:
    """Values that identify a run: `plain_values` without neutral fields and without unused fields of `ADDED`, with
    paths as the original recipe spelled them, and with `DEFAULTS_WITHOUT_MODEL` in the place of null."""
    values = plain_values(recipe)
    spelled = values.pop(AS_WRITTEN, {})
    if spelled:
        values = _respelled(values, "", spelled)
    for name, default in DEFAULTS_WITHOUT_MODEL.items():
        *sections, last = name.split(".")
        for owner in _owners(values, sections):
            if isinstance(owner, dict) and last in owner and owner[last] is None:
                owner[last] = default
    for name in (*NEUTRAL, *ADDED):
        *sections, last = name.split(".")
        for owner in _owners(values, sections):
            is_there = isinstance(owner, dict) and last in owner  # a cache recipe's `batch` is a number
            if is_there and (name in NEUTRAL or owner[last] == ADDED[name]):
                del owner[last]
    return values


def _owners(values: Any, sections: Sequence[str]) -> Iterator[Any]:
    """The values at a dotted path; `*` is every entry of a list."""
    if not sections:
        yield values
    elif sections[0] == "*":
        for entry in values if isinstance(values, list) else ():
            yield from _owners(entry, sections[1:])
    elif isinstance(values, dict):
        yield from _owners(values.get(sections[0]), sections[1:])


def _respelled(value: Any, field: str, spelled: Mapping[str, str]) -> Any:
    """`value` with the texts of `spelled`, by dotted field; null stays null."""
    if isinstance(value, dict):
        return {key: _respelled(part, f"{field}.{key}".lstrip("."), spelled) for key, part in value.items()}
    if isinstance(value, list):
        return [_respelled(part, f"{field}.{index}", spelled) for index, part in enumerate(value)]
    return value if value is None else spelled.get(field, value)


def neutral_settings(recipe: BaseModel) -> dict[str, Any]:
    """Values of the fields that may change when a run is resumed, by dotted field; without those of `ADDED` that have
    the earlier behaviour's value."""
    return {
        field: value
        for field, value in flat_values(recipe).items()
        if is_neutral(field) and (field not in ADDED or value != ADDED[field])
    }


def resumable_settings(recipe: BaseModel) -> dict[str, Any]:
    """`neutral_settings` and the length of the training: what a resume may change."""
    return {**neutral_settings(recipe), **{name: getattr(recipe, name) for name in LENGTH}}


def differences(*sides: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Fields whose values differ between the sides, each with its value on every side.

    `sides` are flat values of recipes, or any other mappings. The order is that of the first side, then of later ones.
    If a side lacks a field, its value there is ABSENT.
    """
    names = dict.fromkeys(name for side in sides for name in side)
    rows = {name: [side.get(name, ABSENT) for side in sides] for name in names}
    return {name: row for name, row in rows.items() if any(value != row[0] for value in row[1:])}


def learnt_differences(before: BaseModel, after: BaseModel) -> list[str]:
    """Dotted fields that differ between two recipes and are neither neutral nor the length nor a mere location, so that
    they cannot be one run."""
    differing = differences(flat_values(before), flat_values(after))
    return [name for name in differing if not (is_neutral(name) or name in LENGTH or LOCATIONS.fullmatch(name))]


def describe_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """All changed settings in one phrase: `batch.micro 2 -> 1, resources.cpu_ranks 2 -> 4`; empty if there are none."""
    return ", ".join(
        f"{name} {value_text(old)} -> {value_text(new)}" for name, (old, new) in differences(before, after).items()
    )


def value_text(value: Any) -> str:
    """A value as text for a person: strings unchanged, everything else as JSON."""
    return value if isinstance(value, str) else "absent" if value is ABSENT else json.dumps(value)
