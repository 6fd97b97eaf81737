"""The table of docs/model.md that says which loss trains what, against the gradients themselves."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pokevla.embodiment.libero import LIBERO
from pokevla.model.building import build_vla
from pokevla.model.heads.bridge import BridgeHead
from pokevla.recipe.sections import LossConfig, ModelConfig, SegmentationLossConfig
from pokevla.training.objectives.objective import PosttrainObjective
from pokevla.weights.base_model import freeze_what_no_loss_reaches, model_config
from tests.unit.training.objectives.test_objective import robot_batch

PAGE = Path(__file__).resolve().parents[3] / "docs" / "model.md"
PARTS = {
    "vision encoders": ("vlm.vision_backbone.",),
    "projector": ("vlm.projector.",),
    "language model": ("vlm.language_model.",),
    "`<SEG>`": ("seg_token",),
    "action queries": ("action_queries",),
    "SEG MLP": ("seg_projector.",),
    "coarse prompt encoder and mask decoder": ("coarse_prompt_encoder.", "coarse_mask_decoder."),
    "fine prompt encoder and mask decoder": ("fine_prompt_encoder.", "fine_mask_decoder."),
    "geometry projector": ("geometry_projector.",),
    "proprio projector": ("proprio_projector.",),
    "action head": ("action_head.",),
}
CHOICES: dict[str, tuple[dict[str, Any], LossConfig]] = {
    "`head: bridge`": ({"head": "bridge", "head_condition": "per_layer"}, LossConfig()),
    "`head: oft`": ({"head": "oft"}, LossConfig()),
    "`oft.placeholders: zeros`": ({"head": "oft", "oft": {"placeholders": "zeros"}}, LossConfig()),
    "`attention: bidirectional`": ({"attention": "bidirectional"}, LossConfig()),
    "`geometry_layer: 1`": ({"geometry_layer": 1}, LossConfig()),
    "`seg_token: false`": (
        {"seg_token": False, "seg_injection": False},
        LossConfig(segmentation=SegmentationLossConfig(weight=0.0)),
    ),
}
LOSSES = ("action", "segmentation", "geometry")
Row = dict[str, str]


def rows_below(heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its header."""
    lines = PAGE.read_text(encoding="utf-8").split(f"{heading}\n", 1)[1].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def measured(settings: dict[str, Any], loss: LossConfig) -> dict[str, Row]:
    """Part -> loss -> all, some or none of its trained tensors have a gradient; `frozen` if none trains."""
    model = build_vla(model_config(ModelConfig(preset="tiny", **settings), 8, LIBERO), seed=1)
    if isinstance(model.action_head, BridgeHead):  # a gate of zero blocks the gradient of vision in the first step
        for block in model.action_head.blocks:
            nn.init.ones_(block.gate)  # pyright: ignore[reportArgumentType]
    freeze_what_no_loss_reaches(model, loss)
    terms = PosttrainObjective(model, loss).terms(robot_batch()).weighted
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    reached = {}
    for name, value in terms.items():
        gradients = torch.autograd.grad(value, list(trained.values()), retain_graph=True, allow_unused=True)
        reached[name] = {
            key for key, found in zip(trained, gradients, strict=True) if found is not None and found.any()
        }
    table: dict[str, Row] = {}
    for part, prefixes in PARTS.items():
        names = {name for name in trained if name.startswith(prefixes)}
        table[part] = {loss: _share(names, reached.get(loss, set())) for loss in LOSSES}
    assert all(name.startswith(tuple(p for prefixes in PARTS.values() for p in prefixes)) for name in trained)
    return table


def _share(names: set[str], reached: set[str]) -> str:
    hit = len(names & reached)
    return "frozen" if not names else "all" if hit == len(names) else "some" if hit else "–"


@functools.cache
def usual() -> dict[str, Row]:
    return measured({}, LossConfig())


def test_each_loss_reaches_what_the_table_says() -> None:
    told = {part: dict(zip(LOSSES, cells, strict=True)) for part, *cells in rows_below("## Which loss trains what")}
    assert usual() == told


@pytest.mark.parametrize("choice", CHOICES)
def test_choices_change_what_the_second_table_says(choice: str) -> None:
    changed = {part: row for part, row in measured(*CHOICES[choice]).items() if row != usual()[part]}
    told = {
        part: dict(zip(LOSSES, cells, strict=True))
        for named, part, *cells in rows_below("Some choices change it:")
        if named == choice
    }
    assert changed == told
