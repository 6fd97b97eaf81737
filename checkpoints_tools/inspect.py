"""Describes the checkpoints of a run, one checkpoint, or a folder of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoints_tools.source import CheckpointSource, WeightsSource, opened_weights
from checkpoints_tools.verify import verify_checkpoint
from pokevla.errors import CheckpointError
from pokevla.runs.checkpoints import is_healthy, list_checkpoints, read_info
from pokevla.runs.directory import read_run_recipe
from pokevla.runs.ending import finished_step
from pokevla.telemetry.jsonl import EVENTS, iterate_jsonl, read_jsonl
from pokevla.telemetry.writers import METRICS

if TYPE_CHECKING:
    from pokevla.weights.named_tensors import Weights


def inspect_run(run_dir: Path) -> dict[str, Any]:
    """The complete checkpoints of a run, oldest first, and whether their files are unchanged. Without torch.

    Raises:
        UsageError: `run_dir` is not a run directory of training.
    """
    recipe = read_run_recipe(run_dir)
    rows = []
    for step, folder in list_checkpoints(run_dir):
        verified = verify_checkpoint(folder)
        state = "good" if verified.is_good else f"damaged: {verified.damaged[0]}"
        row: dict[str, Any] = {"step": step, "folder": str(folder), "state": state}
        try:
            info = read_info(folder)
        except CheckpointError:
            rows.append(row)
            continue
        rows.append(
            row
            | {
                "position": info.position,
                "world_size": info.world_size,
                "zero_stage": info.zero_stage,
                "precision": info.precision,
                "files": len(info.files),
                "size_mib": round(sum(file.size for file in info.files) / 2**20, 1),
                "healthy": is_healthy(folder),
                "good_steps_after": good_steps_after(run_dir, step),
                "final": finished_step(run_dir) == step,
            }
        )
    return {"run": str(run_dir), "name": recipe.name, "kind": recipe.kind, "checkpoints": rows}


def good_steps_after(run_dir: Path, step: int) -> int:
    """Number of logged steps after `step` with a finite loss and gradient.

    If it is 0 for a checkpoint that is not the final one, nothing shows yet that its weights are good.
    """
    metrics, events = run_dir / METRICS, run_dir / EVENTS
    logged = iterate_jsonl(metrics) if metrics.is_file() else []
    last = max((row["step"] for row in logged if "loss" in row and "step" in row), default=0)
    noted = read_jsonl(events) if events.is_file() else []
    skipped = {row["step"] for row in noted if row.get("event") == "skipped" and step < row.get("step", 0) <= last}
    return max(last - step, 0) - len(skipped)


def inspect_source(source: CheckpointSource | WeightsSource, *, with_tensors: bool = False) -> dict[str, Any]:
    """One checkpoint or folder of weights: recipe, files, and weights by part of the model.

    Reads every weight once, one at a time, to check whether it is finite.
    """
    with opened_weights(source) as weights:
        content = _checkpoint_facts(source) if isinstance(source, CheckpointSource) else _folder_facts(source, weights)
        content["parts"] = [asdict(part) for part in parts(weights)]
        content["finite"] = all(part["non_finite"] == 0 for part in content["parts"])
        if with_tensors:
            content["tensors"] = [
                {"name": name, "shape": list(spec.shape), "dtype": str(spec.dtype).removeprefix("torch.")}
                for name, spec in weights.specs.items()
            ]
    return content


def _checkpoint_facts(source: CheckpointSource) -> dict[str, Any]:
    info = source.info
    facts = {key: value for key, value in asdict(info).items() if key != "files"}
    return {
        "kind": "checkpoint",
        "folder": str(source.folder),
        "run": str(source.run_dir),
        "recipe": source.recipe.name,
        **facts,
        "healthy": is_healthy(source.folder),
        "good_steps_after": good_steps_after(source.run_dir, info.step),
        "final": finished_step(source.run_dir) == info.step,
        "size_bytes": sum(file.size for file in info.files),
        "files": [asdict(file) for file in info.files],
    }


def _folder_facts(source: WeightsSource, weights: Weights) -> dict[str, Any]:
    metadata: Mapping[str, str] = getattr(weights, "metadata", {})
    files = sorted(source.folder.glob("*.safetensors"))
    return {
        "kind": "weights",
        "folder": str(source.folder),
        "metadata": dict(metadata),
        "size_bytes": sum(path.stat().st_size for path in files),
        "files": [{"name": path.name, "size": path.stat().st_size} for path in files],
    }


@dataclass
class Part:
    """The weights of one part of the model."""

    name: str
    tensors: int = 0
    numbers: int = 0  # elements of all its tensors
    size_bytes: int = 0  # in fp32
    non_finite: int = 0  # NaN or infinity


def parts(weights: Weights) -> list[Part]:
    """Totals by part of the model, in the model's order. Memory: one tensor."""
    import torch

    from pokevla.weights.named_tensors import part_of

    by_name: dict[str, Part] = {}
    for name, spec in weights.specs.items():
        part = by_name.setdefault(part_of(name), Part(part_of(name)))
        part.tensors += 1
        part.numbers += spec.numel
        part.size_bytes += spec.size_bytes
        part.non_finite += int((~torch.isfinite(weights.read(name))).sum())
    return list(by_name.values())
