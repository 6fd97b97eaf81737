"""Recipes by name."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from setuptools import build_meta

from pokevla.packaged_recipes import FOLDER, complete_recipe, find_recipe, recipe_names, similar_recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("given", ["demo/long", "demo/long.yaml", "recipes/demo/long.yaml", "recipes/demo/long"])
def test_a_name_is_the_path_in_the_repository(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe(Path(given)) == FOLDER / "demo" / "long.yaml"


@pytest.mark.parametrize("given", ["demo", "demo/none.yaml", "../recipes/demo/long.yaml", "/demo/long", "long"])
def test_what_is_no_name_stays_what_it_is(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe(Path(given)) == Path(given)


def test_the_nearest_name_is_found_with_prefix_and_suffix() -> None:
    assert similar_recipe(Path("recipes/posttrain/libero_gaol.yaml")) == "posttrain/libero_goal"
    assert similar_recipe(Path("nothing")) is None


def test_the_shell_is_offered_names() -> None:
    assert complete_recipe("pretrain/") == ["pretrain/data", "pretrain/paper"]
    assert complete_recipe("") == recipe_names()


def test_a_wheel_holds_every_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    (source / "pokevla").mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE", "recipes"):
        (source / name).symlink_to(ROOT / name)
    (source / "pokevla" / "__init__.py").write_text('__version__ = "0"\n')
    (source / "pokevla" / "recipes").symlink_to("../recipes")
    monkeypatch.chdir(source)
    wheel = tmp_path / build_meta.build_wheel(str(tmp_path))
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".yaml")}
    assert inside == {f"pokevla/recipes/{name}.yaml" for name in recipe_names()}
