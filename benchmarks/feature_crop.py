"""Measures how well cropping cached features approximates encoding the cropped image.

    python benchmarks/feature_crop.py --dataset DIR [--quick] [--json PATH]

The teachers encode each image once, uncropped; training crops their features with the student's crop. Each row is the
mean cosine, per grid cell, between features of the cropped image and cropped features of the full image, over images
and crop offsets (area 0.9, as in OpenVLA-OFT). The reference is the same cosine with uncropped features, as if the
cache ignored the crop.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from torch.nn import functional

from pokevla.data.dataset import open_dataset
from pokevla.features.encoding import image_source, read_images
from pokevla.features.feature_crop import crop_image_features, crop_to_patches
from pokevla.recipe.sections import TeacherConfig
from pokevla.teachers.teacher import RANDOM_NOTE, build_teacher

CROP_AREA = 0.9
OFFSETS = {
    "corner": (0.0, 0.0),
    "centre": (0.5, 0.5),
    "edge": (1.0, 0.5),
    "other corner": (1.0, 1.0),
    "between": (0.3, 0.7),
}


def crop_box(offset: tuple[float, float]) -> tuple[float, float, float, float]:
    """Return x1, y1, x2, y2 in [0, 1] of the square crop; `offset` is its position as a fraction of the free margin."""
    side = CROP_AREA**0.5
    x, y = (share * (1 - side) for share in offset)
    return x, y, x + side, y + side


def crop_images(images: Tensor, box: tuple[float, float, float, float]) -> Tensor:
    """Crop (B, V, H, W, 3) uint8 and resize back to H x W, bilinearly with sub-pixel edges."""
    pixels = images.flatten(0, 1).permute(0, 3, 1, 2).float()
    height, width = pixels.shape[-2:]
    x = box[0] + (torch.arange(width) + 0.5) / width * (box[2] - box[0])
    y = box[1] + (torch.arange(height) + 0.5) / height * (box[3] - box[1])
    places = torch.stack(torch.meshgrid(2 * x - 1, 2 * y - 1, indexing="xy"), dim=-1)
    cropped = functional.grid_sample(
        pixels, places.expand(len(pixels), -1, -1, -1), mode="bilinear", padding_mode="border", align_corners=False
    )
    return cropped.round().to(torch.uint8).permute(0, 2, 3, 1).unflatten(0, images.shape[:2])


def cosines(first: Tensor, second: Tensor, dim: int) -> Tensor:
    """Cosine similarity at every cell of the grid, flattened."""
    return functional.cosine_similarity(first, second, dim=dim).flatten()


def measure(kind: str, images: Tensor, seed: int) -> list[dict[str, Any]]:
    """Return one row per crop offset for the mini teacher of one kind, and one row over all offsets."""
    teacher = build_teacher(TeacherConfig.model_validate({"kind": kind, "preset": "mini", "seed": seed}))
    tokens = teacher.spec.fields[kind][0]
    crop: Callable[[Tensor, Tensor], Tensor]
    if kind == "sam":
        crop, dim = crop_image_features, 2
    else:
        crop, dim = (lambda features, boxes: crop_to_patches(features, boxes, tokens)), -1
    whole = teacher.encode(images)[kind]
    rows, every, ignored = [], [], []
    for name, offset in OFFSETS.items():
        box = crop_box(offset)
        recomputed = teacher.encode(crop_images(images, box))[kind]
        boxes = torch.tensor(box).expand(*images.shape[:2], 4)
        ours, reference = cosines(crop(whole, boxes), recomputed, dim), cosines(whole, recomputed, dim)
        rows.append(row(f"{kind} mini, {name}", ours, reference))
        every.append(ours)
        ignored.append(reference)
    return [*rows, row(f"{kind} mini, all offsets", torch.cat(every), torch.cat(ignored))]


def row(name: str, ours: Tensor, reference: Tensor) -> dict[str, Any]:
    """One row of the report."""
    value, base = ours.mean().item(), reference.mean().item()
    return {
        "name": name,
        "value": value,
        "unit": "mean cosine",
        "reference": f"features not cropped: {base:.4f}",
        "ratio": value / base,
        "fifth_percentile": ours.quantile(0.05).item(),
    }


def dataset_images(root: Path, count: int) -> Tensor:
    """Return `count` evenly spread samples of a robot dataset, (B, V, H, W, 3) uint8."""
    dataset = open_dataset(root)
    rows = np.unique(np.linspace(0, dataset.samples.num_rows - 1, count).round().astype(int))
    source = image_source(dataset)
    images = read_images(source, rows)
    source.reader.close()
    return torch.from_numpy(images)


def main() -> None:
    """Measure, print a table, write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dataset", type=Path, required=True, help="robot dataset whose images are cropped")
    parser.add_argument("--quick", action="store_true", help="8 samples instead of 64")
    parser.add_argument("--seed", type=int, default=0, help="seed of the teachers' weights")
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    images = dataset_images(arguments.dataset, 8 if arguments.quick else 64)
    rows = [row for kind in ("sam", "vggt") for row in measure(kind, images, arguments.seed)]
    print(f"{len(images)} samples x 2 views of {images.shape[2]} px; {RANDOM_NOTE}")
    print(f"{'':<28}{'cosine':>8}{'5 %':>8}  reference")
    for entry in rows:
        print(f"{entry['name']:<28}{entry['value']:8.4f}{entry['fifth_percentile']:8.4f}  {entry['reference']}")
    if arguments.json:
        report = {
            "rows": rows,
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "system": platform.platform()},
        }
        arguments.json.write_text(json.dumps(report, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
