"""Vision towers as timm publishes them come in at their own image size, and go out bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pokevla.errors import CheckpointError
from pokevla.model.presets import preset
from pokevla.weights.conversion.exporting import export_weights
from pokevla.weights.conversion.importing import import_weights, open_source
from pokevla.weights.conversion.weight_format import ImportRequest
from pokevla.weights.formats.timm_vit import TIMM
from tests.published_prismatic import DINO_FILE_SIZE, random_prismatic, write_towers


@pytest.mark.parametrize(("name", "image_size"), [("dino", DINO_FILE_SIZE), ("siglip", 28)])
def test_round_trip_keeps_position_embeddings_of_another_image_size(tmp_path: Path, name: str, image_size: int) -> None:
    place = write_towers(random_prismatic(), tmp_path)[name]
    import_weights(ImportRequest("timm", open_source("timm", place)), tmp_path / "ours")
    assert json.loads((tmp_path / "ours/config.json").read_text())["model"]["image_size"] == image_size
    export_weights("timm", tmp_path / "ours", tmp_path / "again")
    given, back = (load_file(folder / "model.safetensors") for folder in (place, tmp_path / "again"))
    assert given.keys() == back.keys()
    assert all(torch.equal(given[key], back[key]) for key in given)


def test_a_file_alone_is_enough_and_the_mask_token_is_left_out(tmp_path: Path) -> None:
    state = load_file(write_towers(random_prismatic(), tmp_path)["dino"] / "model.safetensors")
    torch.save({**state, "mask_token": torch.zeros(1, 16)}, tmp_path / "dinov2.pth")
    report = import_weights(ImportRequest("timm", open_source("timm", tmp_path / "dinov2.pth")), tmp_path / "ours")
    assert report.ignored == {"mask_token": "used only by DINOv2's own training"}


def test_positions_that_are_no_square_grid_are_refused(tmp_path: Path) -> None:
    place = write_towers(random_prismatic(), tmp_path)["siglip"] / "model.safetensors"
    save_file({**load_file(place), "pos_embed": torch.zeros(1, 5, 24)}, place)
    with pytest.raises(CheckpointError, match=r"pos_embed has shape \(1, 5, 24\), which is no square grid"):
        import_weights(ImportRequest("timm", open_source("timm", place)), tmp_path / "ours")


def test_full_size_towers_have_the_published_number_of_parameters() -> None:
    for tower, count in ((preset("pocket").vlm.dino, 303_230_976), (preset("pocket").vlm.siglip, 427_680_704)):
        assert sum(torch.Size(shape).numel() for shape in TIMM.shapes(tower).values()) == count
