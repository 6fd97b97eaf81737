"""Run a `pokevla` command in this process and record the samples its models receive and the actions they return.

    python benchmarks/model_probe.py OUT.json train recipes/demo/pretrain.yaml steps=1

It refers to no module of the package, so it works with every commit. It hooks the calls of torch modules: an argument
with `keys` and `positions` is a batch, and a batch without gradients is a validation batch; `actions` of an output is a
batch of action chunks.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import runpy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

SAMPLES = 5
"""Number of samples of the first batch, and of action chunks, to record."""


def digest(tensor: Tensor) -> str:
    """Hash of shape, type and every bit of a tensor."""
    content = tensor.detach().cpu().contiguous()
    header = f"{content.dtype} {tuple(content.shape)} ".encode()
    raw = content.reshape(-1).view(torch.uint8).numpy().tobytes() if content.numel() else b""
    return hashlib.sha256(header + raw).hexdigest()[:16]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Tensors and lists of a batch by dotted name, from (nested) dataclasses and dictionaries."""
    if isinstance(value, Tensor | list):
        yield path, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from leaves(item, f"{path}.{name}".strip("."))
    elif dataclasses.is_dataclass(value):
        for each in dataclasses.fields(value):
            yield from leaves(getattr(value, each.name), f"{path}.{each.name}".strip("."))


def sample_digests(batch: Any, count: int = SAMPLES) -> list[dict[str, str]]:
    """One dictionary for each of the first `count` samples of a batch: field -> hash, or the text of a list item.

    A field whose length differs from the batch size is shared by all samples.
    """
    size = len(batch.keys)

    def part(value: Tensor | list[Any], row: int) -> str:
        own = value[row] if len(value) == size else value
        return digest(own) if isinstance(own, Tensor) else str(own)

    fields = list(leaves(batch))
    return [{name: part(value, row) for name, value in fields} for row in range(min(count, size))]


@dataclass
class Notes:
    """Inputs and outputs of a command's models."""

    training: list[dict[str, str]] = field(default_factory=list)
    validation: list[dict[str, str]] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)

    def before_call(self, _: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        """Record the first training batch and the first validation batch."""
        for batch in arguments:
            if hasattr(batch, "keys") and hasattr(batch, "positions"):
                noted = self.training if torch.is_grad_enabled() else self.validation
                noted += [] if noted else sample_digests(batch)

    def after_call(self, _: torch.nn.Module, __: tuple[Any, ...], output: Any) -> None:
        """Record the first action chunks that a model returns without gradients."""
        actions = getattr(output, "actions", None)
        if isinstance(actions, Tensor) and not torch.is_grad_enabled() and len(self.actions) < SAMPLES:
            self.actions.append(digest(actions))


def main() -> None:
    """Run the command, write the recorded values, and exit with the command's exit code."""
    out, arguments = Path(sys.argv[1]), sys.argv[2:]
    notes = Notes()
    register_module_forward_pre_hook(notes.before_call)
    register_module_forward_hook(notes.after_call)
    sys.argv = ["pokevla", *arguments]
    try:
        runpy.run_module("pokevla.cli.main", run_name="__main__")
    finally:
        out.write_text(json.dumps(dataclasses.asdict(notes), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
