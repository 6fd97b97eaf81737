"""What would fail a rank later and can be known before is found before, all of it at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.numpy import save_file

from pokevla.embodiment.libero import LIBERO
from pokevla.errors import CacheMismatchError, CheckpointError, DataError, PokeVLAError, RecipeError
from pokevla.files.checksums import with_checksum
from pokevla.jobs.checks.start import check_start
from pokevla.recipe.load import LoadedRecipe, load_recipe
from tests.published_prismatic import random_prismatic, write_towers
from tests.published_sam import write_official
from tests.toys import RECIPE, write_toy_dataset


def export(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True)
    save_file({"weight": np.zeros(100, np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"kind": "pokevlm", "preset": "tiny", **config}))
    return folder


def test_a_sound_recipe_passes(load, tmp_path: Path) -> None:
    assert check_start(load(f"model.vlm={export(tmp_path / 'vlm')}")) == []


def test_the_base_model_is_a_vlm_of_the_same_preset(load, tmp_path: Path) -> None:
    robot, other = export(tmp_path / "robot", kind="pokevla"), export(tmp_path / "other", preset="mini")
    with pytest.raises(CheckpointError, match=r"is a PokeVLA; model\.vlm takes a PokeVLM"):
        check_start(load(f"model.vlm={robot}"))
    with pytest.raises(CheckpointError, match=r"PokeVLM of preset mini, model\.preset is tiny"):
        check_start(load(f"model.vlm={other}"))


def test_the_mask_decoders_of_model_sam_fit_the_preset(load, tmp_path: Path) -> None:
    recipe = tmp_path / "robot.yaml"
    dataset, cache = write_toy_dataset(tmp_path / "toy", episodes=3), tmp_path / "cache"
    recipe.write_text(RECIPE.format(name="robot", output=tmp_path, dataset=dataset, cache=cache))
    write_official(tmp_path / "sam.pth")
    torch.save({"mask_decoder.iou_token.weight": torch.zeros(1, 7)}, tmp_path / "other.pth")

    def problems(name: str) -> list[str]:
        with pytest.raises(PokeVLAError) as caught:  # the cache is missing in any case
            check_start(load_recipe(recipe, [f"model.sam={tmp_path}/{name}"]))
        return [line for line in str(caught.value).splitlines() if "model.sam" in line]

    assert problems("sam.pth") == []
    assert "mask_decoder.iou_token.weight has shape (1, 7), our " in problems("other.pth")[0]
    assert "none.pth does not exist. Get it with `pokevla models get sam`" in problems("none.pth")[0]
    with pytest.raises(RecipeError, match=r"model\.sam starts the mask decoders of post-training"):
        load("model.sam=sam.pth")


def test_what_model_initial_names_is_of_its_kind(load, tmp_path: Path) -> None:
    towers = write_towers(random_prismatic(), tmp_path)
    assert check_start(load(f"model.initial.dino={towers['dino']}", f"model.initial.siglip={towers['siglip']}")) == []
    write_official(tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match=r"sam\.pth"):
        check_start(load(f"model.initial.dino={tmp_path}/sam.pth"))
    with pytest.raises(CheckpointError, match=r"attn\.proj\.bias has shape \(16,\), our .* has \(24,\)"):
        check_start(load(f"model.initial.siglip={towers['dino']}"))
    with pytest.raises(DataError, match=r"none\.pth does not exist"):
        check_start(load(f"model.initial.dino={tmp_path}/none.pth"))


@pytest.mark.parametrize("size", [0, 5, 200])
def test_truncated_weights_are_found(load, tmp_path: Path, size: int) -> None:
    weights = export(tmp_path / "vlm") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(DataError, match=r"model\.vlm: .*model\.safetensors (is empty|cannot be read)"):
        check_start(load(f"model.vlm={weights.parent}"))


def test_a_text_for_the_queries_fits_them(load) -> None:
    check_start(load("model.query_text=move"))
    with pytest.raises(RecipeError, match=r"model\.query_text is \d+ tokens long, the model has 4 action queries"):
        check_start(load("model.query_text=move the arm to the red cube and close the gripper"))


def test_a_split_without_samples_is_found(load, dataset: Path) -> None:
    parquet.write_table(pa.table({"split": ["val"] * 40}), dataset / "samples.parquet")
    with pytest.raises(DataError, match="has no sample of split `train`"):
        check_start(load())


def test_everything_is_told_at_once_and_nothing_twice(load, dataset: Path, tmp_path: Path) -> None:
    (dataset / "shards" / "toy-00000.idx").unlink()
    robot = export(tmp_path / "robot", kind="pokevla")
    (robot / "model.safetensors").write_bytes(b"")
    overrides = [f"model.vlm={robot}", f"model.tokenizer={tmp_path}/nowhere", "batch.global=7"]
    with pytest.raises(PokeVLAError) as caught:
        check_start(load(*overrides))
    lines = str(caught.value).splitlines()
    for words in ("batch.global", "model.tokenizer", "toy-00000.idx is missing", "is a PokeVLA", "is empty"):
        assert sum(words in line for line in lines) == 1, words
    assert all(line.startswith("walk: ") for line in lines)

    (dataset / "dataset.json").unlink()
    with pytest.raises(PokeVLAError) as caught:
        check_start(load())
    assert str(caught.value).count("is not a dataset") == 1


def test_a_cache_that_is_missing_or_of_another_teacher_is_one_line(tmp_path: Path) -> None:
    recipe = tmp_path / "robot.yaml"
    dataset, cache = write_toy_dataset(tmp_path / "toy", episodes=3), tmp_path / "cache"
    recipe.write_text(RECIPE.format(name="robot", output=tmp_path, dataset=dataset, cache=cache))
    with pytest.raises(DataError) as missing:
        check_start(load_recipe(recipe))
    (cache / "other").mkdir(parents=True)
    (cache / "other" / "COMPLETE").touch()
    manifest = {"fingerprint": "other", "parts": {"sam": "x"}, "num_samples": 0, "payload_bytes": 0}
    manifest |= {"schema_version": 2, "fields": [], "shards": [], "random": {}, "teachers": {}, "versions": {}}
    (cache / "other" / "manifest.json").write_text(json.dumps({**manifest, "origin": {}, "note": None}))
    with pytest.raises(CacheMismatchError) as other:
        check_start(load_recipe(recipe))
    for caught, words in ((missing, "does not exist. Build it with: pokevla cache build"), (other, "differs:")):
        (line,) = str(caught.value).splitlines()
        assert words in line


def evaluation(tmp_path: Path, policy: Path, *overrides: str) -> LoadedRecipe:
    recipe = tmp_path / "evaluation.yaml"
    recipe.write_text(
        f"kind: eval\nname: e\noutput: {tmp_path}/runs\ntrials: {{suite: libero_goal, tasks: [0]}}\n"
        f"policies: [{{name: ours, kind: model, run: {policy}}}]\n"
    )
    return load_recipe(recipe, list(overrides))


def test_an_evaluation_that_shows_other_images_than_those_of_training_is_refused(tmp_path: Path) -> None:
    policy = export(
        tmp_path / "policy",
        kind="pokevla",
        embodiment=LIBERO.to_dict(),
        trained_on={"image_size": [128], "fast_rendering": [False], "instructions": ["task"]},
    )
    with pytest.raises(RecipeError, match=r"e: policies: ours was trained with image_size 128, these trials have 256"):
        check_start(evaluation(tmp_path, policy, "image_size=256"))
    (taken,) = check_start(evaluation(tmp_path, policy, "image_size=128"))
    assert taken == "fast_rendering false: as ours was trained."
    (_, remark) = check_start(evaluation(tmp_path, policy, "image_size=256", "accept_differences=[image_size]"))
    assert remark.endswith("Accepted by accept_differences.")


def test_an_evaluation_says_what_it_takes_from_its_models_and_waits_for_those_in_training(tmp_path: Path) -> None:
    policy = export(
        tmp_path / "policy", kind="pokevla", embodiment=LIBERO.to_dict(),
        trained_on={"image_size": [128], "fast_rendering": [True], "instructions": ["task"]},
    )  # fmt: skip
    assert check_start(evaluation(tmp_path, policy)) == ["image_size 128, fast_rendering true: as ours was trained."]
    assert check_start(evaluation(tmp_path, tmp_path / "later"), made_before=[tmp_path / "later"]) == []


def test_datasets_that_differ_in_what_a_policy_sees_are_remarked_on(tmp_path: Path) -> None:
    cache, datasets = tmp_path / "cache", []
    for name, recorded in (("one", {"image_size": [128]}), ("two", {"image_size": [256], "instructions": ["file"]})):
        dataset = write_toy_dataset(tmp_path / name, episodes=3)
        info = json.loads((dataset / "dataset.json").read_text())
        del info["xxh64"]
        (dataset / "dataset.json").write_text(json.dumps(with_checksum({**info, "recorded": recorded})))
        datasets.append(dataset)
    recipe = tmp_path / "robot.yaml"
    recipe.write_text(RECIPE.format(name="robot", output=tmp_path, dataset=datasets[0], cache=cache))
    paths = f"data.datasets=[{{path: {datasets[0]}}}, {{path: {datasets[1]}}}]"
    off = ("loss.segmentation.weight=0", "loss.geometry=0", "cache=null", paths)
    remarks = check_start(load_recipe(recipe, off))
    assert f"the datasets differ in image_size: {datasets[0]} 128, {datasets[1]} 256." in remarks
    assert any("instructions are in the words of the source files" in remark for remark in remarks)
