"""The paper's two recipes are one chain: what pre-training exports is what post-training starts from."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokevla.cli.main import run
from pokevla.packaged_recipes import FOLDER
from pokevla.recipe.load import load_recipe
from pokevla.recipe.schema import PosttrainRecipe, PretrainRecipe
from pokevla.runs.checks import PRISMATIC_FILE, PRISMATIC_FOLDER, PRISMATIC_MODELS
from pokevla.runs.directory import run_directory
from pokevla.weights.published.models import MODELS, published_model


@pytest.fixture
def variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    given = {name: str(tmp_path / name.lower()) for name in ("POKEVLA_DATA", "POKEVLA_MODELS", "POKEVLA_RUNS")}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return given


@pytest.mark.parametrize("suite", ["libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_plus"])
def test_post_training_starts_from_the_run_of_pre_training(suite: str, variables: dict[str, str]) -> None:
    first = load_recipe(FOLDER / "pretrain/paper.yaml", (), variables).recipe
    second = load_recipe(FOLDER / f"posttrain/{suite}.yaml", (), variables).recipe
    assert isinstance(first, PretrainRecipe)
    assert isinstance(second, PosttrainRecipe)
    assert second.model.vlm == run_directory(first)
    assert second.model.vlm in first.result_folders


def test_the_chain_is_submitted_in_one_command(variables: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is there but the recipes, so the checks name what is missing: for the first job also its VLM."""
    code = run(["submit", "pretrain/paper", "--then", "posttrain/libero_spatial", "--dry-run"])
    shown, errors = capsys.readouterr()
    assert code == 3
    assert shown.count("# ---- ") == 2
    assert "libero_spatial: model.vlm" not in errors
    assert f"pokevlm: model.vlm {variables['POKEVLA_MODELS']}/prismatic does not exist." in errors


def test_a_missing_vlm_is_answered_with_the_commands_that_make_it(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(["validate", "pretrain/paper"])
    models, errors = variables["POKEVLA_MODELS"], capsys.readouterr().err
    assert f"pokevla models get prismatic dinov2 siglip qwen2.5-0.5b --to {models} && " in errors
    assert (
        f"pokevla model import prismatic {models}/{PRISMATIC_FOLDER} {models}/prismatic --with dino={models}/dinov2 "
        f"--with siglip={models}/siglip --with tokenizer={models}/qwen2.5-0.5b" in errors
    )


def test_published_weights_in_the_place_of_an_import_are_told_apart(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(variables["POKEVLA_MODELS"]) / "prismatic" / PRISMATIC_FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    run(["validate", "pretrain/paper"])
    assert "holds Prismatic's published weights, not an export of ours. Import them" in capsys.readouterr().err


def test_the_commands_name_the_folders_of_the_published_models() -> None:
    assert {model.name for model in MODELS} >= set(PRISMATIC_MODELS)
    assert published_model("prismatic").folder == PRISMATIC_FOLDER
    assert PRISMATIC_FILE in [file.name for file in published_model("prismatic").files]
    assert [published_model(name).folder for name in PRISMATIC_MODELS[1:]] == ["dinov2", "siglip", "qwen2.5-0.5b"]
