"""Frozen image encoders keep nothing for a backward pass, are never recomputed, and are unknown to the optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from pokevla.model.building import TrainableSpec, apply_trainable, build_vlm
from pokevla.model.presets import preset
from pokevla.training.objectives.objective import PretrainObjective
from pokevla.training.optimizer import parameter_groups
from tests.unit.training.objectives.test_objective import vlm_batch


def test_frozen_towers_cost_no_backward_pass() -> None:
    spec = TrainableSpec(vision="frozen", projector="full", language_model="full")
    model = apply_trainable(build_vlm(preset("tiny").vlm, seed=0), spec)
    model.set_activation_checkpointing(True)
    towers = [model.vision_backbone.get_submodule(name) for name in model.vision_backbone.towers]
    saved: list[Any] = []
    runs: list[str] = []
    for tower in towers:
        tower.get_submodule("blocks.0").register_forward_hook(lambda *_: runs.append("block"))

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    images = torch.rand(2, 3, 28, 28)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        features = model.vision_backbone(images)
    assert not features.requires_grad
    assert not saved
    runs.clear()

    labels = torch.randint(1, 100, (2, 8), generator=torch.Generator().manual_seed(2))
    objective = PretrainObjective(model)
    objective(vlm_batch(labels))[0].backward()
    assert runs == ["block", "block"]  # once per tower: the backward pass recomputes none
    assert all(parameter.grad is None for tower in towers for parameter in tower.parameters())

    optimized = {id(parameter) for group in parameter_groups(objective, 0.1) for parameter in group["params"]}
    assert not optimized & {id(parameter) for tower in towers for parameter in tower.parameters()}
