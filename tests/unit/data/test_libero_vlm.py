from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from pokevla.data.dataset import Dataset, open_dataset
from pokevla.data.inspection import contact_sheet, verify_dataset
from pokevla.data.prompts import INSTRUCTION_TEMPLATE, vla_prompt, vlm_prompt
from pokevla.data.reader import ShardReader
from pokevla.data.records import parse_boxes, parse_choice, parse_points
from pokevla.data.sources.libero_vlm import LiberoVLMSettings, convert_libero_vlm
from pokevla.data.sources.pictures import snapped_centroid
from pokevla.errors import DataError, UsageError


@pytest.fixture(scope="module")
def vlm_dataset(
    tmp_path_factory: pytest.TempPathFactory, write_libero: Callable[..., Path], write_scenes: Callable[..., Path]
) -> Dataset:
    """Questions about scenes, demonstrations, and objects from another task's file."""
    folder = tmp_path_factory.mktemp("vlm")
    scenes = write_scenes(folder / "libero_object_scenes.hdf5", count=20)
    suite = folder / "libero_object"
    demos = write_libero(suite / "pick_up_the_milk_and_place_it_in_the_basket_demo.hdf5", demos=2, side=64)
    other = write_libero(suite / "pick_up_the_ketchup_and_place_it_in_the_basket_demo.hdf5", demos=1, frames=4)
    with h5py.File(other, "a") as file:
        file["data"].attrs["instances"] = json.dumps(["ketchup_1", "basket_1", "salad_dressing_1"])
    settings = LiberoVLMSettings([scenes, demos, other], folder / "out", per_image=8, frame_stride=2)
    return open_dataset(convert_libero_vlm(settings))


def rows(dataset: Dataset, **values: str) -> list[dict[str, Any]]:
    all_rows = [dict(row, row=i) for i, row in enumerate(dataset.samples.to_pylist())]
    return [row for row in all_rows if all(row[k] == v for k, v in values.items())]


def test_all_categories_are_there_in_equal_shares(vlm_dataset: Dataset) -> None:
    counts = vlm_dataset.info["categories"]
    assert set(counts) == {"general", "grounding", "affordance", "reasoning"}
    assert min(counts.values()) > 0.8 * max(counts.values())
    tasks = set(vlm_dataset.samples["task"].to_pylist())
    assert tasks >= {"object_point", "object_box", "grasp_point", "place_point", "compare_side", "compare_depth"}
    assert tasks >= {"act_on", "judge_side", "name_at_point", "count_visible", "is_visible"}
    assert verify_dataset(vlm_dataset.root) == vlm_dataset.samples.num_rows


def test_every_point_lies_inside_its_region(vlm_dataset: Dataset) -> None:
    reader = ShardReader(vlm_dataset)
    points = rows(vlm_dataset, answer_kind="point")
    assert len(points) > 50
    for row in points:
        mask = np.asarray(Image.open(io.BytesIO(reader.read(row["row"])["mask.png"])))
        ((x, y),) = parse_points(row["answer"])
        assert mask[int(y * row["height"]), int(x * row["width"])]


def test_the_policy_s_own_question_is_answered_by_the_object_it_names(vlm_dataset: Dataset) -> None:
    asked = rows(vlm_dataset, task="act_on")
    assert asked
    for row in asked:
        match = re.fullmatch(r"pick up the (.+) and place it in the (.+)", _instruction(row["question"]))
        assert match is not None
        assert match[1] != match[2]
        assert "basket" not in match[1]
        assert vlm_prompt(row["question"], None) == vla_prompt(_instruction(row["question"]), None)


def _instruction(question: str) -> str:
    head, tail = INSTRUCTION_TEMPLATE.split("{instruction}")
    return question.removeprefix(head).removesuffix(tail)


def test_every_box_is_the_tight_one(vlm_dataset: Dataset) -> None:
    reader = ShardReader(vlm_dataset)
    for row in rows(vlm_dataset, answer_kind="box"):
        mask = np.asarray(Image.open(io.BytesIO(reader.read(row["row"])["mask.png"])))
        ys, xs = np.nonzero(mask)
        tight = [xs.min() / row["width"], ys.min() / row["height"], (xs.max() + 1) / row["width"]]
        assert parse_boxes(row["answer"])[0][:3] == pytest.approx(tight, abs=1e-3)


def test_choices_are_true_and_letters_balanced(vlm_dataset: Dataset) -> None:
    # In the synthetic images, from left to right: bbq sauce, milk, basket; milk is highest.
    place = {"bbq sauce": 0, "milk": 1, "basket": 2}
    asked = [r for r in rows(vlm_dataset, task="compare_side") if "ketchup" not in r["question"]]
    asked = [r for r in asked if "salad" not in r["question"]]
    for row in asked:
        question = row["question"]
        options = {letter: question.split(f"({letter}) ")[1].split(" (")[0].split(".")[0] for letter in "AB"}
        side = min if "left" in question.replace(options["A"], "") else max
        letter = parse_choice(row["answer"])
        assert options[str(letter)] == side(options.values(), key=lambda name: place[name])
    letters = Counter(r["answer"] for r in rows(vlm_dataset, answer_kind="choice"))
    assert set(letters) == {"A", "B"}
    assert min(letters.values()) > 0.35 * sum(letters.values())
    shown = Counter(r["answer"] for r in rows(vlm_dataset, task="is_visible"))
    assert set(shown) == {"yes", "no"}


def test_yes_and_no_are_true(vlm_dataset: Dataset) -> None:
    for row in rows(vlm_dataset, task="is_visible"):
        if row["key"].startswith("libero_object-s"):
            present = any(name in row["question"] for name in ("milk", "basket", "bbq sauce"))
            assert row["answer"] == ("yes" if present else "no")


def test_depth_is_asked_only_where_all_stand_on_the_table(vlm_dataset: Dataset) -> None:
    for row in rows(vlm_dataset, task="compare_depth"):
        assert row["key"].split("-")[1].startswith("s")
        assert "-base-" in row["key"]


def test_splits_and_initial_states_come_from_the_source(vlm_dataset: Dataset) -> None:
    held_out = {key.split("-q")[0] for key in (r["key"] for r in rows(vlm_dataset, split="val"))}
    assert {"libero_object-s00019-base", "libero_object-s00019-wrist"} <= held_out
    assert not any("-s" in key and "s00019" not in key for key in held_out)
    by_file = {s["file"]: s for s in vlm_dataset.info["sources"]}
    assert by_file["pick_up_the_milk_and_place_it_in_the_basket_demo.hdf5"]["init_states"] == [0, 2]
    assert by_file["libero_object_scenes.hdf5"]["init_states"] == [5, 8]


def test_a_sheet_of_questions_can_be_drawn(vlm_dataset: Dataset) -> None:
    assert contact_sheet(vlm_dataset, range(4)).size[1] > 4 * 192


def test_weights_change_the_shares(tmp_path: Path, scenes_file: Callable[..., Path]) -> None:
    weights = {"grounding": 2.0, "affordance": 1.0, "reasoning": 0.0, "general": 1.0}
    root = convert_libero_vlm(LiberoVLMSettings([scenes_file()], tmp_path / "a", category_weights=weights))
    counts = open_dataset(root).info["categories"]
    assert counts["grounding"] == pytest.approx(2 * counts["affordance"], abs=2)
    assert "reasoning" not in counts
    with pytest.raises(UsageError, match="category weights"):
        convert_libero_vlm(LiberoVLMSettings([scenes_file()], tmp_path / "b", category_weights={"grounding": 0.0}))


def test_two_conversions_are_byte_identical(tmp_path: Path, scenes_file: Callable[..., Path]) -> None:
    source = scenes_file()
    roots = [convert_libero_vlm(LiberoVLMSettings([source], tmp_path / name)) for name in ("a", "b")]
    first, second = ({p.name: p.read_bytes() for p in root.rglob("*") if p.is_file()} for root in roots)
    assert first == second


def test_files_without_masks_or_keys_are_named(
    tmp_path: Path, libero_file: Callable[..., Path], scenes_file: Callable[..., Path]
) -> None:
    with pytest.raises(DataError, match="no instance masks"):
        convert_libero_vlm(LiberoVLMSettings([libero_file(ours=False)], tmp_path / "out"))
    source = scenes_file()
    with h5py.File(source, "a") as file:
        del file["masks"]
    with pytest.raises(DataError, match=r"_scenes\.hdf5: `masks` is missing"):
        convert_libero_vlm(LiberoVLMSettings([source], tmp_path / "out"))


def test_the_centroid_of_a_ring_is_moved_onto_it() -> None:
    y, x = np.mgrid[:33, :33]
    ring = np.abs(np.hypot(x - 16, y - 16) - 12) < 2
    px, py = snapped_centroid(ring)
    assert ring[int(py * 33), int(px * 33)]
