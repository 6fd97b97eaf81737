"""A run small enough to be stopped and resumed thirty times: `tiny`, a mixture of two toy datasets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pokevla.data.sources.images import encode_jpeg, encode_mask
from pokevla.data.tables.questions import SAMPLE_SCHEMA
from pokevla.data.writer import DatasetWriter, encode_json

SIDE = 32  # px
RECIPE = """\
kind: pretrain
name: {name}
output: {output}
data: {{datasets: [{{path: {first}, weight: 2.0}}, {{path: {second}}}], shuffle_window: 2, train_split: all}}
model: {{preset: tiny}}
trainable: {{vision: frozen, projector: full, language_model: lora}}
lora: {{rank: 4, alpha: 8, dropout: 0.1}}
optim: {{lr: 1.0e-3, weight_decay: 1.0}}
batch: {{global: 12, micro: 2}}
steps: 8
precision: fp32
zero: {{stage: 2}}
checkpoint: {{every_steps: 3, keep_last: 2, healthy_after_steps: 3}}
log: {{every_steps: 1, grad_norms_every_steps: 0}}
resources: {{cpu_ranks: 2, threads_per_rank: 1}}
"""


def picture_with_square(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """(S,S,3) uint8 with a red square on grey, (S,S) bool mask of it, and its centre, x and y in [0, 1)."""
    x, y = rng.integers(0, SIDE - 10, 2)
    image, mask = np.full((SIDE, SIDE, 3), 90, np.uint8), np.zeros((SIDE, SIDE), bool)
    image[y : y + 10, x : x + 10], mask[y : y + 10, x : x + 10] = (200, 40, 40), True
    return image, mask, ((x + 5) / SIDE, (y + 5) / SIDE)


def write_questions(out: Path, count: int, seed: int, num_val: int = 0) -> Path:
    """Write a VLM dataset that asks for the position of a square. The last `num_val` images are in the split `val`."""
    rng = np.random.default_rng(seed)
    with DatasetWriter(out, group="toy", samples=SAMPLE_SCHEMA, shard_samples=16) as writer:
        for number in range(count):
            image, mask, point = picture_with_square(rng)
            key = f"toy-{seed}-{number:04d}"
            sample = {
                "split": "val" if number >= count - num_val else "train",
                "source": "toy",
                "category": "grounding",
                "task": "follow",
                "answer_kind": "point",
                "question": "Where is the square?" if number % 2 else "Point at the red square in this picture.",
                "answer": f"[({point[0]:.3f}, {point[1]:.3f})]",
                "target_points": [list(point)],
                "target_boxes": [],
                "choice": None,
                "width": SIDE,
                "height": SIDE,
            }
            members = {"jpg": encode_jpeg(image, 95), "mask.png": encode_mask(mask)}
            writer.add_sample(key, {**members, "json": encode_json({"key": key, **sample})}, sample)
        return writer.finish({"statistics": None, "sources": [], "made_by": {}})


def write_recipe(work: Path, name: str) -> Path:
    """Write the toy recipe and its data below `work`. The run directory will be `work`/runs/`name`."""
    datasets = [work / "data" / part for part in ("first", "second")]
    for seed, path in enumerate(datasets):
        if not path.exists():
            write_questions(path, count=40 + 8 * seed, seed=seed)
    recipe = work / f"{name}.yaml"
    recipe.write_text(
        RECIPE.format(name=name, output=work / "runs", first=datasets[0], second=datasets[1]), encoding="utf-8"
    )
    return recipe
