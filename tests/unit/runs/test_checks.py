"""Checks of what a recipe names."""

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from pokevla.embodiment.libero import LIBERO
from pokevla.errors import DataError, DiskFullError, EnvironmentSetupError, PokeVLAError, RecipeError
from pokevla.parts import METRIC_SINKS
from pokevla.recipe.load import load_recipe
from pokevla.runs.checks import check_recipe
from pokevla.runs.directory import remark_on_existing_run


def make_dataset(root: Path, kind: str = "robot", samples: int = 100, masks: bool = True) -> Path:
    root.mkdir(parents=True)
    fields = ["base.jpg", "json", "wrist.jpg", *(["base.mask.png", "wrist.mask.png"] if masks else [])]
    info = {
        "schema_version": 1,
        "kind": kind,
        "num_samples": samples,
        "fingerprint": "f",
        "fields": fields,
        "shards": {},
    }
    (root / "dataset.json").write_text(json.dumps(info))
    return root


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe of which all is there."""
    make_dataset(tmp_path / "data")
    (tmp_path / "cache" / "abcd").mkdir(parents=True)
    (tmp_path / "cache" / "abcd" / "COMPLETE").touch()
    path = tmp_path / "x.yaml"
    path.write_text(
        f"""kind: posttrain
name: x
output: {tmp_path}/runs
data: {{datasets: [{{path: {tmp_path}/data}}]}}
optim: {{lr: 1e-4}}
batch: {{global: 8, micro: 4}}
steps: 10
cache: {{root: {tmp_path}/cache}}
"""
    )
    return path


def test_a_sink_whose_package_is_missing_is_refused(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sink:
        package = "no_such_package"

    monkeypatch.setitem(METRIC_SINKS, "lab", Sink)
    error = problem(recipe, "log.sinks=[jsonl, lab]")
    assert isinstance(error, EnvironmentSetupError)
    assert "lab needs the package no_such_package" in str(error)


def problem(path: Path, *overrides: str) -> PokeVLAError:
    with pytest.raises(PokeVLAError) as caught:
        check_recipe(load_recipe(path, overrides, {}))
    return caught.value


def test_sound_recipe_passes_and_random_teachers_are_remarked_on(recipe: Path) -> None:
    remarks = check_recipe(load_recipe(recipe, (), {}))

    assert "cache.sam is a teacher with random weights: its features carry no knowledge." in remarks


def test_missing_dataset_tells_the_command_that_makes_it(recipe: Path) -> None:
    error = problem(recipe, "data.datasets=[{path: nowhere}]")

    assert isinstance(error, DataError)
    assert "x: nowhere is not a dataset: dataset.json is missing. Make one with: pokevla data convert" in str(error)


def test_dataset_of_another_kind_is_refused(recipe: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path / "vlm", "vlm")

    assert "is a vlm dataset, this recipe needs robot" in str(
        problem(recipe, f"data.datasets=[{{path: {tmp_path}/vlm}}]")
    )


def test_dataset_without_masks_is_refused_where_masks_are_supervised(recipe: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path / "published", masks=False)
    published = f"data.datasets=[{{path: {tmp_path}/published}}]"

    error = problem(recipe, published)

    assert (type(error), error.exit_code) == (DataError, 3)
    assert "published has no masks" in str(error)
    assert "`pokevla data masks`" in str(error)
    assert "loss.segmentation.weight=0" in str(error)
    check_recipe(load_recipe(recipe, [published, "loss.segmentation.weight=0"], {}))


def test_damaged_dataset_file_is_told(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "dataset.json").write_text("{")

    assert "dataset.json is damaged: not JSON" in str(problem(recipe))


def test_missing_and_incomplete_cache_tell_the_command_that_builds_it(recipe: Path, tmp_path: Path) -> None:
    assert f"Build it with: pokevla cache build {recipe}" in str(problem(recipe, "cache.root=nowhere"))

    (tmp_path / "cache" / "abcd" / "COMPLETE").unlink()

    assert "holds no complete cache" in str(problem(recipe))


def test_batch_that_does_not_divide_is_refused(recipe: Path) -> None:
    error = problem(recipe, "batch.global=10")

    assert isinstance(error, RecipeError)
    assert "is not a multiple of batch.micro" in str(error)


def test_pocket_needs_its_tokenizer(recipe: Path) -> None:
    overrides = ["model.preset=pocket", "cache.sam.preset=vit_b", "cache.vggt.preset=vggt_1b", "checkpoint.keep_last=1"]

    assert "model.tokenizer is missing" in str(problem(recipe, *overrides))
    assert "nowhere does not exist" in str(problem(recipe, *overrides, "model.tokenizer=nowhere"))


def test_several_problems_are_told_together(recipe: Path) -> None:
    error = problem(recipe, "batch.global=10", "model.vlm=nowhere", "cache.root=nowhere")

    assert len(str(error).splitlines()) == 3
    assert isinstance(error, RecipeError)


def test_disk_that_is_too_small_is_told_before_the_run(recipe: Path) -> None:
    error = problem(recipe, "steps=1000000000", "checkpoint.keep_every_steps=1")

    assert isinstance(error, DiskFullError)
    assert "checkpoints will take" in str(error)


def test_other_number_of_samples_than_expected_is_remarked_on(recipe: Path, tmp_path: Path) -> None:
    split = pa.table({"split": ["train"] * 90 + ["val"] * 10, "episode": [0] * 100, "frame": list(range(100))})
    parquet.write_table(split, tmp_path / "data" / "samples.parquet")
    parquet.write_table(pa.table({"episode": [0], "length": [100]}), tmp_path / "data" / "episodes.parquet")
    override = f"data.datasets=[{{path: {tmp_path}/data, expected_samples: 200}}]"

    assert any("holds 90 samples, the recipe expects 200" in remark
               for remark in check_recipe(load_recipe(recipe, [override], {})))  # fmt: skip


def test_run_that_exists_is_remarked_on(recipe: Path, tmp_path: Path) -> None:
    loaded = load_recipe(recipe, (), {}).recipe
    assert remark_on_existing_run(loaded) == []

    (tmp_path / "runs" / "x").mkdir(parents=True)
    (tmp_path / "runs" / "x" / "manifest.json").touch()

    assert any("pokevla resume" in remark for remark in remark_on_existing_run(loaded))


def test_pipeline_checks_the_recipes_of_its_stages(recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    stage = f"{{name: a, run: [train, {recipe}, 'optim.lr=fast']}}"
    path.write_text(f"kind: pipeline\nname: p\noutput: o\nstages: [{stage}]\n")

    assert "optim.lr should be a number" in str(problem(path))


def test_evaluation_needs_its_runs(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(
        "kind: eval\nname: e\ntrials: {suite: libero_object, tasks: [0]}\n"
        "policies: [{name: a, kind: model, run: nowhere}]\n"
    )

    assert "policy a: run nowhere does not exist" in str(problem(path))


def test_a_run_without_an_exported_model_is_refused_before_the_job_starts(tmp_path: Path) -> None:
    path, run = tmp_path / "e.yaml", tmp_path / "run"
    run.mkdir()
    path.write_text(
        "kind: eval\nname: e\ntrials: {suite: libero_object, tasks: [0]}\n"
        f"policies: [{{name: a, kind: model, run: {run}}}]\n"
    )

    error = problem(path)

    assert isinstance(error, DataError)
    assert f"policy a: run {run} holds no exported model" in str(error)
    assert f"pokevla resume {run}" in str(error)

    (run / "export").mkdir()
    (run / "export" / "model.safetensors").touch()

    assert check_recipe(load_recipe(path, (), {})) == []

    other = dataclasses.replace(LIBERO, name="three-eyes", views=("base", "wrist", "side"))
    (run / "export" / "config.json").write_text(json.dumps({"embodiment": other.to_dict()}))
    assert "policies: a drives the embodiment three-eyes, trials.environment simulates libero: views" in str(
        problem(path)
    )


def test_a_task_beyond_the_suite_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(
        "kind: eval\nname: e\ntrials:\n  suite: libero_goal\n  tasks: [9, 10]\n"
        "policies: [{name: a, kind: model, run: r}]\n"
    )

    error = problem(path)

    assert isinstance(error, RecipeError)
    assert "e.yaml:5: trials.tasks: libero_goal has no task 10. It has 0 to 9." in str(error)


@pytest.mark.parametrize(
    ("output", "name", "relation"), [("data/runs", "x", "lies in"), (".", "data", "is"), (".", "cache", "is")]
)
def test_a_run_is_not_written_into_what_it_reads(recipe: Path, output: str, name: str, relation: str) -> None:
    error = problem(recipe, f"output={recipe.parent / output}", f"name={name}")
    assert error.exit_code == 2
    assert f"/{name} {relation} the source {recipe.parent}" in str(error) or f"/{name} is its source" in str(error)
