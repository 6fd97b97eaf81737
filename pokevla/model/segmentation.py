"""Coarse-to-fine masks with SAM's prompt encoder and mask decoder, guided by the SEG state.

transformers' SAM has no text prompt, so its two modules are called directly: the projected SEG state is the only
sparse embedding (LISA). Coarse: dense = no-mask vector. Fine: dense = the coarse low-resolution logits through
the mask prompt, SEG again as sparse embedding (arXiv 2604.20834, sec. V-B; GLOVER++).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers.models.sam.configuration_sam import (
    SamConfig,
    SamMaskDecoderConfig,
    SamPromptEncoderConfig,
    SamVisionConfig,
)
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPromptEncoder

from pokevla.model.precision import ExactBuffers
from pokevla.model.presets import SegmentationConfig

SAM_PATCH_SIZE = 16
TWO_WAY_EPS = 1e-5
"""eps of the LayerNorms in the two-way blocks: torch's default, as in `segment_anything/modeling/transformer.py`.
transformers' own default is 1e-6, which is right for SAM's convolutions and its image encoder only."""


class PromptEncoder(ExactBuffers, SamPromptEncoder):
    """SAM's prompt encoder. Its Fourier matrix is a buffer, as in segment-anything, and no cast rounds it."""


def build_prompt_encoder(config: SegmentationConfig) -> PromptEncoder:
    """Build SAM's prompt encoder (published names). All but the two dense prompts is unused here and frozen."""
    image_size = SAM_PATCH_SIZE * config.grid
    sam = SamConfig(
        vision_config=SamVisionConfig(num_pos_feats=config.embed_dim // 2, image_size=image_size),
        prompt_encoder_config=SamPromptEncoderConfig(
            hidden_size=config.embed_dim,
            image_size=image_size,
            patch_size=SAM_PATCH_SIZE,
            mask_input_channels=config.mask_input_channels,
        ),
    )
    encoder = PromptEncoder(sam)
    # transformers scales the random Fourier matrix by hidden_size // 2 (it expects loaded weights) and makes it a
    # parameter, which DeepSpeed's bf16 engine would round: a position code would move by up to 0.07. SAM's own is a
    # buffer, N(0, 1) (segment_anything/modeling/prompt_encoder.py, PositionEmbeddingRandom).
    position = encoder.shared_embedding
    matrix = nn.init.normal_(position.positional_embedding).detach()
    del position.positional_embedding
    position.register_buffer("positional_embedding", matrix)
    encoder.requires_grad_(False)
    return encoder


def build_mask_decoder(config: SegmentationConfig) -> SamMaskDecoder:
    """Build SAM's mask decoder. The IoU head and the heads of masks 1..3 are unused and frozen."""
    sam = SamMaskDecoderConfig(
        hidden_size=config.embed_dim,
        mlp_dim=config.mlp_dim,
        num_hidden_layers=config.decoder_depth,
        num_attention_heads=config.num_heads,
        num_multimask_outputs=config.num_multimask_outputs,
        iou_head_hidden_dim=config.embed_dim,
        layer_norm_eps=TWO_WAY_EPS,
    )
    sam._attn_implementation = "sdpa"  # transformers has no public API for this on a bare module
    decoder = SamMaskDecoder(sam)
    decoder.iou_prediction_head.requires_grad_(False)
    for head in decoder.output_hypernetworks_mlps[1:]:
        head.requires_grad_(False)
    return decoder


def dense_position_encoding(encoder: SamPromptEncoder, grid: int) -> Tensor:
    """Fourier code of the cell centres of a `grid` x `grid` map -> (1, C, grid, grid), computed in fp32."""
    matrix = encoder.shared_embedding.positional_embedding  # (2, C/2)
    centres = (torch.arange(grid, device=matrix.device, dtype=torch.float32) + 0.5) / grid * 2 - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    phase = 2 * math.pi * (torch.stack([x, y], dim=-1) @ matrix.float())  # (G, G, C/2)
    return torch.cat([phase.sin(), phase.cos()], dim=-1).permute(2, 0, 1)[None]


def decode_coarse_to_fine(
    seg: Tensor,
    features: Tensor,
    coarse: tuple[SamPromptEncoder, SamMaskDecoder],
    fine: tuple[SamPromptEncoder, SamMaskDecoder],
) -> tuple[Tensor, Tensor]:
    """Decode the masks of all views from one SEG state per sample.

    Args:
        seg: (B, C), the projected SEG state; every view of a sample shares it.
        features: (B, V, C, G, G), SAM image embeddings.
        coarse, fine: prompt encoder and mask decoder of each stage.

    Returns:
        coarse and fine logits, both (B, V, 4G, 4G).
    """
    batch, views, channels, grid, _ = features.shape
    images = features.reshape(batch * views, channels, grid, grid).to(seg.dtype)
    sparse = seg[:, None, None, None].expand(batch, views, 1, 1, channels).reshape(batch * views, 1, 1, channels)
    position = dense_position_encoding(coarse[0], grid).to(seg.dtype).expand(batch * views, -1, -1, -1)
    no_mask = coarse[0].no_mask_embed.weight.view(1, channels, 1, 1).expand(batch * views, -1, grid, grid)
    coarse_logits, _ = coarse[1](images, position, sparse, no_mask, multimask_output=False)
    mask_prompt = fine[0].mask_embed(coarse_logits[:, 0])  # (B*V, C, G, G); gradient passes through the logits
    fine_logits, _ = fine[1](images, position, sparse, mask_prompt, multimask_output=False)
    shape = (batch, views, 4 * grid, 4 * grid)
    return coarse_logits.reshape(shape), fine_logits.reshape(shape)
