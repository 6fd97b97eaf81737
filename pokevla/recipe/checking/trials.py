"""Rules of the trials of an evaluation: initial states, tasks, perturbations, and the policies that take part."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from pokevla.parts import ENVIRONMENTS, get_part, unknown_part
from pokevla.recipe.eval_sections.policies import PolicySpec
from pokevla.recipe.eval_sections.trials import TrialsConfig
from pokevla.recipe.schema import EvalRecipe


def trial_conflicts(recipe: EvalRecipe) -> Iterator[tuple[str, str]]:
    """Rules of an evaluation: (dotted field with the mistake, sentence). Tasks are looked up without a simulator."""
    first, last = recipe.trials.init_states
    if not 0 <= first < last:
        yield (
            "trials.init_states",
            f"trials.init_states should be [first, last) with first below last, not [{first}, {last}].",
        )
    shift = recipe.trials.target_shift_m
    if shift is not None and not 0 <= shift[0] < shift[1]:
        yield "trials.target_shift_m", f"trials.target_shift_m should be [least, largest] in metres, not {list(shift)}."
    tasks = recipe.trials.tasks or []
    if any(task < 0 for task in tasks) or len(set(tasks)) < len(tasks):
        yield "trials.tasks", f"trials.tasks should be different task indices from 0, not {tasks}."
    yield from _tasks(recipe.trials)
    if len({policy.name for policy in recipe.policies}) < len(recipe.policies):
        yield "policies", "two policies have the same name; the table needs different ones."
    if recipe.trials.until is not None and len(recipe.policies) < 2:
        yield "trials.until", "trials.until compares policies on the same trials: name at least two policies."
    for index, policy in enumerate(recipe.policies):
        for needed in _NEEDED.get(policy.kind, ("run",)):
            if getattr(policy, needed) is None:
                sentence = f"policies.{index}.{needed} is missing: a policy of kind {policy.kind} needs it."
                yield f"policies.{index}", sentence
        if policy.kind == "remote":
            yield from _remote(f"policies.{index}", policy)
        yield from _routes(index, policy, recipe.trials.suites)


_NEEDED: dict[str, tuple[str, ...]] = {"replay": ("dataset",), "expert": (), "remote": ("url", "protocol")}
"""Fields that a policy of this kind needs; the others need `run`."""


def _remote(field: str, policy: PolicySpec) -> Iterator[tuple[str, str]]:
    try:
        parts = urlsplit(policy.url or "ws://localhost:1")
        complete = parts.scheme in ("ws", "wss") and bool(parts.hostname) and bool(parts.port)
    except ValueError:  # a port that is no number, or a bracket left open
        complete = False
    if not complete:
        yield f"{field}.url", f"{field}.url should be ws://HOST:PORT, not {policy.url!r}."


def _routes(index: int, policy: PolicySpec, suites: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """A policy with a run for each suite has one for each suite of the trials, and no other."""
    if not isinstance(policy.run, dict):
        return
    for suite in suites:
        if suite not in policy.run:
            yield f"policies.{index}.run", f"policies.{index}.run has no run for the suite {suite} of the trials."
    for suite in sorted(set(policy.run) - set(suites)):
        yield (
            f"policies.{index}.run",
            f"policies.{index}.run names {suite}, which is not among the trials: {', '.join(suites)}.",
        )


def _tasks(trials: TrialsConfig) -> Iterator[tuple[str, str]]:
    """Simulator, suite and tasks exist. Benchmarks list them without importing a simulator."""
    unknown = unknown_part(trials.environment, ENVIRONMENTS)
    if unknown is not None:
        yield "trials.environment", f"trials.environment: {unknown}"
        return
    benchmark = get_part("trials.environment", trials.environment, ENVIRONMENTS)
    if len(set(trials.suites)) < len(trials.suites):
        yield "trials.suite", "trials.suite: a suite is named twice."
    for suite in trials.suites:
        if suite not in benchmark.suites:
            nearest = difflib.get_close_matches(suite, benchmark.suites, n=1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            yield (
                "trials.suite",
                f"trials.suite: {trials.environment} has no suite {suite!r}.{hint} "
                f"It has {', '.join(benchmark.suites)}.",
            )
            return
        last = benchmark.num_tasks(suite) - 1
        beyond = [task for task in trials.tasks or [] if task > last]
        if beyond:
            yield "trials.tasks", f"trials.tasks: {suite} has no task {beyond[0]}. It has 0 to {last}."
    yield from _selection(trials, benchmark.perturbations, takes_source=benchmark.with_source is not None)


def _selection(trials: TrialsConfig, known: Sequence[str], *, takes_source: bool) -> Iterator[tuple[str, str]]:
    """What only a benchmark of perturbed tasks understands."""
    if takes_source and trials.libero_plus is None:
        yield (
            "trials.libero_plus",
            f"trials.libero_plus: {trials.environment} needs a checkout of github.com/sylvestf/LIBERO-plus.",
        )
    if not takes_source and (trials.libero_plus is not None or trials.libero_plus_assets is not None):
        name = "libero_plus" if trials.libero_plus is not None else "libero_plus_assets"
        yield f"trials.{name}", f"trials.{name}: {trials.environment} does not read it; environment: libero_plus does."
    for name in trials.perturbations or []:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            listed = f"It has {', '.join(known)}." if known else "It has none."
            yield (
                "trials.perturbations",
                f"trials.perturbations: {trials.environment} has no perturbation {name!r}.{hint} {listed}",
            )
    if trials.subset is not None and (not known or trials.subset.per_suite % len(known)):
        yield (
            "trials.subset.per_suite",
            f"trials.subset.per_suite should be a multiple of the number of perturbations ({len(known)}) of "
            f"{trials.environment}, not {trials.subset.per_suite}.",
        )
    if trials.tasks is not None and (trials.perturbations is not None or trials.subset is not None):
        yield "trials.tasks", "trials.tasks lists the tasks; perturbations and subset select from all. Leave out one."
