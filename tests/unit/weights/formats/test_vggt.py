"""VGGT's aggregator as published: imported, exported again bit for bit, its heads left out with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pokevla.errors import CheckpointError
from pokevla.recipe.sections import TeacherConfig
from pokevla.teachers.teacher import build_teacher
from pokevla.teachers.vggt import vggt_config
from pokevla.teachers.vggt_aggregator import VGGTEncoder
from pokevla.weights.conversion.exporting import export_weights
from pokevla.weights.formats.vggt import PUBLISHED_SIZES, shapes
from tests.published_sam import bring_in, same_bits

HEADS = {
    "camera_head.token_norm.weight": torch.ones(4),
    "depth_head.norm.weight": torch.ones(4),
    "point_head.projects.0.weight": torch.ones(2, 3, 1, 1),
    "track_head.tracker.corr_mlp.fc1.bias": torch.ones(5),
}


def write_published(folder: Path, **changes: Tensor) -> dict[str, Tensor]:
    folder.mkdir()
    torch.manual_seed(0)
    aggregator = VGGTEncoder(vggt_config("tiny")).state_dict()
    save_file({**aggregator, **HEADS, **changes}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"img_size": 42}')
    return dict(aggregator)


def test_the_aggregator_comes_back_bit_for_bit(tmp_path: Path) -> None:
    aggregator = write_published(tmp_path / "vggt")
    bring_in("vggt", tmp_path / "vggt", tmp_path / "ours")
    export_weights("vggt", tmp_path / "ours", tmp_path / "again")
    assert same_bits(load_file(tmp_path / "again/model.safetensors"), aggregator)
    assert json.loads((tmp_path / "again/config.json").read_text()) == {"img_size": 42}
    record = json.loads((tmp_path / "ours/source.json").read_text())
    assert record["ignored"].keys() == HEADS.keys()


def test_names_and_shapes_of_vggt_1b_are_those_of_the_teacher() -> None:
    with torch.device("meta"):
        state = VGGTEncoder(vggt_config("vggt_1b")).state_dict()
    assert shapes(PUBLISHED_SIZES["vggt_1b"]) == {name: tuple(value.shape) for name, value in state.items()}


@pytest.mark.parametrize("place", ["vggt/model.safetensors", "vggt", "ours"])
def test_the_teacher_reads_published_files_and_what_import_wrote(tmp_path: Path, place: str) -> None:
    aggregator = write_published(tmp_path / "vggt")
    bring_in("vggt", tmp_path / "vggt", tmp_path / "ours")
    teacher = build_teacher(TeacherConfig(kind="vggt", preset="tiny", weights=tmp_path / place))
    assert same_bits(dict(teacher.module.state_dict()), aggregator)


def test_a_head_that_is_not_known_is_refused(tmp_path: Path) -> None:
    write_published(tmp_path / "vggt", new_head=torch.zeros(3))
    with pytest.raises(CheckpointError, match=r"holds new_head of shape \(3,\)"):
        bring_in("vggt", tmp_path / "vggt", tmp_path / "ours")


def test_a_file_without_an_aggregator_is_refused(tmp_path: Path) -> None:
    save_file(HEADS, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="this is not VGGT"):
        bring_in("vggt", tmp_path / "model.safetensors", tmp_path / "ours")
