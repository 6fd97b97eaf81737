"""Costs of the heads of other models, in our form for training (`pokevla.model.heads.bridge`, `oft`)."""

from __future__ import annotations

from pokevla.recipe.planning.head_job import HeadJob
from pokevla.recipe.planning.tape import Activation, Tape


def run_bridge(tape: Tape, job: HeadJob) -> None:
    """VLA-Adapter's head."""
    width = job.size.width
    tape.weights(job.chunk_length * width)
    latents = Activation(job.chunk_length, width, tape.trains, kept=True)  # the first are a parameter
    read: dict[int, tuple[Activation, Activation]] = {}
    for condition in job.conditions:
        queries, vision = condition.queries, condition.vision
        # With proprio behind the queries, and a copy of the vision states: once for all layers that read the same.
        joined = Activation(queries.rows + 1, queries.width, queries.grad or job.proprio.grad)
        sources = read.setdefault(id(condition), (joined, Activation(vision.rows, vision.width, vision.grad)))
        latents = _bridge_block(tape, job, *sources, latents)
    tape.linear("output", tape.layer_norm(latents), job.action_width)


def _bridge_block(tape: Tape, job: HeadJob, queries: Activation, vision: Activation, latents: Activation) -> Activation:
    """Attention to latents and queries with proprio, attention to vision behind a gate, Linear, FFN of one Linear."""
    width = job.size.width
    query = tape.linear("query", latents, width)
    pairs = [_key_value(tape, job, source, number) for number, source in enumerate((latents, queries, vision))]
    near = [Activation(latents.rows + queries.rows, width, tape.trains) for _ in range(2)]  # keys, values
    attended = tape.attend([query, *near], latents.rows, near[0].rows, width, job.size.heads)
    seen = tape.attend([query, *pairs[2]], latents.rows, vision.rows, width, job.size.heads)
    tape.weights(1)  # the gate: its product keeps what vision gives, which attention has kept
    update = tape.linear("output", Activation(latents.rows, width, attended.grad or seen.grad), width)
    latents = tape.add(latents, update)
    hidden = tape.relu(tape.linear("ffn", tape.layer_norm(latents), width))
    return tape.add(latents, hidden)


def _key_value(tape: Tape, job: HeadJob, source: Activation, number: int) -> list[Activation]:
    """Keys and values of one source, with Linears of its own (`pro`) or with those of the first (`original`)."""
    width, pro = job.size.width, job.variant == "pro"
    for has_bias in (pro, True):  # a key bias that all keys share cancels
        if pro or number == 0:
            tape.weights(source.width * width + (width if has_bias else 0))
        tape.weighted_product(source, 2.0 * source.rows * source.width * width)
    return [Activation(source.rows, width, source.grad or tape.trains) for _ in range(2)]


def run_oft(tape: Tape, job: HeadJob) -> None:
    """OpenVLA-OFT's MLP. The states of a step stand side by side, one for each number of the action."""
    width, queries = job.size.width, job.conditions[-1].queries
    joined = Activation(job.chunk_length, job.action_width * queries.width, queries.grad)
    states = tape.relu(tape.linear("stem", tape.layer_norm(joined), width))
    for _ in range(job.size.layers):
        states = tape.add(states, tape.relu(tape.linear("ffn", tape.layer_norm(states), width)))
    tape.linear("output", tape.layer_norm(states), job.action_width)
