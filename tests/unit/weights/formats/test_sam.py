"""SAM in both published layouts: imported, exported again bit for bit, and refused when it does not come out even."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import SamModel

from pokevla.errors import CheckpointError, UsageError
from pokevla.weights.conversion.exporting import export_weights
from pokevla.weights.conversion.name_maps import ours_of
from pokevla.weights.conversion.sources import Source
from pokevla.weights.formats.sam import MATRIX, OFFICIAL_NAMES, PUBLISHED_SIZES, SAM, sizes_of
from tests.published_sam import bring_in, build_official, same_bits, write_official

_DEPTHS = {"vit_b": (768, 12, 12, (2, 5, 8, 11)), "vit_l": (1024, 24, 16, (5, 11, 17, 23)),
           "vit_h": (1280, 32, 16, (7, 15, 23, 31))}  # fmt: skip
_SECOND = "prompt_encoder.shared_embedding.positional_embedding"


def test_a_pth_of_segment_anything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    state = write_official(tmp_path / "sam_vit_t.pth")
    bring_in("sam", tmp_path / "sam_vit_t.pth", tmp_path / "ours")
    export_weights("sam", tmp_path / "ours", tmp_path / "again", ["segment-anything"])
    assert same_bits(torch.load(tmp_path / "again/sam.pth", weights_only=True), state)


@pytest.mark.parametrize("second", [True, False])
def test_a_folder_of_transformers_comes_back_bit_for_bit(tmp_path: Path, second: bool) -> None:
    write_official(tmp_path / "sam.pth")
    bring_in("sam", tmp_path / "sam.pth", tmp_path / "ours")
    export_weights("sam", tmp_path / "ours", tmp_path / "hf", ["hf"])
    given = load_file(tmp_path / "hf/model.safetensors")
    assert torch.equal(given[_SECOND], given[MATRIX])
    if not second:  # as transformers saves it: the matrix once
        del given[_SECOND]
        save_file(given, tmp_path / "hf/model.safetensors")
    bring_in("sam", tmp_path / "hf", tmp_path / "ours2")
    export_weights("sam", tmp_path / "ours2", tmp_path / "again", ["hf"])
    assert same_bits(load_file(tmp_path / "again/model.safetensors"), given)
    config = [json.loads((tmp_path / place / "config.json").read_text()) for place in ("hf", "again")]
    assert config[0] == config[1]


def test_transformers_reads_what_is_exported(tmp_path: Path) -> None:
    state = write_official(tmp_path / "sam.pth")
    bring_in("sam", tmp_path / "sam.pth", tmp_path / "ours")
    export_weights("sam", tmp_path / "ours", tmp_path / "hf", ["hf"])
    model, report = SamModel.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    norm = state["image_encoder.blocks.1.norm2.weight"]
    assert torch.equal(model.vision_encoder.layers[1].layer_norm2.weight, norm)


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
def test_every_tensor_of_the_full_size_files_has_its_place_and_tells_its_size(name: str) -> None:
    with torch.device("meta"):
        published = build_official(
            *_DEPTHS[name], embed_dim=256, grid=64, window=14, patch=16, mlp_dim=2048, decoder_heads=8
        ).state_dict()
    shapes = SAM.shapes(PUBLISHED_SIZES[name])
    named = {name: ours_of(name, OFFICIAL_NAMES) for name in published}
    assert sorted(ours for names in named.values() for ours in names or ()) == sorted(shapes)
    assert all(shapes[named[name][0]] == tuple(value.shape) for name, value in published.items())  # pyright: ignore
    assert len(published) == {"vit_b": 314, "vit_l": 482, "vit_h": 594}[name]
    assert sum(not name.startswith("image_encoder.") for name in published) == 137
    source = Source(Path("file.pth"), "segment-anything", published)  # pyright: ignore[reportArgumentType]
    assert sizes_of(source) == PUBLISHED_SIZES[name]


def edited(tmp_path: Path, name: str, value: Tensor | None) -> Path:
    state = write_official(tmp_path / "sam.pth")
    state.pop(name, None)
    if value is not None:
        state[name] = value
    torch.save(state, tmp_path / "sam.pth")
    return tmp_path / "sam.pth"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mask_decoder.extra.weight", torch.zeros(2, 3), r"holds mask_decoder\.extra\.weight of shape \(2, 3\)"),
        ("prompt_encoder.no_mask_embed.weight", None, r"lacks prompt_encoder\.no_mask_embed\.weight"),
        ("mask_decoder.iou_token.weight", torch.zeros(1, 7), r"iou_token\.weight has shape \(1, 7\).* has \(1, 16\)"),
        ("image_encoder.patch_embed.proj.weight", None, r"no vision_encoder\.patch_embed\.projection\.weight"),
        ("image_encoder.pos_embed", torch.zeros(5), r"vision_encoder\.pos_embed of shape \(5,\): this is not SAM"),
    ],
)
def test_what_does_not_come_out_even_is_named(tmp_path: Path, name: str, value: Tensor | None, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        bring_in("sam", edited(tmp_path, name, value), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_file_of_another_size_than_the_preset_s_is_refused(tmp_path: Path) -> None:
    write_official(tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match=r"pos_embed has shape \(1, 4, 4, 16\), our .* \(1, 64, 64, 768\)"):
        bring_in("sam", tmp_path / "sam.pth", tmp_path / "ours", preset="vit_b")
    with pytest.raises(UsageError, match="SAM has no size 'vit_x'"):
        bring_in("sam", tmp_path / "sam.pth", tmp_path / "ours", preset="vit_x")


def test_two_different_fourier_matrices_are_refused(tmp_path: Path) -> None:
    write_official(tmp_path / "sam.pth")
    bring_in("sam", tmp_path / "sam.pth", tmp_path / "ours")
    export_weights("sam", tmp_path / "ours", tmp_path / "hf", ["hf"])
    state = load_file(tmp_path / "hf/model.safetensors")
    save_file({**state, _SECOND: state[_SECOND] + 1}, tmp_path / "hf/model.safetensors")
    with pytest.raises(CheckpointError, match=rf"{_SECOND} differs from {MATRIX}"):
        bring_in("sam", tmp_path / "hf", tmp_path / "ours2")
