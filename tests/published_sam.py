"""Small random SAMs as segment-anything and transformers publish them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from pokevla.weights.conversion.importing import import_weights, open_source
from pokevla.weights.conversion.weight_format import ImportRequest


def build_official(
    width: int = 16,
    depth: int = 2,
    num_heads: int = 2,
    global_blocks: tuple[int, ...] = (1,),
    *,
    embed_dim: int = 16,
    grid: int = 4,
    window: int = 3,
    patch: int = 8,
    mlp_dim: int = 32,
    decoder_heads: int = 2,
) -> Sam:
    """A SAM of segment-anything. By default it has the sizes of the teacher `tiny` and of the preset `tiny`."""
    size = patch * grid
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=size,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=num_heads,
            out_chans=embed_dim,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=window,
            global_attn_indexes=global_blocks,
        ),
        prompt_encoder=PromptEncoder(embed_dim, (grid, grid), (size, size), 16),
        mask_decoder=MaskDecoder(
            transformer_dim=embed_dim,
            transformer=TwoWayTransformer(depth=2, embedding_dim=embed_dim, mlp_dim=mlp_dim, num_heads=decoder_heads),
            num_multimask_outputs=3,
            iou_head_depth=3,
            iou_head_hidden_dim=embed_dim,
        ),
    )


def random_official(seed: int = 0) -> Sam:
    """`build_official` with every tensor random: some of its own start at zero."""
    torch.manual_seed(seed)
    model = build_official()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.randn_like(tensor) * 0.2)
    return model.eval()


def write_official(path: Path, seed: int = 0) -> dict[str, Tensor]:
    """Write a `.pth` as published, and return its tensors."""
    state = random_official(seed).state_dict()
    torch.save(state, path)
    return state


def bring_in(kind: str, source: Path, out: Path, preset: str | None = None) -> Path:
    """Import with the command's own function."""
    import_weights(ImportRequest(kind, open_source(kind, source), preset), out)
    return out


def same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two state dicts have the same names, types and bits."""
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype
        and torch.equal(first[name].contiguous().view(torch.uint8), second[name].contiguous().view(torch.uint8))
        for name in first
    )
