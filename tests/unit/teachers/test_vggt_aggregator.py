"""The aggregator has the published size and names, and the attention pattern of VGGT."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from pokevla.teachers.vggt import VGGT, vggt_config
from pokevla.teachers.vggt_aggregator import Aggregator, VGGTConfig, VGGTEncoder, rope_tables, rotate, uv_position_code

SMALL = VGGTConfig(image_size=56, width=24, num_heads=3, dino_depth=1, depth=2, pooled_grid=3)


def small_encoder() -> VGGTEncoder:
    torch.manual_seed(0)
    encoder = VGGTEncoder(SMALL).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():  # LayerScale 0.01 would hide what attention does
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return encoder


def test_vggt_1b_counts_the_parameters_of_the_published_aggregator() -> None:
    with torch.device("meta"):
        aggregator = Aggregator(vggt_config("vggt_1b"))
    assert sum(parameter.numel() for parameter in aggregator.parameters()) == 909_112_320


def test_vggt_1b_gives_the_features_of_spatial_forcing() -> None:
    assert VGGT.fields("vggt_1b") == {"vggt": (256, 2048)}
    assert vggt_config("vggt_1b").grid == 37


def test_weights_have_the_published_names() -> None:
    names = set(VGGTEncoder(SMALL).state_dict())
    published = {
        "aggregator.camera_token",
        "aggregator.register_token",
        "aggregator.patch_embed.cls_token",
        "aggregator.patch_embed.pos_embed",
        "aggregator.patch_embed.register_tokens",
        "aggregator.patch_embed.mask_token",
        "aggregator.patch_embed.patch_embed.proj.weight",
        "aggregator.patch_embed.blocks.0.attn.qkv.weight",
        "aggregator.patch_embed.blocks.0.ls1.gamma",
        "aggregator.patch_embed.norm.weight",
        "aggregator.frame_blocks.1.attn.q_norm.weight",
        "aggregator.frame_blocks.1.mlp.fc1.bias",
        "aggregator.global_blocks.0.attn.k_norm.bias",
        "aggregator.global_blocks.1.ls2.gamma",
    }
    assert published <= names
    assert all(name.startswith("aggregator.") for name in names)
    assert "aggregator.patch_embed.blocks.0.attn.q_norm.weight" not in names


def test_frame_half_of_the_first_layer_ignores_the_other_view_and_global_half_sees_it() -> None:
    aggregator = small_encoder().aggregator
    aggregator.frame_blocks, aggregator.global_blocks = aggregator.frame_blocks[:1], aggregator.global_blocks[:1]
    images = torch.rand(1, 2, 3, 56, 56)
    changed = images.clone()
    changed[:, 1] = torch.rand(3, 56, 56)
    with torch.inference_mode():
        before, after = aggregator(images)[0, 0], aggregator(changed)[0, 0]
    width = SMALL.width
    torch.testing.assert_close(before[:, :width], after[:, :width])
    assert (before[:, width:] - after[:, width:]).abs().max() > 1e-3


def test_views_are_ordered_the_first_is_the_reference() -> None:
    encoder = small_encoder()
    images = torch.rand(1, 2, 3, 56, 56)
    with torch.inference_mode():
        straight, swapped = encoder(images), encoder(images.flip(1)).flip(1)
    assert (straight - swapped).abs().max() > 1e-3


def test_samples_of_a_batch_do_not_mix() -> None:
    encoder = small_encoder()
    images = torch.rand(3, 2, 3, 56, 56)
    with torch.inference_mode():
        together, alone = encoder(images)[1:2], encoder(images[1:2])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_rotated_products_depend_on_the_offset_of_two_patches_only() -> None:
    tables = rope_tables(4, 8, torch.zeros(1))
    query, key = torch.randn(2, 8)
    products = {}
    for a in range(16):
        for b in range(16):
            rotated = [
                rotate(v.view(1, 1, 1, 8), (tables[0][5 + i], tables[1][5 + i])) for v, i in ((query, a), (key, b))
            ]
            offset = (a // 4 - b // 4, a % 4 - b % 4)
            products.setdefault(offset, []).append((rotated[0] * rotated[1]).sum().item())
    for values in products.values():
        assert max(values) - min(values) < 1e-5
    assert len({round(values[0], 4) for values in products.values()}) > 30


def test_special_tokens_are_not_rotated() -> None:
    cosines, sines = rope_tables(3, 8, torch.zeros(1))
    assert torch.equal(cosines[:5], torch.ones(5, 8))
    assert torch.equal(sines[:5], torch.zeros(5, 8))


def test_first_rotary_angle_is_the_patch_row_then_its_column() -> None:
    cosines, _ = rope_tables(3, 8, torch.zeros(1))
    patch = 5 + 1 * 3 + 2  # row 1, column 2 are at positions 2 and 3
    assert cosines[patch, 0].item() == pytest.approx(math.cos(2.0), abs=1e-6)
    assert cosines[patch, 4].item() == pytest.approx(math.cos(3.0), abs=1e-6)
    assert cosines[patch, 1].item() == pytest.approx(math.cos(2.0 * 100 ** (-2 / 4)), abs=1e-6)


def test_position_code_holds_sines_and_cosines_of_x_then_y() -> None:
    code = uv_position_code(5, 16, torch.zeros(1))
    edge = 2**-0.5 * 4 / 5
    assert code.shape == (16, 5, 5)
    assert code[0, 3, 4].item() == pytest.approx(math.sin(edge), abs=1e-6)
    assert code[4, 3, 0].item() == pytest.approx(math.cos(-edge), abs=1e-6)
    assert code[8, 0, 2].item() == pytest.approx(math.sin(-edge), abs=1e-6)
    assert code[9, 0, 2].item() == pytest.approx(math.sin(-edge / 100 ** (1 / 4)), abs=1e-6)


def test_pooling_keeps_the_corners_of_the_patch_grid() -> None:
    encoder = small_encoder()
    images = torch.rand(1, 2, 3, 56, 56)
    with torch.inference_mode():
        patches = encoder.aggregator(images)
        pooled = encoder(images)
    code = 0.1 * uv_position_code(4, 48, pooled).flatten(1).T
    for pooled_index, patch_index in ((0, 0), (2, 3), (6, 12), (8, 15)):
        torch.testing.assert_close(pooled[:, :, pooled_index], patches[:, :, patch_index] + code[patch_index])


def test_area_pooling_averages_the_patches_of_a_cell_and_has_its_own_preprocessing() -> None:
    config = dataclasses.replace(SMALL, pooled_grid=2, pooling="area")
    torch.manual_seed(0)
    encoder = VGGTEncoder(config).eval()
    images = torch.rand(1, 2, 3, 56, 56)
    with torch.no_grad():
        patches, pooled = encoder.aggregator(images), encoder(images)
    maps = patches + 0.1 * uv_position_code(4, 48, pooled).flatten(1).T
    first = maps[:, :, [0, 1, 4, 5]].mean(dim=2)  # the upper left 2 x 2 of 4 x 4 patches
    torch.testing.assert_close(pooled[:, :, 0], first, atol=1e-5, rtol=1e-4)
    assert vggt_config("mini_area") == dataclasses.replace(vggt_config("mini"), pooling="area")
    assert VGGT.preprocessing("mini_area") == f"{VGGT.preprocessing('mini')}; area pooling"
