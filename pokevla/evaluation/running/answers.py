"""Asks a policy for the actions of several trials at once, and refuses what no robot could execute."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from pokevla.errors import PolicyError
from pokevla.evaluation.running.messages import Query
from pokevla.policy.acting import ActingPolicy, TrialKeepingPolicy


def ask(
    name: str,
    policy: ActingPolicy,
    queries: Sequence[Query],
    batch_size: int,
    trials: Sequence[Hashable] | None = None,
) -> np.ndarray:
    """Actions (N, K, A) for N queries, in batches of exactly `batch_size`, padded with copies of the last.

    Matrix products of another batch size round differently, and a closed loop amplifies the last bit. With a fixed size
    the result of a trial does not depend on how many other workers wait at the same time. `trials` names the trial of
    each query, for a policy that keeps something for each.

    Raises:
        PolicyError: the policy called `name` returned another shape, or numbers that are not finite.
    """
    chunks = []
    for start in range(0, len(queries), batch_size):
        group = queries[start : start + batch_size]
        named = None if trials is None else trials[start : start + batch_size]
        chunks.append(_ask_padded(name, policy, group, batch_size, named))
    return np.concatenate(chunks)


def _ask_padded(
    name: str,
    policy: ActingPolicy,
    queries: Sequence[Query],
    size: int,
    trials: Sequence[Hashable] | None,
) -> np.ndarray:
    missing = size - len(queries)
    padded = list(queries) + [queries[-1]] * missing
    images = None
    if policy.needs_images:
        images = np.stack([query.images for query in padded if query.images is not None])
    proprio = np.stack([query.proprio for query in padded])
    instructions, steps = [query.instruction for query in padded], [query.step for query in padded]
    if trials is not None and isinstance(policy, TrialKeepingPolicy):
        actions = policy.act(images, proprio, instructions, steps, [*trials, *[trials[-1]] * missing])
    else:
        actions = policy.act(images, proprio, instructions, steps)
    _check(name, actions, size, policy.embodiment.action_width)
    return actions[: len(queries)]


def _check(name: str, actions: np.ndarray, size: int, width: int) -> None:
    remedy = "The evaluation has stopped; finished trials are kept. Mend the policy and run the same command again."
    shape = np.shape(actions)
    if len(shape) != 3 or shape[0] != size or shape[1] < 1 or shape[2] != width:
        raise PolicyError(
            f"Policy {name} returned actions of shape {shape}; ({size}, actions, {width}) is needed.", remedy
        )
    values = np.asarray(actions)
    if values.dtype.kind not in "fiu":
        raise PolicyError(f"Policy {name} returned actions of type {values.dtype}; numbers are needed.", remedy)
    if not np.isfinite(values).all():
        trial, action, field = np.argwhere(~np.isfinite(values))[0]
        raise PolicyError(
            f"Policy {name} returned {values[trial, action, field]} as action {action}, value {field}.", remedy
        )
