"""Every head and baseline trains at size tiny, resumes bit for bit, is exported and acts."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pokevla.distributed.process import spawn_ranks
from pokevla.recipe.load import load_recipe
from pokevla.recipe.schema import PosttrainRecipe

TREE = Path(__file__).resolve().parents[3] / "recipes"
VARIABLES = {"POKEVLA_DATA": "/data", "POKEVLA_MODELS": "/models"}
BASELINES = {path.stem: f"baselines/{path.stem}" for path in sorted((TREE / "baselines").glob("*.yaml"))}
HEADS = {"full_bridge": {"head": "bridge"}, "full_oft": {"head": "oft"}}  # with masks and geometry
NAMES = [*BASELINES, *HEADS]
HEAD_CLASSES = {"poke": "ActionHead", "bridge": "BridgeHead", "oft": "OFTHead"}


def tiny(extends: str, name: str, folder: Path, dataset: Path, cache: Path, model: dict[str, Any]) -> dict[str, Any]:
    """A recipe of the tree at size tiny, in fp32 on one CPU rank."""
    whole = load_recipe(TREE / f"{extends}.yaml", (), VARIABLES).recipe
    assert isinstance(whole, PosttrainRecipe)
    if whole.model.geometry_layer is not None:
        model = {**model, "geometry_layer": 1}
    teachers = {kind: {"preset": "tiny", "weights": None, "precision": "fp32"} for kind in ("sam", "vggt")}
    return {
        "extends": str(TREE / f"{extends}.yaml"),
        "name": name,
        "output": str(folder),
        "data": {"datasets": [{"path": str(dataset)}], "train_split": "train", "system_prompt": None},
        "model": {"preset": "tiny", "vlm": None, "sam": None, "tokenizer": None, **model},
        # With one cache for all, built with both teachers.
        "cache": {"root": str(cache), **teachers} if whole.cache is not None else None,
        "optim": {"lr": 3e-3, "warmup_fraction": 0.1},
        "batch": {"global": 8, "micro": 8},
        "steps": 12,
        "precision": "fp32",
        "zero": {"stage": 0},
        "checkpoint": {"keep_every_steps": None},
        "resources": {"gpus_per_node": 0, "cpu_ranks": 1},
    }


@pytest.fixture(scope="module")
def results(
    repository: Path,
    toy_dataset: Path,
    write_recipe: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """The report of all recipes."""
    out = tmp_path_factory.mktemp("rivals")
    toy = load_recipe(write_recipe("rivals", out)).recipe
    assert isinstance(toy, PosttrainRecipe)
    assert toy.cache is not None
    recipes = []
    for name in NAMES:
        extends = BASELINES.get(name, "posttrain/libero_plus")
        content = tiny(extends, name, out, toy_dataset, toy.cache.root, HEADS.get(name, {}))
        recipes.append(out / f"{name}.yaml")
        recipes[-1].write_text(json.dumps(content))  # JSON is YAML
    spawn_ranks(
        (str(repository / "tests/integration/training/rival_scenarios.py"), str(out), *map(str, recipes)),
        world_size=1,
        threads=1,
        log_dir=out / "logs",
        environment={**os.environ, "PYTHONPATH": str(repository), **VARIABLES},
    )
    return json.loads((out / "results.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_finite_and_fall(results: dict[str, Any], name: str) -> None:
    losses = results[name]["losses"]
    assert all(map(math.isfinite, losses))
    assert sum(losses[-3:]) < 0.98 * sum(losses[:3])


@pytest.mark.parametrize("name", NAMES)
def test_resuming_changes_no_bit(results: dict[str, Any], name: str) -> None:
    outcome = results[name]
    assert outcome["resumed_losses"] == outcome["losses"][6:]
    assert outcome["fingerprints"][0] == outcome["fingerprints"][1]


@pytest.mark.parametrize("name", NAMES)
def test_exported_policy_acts(results: dict[str, Any], name: str) -> None:
    outcome = results[name]
    assert outcome["shape"] == [3, 8, 7]
    assert outcome["finite"]
    assert outcome["batch_difference"] < 1e-5
    assert outcome["sees_proprio"] > 1e-6
    recipe = load_recipe(TREE / f"{BASELINES.get(name, 'posttrain/libero_plus')}.yaml", (), VARIABLES).recipe
    assert isinstance(recipe, PosttrainRecipe)
    head = HEADS.get(name, {}).get("head", recipe.model.head)
    assert outcome["head"] == HEAD_CLASSES[head]
