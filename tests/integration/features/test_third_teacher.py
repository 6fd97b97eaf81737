"""A teacher from outside the package: cached by `pokevla cache`, read into a batch, and used in training."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pokevla.cli.main import run
from pokevla.data.loader import build_loader
from pokevla.data.mixture import open_mixture
from pokevla.data.samples import RobotSampleMaker
from pokevla.embodiment.libero import LIBERO
from pokevla.features.codec import dequantise
from pokevla.features.encoding import image_source, read_images
from pokevla.features.feature_reader import open_features
from pokevla.model.tokenizers.loading import MINI_TOKENIZER, load_tokenizer
from pokevla.parts import TEACHERS
from pokevla.recipe.load import load_recipe
from pokevla.recipe.schema import PosttrainRecipe
from pokevla.teachers.teacher import build_teacher
from pokevla.training.objectives.objective import PosttrainObjective
from pokevla.weights.base_model import build_base
from tests.toys import RECIPE, write_toy_dataset

CACHE = """\
kind: cache
name: features
extensions: [toy_teacher]
dataset: {dataset}
batch: 4
cache:
  root: {cache}
  sam: {sam}
  vggt: {{preset: tiny}}
  teachers: [{{kind: toy, preset: only, seed: 3, codec: fp16}}]
"""


@pytest.fixture(autouse=True)
def toy_parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the folder of `toy_teacher` on the path, as PYTHONPATH would. Its entry is removed after the test."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "toy_parts"))
    yield
    TEACHERS.pop("toy", None)
    sys.modules.pop("toy_teacher", None)


def write_recipe(tmp_path: Path, dataset: Path, sam: str = "{preset: tiny}") -> Path:
    path = tmp_path / "cache.yaml"
    path.write_text(CACHE.format(dataset=dataset, cache=tmp_path / "cache", sam=sam))
    return path


def test_cache_command_stores_the_fields_of_a_third_teacher(
    dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, dataset_root)
    assert run(["cache", "build", str(recipe)]) == 0
    assert "toy only, 16 x 6 and 1 x 4 x 4 a view, random weights" in capsys.readouterr().out
    assert run(["cache", "info", str(recipe), "--json"]) == 0
    (info,) = json.loads(capsys.readouterr().out)
    assert info["fields"][2:] == [
        {"name": "toy", "teacher": "toy", "shape": [2, 16, 6], "dtype": "float16", "codec": "fp16"},
        {"name": "toy_depth", "teacher": "toy", "shape": [2, 1, 4, 4], "dtype": "float16", "codec": "fp16"},
    ]
    assert run(["cache", "verify", str(recipe)]) == 0
    assert "toy 1.0" in capsys.readouterr().out
    assert run(["cache", "info", str(recipe), "cache.teachers.0.seed=4"]) == 3
    assert "toy.weights is `random (seed 3)" in capsys.readouterr().err


def test_cache_without_sam_holds_the_others_only(
    dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, dataset_root, sam="null")
    assert run(["cache", "build", str(recipe)]) == 0
    capsys.readouterr()
    assert run(["cache", "info", str(recipe), "--json"]) == 0
    (info,) = json.loads(capsys.readouterr().out)
    assert [field["name"] for field in info["fields"]] == ["vggt", "toy", "toy_depth"]


def test_features_of_a_third_teacher_reach_the_batch_and_the_geometry_loss(tmp_path: Path) -> None:
    root = write_toy_dataset(tmp_path / "dataset")
    assert run(["cache", "build", str(write_recipe(tmp_path, root))]) == 0
    path = tmp_path / "posttrain.yaml"
    text = RECIPE.format(name="x", output=tmp_path / "runs", dataset=root, cache=tmp_path / "cache")
    path.write_text(f"{text}extensions: [toy_teacher]\n")
    teachers = "cache.teachers=[{kind: toy, preset: only, seed: 3, codec: fp16}]"
    losses = ["loss.geometry_features=toy", "model.geometry_width=6", "loss.segmentation.weight=0"]
    recipe = load_recipe(path, [teachers, *losses]).recipe
    assert isinstance(recipe, PosttrainRecipe)
    assert recipe.cache is not None
    mixture = open_mixture(recipe.data, "robot")
    (dataset,) = mixture.datasets
    features = open_features(recipe.cache, mixture.datasets)
    samples = RobotSampleMaker(mixture, recipe.seed, load_tokenizer(MINI_TOKENIZER), 28, None, features)
    with build_loader(recipe, mixture, samples, rank=0, world_size=1, start_position=0) as loader:
        batch = next(loader)
    assert list(batch.features) == ["sam", "vggt", "toy", "toy_depth"]

    keys = dataset.samples["key"].to_pylist()
    rows = [keys.index(key) for key in batch.keys]
    images = torch.from_numpy(read_images(image_source(dataset), rows))
    fresh = build_teacher(recipe.cache.teachers[0]).encode(images)
    for name in ("toy", "toy_depth"):
        torch.testing.assert_close(dequantise(batch.features[name]), fresh[name], rtol=1e-3, atol=1e-3)

    objective = PosttrainObjective(build_base(recipe, LIBERO), recipe.loss)  # pyright: ignore[reportArgumentType]
    total, logged = objective(batch)
    total.backward()
    assert 0 < float(logged["loss/geometry"]) < 2
    assert objective.model.geometry_projector.fc2.weight.grad is not None


def test_the_recipe_of_the_docs_loads(tmp_path: Path, repository: Path) -> None:
    page = (repository / "docs" / "cache.md").read_text()
    shown = page.split("## Another teacher")[1].split("```yaml\n")[1].split("```")[0]
    path = tmp_path / "posttrain.yaml"
    training = RECIPE.format(name="x", output=tmp_path, dataset="d", cache="cache")
    base = tmp_path / "base.yaml"
    base.write_text(training)
    path.write_text(f"extends: base.yaml\n{shown}")
    recipe = load_recipe(path).recipe
    assert isinstance(recipe, PosttrainRecipe)
    assert recipe.cache is not None
    assert list(recipe.cache.all_teachers) == ["cache.sam", "cache.teachers.0"]
