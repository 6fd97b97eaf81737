"""The SAM teacher gives what the `segment_anything` package gives from the same weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import cast

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import nn
from transformers import SamVisionModel

from pokevla.recipe.sections import TeacherConfig
from pokevla.teachers.sam import load_sam_weights, preprocess_sam, sam_config
from pokevla.teachers.teacher import build_teacher
from pokevla.weights.conversion.name_maps import ours_of
from pokevla.weights.formats.sam import OFFICIAL_NAMES


def official_encoder() -> nn.Module:
    """A `segment_anything` encoder of the tiny teacher's size, every weight random (its own start at zero)."""
    config = sam_config("tiny")
    torch.manual_seed(0)
    encoder = ImageEncoderViT(
        img_size=cast(int, config.image_size),
        patch_size=cast(int, config.patch_size),
        embed_dim=config.hidden_size,
        depth=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        mlp_ratio=config.mlp_ratio,
        out_chans=config.output_channels,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=config.window_size,
        global_attn_indexes=tuple(config.global_attn_indexes),
    )
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return encoder.eval()


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[nn.Module, Path]:
    """The encoder, and a `.pth` of the published layout that holds it beside other parts."""
    encoder = official_encoder()
    state = {f"image_encoder.{name}": value for name, value in encoder.state_dict().items()}
    path = tmp_path / "sam_vit_tiny.pth"
    torch.save({**state, "prompt_encoder.no_mask_embed.weight": torch.zeros(1, 4)}, path)
    return encoder, path


def test_pth_file_gives_the_features_of_segment_anything(checkpoint: tuple[nn.Module, Path]) -> None:
    encoder, path = checkpoint
    teacher = build_teacher(TeacherConfig(kind="sam", preset="tiny", weights=path))
    images = torch.randint(0, 256, (2, 2, 48, 48, 3), dtype=torch.uint8)
    pixels = preprocess_sam(images.flatten(0, 1), 32)
    with torch.inference_mode():
        expected = encoder(pixels).unflatten(0, (2, 2))
    torch.testing.assert_close(teacher.encode(images)["sam"], expected, rtol=1e-4, atol=1e-4)


def test_every_tensor_of_the_official_encoder_has_its_place(checkpoint: tuple[nn.Module, Path]) -> None:
    encoder, path = checkpoint
    model = SamVisionModel(sam_config("tiny"))
    load_sam_weights(model, path)
    ours = sorted(value.sum().item() for value in model.state_dict().values())
    theirs = sorted(value.sum().item() for value in encoder.state_dict().values())
    assert ours == pytest.approx(theirs)


def test_every_norm_has_the_eps_of_segment_anything() -> None:
    model = SamVisionModel(sam_config("tiny"))
    norms = [(name, module) for name, module in official_encoder().named_modules() if hasattr(module, "eps")]
    assert len(norms) == 2 * sam_config("tiny").num_hidden_layers + 2
    for name, norm in norms:
        (weight,) = ours_of(f"image_encoder.{name}.weight", OFFICIAL_NAMES) or ()
        assert model.get_submodule(weight.removesuffix(".weight")).eps == norm.eps, name


@pytest.mark.parametrize(
    ("name", "parameters"), [("vit_b", 89_670_912), ("vit_l", 308_278_272), ("vit_h", 637_026_048)]
)
def test_published_sizes_count_as_published(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = SamVisionModel(sam_config(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
