"""What the feature cache saves: a post-training step with the teachers in it, against one that reads their features.

    python benchmarks/cache_gain.py [--quick] [--json PATH]

- `step_mini/live`: whole steps of `mini` (three losses, backward pass, AdamW) whose features come from a cache on the
  disk, against the same steps with the teachers of size mini in them. CPU time of one thread, best of several rounds;
  the sides take turns in one process. The cached side reads and checks its records in the step; a training does so in
  another process. Ratio: live over cached.
- `loss_mini/live`: largest difference of a loss between the two sides over all those steps, relative. Both start from
  one model and see the same samples, so what differs is what the codec costs.
- `flops_pocket/...`: operations of one sample of `pocket` (LoRA of rank 64, two views), against those with the
teachers'
  forward passes. Counted, not measured (`pokevla plan`). Ratio: with teachers over without.
- `memory_pocket/...`: GiB of a GPU that the teachers would take: their weights in fp32, as autocast keeps them, and the
  largest sum of tensors that live at one time while the larger of them encodes a micro-batch of 8, eagerly and in fp32,
  counted on the meta device. Most of SAM's are its relative positions, a bias of 4096 x 4096 for each head of a block.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cache_storm import write_dataset
from benchmarks.interleaved import best_seconds
from benchmarks.live_bytes import peak_bytes
from benchmarks.model_step import mini_batch
from benchmarks.reporting import report, row
from pokevla.data.batch import QuantisedFeatures, RobotBatch, stack_features
from pokevla.data.dataset import open_dataset
from pokevla.features.cache_build import build_cache
from pokevla.features.encoding import build_teachers, image_source, read_images
from pokevla.features.feature_reader import FeatureReader
from pokevla.model.building import build_vla
from pokevla.model.presets import preset
from pokevla.parts import TEACHERS, get_part
from pokevla.recipe.planning.parts import model_cost
from pokevla.recipe.planning.sizes import TEACHER_PARAMETERS, teacher_flops
from pokevla.recipe.planning.summary import default_recipe
from pokevla.recipe.sections import CacheConfig, LossConfig, TeacherConfig
from pokevla.training.objectives.objective import PosttrainObjective

Rows = list[dict[str, Any]]
GIB = 2**30
VIEWS, MICRO = 2, 8
PUBLISHED = {
    "sam_vit_b": (("sam", "vit_b"),),
    "sam_vit_h": (("sam", "vit_h"),),
    "sam_vit_b_vggt": (("sam", "vit_b"), ("vggt", "vggt_1b")),
    "sam_vit_h_vggt": (("sam", "vit_h"), ("vggt", "vggt_1b")),
}


class Side:
    """One way to the features, with its own copy of the model and its optimizer."""

    def __init__(self, objective: PosttrainObjective, batch: RobotBatch, features: Callable[[], Any]) -> None:
        self.objective, self.batch, self.features = objective, batch, features
        self.optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-4)
        self.losses: list[float] = []

    def step(self) -> None:
        """One training step; remembers its loss."""
        self.batch.features = self.features()
        loss, _ = self.objective(self.batch)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.losses.append(loss.item())


def step_rows(samples: int, rounds: int) -> Rows:
    """Steps of `mini` with a cache and with live teachers."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_dataset(folder / "dataset", samples, image_size=128)
        cache = CacheConfig(root=folder / "cache")
        directory = build_cache(folder / "dataset", cache, samples, device="cpu")
        dataset = open_dataset(folder / "dataset")
        torch.set_num_threads(1)
        reader, source = FeatureReader.of(directory, dataset), image_source(dataset)
        images = torch.from_numpy(read_images(source, np.arange(samples)))
        source.reader.close()
        teachers = build_teachers(cache, "cpu")

        def cached() -> dict[str, QuantisedFeatures]:
            return stack_features([reader.read_features(number) for number in range(samples)])

        def live() -> dict[str, QuantisedFeatures]:
            fields = (teacher.encode(images) for teacher in teachers)
            # Codec fp16 only converts to float32, which these values are: nothing is rounded.
            return {name: QuantisedFeatures(v, None, "fp16") for each in fields for name, v in each.items()}

        objective, batch = PosttrainObjective(build_vla(preset("mini"), seed=0), LossConfig()), None
        sides = {}
        for name, features in (("cached", cached), ("live", live)):
            batch = copy.copy(batch) if batch is not None else mini_batch(preset("mini"), samples)
            sides[name] = Side(copy.deepcopy(objective), batch, features)
        best = best_seconds({name: side.step for name, side in sides.items()}, rounds)
    pairs = zip(sides["cached"].losses, sides["live"].losses, strict=True)
    worst = max(abs(one - other) / abs(other) for one, other in pairs)
    text = f"live teachers: {best['live'] * 1e3:.1f} ms ({samples} samples)"
    return [
        row("step_mini/live", best["cached"] * 1e3, "ms", text, best["live"] / best["cached"]),
        row("loss_mini/live", worst, "relative", f"over {rounds + 1} steps, loss {sides['live'].losses[-1]:.4g}"),
    ]


def flops_rows() -> Rows:
    """Operations of `pocket` with and without the published teachers."""
    student = model_cost(default_recipe("pocket")).flops
    rows: Rows = []
    for name, teachers in PUBLISHED.items():
        extra = sum(teacher_flops(TeacherConfig(kind=kind, preset=size), VIEWS) or 0 for kind, size in teachers)
        text = f"teachers: {extra / 1e12:.2f} TFLOP a sample"
        rows.append(row(f"flops_pocket/{name}", student / 1e12, "TFLOP", text, (student + extra) / student))
    return rows


def memory_rows(*, with_activations: bool) -> Rows:
    """Memory that the published teachers would take beside `pocket`."""
    peaks: dict[tuple[str, str], int] = {}
    rows: Rows = []
    for name, teachers in PUBLISHED.items():
        weights = sum(4 * TEACHER_PARAMETERS[key] for key in teachers)
        text = f"weights {weights / GIB:.2f} GiB"
        for kind, size in teachers if with_activations else ():
            peaks.setdefault((kind, size), encoding_bytes(kind, size))
        activations = max((peaks[key] for key in teachers if key in peaks), default=0)  # one teacher after the other
        if with_activations:
            text += f", tensors while encoding {activations / GIB:.2f} GiB"
        rows.append(row(f"memory_pocket/{name}", (weights + activations) / GIB, "GiB", text))
    return rows


def encoding_bytes(kind: str, size: str) -> int:
    """Largest sum of the tensors that live at one time while a teacher encodes a micro-batch."""
    definition = get_part("teacher", kind, TEACHERS)
    with torch.device("meta"):
        encoder = definition.build(size).eval()
        images = torch.zeros(MICRO, VIEWS, 256, 256, 3, dtype=torch.uint8)
    with torch.no_grad():
        return peak_bytes(lambda: definition.encode(encoder, images))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, fewer samples, no memory of activations")
    parser.add_argument("--json", type=Path, help="file for the result")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = step_rows(2 if options.quick else 8, 2 if options.quick else 8)
    report([*rows, *flops_rows(), *memory_rows(with_activations=not options.quick)], options.json)


if __name__ == "__main__":
    main()
