"""Speed of the model: forward and backward passes against plain forms and against the bare matrix products.

    python benchmarks/model_step.py [--quick] [--only NAME ...] [--json PATH]

Random weights, one thread, fp32, CPU time, best of several interleaved rounds. A ratio above 1 means that ours is
faster; against the floor (the same matrix products alone) it is the share of the time that they need, at most about 1.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.interleaved import best_seconds
from benchmarks.matrix_floor import floor_of, record_products, total_flops
from benchmarks.plain_forms import OFTHead, VLAAdapterHead, plainly
from benchmarks.reporting import report, row
from pokevla.data.batch import QuantisedFeatures, RobotBatch
from pokevla.model.building import build_vla
from pokevla.model.heads.condition import HeadCondition
from pokevla.model.language_models import FloatRotary, build_qwen2
from pokevla.model.presets import ActionHeadConfig, PokeVLAConfig, preset
from pokevla.model.vision_encoders.towers import build_tower
from pokevla.model.vla import PokeVLA
from pokevla.parts import ACTION_HEADS, get_part
from pokevla.recipe.sections import LossConfig
from pokevla.training.objectives.objective import PosttrainObjective

TEXT_TOKENS = 45
Rows = list[dict[str, Any]]


def backward_of(module: nn.Module, run: Callable[[], Tensor]) -> Callable[[], None]:
    """Forward and backward pass; gradients are dropped afterwards."""

    def step() -> None:
        run().square().mean().backward()
        for parameter in module.parameters():
            parameter.grad = None

    return step


def head_inputs(config: PokeVLAConfig, head: ActionHeadConfig) -> tuple[list[HeadCondition], Tensor]:
    """States of one sample that ask for gradients, as those of a language model do."""
    width, tokens = config.vlm.language_model.hidden_size, config.num_views * config.vlm.num_patches
    vision, queries, seg = (
        torch.randn(1, *shape, requires_grad=True) for shape in ((tokens, width), (head.num_queries, width), (width,))
    )
    return [HeadCondition(vision, queries, seg)] * head.num_layers, torch.randn(1, 1, width, requires_grad=True)


def head_rows(layers: int, rounds: int) -> Rows:
    """Each action head at pocket's width against its rivals, over a few of its layers."""
    config = preset("pocket")
    width = config.vlm.language_model.hidden_size
    head = dataclasses.replace(config.action_head, num_layers=layers)
    size = (layers, head.width, head.num_heads, head.chunk_length, head.action_dim)
    rows: Rows = []
    for kind in (name for name in ("poke", "bridge", "oft") if name in ACTION_HEADS):
        own = dataclasses.replace(head, kind=kind)
        if kind == "oft":
            own = dataclasses.replace(own, num_queries=head.chunk_length * head.action_dim)
        ours = get_part("model.head", kind, ACTION_HEADS)(own, width)
        rivals: dict[str, nn.Module] = (
            {"plain": OFTHead(layers, head.width, width, head.chunk_length, head.action_dim)}
            if kind == "oft"
            else {"vla_adapter": VLAAdapterHead(*size)}
        )
        if kind == "poke":
            rivals["plain"] = plainly(ours)
        inputs = head_inputs(config, own)
        sides = {
            name: backward_of(module, partial(module, *inputs)) for name, module in {"ours": ours, **rivals}.items()
        }
        best = best_seconds(sides, rounds)
        label = "head_pocket" if kind == "poke" else f"head_pocket_{kind}"
        for name in rivals:
            text = f"{name}: {best[name] * 1e3:.1f} ms ({layers} layers, forward and backward)"
            rows.append(row(f"{label}/{name}", best["ours"] * 1e3, "ms", text, best[name] / best["ours"]))
    return rows


def block_rows(rounds: int) -> Rows:
    """Single blocks of pocket, one sample: the language model's, both vision towers' (one view), the head's."""
    config = preset("pocket")
    vlm, head = config.vlm, dataclasses.replace(config.action_head, num_layers=1)
    width = vlm.language_model.hidden_size
    length = config.num_views * vlm.num_patches + TEXT_TOKENS + 1 + head.num_queries
    language_model = build_qwen2(dataclasses.replace(vlm.language_model, num_layers=1, vocab_size=64)).model
    embeds = torch.randn(1, length, width, requires_grad=True)
    angles = FloatRotary(vlm.language_model)(embeds, torch.arange(length)[None])
    layer = language_model.layers[0]
    blocks: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        "language": (layer, lambda: layer(embeds, position_embeddings=angles, attention_mask=None)),
    }
    for name, tower in (("dino", vlm.dino), ("siglip", vlm.siglip)):
        block = build_tower(dataclasses.replace(tower, depth=2)).get_submodule("blocks.0")
        tokens = torch.randn(1, tower.grid**2 + (5 if name == "dino" else 0), tower.width, requires_grad=True)
        blocks[name] = (block, lambda block=block, tokens=tokens: block(tokens))
    action_head = get_part("model.head", head.kind, ACTION_HEADS)(head, width)
    conditions, proprio = head_inputs(config, head)
    blocks["head"] = (action_head, lambda: action_head(conditions, proprio))
    rows: Rows = []
    sums = {"ours": 0.0, "floor": 0.0}
    for name, (module, run) in blocks.items():
        best, flops = against_floor(backward_of(module, run), rounds)
        rows.append(floor_row(f"block_pocket_{name}/floor", best, flops))
        sums = {side: sums[side] + best[side] for side in sums}
    text = f"products alone: {sums['floor'] * 1e3:.1f} ms (one block of each kind)"
    return [row("block_pocket/floor", sums["ours"] * 1e3, "ms", text, sums["floor"] / sums["ours"]), *rows]


def against_floor(step: Callable[[], object], rounds: int) -> tuple[dict[str, float], int]:
    """Best seconds of a step and of its products alone, and its operations."""
    products = record_products(step)
    return best_seconds({"ours": step, "floor": floor_of(products)}, rounds), total_flops(products)


def floor_row(name: str, best: dict[str, float], flops: int) -> dict[str, Any]:
    """A row against the bare products."""
    text = f"products alone: {best['floor'] * 1e3:.1f} ms, {flops / 1e9:.1f} GFLOP"
    return row(name, best["ours"] * 1e3, "ms", text, best["floor"] / best["ours"])


def mini_batch(config: PokeVLAConfig, size: int) -> RobotBatch:
    """Random samples with everything that the three losses need."""
    side, views = config.vlm.image_size, config.num_views
    grid, channels = config.segmentation.grid, config.segmentation.embed_dim
    tokens, target, mask = config.geometry.grid**2, config.geometry.target_dim, config.segmentation.mask_size
    sam = torch.randint(-127, 128, (size, views, channels, grid, grid), dtype=torch.int8)
    vggt = torch.randint(-127, 128, (size, views, tokens, target), dtype=torch.int8)
    head = config.action_head

    def small(*shape: int) -> Tensor:
        return torch.full(shape, 0.01, dtype=torch.float16)

    return RobotBatch(
        keys=[str(number) for number in range(size)],
        positions=torch.arange(size),
        pixel_values=torch.randint(0, 256, (size, views, 3, side, side), dtype=torch.uint8),
        input_ids=torch.randint(0, 800, (size, TEXT_TOKENS)),
        attention_mask=torch.ones(size, TEXT_TOKENS, dtype=torch.bool),
        proprio=torch.rand(size, head.proprio_dim) * 2 - 1,
        actions=torch.rand(size, head.chunk_length, head.action_dim) * 2 - 1,
        masks=(torch.rand(size, views, mask, mask) > 0.9).to(torch.uint8),
        crop_boxes=torch.tensor([0.02, 0.03, 0.97, 0.98]).expand(size, views, 4),
        features={
            "sam": QuantisedFeatures(sam, small(size, views, channels, grid * grid // 64), "int8_channel64"),
            "vggt": QuantisedFeatures(vggt, small(size, views, tokens), "int8_token"),
        },
    )


def same_or_stop(ours: Tensor, plain: Tensor) -> None:
    """Raise ValueError unless two results agree: a rival that computes something else would prove nothing."""
    if not torch.allclose(ours, plain, rtol=1e-3, atol=1e-4):
        raise ValueError(f"the plain form computes another result: {(ours - plain).abs().max():.3g} apart")


def step_rows(rounds: int, samples: int) -> Rows:
    """The whole mini model with its three losses, against its products and against the plain form."""
    config = preset("mini")
    batch = mini_batch(config, samples)
    model = build_vla(config, seed=0)
    objectives = {"ours": PosttrainObjective(model, LossConfig())}
    objectives["plain"] = PosttrainObjective(_as_vla(plainly(model)), LossConfig())
    same_or_stop(*(objective(batch)[0].detach() for objective in objectives.values()))

    def step_of(objective: PosttrainObjective) -> Callable[[], None]:
        def step() -> None:
            objective(batch)[0].backward()
            for parameter in objective.parameters():
                parameter.grad = None

        return step

    steps = {name: step_of(objective) for name, objective in objectives.items()}
    products = record_products(steps["ours"])
    best = best_seconds({**steps, "floor": floor_of(products)}, rounds)
    plain = f"plain: {best['plain'] * 1e3:.1f} ms ({samples} samples)"
    return [
        floor_row("step_mini/floor", best, total_flops(products)),
        row("step_mini/plain", best["ours"] * 1e3, "ms", plain, best["plain"] / best["ours"]),
    ]


def chunk_rows(rounds: int) -> Rows:
    """One action chunk of mini for one observation: inference, without masks and geometry."""
    config = preset("mini")
    model = build_vla(config, seed=0).eval()
    batch = mini_batch(config, 1)
    pixels = batch.pixel_values.float() / 255

    def chunk_of(vla: PokeVLA) -> Callable[[], Tensor]:
        @torch.inference_mode()
        def chunk() -> Tensor:
            return vla(pixels, batch.input_ids, batch.attention_mask, batch.proprio, with_geometry=False).actions

        return chunk

    sides = {"ours": chunk_of(model), "plain": chunk_of(_as_vla(plainly(model)))}
    same_or_stop(sides["ours"](), sides["plain"]())
    best = best_seconds(sides, rounds)
    text = f"plain: {best['plain'] * 1e3:.1f} ms"
    return [row("chunk_mini/plain", best["ours"] * 1e3, "ms", text, best["plain"] / best["ours"])]


def _as_vla(module: nn.Module) -> PokeVLA:
    if not isinstance(module, PokeVLA):
        raise TypeError(f"expected a PokeVLA, got {type(module).__name__}")
    return module


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller batches: under a minute")
    parser.add_argument("--only", nargs="+", choices=["head", "block", "step", "chunk"], help="these rows only")
    parser.add_argument("--json", type=Path, help="file for the result")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, write JSON if asked."""
    options = parse(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rounds = 3 if options.quick else 12
    measured: dict[str, Callable[[], Rows]] = {
        "head": lambda: head_rows(1 if options.quick else 2, rounds),
        "block": lambda: block_rows(rounds),
        "step": lambda: step_rows(rounds, 2 if options.quick else 8),
        "chunk": lambda: chunk_rows(4 * rounds),
    }
    report([line for name in options.only or measured for line in measured[name]()], options.json)


if __name__ == "__main__":
    main()
