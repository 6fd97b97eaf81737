"""The resolved recipe that a run directory holds."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.files.labels import name_problem
from pokevla.recipe.dump import dump_recipe
from pokevla.recipe.load import AnyRecipe, LoadedRecipe, load_recipe
from pokevla.recipe.schema import GroundingRecipe, PipelineRecipe


def written_and_read(recipe: AnyRecipe) -> AnyRecipe:
    """The recipe of the file that a run directory would hold."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(dump_recipe(LoadedRecipe(recipe, Path("x"), {})), encoding="utf-8")
        return load_recipe(path, (), {}).recipe


TEXT = """kind: posttrain
name: x
data: {datasets: [{path: ${DATA}/a}, {path: "b c: #d", weight: 1e-7}], system_prompt: "two\\nlines"}
optim: {lr: 1e-4}
batch: {global: 8, micro: 4}
steps: 150_000
cache: {root: c}
"""


def test_dump_loads_to_the_same_recipe_without_bases_or_variables(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(TEXT)
    (tmp_path / "x.yaml").write_text("extends: base.yaml\nname: y\n")
    loaded = load_recipe(tmp_path / "x.yaml", ["optim.lr=3e-4"], {"DATA": "/d"})
    (tmp_path / "recipe.yaml").write_text(dump_recipe(loaded))

    again = load_recipe(tmp_path / "recipe.yaml", (), {})

    assert again.recipe == loaded.recipe
    assert "extends" not in dump_recipe(loaded)


def test_each_line_tells_the_origin(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(TEXT)

    lines = {
        line.split(":")[0].strip(): line
        for line in dump_recipe(load_recipe(path, ["steps=3"], {"DATA": ""})).splitlines()
    }

    assert lines["lr"].endswith(f"# {path}:4")
    assert lines["steps"].endswith("# override")
    assert lines["betas"].endswith("# default")


@pytest.mark.parametrize(
    "name",
    [
        "null",
        "true",
        "1e-4",
        "0x1F",
        "~",
        "-",
        "a b",
        "#",
        "${HOME}",
        "${a${b}$${",
        "${\n}",
        "${\x01",
        "${\\",
        "...",
        "é",
        "\x85",
        "😀",
    ],
)
def test_awkward_text_survives(name: str) -> None:
    model = name if name_problem(name) is None else "a"
    recipe = GroundingRecipe(kind="grounding", name="g", dataset=Path("d"), runs={model: Path(name)})

    assert written_and_read(recipe) == recipe


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")), min_size=1))
def test_any_text_survives(words: list[str]) -> None:
    stages = [{"name": "a", "run": words}]
    recipe = PipelineRecipe.model_validate({"kind": "pipeline", "name": "p", "output": "o", "stages": stages})

    assert written_and_read(recipe) == recipe
