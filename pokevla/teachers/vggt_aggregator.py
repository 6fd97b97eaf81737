"""The VGGT aggregator: a DINOv2 ViT, then blocks that alternate between attention within a frame and over all frames.

Follows the published architecture (Wang et al., VGGT, CVPR 2025; facebookresearch/vggt, models/aggregator.py), so the
`aggregator.` weights of `facebook/VGGT-1B` load by name. B scenes, V frames, P patches, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

NUM_REGISTERS = 4
PATCH_START = 1 + NUM_REGISTERS  # the camera token and the registers precede the patches
ROPE_BASE = 100.0
UV_BASE = 100.0
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_DINO_EPS = 1e-6
_BLOCK_EPS = 1e-5

Pooling = Literal["bilinear", "area"]


@dataclass(frozen=True)
class VGGTConfig:
    """Sizes of the aggregator. The output width is `2 * width`, with `pooled_grid` x `pooled_grid` tokens per view."""

    image_size: int  # px, square
    width: int
    num_heads: int
    dino_depth: int
    depth: int
    pooled_grid: int
    pooling: Pooling = "bilinear"  # Spatial Forcing's: corners aligned. area: mean over the patches of a cell
    patch_size: int = 14

    @property
    def grid(self) -> int:
        """Number of patches along one side of the input."""
        return self.image_size // self.patch_size


class LayerScale(nn.Module):
    """Multiply by a learned vector (D,)."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Attention(nn.Module):
    """Self-attention with optional normalisation and rotation of queries and keys."""

    def __init__(self, width: int, num_heads: int, *, normalise: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        head = width // num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(head, eps=_BLOCK_EPS) if normalise else nn.Identity()
        self.k_norm = nn.LayerNorm(head, eps=_BLOCK_EPS) if normalise else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        """(N, L, D) -> (N, L, D). `rotation` is `rope_tables`' output for the L positions."""
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        query, key, value = self.q_norm(qkv[0]), self.k_norm(qkv[1]), qkv[2]
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    """Two layers with GELU and a hidden width of four times the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block with LayerScale."""

    def __init__(self, width: int, num_heads: int, *, normalise_qk: bool, scale: float, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, num_heads, normalise=normalise_qk)
        self.ls1 = LayerScale(width, scale)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width)
        self.ls2 = LayerScale(width, scale)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        x = x + self.ls1(self.attn(self.norm1(x), rotation))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchProjection(nn.Module):
    """Images (N, 3, S, S) to patch embeddings (N, P, D)."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class DinoEncoder(nn.Module):
    """DINOv2 with registers, at its own input size (position table not interpolated). Names as published."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        width = config.width
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + config.grid**2, width))
        self.register_tokens = nn.Parameter(torch.empty(1, NUM_REGISTERS, width))
        self.mask_token = nn.Parameter(torch.empty(1, width))  # unused here, but part of the published file
        self.patch_embed = PatchProjection(width, config.patch_size)
        self.blocks = nn.ModuleList(
            Block(width, config.num_heads, normalise_qk=False, scale=1.0, eps=_DINO_EPS)
            for _ in range(config.dino_depth)
        )
        self.norm = nn.LayerNorm(width, eps=_DINO_EPS)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) normalised -> normalised patch tokens (N, P, D)."""
        count = images.shape[0]
        tokens = torch.cat([self.cls_token.expand(count, -1, -1), self.patch_embed(images)], dim=1) + self.pos_embed
        tokens = torch.cat([tokens[:, :1], self.register_tokens.expand(count, -1, -1), tokens[:, 1:]], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)[:, PATCH_START:]


class Aggregator(nn.Module):
    """Alternating frame and global attention over the DINO tokens of all frames."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        self.config = config
        width, heads = config.width, config.num_heads
        self.patch_embed = DinoEncoder(config)
        self.frame_blocks = nn.ModuleList(
            Block(width, heads, normalise_qk=True, scale=0.01, eps=_BLOCK_EPS) for _ in range(config.depth)
        )
        self.global_blocks = nn.ModuleList(
            Block(width, heads, normalise_qk=True, scale=0.01, eps=_BLOCK_EPS) for _ in range(config.depth)
        )
        self.camera_token = nn.Parameter(torch.empty(1, 2, 1, width))
        self.register_token = nn.Parameter(torch.empty(1, 2, NUM_REGISTERS, width))
        self.initialise()

    def initialise(self) -> None:
        """Initialise random weights as in VGGT: Linear N(0, 0.02) truncated, zero biases, tokens near zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        dino = self.patch_embed
        nn.init.trunc_normal_(dino.pos_embed, std=0.02)
        nn.init.zeros_(dino.mask_token)
        for token in (dino.cls_token, dino.register_tokens, self.camera_token, self.register_token):
            nn.init.normal_(token, std=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, V, 3, S, S) in [0, 1], the first frame being the reference -> patch features (B, V, P, 2D)."""
        batch, views = images.shape[:2]
        mean = images.new_tensor(IMAGENET_MEAN).view(3, 1, 1)
        std = images.new_tensor(IMAGENET_STD).view(3, 1, 1)
        patches = self.patch_embed(((images - mean) / std).flatten(0, 1))  # (B*V, P, D)
        camera = _first_and_others(self.camera_token, batch, views)
        registers = _first_and_others(self.register_token, batch, views)
        tokens = torch.cat([camera, registers, patches], dim=1)  # (B*V, 5 + P, D)
        length, width = tokens.shape[1:]
        in_frame = rope_tables(self.config.grid, width // self.config.num_heads, tokens)
        over_frames = (in_frame[0].repeat(views, 1), in_frame[1].repeat(views, 1))
        frame_out = tokens
        for frame_block, global_block in zip(self.frame_blocks, self.global_blocks, strict=True):
            frame_out = frame_block(tokens.reshape(batch * views, length, width), in_frame)
            tokens = global_block(frame_out.reshape(batch, views * length, width), over_frames)
        joined = torch.cat(
            [frame_out.reshape(batch, views, length, width), tokens.reshape(batch, views, length, width)], dim=-1
        )
        return joined[:, :, PATCH_START:]


class VGGTEncoder(nn.Module):
    """The aggregator, its position code and its pooling, as Spatial Forcing uses them for alignment targets."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        self.config = config
        self.aggregator = Aggregator(config)

    def forward(self, images: Tensor) -> Tensor:
        """(B, V, 3, S, S) in [0, 1] -> (B, V, pooled_grid^2, 2D)."""
        config = self.config
        features = self.aggregator(images)
        batch, views, _, width = features.shape
        maps = features.flatten(0, 1).transpose(1, 2).reshape(batch * views, width, config.grid, config.grid)
        # Spatial Forcing, use_vggt_pe: the position code is added before pooling, at a tenth of its size.
        maps = maps + 0.1 * uv_position_code(config.grid, width, maps)
        aligned = True if config.pooling == "bilinear" else None
        pooled = functional.interpolate(
            maps, size=(config.pooled_grid,) * 2, mode=config.pooling, align_corners=aligned
        )
        return pooled.flatten(2).transpose(1, 2).reshape(batch, views, config.pooled_grid**2, width)


def _first_and_others(token: Tensor, batch: int, views: int) -> Tensor:
    """Token (1, 2, N, D) -> (B*V, N, D): slot 0 for the first frame of each scene, slot 1 for the others."""
    per_view = torch.cat([token[:, :1], token[:, 1:].expand(-1, views - 1, -1, -1)], dim=1)
    return per_view.expand(batch, -1, -1, -1).flatten(0, 1)


def rope_tables(grid: int, head_width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return cos and sin (5 + grid^2, head_width) of the 2-D rotary code: the first half encodes y, the second x.

    Special tokens are at position 0, the patch in row y and column x is at (y + 1, x + 1).
    """
    half = head_width // 2
    rates = ROPE_BASE ** (-torch.arange(0, half, 2, dtype=torch.float32, device=like.device) / half)
    places = torch.arange(grid, device=like.device)
    patches = torch.cartesian_prod(places, places) + 1
    positions = torch.cat([patches.new_zeros(PATCH_START, 2), patches]).float()
    angles = torch.cat([axis[:, None] * rates for axis in positions.T for _ in range(2)], dim=-1)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate (N, H, L, head_width) by `rope_tables`, each spatial half of the head separately."""
    cos, sin = rotation
    quarters = x.chunk(4, dim=-1)
    turned = torch.cat([-quarters[1], quarters[0], -quarters[3], quarters[2]], dim=-1)
    return x * cos + turned * sin


def uv_position_code(grid: int, width: int, like: Tensor) -> Tensor:
    """Return (width, grid, grid): sines and cosines of the patch centres on a plane of unit diagonal, x then y.

    For a square image the plane extends from -1/sqrt(2) to 1/sqrt(2) (vggt/heads/utils.py).
    """
    edge = 2.0**-0.5 * (grid - 1) / grid
    line = torch.linspace(-edge, edge, grid, dtype=torch.float64, device=like.device)
    quarter = width // 4
    rates = UV_BASE ** (-torch.arange(quarter, dtype=torch.float64, device=like.device) / quarter)
    angles = line[:, None] * rates
    code = torch.cat([angles.sin(), angles.cos()], dim=-1)  # (grid, width / 2)
    along_x = code[None, :, :].expand(grid, grid, -1)
    along_y = code[:, None, :].expand(grid, grid, -1)
    return torch.cat([along_x, along_y], dim=-1).permute(2, 0, 1).to(like.dtype)
