"""What is added up between two lines of metrics. It is part of a checkpoint: a line after a resume covers the same
steps as it would have without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from pokevla.distributed.collectives import gather_objects, mean_over_ranks


@dataclass
class MetricSums:
    """Sums of one rank since the last line."""

    steps: int = 0
    sums: torch.Tensor | None = None  # float64, one value per name; steps that were skipped are not in it
    grad_norms: list[float] = field(default_factory=list)  # of the same steps
    loss_grad_norms: dict[str, float] = field(default_factory=dict)  # the newest

    def add(
        self, values: Mapping[str, torch.Tensor], grad_norm: float | None, loss_grad_norms: Mapping[str, float]
    ) -> None:
        """Add a step's values. `grad_norm` None: it was skipped, and its values would make the mean meaningless."""
        self.steps += 1
        self.loss_grad_norms |= loss_grad_norms
        if grad_norm is not None:
            stacked = torch.stack([value.double() for value in values.values()])
            self.sums = stacked if self.sums is None else self.sums + stacked
            self.grad_norms.append(grad_norm)

    def take(self, names: Mapping[str, Any]) -> dict[str, float]:
        """Means over steps and ranks by name, and start again. Called by all ranks."""
        line: dict[str, float] = {}
        if self.sums is not None:
            means = mean_over_ranks(self.sums / len(self.grad_norms)).tolist()
            line = {**dict(zip(names, means, strict=True)), "grad_norm": sum(self.grad_norms) / len(self.grad_norms)}
        line |= self.loss_grad_norms
        self.steps, self.sums, self.grad_norms, self.loss_grad_norms = 0, None, [], {}
        return line

    def state(self) -> dict[str, Any]:
        """For the checkpoint, as plain values: the sums of every rank. Called by all ranks."""
        sums = gather_objects(None if self.sums is None else self.sums.tolist())
        return {
            "steps": self.steps,
            "sums": sums if sums[0] is not None else [],
            "grad_norms": list(self.grad_norms),
            "loss_grad_norms": dict(self.loss_grad_norms),
        }

    def restore(self, state: Mapping[str, Any], rank: int, world_size: int, device: torch.device) -> None:
        """Go on from `state()`. Another number of ranks goes on from the mean of those that were."""
        if not state:  # a checkpoint from before they were kept
            return
        self.steps = state["steps"]
        self.grad_norms, self.loss_grad_norms = list(state["grad_norms"]), dict(state["loss_grad_norms"])
        if state["sums"]:
            sums = torch.tensor(state["sums"], dtype=torch.float64, device=device)
            self.sums = sums[rank] if len(sums) == world_size else sums.mean(0)
