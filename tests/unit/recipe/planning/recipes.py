"""Recipes that a plan is made of."""

from __future__ import annotations

from typing import Any

from pokevla.recipe.schema import PosttrainRecipe, PretrainRecipe

COMMON: dict[str, Any] = {
    "name": "x",
    "data": {"datasets": [{"path": "nowhere"}]},
    "model": {"preset": "pocket"},
    "optim": {"lr": 1e-4},
    "batch": {"global": 64, "micro": 8},
    "steps": 100,
    "resources": {"gpus_per_node": 8},
}
PUBLISHED_TEACHERS = {"root": "c", "sam": {"preset": "vit_b"}, "vggt": {"preset": "vggt_1b"}}


def pretrain(**fields: Any) -> PretrainRecipe:
    return PretrainRecipe.model_validate(COMMON | {"kind": "pretrain"} | fields)


def posttrain(**fields: Any) -> PosttrainRecipe:
    return PosttrainRecipe.model_validate(COMMON | {"kind": "posttrain", "cache": PUBLISHED_TEACHERS} | fields)


def trained(mode: str, **fields: Any) -> dict[str, Any]:
    """Fields of a recipe that trains all three parts of the VLM in one mode."""
    lora = {"lora": {"rank": 4}} if mode == "lora" else {}
    return {"trainable": dict.fromkeys(("vision", "projector", "language_model"), mode), **lora, **fields}
