"""Our coarse-to-fine path gives what the segment_anything package gives with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pokevla.model.presets import SegmentationConfig
from pokevla.model.segmentation import build_mask_decoder, build_prompt_encoder, decode_coarse_to_fine

modeling = pytest.importorskip("segment_anything.modeling")

CONFIG = SegmentationConfig(embed_dim=32, grid=8, num_heads=4, mlp_dim=48)
SAM_TO_TRANSFORMERS = (  # transformers/models/sam/convert_sam_to_hf.py
    ("mask_downscaling.0", "mask_embed.conv1"),
    ("mask_downscaling.1", "mask_embed.layer_norm1"),
    ("mask_downscaling.3", "mask_embed.conv2"),
    ("mask_downscaling.4", "mask_embed.layer_norm2"),
    ("mask_downscaling.6", "mask_embed.conv3"),
    ("point_embeddings", "point_embed"),
    ("pe_layer.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    ("norm_final_attn", "layer_norm_final_attn"),
    ("output_upscaling.0", "upscale_conv1"),
    ("output_upscaling.1", "upscale_layer_norm"),
    ("output_upscaling.3", "upscale_conv2"),
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    (".norm3.", ".layer_norm3."),
    (".norm4.", ".layer_norm4."),
)


def translated(name: str) -> str:
    for old, new in SAM_TO_TRANSFORMERS:
        name = name.replace(old, new)
    if "hypernetworks_mlps" in name or "iou_prediction_head" in name:
        name = name.replace("layers.0.", "proj_in.").replace("layers.2.", "proj_out.")
        name = name.replace("layers.1.", "layers.0.")
    return name


def reference_pair() -> tuple[nn.Module, nn.Module]:
    size = 16 * CONFIG.grid
    grid = (CONFIG.grid, CONFIG.grid)
    encoder = modeling.PromptEncoder(CONFIG.embed_dim, grid, (size, size), CONFIG.mask_input_channels)
    transformer = modeling.TwoWayTransformer(
        depth=CONFIG.decoder_depth, embedding_dim=CONFIG.embed_dim, mlp_dim=CONFIG.mlp_dim, num_heads=4
    )
    decoder = modeling.MaskDecoder(
        transformer_dim=CONFIG.embed_dim,
        transformer=transformer,
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=CONFIG.embed_dim,
    )
    return encoder, decoder


def ours_from(reference: tuple[nn.Module, nn.Module]) -> tuple[nn.Module, nn.Module]:
    encoder, decoder = build_prompt_encoder(CONFIG), build_mask_decoder(CONFIG)
    for ours, theirs in ((encoder, reference[0]), (decoder, reference[1])):
        ours.load_state_dict({translated(name): value for name, value in theirs.state_dict().items()})
    return encoder, decoder


def reference_masks(
    pair: tuple[nn.Module, nn.Module], features: torch.Tensor, seg: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """LISA's call: SEG as the only sparse embedding of one image."""
    encoder, decoder = pair
    _, dense = encoder(points=None, boxes=None, masks=mask)
    logits, _ = decoder(
        image_embeddings=features[None],
        image_pe=encoder.get_dense_pe(),
        sparse_prompt_embeddings=seg[None, None],
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    return logits


def shrink(pair: tuple[nn.Module, nn.Module], factor: float) -> None:
    """Make the decoder's tokens, and what its attention adds to them, so small that the eps of its norms counts."""
    decoder = pair[1]
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if name.endswith(("_token.weight", "_tokens.weight")) or "out_proj" in name:
                parameter.mul_(factor)


@pytest.mark.parametrize("factor", [1.0, 3e-3])
def test_coarse_and_fine_logits_equal_segment_anything(factor: float) -> None:
    torch.manual_seed(0)
    coarse, fine = reference_pair(), reference_pair()
    fine[0].pe_layer.load_state_dict(coarse[0].pe_layer.state_dict())  # one SAM, one position code
    shrink(coarse, factor)
    shrink(fine, factor)
    seg, features = torch.randn(2, 32) * factor, torch.randn(2, 2, 32, 8, 8)
    worst = 0.0
    with torch.no_grad():
        ours = decode_coarse_to_fine(seg, features, ours_from(coarse), ours_from(fine))  # pyright: ignore
        for sample in range(2):
            for view in range(2):
                image = features[sample, view]
                rough = reference_masks(coarse, image, seg[sample], None)
                sharp = reference_masks(fine, image, seg[sample], rough)
                for stage, expected in zip(ours, (rough, sharp), strict=True):
                    worst = max(worst, float((stage[sample, view] - expected[0, 0]).abs().max()))
    print(f"two-stage masks against segment-anything, worst difference: {worst:.1e}")
    assert worst < 1e-5


def test_every_norm_has_the_eps_of_segment_anything() -> None:
    reference, ours = reference_pair(), (build_prompt_encoder(CONFIG), build_mask_decoder(CONFIG))
    count = 0
    for theirs, module in zip(reference, ours, strict=True):
        for name, norm in theirs.named_modules():
            if hasattr(norm, "eps"):
                assert module.get_submodule(translated(f"{name}.").rstrip(".")).eps == norm.eps, name
                count += 1
    assert count == 2 + 4 * CONFIG.decoder_depth + 2
