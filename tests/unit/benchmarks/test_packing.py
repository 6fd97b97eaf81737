"""The benchmark of packed sequences measures what it says."""

from __future__ import annotations

import pytest

from benchmarks.packing import GLOBAL, LAYOUTS, Batches, differences, padding, speed, tokens_of
from benchmarks.readers.pictures import write_questions
from pokevla.data.batch import VLMBatch
from pokevla.model.building import build_vlm
from pokevla.model.presets import preset
from pokevla.training.objectives.objective import PretrainObjective

CONFIG = preset("tiny").vlm


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[VLMBatch]]:
    root = write_questions(tmp_path_factory.mktemp("questions") / "vlm", GLOBAL)
    return {layout: Batches(root, layout, CONFIG).of_step(0) for layout in LAYOUTS}


def test_packed_sequences_have_next_to_no_padding(batches: dict[str, list[VLMBatch]]) -> None:
    real = {tokens_of(each, CONFIG.num_patches)[0] for each in batches.values()}
    assert len(real) == 1
    rows = padding({layout: [each] for layout, each in batches.items()}, CONFIG.num_patches)
    shares = {row["name"].split("/")[-1]: row["value"] for row in rows}
    assert shares["packed"] <= 3
    assert shares["packed_rows"] <= 3
    assert shares["packed_rows"] < shares["grouped"] < shares["padded"]
    rows_of = {layout: {b.packing.row[-1].item() for b in batches[layout] if b.packing} for layout in batches}
    assert rows_of["packed"] == {0}
    assert min(rows_of["packed_rows"]) > 0


def test_losses_and_speeds_of_all_layouts_are_compared(batches: dict[str, list[VLMBatch]]) -> None:
    objective = PretrainObjective(build_vlm(CONFIG, seed=0))
    found = differences(objective, batches)
    assert [row["name"].split("/")[-1] for row in found] == [name for name in LAYOUTS if name != "padded"]
    assert all(row["value"] <= 1e-5 and row["gradients"] <= 1e-4 for row in found)
    rows = speed(objective, {name: batches[name][:2] for name in ("padded", "packed")}, 1)
    assert len(rows) == 4
    assert all(row["value"] > 0 for row in rows)
