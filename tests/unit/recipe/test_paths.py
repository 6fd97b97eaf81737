"""Path fields: expanded when they are read, written so that they are read again, absolute for a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pokevla.errors import RecipeError
from pokevla.recipe.dump import dump_absolute, dump_recipe
from pokevla.recipe.load import load_recipe, recipe_hash
from pokevla.recipe.paths import paths_of
from pokevla.recipe.schema import GroundingRecipe, PosttrainRecipe
from tests.unit.recipe.test_load import EVAL, POSTTRAIN, write

HOME = {"HOME": "/people/me", "DATA": "~/data"}


def test_home_and_variables_are_expanded_in_every_path_field(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        POSTTRAIN.replace("path: d", "path: ~/d").replace("root: c", "root: $HOME/c")
        + "output: ${DATA}/runs\nmodel: {vlm: ~/v, tokenizer: ${HOME}/t}\n",
    )
    recipe = load_recipe(path, ["cache.sam.weights=$HOME/w"], HOME).recipe
    assert {field: str(value).removeprefix("/people/me/") for field, value in paths_of(recipe).items()} == {
        "output": "data/runs",
        "data.datasets.0.path": "d",
        "model.vlm": "v",
        "model.tokenizer": "t",
        "cache.root": "c",
        "cache.sam.weights": "w",
    }


def test_a_base_is_found_by_home_and_variables(tmp_path: Path) -> None:
    write(tmp_path, POSTTRAIN, "base.yaml")
    for spelled in ("~/base.yaml", "$HOME/base.yaml", "${HOME}/base.yaml"):
        recipe = load_recipe(write(tmp_path, f"extends: {spelled}\n"), (), {"HOME": str(tmp_path)}).recipe
        assert recipe.name == "x"
    with pytest.raises(RecipeError, match=r"x.yaml:1: extends: .*variable NOWHERE, which is not set"):
        load_recipe(write(tmp_path, "extends: $NOWHERE/base.yaml\n"), (), {})


def test_an_unknown_variable_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"x.yaml:5: policies.0.run: .* variable NOWHERE, which is not set"):
        load_recipe(write(tmp_path, EVAL.replace("run: r", 'run: "$NOWHERE/r"')), (), {})


@pytest.mark.parametrize("odd", ["a$b", "~x", "${X}", "$$", "[1] *?#: 'x\"", "p\u00e4th\u2028", "a\nb", "..."])
def test_an_odd_path_is_written_so_that_it_is_read_again(tmp_path: Path, odd: str) -> None:
    loaded = load_recipe(write(tmp_path, POSTTRAIN), (), {})
    recipe = loaded.recipe.model_copy(update={"output": Path(odd)})
    dumped = dump_recipe(replace(loaded, recipe=recipe))
    assert load_recipe(write(tmp_path, dumped, "again.yaml"), (), {}).recipe == recipe


def test_absolute_paths_keep_the_hash_and_only_add_a_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, POSTTRAIN.replace("path: d", "path: ../d"))
    monkeypatch.chdir(tmp_path)
    loaded = load_recipe(path, (), {})
    dumped = dump_absolute(loaded)
    again = load_recipe(write(tmp_path, dumped, "again.yaml"), (), {})
    assert isinstance(again.recipe, PosttrainRecipe)
    assert all(found.is_absolute() for found in paths_of(again.recipe).values())
    assert again.recipe.paths_as_written == {"output": "runs", "data.datasets.0.path": "../d", "cache.root": "c"}
    assert recipe_hash(again.recipe) == recipe_hash(loaded.recipe)
    assert "paths_as_written" not in dump_recipe(loaded)
    other = load_recipe(tmp_path / "again.yaml", ["data.datasets.0.path=/other"], {}).recipe
    assert recipe_hash(other) != recipe_hash(loaded.recipe), "another dataset is another recipe"


def test_names_with_dots_are_not_taken_for_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "kind: grounding\nname: g\ndataset: vlm\nruns: {v1.0: r, v2.0: null}\n"
    loaded = load_recipe(write(tmp_path, text), (), {})
    again = load_recipe(write(tmp_path, dump_absolute(loaded), "again.yaml"), (), {}).recipe
    assert isinstance(again, GroundingRecipe)
    assert again.runs == {"v1.0": tmp_path / "r", "v2.0": None}
    assert recipe_hash(again) == recipe_hash(loaded.recipe)


def test_a_url_names_data_and_stays_as_it_is(tmp_path: Path) -> None:
    text = POSTTRAIN.replace("path: d", "path: s3://${BUCKET}/d").replace("root: c", "root: https://h.org/c")
    loaded = load_recipe(write(tmp_path, text), (), {"BUCKET": "b"})
    paths = paths_of(loaded.recipe)
    assert [str(paths[name]) for name in ("data.datasets.0.path", "cache.root")] == ["s3://b/d", "https://h.org/c"]
    absolute = dump_absolute(loaded)
    assert "s3://b/d" in absolute
    again = load_recipe(write(tmp_path, absolute, "again.yaml"), (), {}).recipe
    assert isinstance(again, PosttrainRecipe)
    assert str(again.data.datasets[0].path) == "s3://b/d"
    assert recipe_hash(again) == recipe_hash(loaded.recipe)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("path: d", "path: https://me:secret@h.org/d"), r"datasets.0.path: .*holds credentials"),
        (("path: d", "path: s3://b/d?X-Amz-Signature=secret"), r"datasets.0.path: .*has a query"),
        (("root: c", "root: http://h.org/c"), r"cache.root: .*not encrypted"),
        (("name: x", "name: x\noutput: s3://b/runs"), r"output: .*a URL can name a dataset or a cache"),
    ],
)
def test_other_urls_are_refused_without_showing_a_secret(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        load_recipe(write(tmp_path, POSTTRAIN.replace(*change)), (), {})
    assert "secret@" not in str(caught.value)
    assert "=secret" not in str(caught.value)
