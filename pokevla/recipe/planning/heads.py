"""Costs of the action heads, one entry for each kind (`pokevla.parts.ACTION_HEADS`)."""

from __future__ import annotations

from collections.abc import Callable

from pokevla.recipe.planning.head_job import HeadCondition, HeadJob
from pokevla.recipe.planning.rival_heads import run_bridge, run_oft
from pokevla.recipe.planning.sizes import HeadSize
from pokevla.recipe.planning.tape import Activation, Tape


def run_poke(tape: Tape, job: HeadJob) -> None:
    """The paper's head (`pokevla.model.heads.poke`)."""
    size = job.size
    tape.weights(job.chunk_length * size.width)
    latents = Activation(job.chunk_length, size.width, tape.trains, kept=True)  # the first are a parameter
    for condition in job.conditions:
        latents = poke_layer(tape, job, condition, latents)
    hidden = tape.gelu(tape.linear("0", tape.layer_norm(latents), size.width))
    tape.linear("2", hidden, job.action_width)


def poke_layer(tape: Tape, job: HeadJob, condition: HeadCondition, latents: Activation) -> Activation:
    """LN -> four attentions -> concat -> Linear -> residual -> LN -> FFN -> residual."""
    width, queries = job.size.width, condition.queries
    normed = tape.layer_norm(latents)
    joined = Activation(queries.rows + 1, queries.width, queries.grad or job.proprio.grad)  # with proprio
    for source in (normed, joined, condition.vision):
        _attend(tape, job.size, tape.linear("query", normed, width), source)
    if job.seg_injection:
        tape.linear("seg", condition.seg, width, bias=False)
    branches = Activation(latents.rows, (4 if job.seg_injection else 3) * width, latents.grad)
    latents = tape.add(latents, tape.linear("fuse", branches, width))
    hidden = tape.gelu(tape.linear("0", tape.layer_norm(latents), width))
    return tape.add(latents, tape.linear("2", hidden, width))


def _attend(tape: Tape, size: HeadSize, query: Activation, source: Activation) -> Activation:
    """Keys and values from one Linear D -> 2W without bias, and attention to them, in whichever of two equal forms is
    cheaper (`pokevla.model.heads.attention`)."""
    width, rows = size.width, query.rows
    if not is_absorption_cheaper(rows, source.rows, width, source.width, size.heads):
        pair = tape.linear("key_value", source, 2 * width, bias=False)
        return tape.attend([query, pair], rows, source.rows, width, size.heads)
    # Each head has a query of its own in the source's space, and mixes the source itself.
    tape.weights(2 * source.width * width)
    grad = query.grad or tape.trains
    by_head = Activation(rows, width, query.grad)  # a copy, ordered by head
    tape.weighted_product(by_head, 2.0 * rows * width * source.width)
    absorbed = Activation(rows * size.heads, source.width, grad)
    mixed = tape.attend([absorbed, source], rows * size.heads, source.rows, source.width, 1)
    mixed = Activation(mixed.rows, mixed.width, mixed.grad)  # a copy, ordered by head
    tape.weighted_product(mixed, 2.0 * rows * width * source.width)
    return Activation(rows, width, grad)


def is_absorption_cheaper(num_latents: int, num_source: int, width: int, source_width: int, num_heads: int) -> bool:
    """The comparison of `pokevla.model.heads.attention`, which this package cannot import (it needs torch)."""
    absorbed = 2 * source_width * num_latents * (width + num_heads * num_source)
    plain = 2 * width * num_source * (source_width + num_latents)
    return absorbed < plain


HEADS: dict[str, Callable[[Tape, HeadJob], None]] = {"poke": run_poke, "bridge": run_bridge, "oft": run_oft}
"""A head that is not here is not counted, and the plan says so. A module listed in `extensions` can add its own."""
