"""Padded, grouped and packed batches of questions: padding, tokens per second, and whether the losses are the same.

    python benchmarks/packing.py --json packing.json
    python benchmarks/packing.py --quick

Questions about one picture each, answers with log-normal lengths as LLaVA's, one token per character. Global batch 64,
micro-batch 4, packed sequences of at most 2,048 tokens; a model of size `mini` with a frozen image encoder, fp32, on
one thread. The batches are those of the recipe's loader.

- `padding_share/...`: share of the tokens in sequences, those of images included, that are padding. `packed_rows`: with
  micro-batches of 16, so that each has several sequences.
- `tokens_per_s/...`: real tokens per CPU second of forward and backward passes over a global batch. Ratio: over padded.
  The sides take turns, best of several rounds.
- `language_model/...`: the same without the image encoder, whose work is the same in each.
- `loss_difference/...`: difference of a global batch's loss from the padded one, and the largest of any gradient,
  relative to the largest gradient of its parameter.
- `plan_ms`: CPU milliseconds in which a rank tokenises and deals a global batch, the smallest of a few, as a difference
  of two larger numbers: 0 if that is lost in the noise. Reference: reading and decoding its samples.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.interleaved import best_seconds
from benchmarks.readers.pictures import WordTokenizer, write_questions
from benchmarks.reporting import report, row
from pokevla.data.batch import VLMBatch
from pokevla.data.loader import batch_maker
from pokevla.data.loading.memory import page_aligned
from pokevla.data.mixture import open_mixture
from pokevla.data.samples import VLMSampleMaker
from pokevla.model.building import build_vlm
from pokevla.model.presets import PokeVLMConfig, preset
from pokevla.recipe.schema import PretrainRecipe
from pokevla.training.objectives.objective import PretrainObjective

GLOBAL, MICRO = 64, 4
LAYOUTS: dict[str, dict[str, Any]] = {
    "padded": {},
    "grouped": {"data": {"sort_by_length": True}},
    "packed": {"packing": {"tokens": 2048}},
    "packed_rows": {"packing": {"tokens": 2048}, "batch": {"global": GLOBAL, "micro": 4 * MICRO}},
}


def recipe_of(root: Path, layout: str) -> PretrainRecipe:
    """A pre-training on one dataset with a layout."""
    changes = LAYOUTS[layout]
    return PretrainRecipe.model_validate(
        {
            "kind": "pretrain",
            "name": "benchmark",
            "optim": {"lr": 1e-3},
            "batch": {"global": GLOBAL, "micro": MICRO},
            "steps": 1,
            **changes,
            "data": {"datasets": [{"path": str(root)}], **changes.get("data", {})},
        }
    )


class Batches:
    """The micro-batches of a layout."""

    def __init__(self, root: Path, layout: str, config: PokeVLMConfig) -> None:
        recipe = recipe_of(root, layout)
        mixture = open_mixture(recipe.data, "vlm")
        samples = VLMSampleMaker(mixture, recipe.seed, WordTokenizer(), config.image_size)
        self._make = batch_maker(recipe, mixture, samples, config.num_patches)
        self._micro = recipe.batch.micro

    def of_step(self, step: int) -> list[VLMBatch]:
        """Those of one global batch."""
        firsts = range(step * GLOBAL, (step + 1) * GLOBAL, self._micro)
        return [self._make(np.arange(first, first + self._micro), page_aligned) for first in firsts]


def tokens_of(batches: Sequence[VLMBatch], num_vision: int) -> tuple[int, int]:
    """(real tokens, tokens with padding) of the sequences of batches."""
    real = whole = 0
    for batch in batches:
        real += int(batch.attention_mask.sum()) + num_vision * batch.size
        if batch.packing is None:
            whole += batch.size * (batch.attention_mask.shape[1] + num_vision)
        else:
            blocks = batch.packing.blocks
            whole += (blocks[-1][0] + 1) * max(stop for _, _, stop in blocks)
    return real, whole


def padding(batches: dict[str, list[list[VLMBatch]]], num_vision: int) -> list[dict[str, Any]]:
    """The rows of `padding_share`, from the micro-batches of several steps by layout."""
    rows = []
    for layout, steps in batches.items():
        real, whole = tokens_of([batch for step in steps for batch in step], num_vision)
        rows.append(row(f"packing/padding_share/{layout}", 100 * (1 - real / whole), "%"))
    return rows


def pass_over(objective: PretrainObjective, batches: Sequence[VLMBatch]) -> float:
    """Forward and backward passes over the micro-batches of a step, gradients added up. Returns the loss."""
    objective.zero_grad()
    total = 0.0
    for batch in batches:
        loss = objective(batch)[0] / len(batches)
        loss.backward()
        total += float(loss.detach())
    return total


def differences(objective: PretrainObjective, batches: dict[str, list[VLMBatch]]) -> list[dict[str, Any]]:
    """The rows of `loss_difference`."""
    found: dict[str, tuple[float, list[torch.Tensor]]] = {}
    for layout, each in batches.items():
        loss = pass_over(objective, each)
        found[layout] = loss, [p.grad.clone() for p in objective.parameters() if p.grad is not None]
    loss, gradients = found.pop("padded")
    rows = []
    for layout, (other, others) in found.items():
        relative = max(
            float((one - two).abs().max() / one.abs().max().clamp(min=1e-12))
            for one, two in zip(gradients, others, strict=True)
        )
        text = f"loss {loss:.6f}, gradients differ by {relative:.1e}"
        rows.append(row(f"packing/loss_difference/{layout}", abs(other - loss), "", text, gradients=relative))
    return rows


def speed(objective: PretrainObjective, batches: dict[str, list[VLMBatch]], rounds: int) -> list[dict[str, Any]]:
    """The rows of `tokens_per_s` and `language_model`."""
    model = objective.model
    sides: dict[str, Callable[[], object]] = {}
    for layout, each in batches.items():
        sides[layout] = lambda each=each: pass_over(objective, each)

        def images(each: list[VLMBatch] = each) -> None:
            with torch.no_grad():
                for batch in each:
                    model.vision_backbone(batch.pixel_values.flatten(0, 1).float() / 255)

        sides[f"{layout} images"] = images
    seconds = best_seconds(sides, rounds)
    real = {layout: tokens_of(each, model.config.num_patches)[0] for layout, each in batches.items()}
    rows = []
    for layout, tokens in real.items():
        whole, text = seconds[layout], seconds[layout] - seconds[f"{layout} images"]
        padded, padded_text = seconds["padded"], seconds["padded"] - seconds["padded images"]
        rows.append(row(f"packing/tokens_per_s/{layout}", tokens / whole, "tokens/s", "padded", padded / whole))
        rows.append(row(f"packing/language_model/{layout}", tokens / text, "tokens/s", "padded", padded_text / text))
    return rows


def planning(root: Path, config: PokeVLMConfig, steps: int) -> dict[str, Any]:
    """The row of `plan_ms`."""
    packed, padded = Batches(root, "packed", config), Batches(root, "padded", config)
    seconds: dict[str, list[float]] = {"packed": [], "padded": []}
    for step in range(steps):
        for name, batches in (("packed", packed), ("padded", padded)):
            begun = time.thread_time()
            batches.of_step(step)
            seconds[name].append(time.thread_time() - begun)
    making = min(seconds["padded"])
    plan = max(0.0, min(seconds["packed"]) - making)
    return row("packing/plan_ms", plan * 1e3, "ms", f"making the batches {making * 1e3:.0f} ms", plan / making)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="a model of size tiny, fewer rounds")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    config = preset("tiny" if options.quick else "mini").vlm
    steps = 2 if options.quick else 4
    objective = PretrainObjective(build_vlm(config, seed=0))
    objective.model.vision_backbone.requires_grad_(False)
    with tempfile.TemporaryDirectory() as name:
        root = write_questions(Path(name) / "vlm", steps * GLOBAL)
        made = {layout: Batches(root, layout, config) for layout in LAYOUTS}
        batches = {layout: [each.of_step(step) for step in range(steps)] for layout, each in made.items()}
        rows = padding(batches, config.num_patches)
        first = {layout: each[0] for layout, each in batches.items()}
        rows += differences(objective, first)
        rows += speed(objective, first, 2 if options.quick else 4)
        rows.append(planning(root, config, steps))
    report(rows, options.json)


if __name__ == "__main__":
    main()
