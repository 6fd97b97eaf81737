"""Masks: SAM's size, gradient through both stages, unused parameters are frozen."""

from __future__ import annotations

import torch

from pokevla.model.presets import preset
from pokevla.model.segmentation import (
    build_mask_decoder,
    build_prompt_encoder,
    decode_coarse_to_fine,
    dense_position_encoding,
)

CONFIG = preset("tiny").segmentation


def stage() -> tuple[torch.nn.Module, torch.nn.Module]:
    return build_prompt_encoder(CONFIG), build_mask_decoder(CONFIG)


def test_fine_masks_send_a_gradient_to_the_coarse_stage_and_seg() -> None:
    coarse, fine = stage(), stage()
    fine[0].mask_embed.requires_grad_(True)
    seg = torch.randn(2, 16, requires_grad=True)
    features = torch.randn(2, 2, 16, 4, 4)
    rough, sharp = decode_coarse_to_fine(seg, features, coarse, fine)  # pyright: ignore[reportArgumentType]
    assert rough.shape == sharp.shape == (2, 2, 16, 16)
    sharp.square().sum().backward()
    assert seg.grad is not None
    for name, parameter in coarse[1].named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name


def test_position_code_of_a_cell_is_that_of_its_centre() -> None:
    encoder = build_prompt_encoder(CONFIG)
    code = dense_position_encoding(encoder, CONFIG.grid)
    centre = torch.tensor([[[[(1 + 0.5) / CONFIG.grid, (2 + 0.5) / CONFIG.grid]]]])  # x, y
    torch.testing.assert_close(code[0, :, 2, 1], encoder.shared_embedding(centre)[0, 0, 0])


def test_position_code_is_of_sams_scale() -> None:
    assert build_prompt_encoder(CONFIG).shared_embedding.positional_embedding.abs().max() < 6
