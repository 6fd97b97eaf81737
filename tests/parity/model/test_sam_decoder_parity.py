"""Our coarse-to-fine path gives what the segment_anything package gives with the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pokevla.model.presets import SegmentationConfig
from pokevla.model.segmentation import build_mask_decoder, build_prompt_encoder, decode_coarse_to_fine
from pokevla.weights.conversion.name_maps import ours_of
from pokevla.weights.formats.sam import OFFICIAL_NAMES, our_name
from pokevla.weights.mask_decoders import open_mask_decoder

modeling = pytest.importorskip("segment_anything.modeling")

CONFIG = SegmentationConfig(embed_dim=32, grid=8, num_heads=4, mlp_dim=48)


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


def ours_from(reference: tuple[nn.Module, nn.Module], path: Path) -> tuple[nn.Module, nn.Module]:
    """Prompt encoder and mask decoder of ours, read from a `.pth` as segment-anything publishes it."""
    encoder, decoder = build_prompt_encoder(CONFIG), build_mask_decoder(CONFIG)
    parts = {"prompt_encoder.": reference[0], "mask_decoder.": reference[1]}
    torch.save(
        {prefix + name: value for prefix, part in parts.items() for name, value in part.state_dict().items()}, path
    )
    weights = open_mask_decoder(CONFIG, path)
    for prefix, module in (("prompt_encoder.", encoder), ("mask_decoder.", decoder)):
        module.load_state_dict({name: weights.read(our_name(prefix + name)) for name in module.state_dict()})
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
def test_coarse_and_fine_logits_equal_segment_anything(factor: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    coarse, fine = reference_pair(), reference_pair()
    fine[0].pe_layer.load_state_dict(coarse[0].pe_layer.state_dict())  # one SAM, one position code
    shrink(coarse, factor)
    shrink(fine, factor)
    seg, features = torch.randn(2, 32) * factor, torch.randn(2, 2, 32, 8, 8)
    worst = 0.0
    with torch.no_grad():
        stages = [ours_from(pair, tmp_path / "sam.pth") for pair in (coarse, fine)]
        ours = decode_coarse_to_fine(seg, features, *stages)  # pyright: ignore
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
    for prefix, theirs, module in zip(("prompt_encoder", "mask_decoder"), reference, ours, strict=True):
        for name, norm in theirs.named_modules():
            if hasattr(norm, "eps"):
                (weight,) = ours_of(f"{prefix}.{name}.weight", OFFICIAL_NAMES) or ()
                same = weight.removeprefix(f"{prefix}.").removesuffix(".weight")
                assert module.get_submodule(same).eps == norm.eps, name
                count += 1
    assert count == 2 + 4 * CONFIG.decoder_depth + 2
