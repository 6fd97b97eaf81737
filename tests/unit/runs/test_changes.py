"""What a run may be resumed with, and that the run directory remembers it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pokevla.errors import DataError, RecipeError, UsageError
from pokevla.recipe.dump import dump_recipe
from pokevla.recipe.load import load_recipe, recipe_hash, recipe_hash_at
from pokevla.recipe.schema import PretrainRecipe
from pokevla.recipe.values import resumable_settings
from pokevla.runs.changes import (
    changed_recipe,
    changes_of_submission,
    keep_changes,
    keep_submission,
    load_run,
    ranks_override,
    refuse_changed_data,
)
from pokevla.runs.creation import create_run, run_lock
from pokevla.runs.directory import read_run_recipe, run_directory
from pokevla.runs.ending import finished_step
from pokevla.runs.length import refuse_finished
from pokevla.training.launch import run_training

RECIPE = """\
kind: pretrain
name: one
output: {output}
data: {{datasets: [{{path: {dataset}}}]}}
model: {{preset: tiny}}
optim: {{lr: 1.0e-3}}
batch: {{global: 12, micro: 2}}
steps: 2
"""
INFO = {"schema_version": 1, "kind": "vlm", "fingerprint": "f", "num_samples": 1, "fields": [], "shards": {}}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run that has not begun."""
    dataset = tmp_path / "data"
    dataset.mkdir()
    (dataset / "dataset.json").write_text(json.dumps(INFO))
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(output=tmp_path / "runs", dataset=dataset))
    loaded = load_recipe(path, ["steps=3"])
    assert isinstance(loaded.recipe, PretrainRecipe)
    return create_run(loaded, loaded.recipe)


def lines_of(run_dir: Path) -> dict[str, str]:
    """First line of each key of recipe.yaml."""
    lines = (run_dir / "recipe.yaml").read_text().splitlines()
    return {line.split(":")[0].strip(): line for line in reversed(lines)}


def test_a_change_of_resources_is_kept_with_its_origin_and_nothing_else_moves(run_dir: Path) -> None:
    before, hash_before = lines_of(run_dir), recipe_hash(read_run_recipe(run_dir))
    keep_changes(run_dir, ["resources.cpu_ranks=3", "batch.micro=1"])
    after = lines_of(run_dir)
    assert after["cpu_ranks"].split() == ["cpu_ranks:", "3", "#", "resume"]
    assert after["micro"].split() == ["micro:", "1", "#", "resume"]
    assert {key for key in after if after[key] != before[key]} == {"cpu_ranks", "micro"}
    assert after["steps"].endswith("# override")
    assert recipe_hash(read_run_recipe(run_dir)) == hash_before


def test_a_second_change_leaves_the_first_as_it_is(run_dir: Path) -> None:
    keep_changes(run_dir, ["resources.cpu_ranks=3"])
    keep_changes(run_dir, ["log.every_steps=5"])
    recipe = read_run_recipe(run_dir)
    assert (recipe.resources.cpu_ranks, recipe.log.every_steps) == (3, 5)
    assert lines_of(run_dir)["cpu_ranks"].endswith("# resume")


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["optim.lr=1"], "optim.lr"),
        (["batch.micro=1", "seed=3", "zero.stage=3"], "seed, zero.stage"),
        (["batch={global: 24, micro: 2}"], "batch.global"),
        (["precision=fp32"], "precision"),
    ],
)
def test_what_changes_what_is_learnt_is_refused_by_name(run_dir: Path, overrides: list[str], named: str) -> None:
    before = (run_dir / "recipe.yaml").read_text()
    with pytest.raises(RecipeError, match=f"^{named} cannot be changed.*resources, batch.micro, log, checkpoint"):
        keep_changes(run_dir, overrides)
    assert (run_dir / "recipe.yaml").read_text() == before


def test_an_override_that_says_what_is_so_already_is_no_change(run_dir: Path) -> None:
    assert changed_recipe(run_dir, ["optim.lr=1e-3"]).optim.lr == 1e-3


def test_a_number_of_ranks_becomes_the_field_that_holds_it(run_dir: Path) -> None:
    recipe = read_run_recipe(run_dir)
    assert ranks_override(recipe, 3) == ["resources.cpu_ranks=3"]
    on_gpus = changed_recipe(run_dir, ["resources={nodes: 2, gpus_per_node: 8}"])
    assert ranks_override(on_gpus, 8) == ["resources.gpus_per_node=4"]
    with pytest.raises(UsageError, match="3 ranks cannot be spread over 2"):
        ranks_override(on_gpus, 3)


def test_a_dataset_that_changed_since_the_run_began_is_refused(run_dir: Path, tmp_path: Path) -> None:
    recipe = read_run_recipe(run_dir)
    refuse_changed_data(run_dir, recipe)
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(INFO | {"fingerprint": "g"}))
    with pytest.raises(DataError, match="has changed since the run started: fingerprint g instead of f"):
        refuse_changed_data(run_dir, recipe)


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_damaged_manifest_is_a_warning_the_checkpoint_has_the_fingerprints_too(
    run_dir: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    if text is None:
        (run_dir / "manifest.json").unlink()
    else:
        (run_dir / "manifest.json").write_text(text)
    refuse_changed_data(run_dir, read_run_recipe(run_dir))
    assert "the datasets are not compared with those of the start" in caplog.text


def submitted(run_dir: Path, *overrides: str) -> PretrainRecipe:
    """The recipe as it is named on the command line once more."""
    recipe = load_recipe(run_dir.parent.parent / "recipe.yaml", ["steps=3", *overrides]).recipe
    assert isinstance(recipe, PretrainRecipe)
    return recipe


def test_a_run_submitted_again_keeps_what_is_new_as_resume_does(run_dir: Path) -> None:
    before, hash_before = lines_of(run_dir), recipe_hash(read_run_recipe(run_dir))
    keep_submission(run_dir, submitted(run_dir))
    assert lines_of(run_dir) == before
    keep_submission(run_dir, submitted(run_dir, "batch.micro=1", "resources.time_limit=01:00:00"))
    after = lines_of(run_dir)
    assert {key for key in after if after[key] != before[key]} == {"micro", "time_limit"}
    assert after["micro"].split() == ["micro:", "1", "#", "resume"]
    assert read_run_recipe(run_dir).resources.time_limit == "01:00:00"
    assert recipe_hash(read_run_recipe(run_dir)) == hash_before


def test_a_submission_that_changes_what_is_learnt_changes_nothing(run_dir: Path) -> None:
    before = (run_dir / "recipe.yaml").read_text()
    with pytest.raises(RecipeError, match=r"^optim\.lr cannot be changed in a run that has started"):
        keep_submission(run_dir, submitted(run_dir, "optim.lr=1", "batch.micro=1"))
    with run_lock(run_dir), pytest.raises(UsageError, match="in use by another process"):
        keep_submission(run_dir, submitted(run_dir, "batch.micro=1"))
    assert (run_dir / "recipe.yaml").read_text() == before


def test_a_run_that_is_being_trained_keeps_its_recipe(run_dir: Path) -> None:
    before = (run_dir / "recipe.yaml").read_text()
    with run_lock(run_dir), pytest.raises(UsageError, match="in use by another process"):
        run_training(run_dir, ["resources.cpu_ranks=1"])
    assert (run_dir / "recipe.yaml").read_text() == before


@pytest.fixture
def spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """A run of a recipe with relative paths, started in `project`, and the hash of that recipe."""
    (tmp_path / "project" / "data").mkdir(parents=True)
    (tmp_path / "project" / "data" / "dataset.json").write_text(json.dumps(INFO))
    (tmp_path / "project" / "recipe.yaml").write_text(RECIPE.format(output="runs", dataset="./data"))
    monkeypatch.chdir(tmp_path / "project")
    loaded = load_recipe(Path("recipe.yaml"))
    assert isinstance(loaded.recipe, PretrainRecipe)
    return create_run(loaded, loaded.recipe).absolute(), recipe_hash(loaded.recipe)


def test_a_run_is_the_same_from_any_working_directory(
    spelled: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, hash_before = spelled
    monkeypatch.chdir("/")
    recipe = read_run_recipe(run_dir)
    assert recipe.data.datasets[0].path == tmp_path / "project" / "data"
    assert f"path: {tmp_path}/project/data" in (run_dir / "recipe.yaml").read_text()
    assert recipe_hash(recipe) == hash_before
    assert json.loads((run_dir / "manifest.json").read_text())["datasets"] == {"data": "f"}
    refuse_changed_data(run_dir, recipe)
    keep_changes(run_dir, ["batch.micro=1"])
    assert recipe_hash(read_run_recipe(run_dir)) == hash_before


def test_a_dataset_may_move_but_not_change(
    spelled: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, hash_before = spelled
    (tmp_path / "project" / "data").rename(tmp_path / "disk")
    monkeypatch.chdir(tmp_path)
    moved = changed_recipe(run_dir, ["data.datasets.0.path=disk"])
    assert (moved.data.datasets[0].path, recipe_hash(moved)) == (tmp_path / "disk", hash_before)
    refuse_changed_data(run_dir, moved)
    keep_changes(run_dir, ["data.datasets.0.path=disk"])
    monkeypatch.chdir("/")
    kept = read_run_recipe(run_dir)
    assert (kept.data.datasets[0].path, recipe_hash(kept)) == (tmp_path / "disk", hash_before)
    (tmp_path / "disk" / "dataset.json").write_text(json.dumps(INFO | {"fingerprint": "g"}))
    with pytest.raises(DataError, match=r"/disk has changed since the run started: fingerprint g instead of f"):
        refuse_changed_data(run_dir, kept)


def test_a_base_model_may_not_move(spelled: tuple[Path, str]) -> None:
    with pytest.raises(RecipeError, match=r"^model\.vlm cannot be changed"):
        changed_recipe(spelled[0], ["model.vlm=/elsewhere"])


def test_a_project_may_move_as_a_whole(
    spelled: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, hash_before = spelled
    (tmp_path / "project").rename(tmp_path / "project2")
    monkeypatch.chdir(tmp_path / "project2")
    recipe = read_run_recipe(Path("runs/one"))
    assert recipe.data.datasets[0].path == tmp_path / "project2" / "data"
    assert recipe_hash(recipe) == hash_before


def test_relative_paths_of_earlier_runs_begin_where_the_run_was_started(
    spelled: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, hash_before = spelled
    (run_dir / "recipe.yaml").write_text(dump_recipe(load_recipe(tmp_path / "project" / "recipe.yaml")))
    assert "paths_as_written" not in (run_dir / "recipe.yaml").read_text()
    monkeypatch.chdir("/")
    recipe = read_run_recipe(run_dir)
    assert recipe.data.datasets[0].path == tmp_path / "project" / "data"
    assert recipe_hash(recipe) == hash_before


def test_the_same_submission_from_another_directory_is_no_change(
    spelled: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, _ = spelled
    before = (run_dir / "recipe.yaml").read_text()
    monkeypatch.chdir("/")
    recipe = load_recipe(tmp_path / "project" / "recipe.yaml", [f"data.datasets.0.path={tmp_path}/project/data"]).recipe
    assert isinstance(recipe, PretrainRecipe)
    keep_submission(run_dir, recipe)
    assert (run_dir / "recipe.yaml").read_text() == before


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_that_a_launcher_starts_respect_the_lock(
    run_dir: Path, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torchrun, or a person with environment variables, starts them."""
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29500}
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    with run_lock(run_dir), pytest.raises(UsageError, match=r"is in use by .*process \d+ on"):
        run_training(run_dir)


def test_the_length_may_change_to_one_beyond_the_steps_that_were_trained(run_dir: Path) -> None:
    before = read_run_recipe(run_dir)
    longer = changed_recipe(run_dir, ["steps=9"])
    assert (longer.steps, recipe_hash_at(longer, resumable_settings(before))) == (9, recipe_hash(before))
    assert recipe_hash(longer) != recipe_hash(before)
    assert recipe_hash_at(longer, {}) == recipe_hash(longer)  # a checkpoint of an earlier version
    in_epochs = changed_recipe(run_dir, ["epochs=90"])
    assert (in_epochs.steps, in_epochs.epochs) == (None, 90)
    keep_changes(run_dir, ["epochs=90"])
    keep_changes(run_dir, ["steps=9"])
    assert (read_run_recipe(run_dir).steps, read_run_recipe(run_dir).epochs) == (9, None)

    (run_dir / "checkpoints" / "step-00000007").mkdir(parents=True)
    (run_dir / "checkpoints" / "step-00000007" / "COMPLETE.json").touch()
    with pytest.raises(
        UsageError, match=r"trained for 7 steps: a length of 7 leaves nothing to train\. Set steps above 7"
    ):
        changed_recipe(run_dir, ["steps=7"])
    assert changed_recipe(run_dir, ["steps=8"]).steps == 8


def test_a_run_that_is_trained_longer_is_no_longer_finished_and_keeps_its_model(run_dir: Path) -> None:
    (run_dir / "checkpoints" / "step-00000003").mkdir(parents=True)
    (run_dir / "checkpoints" / "step-00000003" / "COMPLETE.json").touch()
    (run_dir / "export").mkdir()
    (run_dir / "export" / "config.json").write_text("model")
    keep_changes(run_dir, ["batch.micro=1"])
    assert finished_step(run_dir) == 3
    with pytest.raises(UsageError, match=r"is finished: 3 steps\. Train it longer: steps=N"):
        refuse_finished(run_dir, read_run_recipe(run_dir))

    keep_changes(run_dir, ["steps=9"])

    assert finished_step(run_dir) is None
    assert (run_dir / "export-step-00000003" / "config.json").read_text() == "model"
    refuse_finished(run_dir, read_run_recipe(run_dir))


def test_a_run_directory_is_a_recipe_for_where_it_lies(run_dir: Path, tmp_path: Path) -> None:
    run_dir.rename(tmp_path / "elsewhere")
    loaded = load_run(tmp_path / "elsewhere", ["batch.micro=1"])
    assert run_directory(loaded.recipe) == tmp_path / "elsewhere"
    assert isinstance(loaded.recipe, PretrainRecipe)
    assert list(changes_of_submission(tmp_path / "elsewhere", loaded.recipe)) == ["batch.micro"]
    with pytest.raises(RecipeError, match=r"optim\.lr cannot be changed"):
        load_run(tmp_path / "elsewhere", ["optim.lr=1"])
    with pytest.raises(UsageError, match="not a run"):
        load_run(tmp_path / "data")
