"""A teacher whose features have the size of VGGT's and cost nothing: noise. An extension of `pokevla.parts`.

A step depends on the size of its features, not on what they show, and a VGGT with random weights would take longer to
build than everything else in the check.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pokevla.model.presets import PRESET_NAMES, preset
from pokevla.parts import TEACHERS
from pokevla.teachers.teacher import TeacherDefinition


def _vggt_fields(name: str) -> dict[str, tuple[int, ...]]:
    geometry = preset(name).geometry
    return {"vggt": (geometry.grid**2, geometry.target_dim)}


def _build(name: str) -> nn.Module:
    module = nn.Module()
    module.register_buffer("scale", torch.rand(1))
    module.shapes = _vggt_fields(name)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    return module


def _encode(module: Any, images: Tensor) -> dict[str, Tensor]:
    views = images.shape[:2]
    generator = torch.Generator().manual_seed(int(images.long().sum()))
    return {
        name: (torch.randn(*views, *shape, generator=generator) * module.scale.cpu()).to(images.device)
        for name, shape in module.shapes.items()
    }


TEACHERS["noise_vggt"] = TeacherDefinition(PRESET_NAMES, _vggt_fields, lambda _: "none", _build, _encode)
