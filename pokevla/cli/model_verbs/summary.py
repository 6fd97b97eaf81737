"""Text of `pokevla model summary`: at most 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from pokevla.recipe.planning.parts import TITLES, PartCost
from pokevla.recipe.planning.summary import BACKBONE_NOTE, Summary

GIGA, MIB = 1e9, 2**20
WIDTH = 80


def summary_lines(made: Summary) -> list[str]:
    """The whole text."""
    return [*_opening(made), "", *_parts(made), "", *_activations(made), "", *_memory(made), "", *_notes(made)]


def _opening(made: Summary) -> Iterator[str]:
    recipe, sample = made.recipe, made.cost.sample
    modes = ", ".join(f"{name.replace('_', ' ')} {mode}" for name, mode in dict(recipe.trainable).items())
    rank = f", rank {recipe.lora.rank}" if recipe.lora else ""
    yield f"{made.model}, preset {made.preset}, {recipe.kind}, {recipe.precision}"
    yield f"trains: {modes}{rank}"
    yield (
        f"one sample: {sample.views:g} view{'s' if sample.views > 1 else ''}, {sample.text_tokens} text tokens, "
        f"{made.cost.tokens} tokens in the language model"
    )


def _parts(made: Summary) -> Iterator[str]:
    yield f"{'':<18}{'parameters':>13}{'trainable':>13}{'matrix GFLOP':>18}{'attention GFLOP':>18}"
    yield f"{'':<18}{'':>13}{'':>13}" + 2 * f"{'forward':>9}{'backward':>9}"
    cost = made.cost
    for part in cost.parts:
        if part.is_counted and part.parameters:
            yield _row(TITLES[part.name], part.parameters, part.trainable, _operations(part))
        elif not part.is_counted:
            yield f"{TITLES[part.name]:<18}{'not counted':>13}"
    if cost.adapters:
        yield f"{'LoRA':<18}{cost.adapters:>13,}{cost.adapters:>13,}  (operations are in the parts)"
    sums = [sum(column) for column in zip(*(_operations(part) for part in cost.parts), strict=True)]
    yield _row("sum", cost.parameters, cost.trainable, sums)
    yield f"{'trainable':<18}{cost.trainable / cost.parameters:>26.1%}"
    yield f"DINOv2 + SigLIP + language model: {made.backbone:,} parameters"
    if made.preset == "pocket":
        yield f"  = {BACKBONE_NOTE};"
        yield "  not projector, SEG, queries, head, decoders, LoRA, teachers"
    yield f"both passes: {cost.flops / 1e12:.3g} TFLOP; checkpointing adds {made.checkpointed.recomputed / 1e12:.3g}"


def _operations(part: PartCost) -> list[float]:
    return [part.matrix.forward, part.matrix.backward, part.attention.forward, part.attention.backward]


def _row(title: str, parameters: int, trainable: int, operations: Sequence[float]) -> str:
    columns = "".join(f"{_giga(number):>9}" for number in operations)
    return f"{title:<18}{parameters:>13,}{trainable:>13,}{columns}"


def _giga(operations: float) -> str:
    return "-" if operations == 0 else f"{operations / GIGA:,.1f}" if operations > GIGA / 10 else "<0.1"


def _activations(made: Summary) -> Iterator[str]:
    yield f"{'activations of one sample, MiB':<32}{'kept':>10}{'with checkpointing':>20}"
    for part, again in zip(made.cost.parts, made.checkpointed.parts, strict=True):
        if part.kept:
            yield f"  {TITLES[part.name]:<30}{part.kept / MIB:>10,.1f}{again.kept / MIB:>20,.1f}"
    extra = [cost.activation_bytes - sum(part.kept for part in cost.parts) for cost in (made.cost, made.checkpointed)]
    if any(extra):
        yield f"  {'one block or large gradient':<30}{extra[0] / MIB:>10,.1f}{extra[1] / MIB:>20,.1f}"
    yield (f"  {'sum':<30}{made.cost.activation_bytes / MIB:>10,.1f}{made.checkpointed.activation_bytes / MIB:>20,.1f}")


def _memory(made: Summary) -> Iterator[str]:
    recipe = made.recipe
    ranks, kind = recipe.resources.world_size, "with" if recipe.activation_checkpointing else "without"
    yield f"GiB per rank: {ranks} ranks, {recipe.batch.micro} samples each, {kind} checkpointing"
    yield f"  {'ZeRO':>4}{'weights':>10}{'gradients':>11}{'optimizer':>11}{'activations':>13}{'total':>8}"
    for row in made.memory:
        yield (
            f"  {row.stage:>4}{row.weights:>10.2f}{row.gradients:>11.2f}{row.optimizer:>11.2f}"
            f"{row.activations:>13.2f}{row.total:>8.1f}"
        )


def _notes(made: Summary) -> Iterator[str]:
    notes = list(made.notes)
    if made.teachers:
        counts = ", ".join(f"{name} {count:,}" for name, count in made.teachers.items())
        notes.insert(0, f"Teachers, whose cached features training reads, are not in memory: {counts} parameters.")
    for note in [*notes, "What each number counts: docs/model.md, Counting."]:
        yield from textwrap.wrap(note, WIDTH)
