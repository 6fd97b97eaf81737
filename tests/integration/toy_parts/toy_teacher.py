"""A third teacher from outside the package, with two fields: patch tokens `toy` and a map of brightness `toy_depth`.

A recipe names it under `extensions: [toy_teacher]`, with this folder on PYTHONPATH.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from pokevla.parts import TEACHERS
from pokevla.teachers.teacher import TeacherDefinition

GRID, WIDTH, SIDE = 4, 6, 32


def encode(projection: nn.Conv2d, images: Tensor) -> dict[str, Tensor]:
    """(B, V, H, W, 3) uint8 -> tokens (B, V, 16, 6) and brightness (B, V, 1, 4, 4)."""
    pixels = functional.interpolate(images.flatten(0, 1).permute(0, 3, 1, 2).float() / 255, (SIDE, SIDE), mode="area")
    tokens = projection(pixels).flatten(2).transpose(1, 2)
    brightness = functional.adaptive_avg_pool2d(pixels.mean(dim=1, keepdim=True), GRID)
    batch_and_views = images.shape[:2]
    return {"toy": tokens.unflatten(0, batch_and_views), "toy_depth": brightness.unflatten(0, batch_and_views)}


TEACHERS["toy"] = TeacherDefinition(
    presets=("only",),
    fields=lambda _: {"toy": (GRID**2, WIDTH), "toy_depth": (1, GRID, GRID)},
    preprocessing=lambda _: f"{SIDE} px area; 0..1",
    build=lambda _: nn.Conv2d(3, WIDTH, SIDE // GRID, SIDE // GRID),
    encode=encode,
)
