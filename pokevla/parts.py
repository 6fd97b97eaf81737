"""The parts a recipe can name: one table per kind of part.

An entry is the part itself, or a string `module:attribute` that is imported when the part is built. So the tables cost
nothing to import, and checking a recipe loads neither torch nor the simulator. A module listed under `extensions` in a
recipe adds its own entries:

    from pokevla.parts import ACTION_HEADS

    ACTION_HEADS["my_head"] = MyHead

The docstring below each table says what its entries must provide.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from pokevla.errors import RecipeError

ACTION_HEADS: dict[str, Any] = {
    "poke": "pokevla.model.heads.poke:ActionHead",
    "bridge": "pokevla.model.heads.bridge:BridgeHead",
    "oft": "pokevla.model.heads.oft:OFTHead",
}
"""(ActionHeadConfig, hidden size D) -> module. Its forward maps one `HeadCondition` per head layer and the projected
proprio (B, 1, D) to normalised actions (B, K, A). `model.head` of a recipe."""

LANGUAGE_MODELS: dict[str, Any] = {
    "qwen2": "pokevla.model.language_models:build_qwen2",
    "llama": "pokevla.model.language_models:build_llama",
}
"""LanguageModelConfig -> a causal language model of transformers with random weights. `model.language_model`."""

VISION_TOWERS: dict[str, Any] = {"timm_vit": "pokevla.model.vision_encoders.towers:TIMM_VIT"}
"""A `VisionTower` (pokevla.model.vision_encoders.towers): how to build a tower and read its weights. `kind` of a
`VisionTowerConfig`."""

TEACHERS: dict[str, Any] = {
    "sam": "pokevla.teachers.sam:SAM",
    "vggt": "pokevla.teachers.vggt:VGGT",
    "sam2": "pokevla.teachers.sam2:SAM2",
}
"""A `TeacherDefinition` (pokevla.teachers.teacher): a frozen encoder with its sizes and the feature fields it outputs.
`kind` of a teacher in `cache.teachers`; `cache.sam` and `cache.vggt` are the entries with these names."""

WEIGHT_FORMATS: dict[str, Any] = {
    "prismatic": "pokevla.weights.formats.prismatic:PRISMATIC",
    "qwen2": "pokevla.weights.formats.qwen2:QWEN2",
    "openvla-oft": "pokevla.weights.formats.vla_checkpoints:OPENVLA_OFT",
    "vla-adapter": "pokevla.weights.formats.vla_checkpoints:VLA_ADAPTER",
    "sam": "pokevla.weights.formats.sam:SAM",
    "sam2": "pokevla.weights.formats.sam2:SAM2",
    "vggt": "pokevla.weights.formats.vggt:VGGT",
    "timm": "pokevla.weights.formats.timm_vit:TIMM",
}
"""A `WeightFormat` (pokevla.weights.conversion.weight_format): published files with a table of names. KIND of `pokevla
model import` and `pokevla model export`."""

POLICIES: dict[str, Any] = {
    "pokevla": "pokevla.policy.policy:Policy",
    "openvla-oft": "pokevla.policy.published:PublishedPolicy",
    "vla-adapter": "pokevla.policy.published:PublishedPolicy",
}
"""A class with the methods of `pokevla.policy.policy.Policy`: `from_pretrained(folder, device)`, `act`, `blanked` and
others, for models of this `kind` in their config.json, exported or imported."""

OPTIMIZERS: dict[str, Any] = {"adamw": "pokevla.training.optimizer:build_adamw"}
"""(parameter groups, OptimConfig) -> optimizer. `optim.name`. The groups are the matrices and the vectors of the model,
each with its weight decay. The optimizer must keep their order, which is part of a checkpoint. The memory estimate of
`pokevla plan`, and resuming with another number of ranks, assume two moments per weight, as in AdamW."""

METRIC_SINKS: dict[str, Any] = {
    "jsonl": "pokevla.telemetry.writers:JsonlSink",
    "tensorboard": "pokevla.telemetry.tensorboard:TensorBoardSink",
    "wandb": "pokevla.telemetry.weights_and_biases:WandbSink",
}
"""(run directory, step that the run resumes from or None) -> `MetricSink` (pokevla.telemetry.writers). The attribute
`package` of an entry names a package it requires. `log.sinks`."""

ENVIRONMENTS: dict[str, Any] = {
    "libero": "pokevla.simulation.libero:LIBERO",
    "libero_plus": "pokevla.simulation.libero_plus.benchmark:LIBERO_PLUS",
}
"""A `Benchmark` (pokevla.simulation.benchmark): a simulator with its task suites. `trials.environment`."""

EMBODIMENTS: dict[str, Any] = {"libero": "pokevla.embodiment.libero:LIBERO"}
"""An `Embodiment` (pokevla.embodiment.description): a robot's views, proprio and actions. A dataset stores the whole
description; `Benchmark.embodiment` names an entry."""

LAUNCHERS: dict[str, Any] = {"slurm": "slurm.slurm_launcher:SLURM", "local": "pokevla.jobs.local:LOCAL_LAUNCHER"}
"""A `Launcher` (pokevla.jobs.launcher): starts jobs, reports their state and stops them. `pokevla submit
--launcher NAME`."""

DATA_SOURCES: dict[str, Any] = {
    "libero": "pokevla.cli.data_verbs.converters:convert_libero",
    "libero-vlm": "pokevla.cli.data_verbs.converters:convert_libero_vlm",
    "rlds": "pokevla.cli.data_verbs.recordings:convert_rlds",
    "hdf5": "pokevla.cli.data_verbs.recordings:convert_hdf5",
    "lerobot": "pokevla.cli.data_verbs.recordings:convert_lerobot",
    "llava": "pokevla.cli.data_verbs.curation:convert_llava",
    "robopoint": "pokevla.cli.data_verbs.curation:convert_robopoint",
    "refspatial": "pokevla.cli.data_verbs.curation:convert_refspatial",
    "refspatial-reasoning": "pokevla.cli.data_verbs.curation:convert_refspatial_reasoning",
    "roborefit": "pokevla.cli.data_verbs.curation:convert_roborefit",
    "robospatial": "pokevla.cli.data_verbs.curation:convert_robospatial",
    "hova-ego4d": "pokevla.cli.data_verbs.curation:convert_hova_ego4d",
    "hova-epic100": "pokevla.cli.data_verbs.curation:convert_hova_epic100",
    "molmoact": "pokevla.cli.data_verbs.curation:convert_molmoact",
    "cosmos": "pokevla.cli.data_verbs.curation:convert_cosmos",
}
"""A function that writes a dataset directory (`pokevla.data.writer.DatasetWriter`). Its parameters become the arguments
and options of `pokevla data convert NAME`, as typer interprets them."""


def import_extensions(modules: Iterable[str]) -> None:
    """Import the modules that a recipe lists; they add entries to the tables above.

    Raises:
        RecipeError: one cannot be imported.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise RecipeError(
                f"extensions: the module {name} cannot be imported ({error}).",
                "Install it, or put its folder into PYTHONPATH.",
            ) from error


def unknown_part(name: str, table: Mapping[str, Any]) -> str | None:
    """A sentence with the nearest name and all known names if the table has no entry `name`; otherwise None."""
    if name in table:
        return None
    nearest = difflib.get_close_matches(name, table, n=1)
    hint = f" Did you mean {nearest[0]}?" if nearest else ""
    return f"there is no {name!r}.{hint} Known: {', '.join(table)}; modules listed in `extensions` can add others."


def get_part(what: str, name: str, table: Mapping[str, Any]) -> Any:
    """The entry `name` of a table, imported if it is a string. `what` is the name of the part in error messages.

    Raises:
        RecipeError: the table has no such entry.
    """
    unknown = unknown_part(name, table)
    if unknown is not None:
        raise RecipeError(f"{what}: {unknown}")
    entry = table[name]
    if not isinstance(entry, str):
        return entry
    module, _, attribute = entry.partition(":")
    return getattr(importlib.import_module(module), attribute)
