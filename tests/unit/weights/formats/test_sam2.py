"""SAM 2's image encoder in transformers' layout: imported, exported again bit for bit, the rest left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Sam2Config, Sam2Model, Sam2VideoConfig, Sam2VideoModel

from pokevla.errors import CheckpointError
from pokevla.recipe.sections import TeacherConfig
from pokevla.teachers.sam2 import sam2_sizes
from pokevla.teachers.teacher import build_teacher
from pokevla.weights.conversion.exporting import export_weights
from pokevla.weights.formats.sam2 import ENCODER, NO_MEMORY, PUBLISHED_SIZES, SAM2, vision_config
from tests.published_sam import bring_in, same_bits


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small `Sam2Model` as transformers saves it."""
    folder = tmp_path_factory.mktemp("sam2") / "hf"
    torch.manual_seed(0)
    model = Sam2Model(Sam2Config(vision_config=vision_config(sam2_sizes("tiny"))))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    return folder


def of_the_encoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name.startswith(ENCODER) or name == NO_MEMORY}


def test_the_image_encoder_comes_back_bit_for_bit(published: Path, tmp_path: Path) -> None:
    bring_in("sam2", published, tmp_path / "ours")
    export_weights("sam2", tmp_path / "ours", tmp_path / "again")
    given = load_file(published / "model.safetensors")
    assert same_bits(load_file(tmp_path / "again/model.safetensors"), of_the_encoder(given))
    ignored = json.loads((tmp_path / "ours/source.json").read_text())["ignored"]
    assert ignored.keys() == given.keys() - of_the_encoder(given).keys()


def test_transformers_config_is_written_for_a_model_of_ours(published: Path, tmp_path: Path) -> None:
    bring_in("sam2", published, tmp_path / "ours")
    (tmp_path / "ours/source.json").unlink()
    content = json.loads((tmp_path / "ours/config.json").read_text())
    del content["files"], content["xxh64"]
    (tmp_path / "ours/config.json").write_text(json.dumps(content))
    export_weights("sam2", tmp_path / "ours", tmp_path / "hf")
    bring_in("sam2", tmp_path / "hf", tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text())["model"] == content["model"]


@pytest.mark.parametrize("place", ["hf", "ours"])
def test_the_teacher_reads_published_folders_and_what_import_wrote(published: Path, tmp_path: Path, place: str) -> None:
    weights = published if place == "hf" else bring_in("sam2", published, tmp_path / "ours")
    teacher = build_teacher(TeacherConfig(kind="sam2", preset="tiny", weights=weights))
    expected = of_the_encoder(load_file(published / "model.safetensors"))
    assert same_bits(dict(teacher.module.state_dict()), expected)


def test_names_of_the_published_video_model_are_all_known(tmp_path: Path) -> None:
    with torch.device("meta"):
        state = Sam2VideoModel(Sam2VideoConfig(vision_config=vision_config(PUBLISHED_SIZES["hiera_tiny"]))).state_dict()
    shapes = SAM2.shapes(PUBLISHED_SIZES["hiera_tiny"])
    small = {name: torch.zeros(1) for name in state if name not in shapes}
    assert {name: tuple(value.shape) for name, value in state.items() if name in shapes} == dict(shapes)
    save_file({**small, "unheard_of": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"holds unheard_of of shape \(2,\), which .* does not have\."):
        bring_in("sam2", tmp_path / "model.safetensors", tmp_path / "ours", preset="hiera_tiny")


@pytest.mark.parametrize(
    ("name", "millions"),
    [("hiera_tiny", 38.9), ("hiera_small", 46.0), ("hiera_base_plus", 80.8), ("hiera_large", 224.4)],
)
def test_models_of_the_published_sizes_count_as_published(name: str, millions: float) -> None:
    """github.com/facebookresearch/sam2, README.md, the table of SAM 2.1."""
    with torch.device("meta"):
        model = Sam2VideoModel(Sam2VideoConfig(vision_config=vision_config(PUBLISHED_SIZES[name])))
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_a_config_that_means_another_computation_is_refused(published: Path, tmp_path: Path) -> None:
    source = tmp_path / "hf"
    source.mkdir()
    (source / "model.safetensors").write_bytes((published / "model.safetensors").read_bytes())
    content = json.loads((published / "config.json").read_text())
    content["vision_config"]["backbone_config"]["mlp_ratio"] = 2.0
    (source / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"mlp_ratio is 2\.0, only 4\.0 is supported"):
        bring_in("sam2", source, tmp_path / "ours")
