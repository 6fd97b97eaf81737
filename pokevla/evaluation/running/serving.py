"""Main process of an evaluation: assigns trials to workers and answers all waiting workers with one batched query."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pokevla.errors import SimulationError
from pokevla.evaluation.running.answers import ask
from pokevla.evaluation.running.assignment import Kinship, WorkQueue
from pokevla.evaluation.running.messages import Actions, Query, RunTrial, TrialDone
from pokevla.evaluation.running.pool import Crash, WorkerPool
from pokevla.evaluation.running.watching import Ending, TrialWatcher, Watched
from pokevla.evaluation.trial_records import Outcome, TrialRecord
from pokevla.evaluation.trials import Trial
from pokevla.policy.acting import ActingPolicy, TrialKeepingPolicy
from pokevla.policy.expert import ExpertPolicy

MAX_FIRST_CRASHES = 3
"""The evaluation stops if this many trials have crashed and none has finished: the simulator does not work here."""


PolicyKey = tuple[str, str]
"""(name of the policy, suite): a policy may have other weights or statistics in each suite."""


@dataclass(frozen=True)
class Serving:
    """How trials are served."""

    actions_per_query: int
    """Executed of each chunk."""
    batch_size: int = 1
    """Observations in one query of a policy."""
    retries: int = 2
    """How often a crashed trial is tried again, in a fresh process."""
    kinship: Kinship = lambda _suite, _index: ()
    """Of the benchmark: a worker goes on with a task that has much in common with its last."""


@dataclass
class _Running:
    """A trial that a worker runs."""

    trial: Trial
    watcher: TrialWatcher | None
    queries: int = 0
    steps: int = 0
    """Actions executed before the last query."""


def run_trials(
    trials: Iterable[Trial],
    policies: Mapping[PolicyKey, ActingPolicy],
    pool: WorkerPool,
    serving: Serving,
    watch: Callable[[Trial], TrialWatcher | None],
    on_record: Callable[[TrialRecord], None],
    *,
    finished: int = 0,
) -> None:
    """Run all `trials`.

    `on_record` receives each record as soon as its trial has ended. Waiting workers are served at once, so a slow
    worker delays no other. `finished`: trials that have ended well before, which shows that the simulator works.

    Raises:
        SimulationError: the first trials all crash.
        PolicyError: a policy returns actions that cannot be executed.
    """
    queue = WorkQueue(trials, serving.kinship)
    running: dict[int, _Running] = {}
    attempts: dict[tuple[str, str, int, int], int] = {}
    crashed = 0
    while True:
        for slot in pool.idle_slots():
            trial = queue.next(slot)
            if trial is not None:
                running[slot] = _Running(trial, watch(trial))
                pool.start_trial(slot, _request(trial, policies[_key(trial)], running[slot].watcher))
        if not running:
            return
        waiting: list[tuple[int, Query]] = []
        for slot, report in pool.reports(sorted(running)):
            if isinstance(report, Query):
                running[slot].queries += 1
                running[slot].steps = report.step
                waiting.append((slot, report))
                continue
            ended = running.pop(slot)
            pool.release(slot)
            key = ended.trial.key
            if isinstance(policy := policies[_key(ended.trial)], TrialKeepingPolicy):
                policy.end_trial(key)
            if isinstance(report, Crash):
                queue.forget(slot)
                attempts[key] = attempts.get(key, 0) + report.blames_trial
                if attempts[key] <= serving.retries:
                    queue.put_back(ended.trial)
                    continue
            crashed, finished = crashed + isinstance(report, Crash), finished + isinstance(report, TrialDone)
            on_record(_record(ended, report, attempts.get(key, 0)))
            if finished == 0 and crashed >= MAX_FIRST_CRASHES and isinstance(report, Crash):
                raise SimulationError(
                    f"The first {crashed} trials all crashed; the last one: {report.reason}.",
                    "Try `pokevla doctor`, then one trial with workers=1.",
                )
        answers = _answer(pool, waiting, running, policies, serving)
        for slot, query in waiting:  # after the answer, so that workers step while images are drawn
            watcher = running[slot].watcher
            if watcher is not None:
                watcher.see(query, answers.get(slot))


def _answer(
    pool: WorkerPool,
    waiting: Sequence[tuple[int, Query]],
    running: Mapping[int, _Running],
    policies: Mapping[PolicyKey, ActingPolicy],
    serving: Serving,
) -> dict[int, np.ndarray]:
    """Send actions to all waiting workers; returns the whole chunks (K, A) by slot, without those of the expert."""
    answers: dict[int, np.ndarray] = {}
    for key in dict.fromkeys(_key(running[slot].trial) for slot, _ in waiting):
        group = [(slot, query) for slot, query in waiting if _key(running[slot].trial) == key]
        policy, count = policies[key], serving.actions_per_query
        if isinstance(policy, ExpertPolicy):
            for slot, _ in group:
                pool.send_actions(slot, Actions(None, count))
            continue
        for start in range(0, len(group), serving.batch_size):  # each batch is sent off before the next is computed
            batch = group[start : start + serving.batch_size]
            trials = [running[slot].trial.key for slot, _ in batch]
            chunks = ask(key[0], policy, [query for _, query in batch], serving.batch_size, trials)
            for (slot, _), chunk in zip(batch, chunks, strict=True):
                pool.send_actions(slot, Actions(chunk[:count]))
                answers[slot] = chunk
    return answers


def _key(trial: Trial) -> PolicyKey:
    return trial.policy, trial.suite


def _request(trial: Trial, policy: ActingPolicy, watcher: TrialWatcher | None) -> RunTrial:
    watched = watcher is not None
    return RunTrial(
        trial,
        images=policy.needs_images or watched,
        masks=watcher is not None and watcher.wants_masks,
        last_image=watched,
        scripted=isinstance(policy, ExpertPolicy),
    )


def _record(ended: _Running, report: TrialDone | Crash, crashes: int) -> TrialRecord:
    trial, watched = ended.trial, _finish(ended, report)
    if isinstance(report, Crash):
        return TrialRecord(
            policy=trial.policy, suite=trial.suite, task_index=trial.task_index, task="", trial=trial.number,
            init_state_index=trial.init_state_index, target_shift=None, outcome="crashed", steps=0,
            queries=ended.queries, seconds=0.0, error=report.reason, seed=trial.seed, attempts=crashes, **watched,
        )  # fmt: skip
    spent = {name: round(value, 3) for name, value in vars(report.spent).items()}
    return TrialRecord(
        policy=trial.policy, suite=trial.suite, task_index=trial.task_index, task=report.task,
        trial=trial.number, init_state_index=trial.init_state_index, target_shift=report.target_shift,
        outcome=_outcome(report), steps=report.steps, queries=report.queries,
        seconds=round(report.seconds, 2), seed=trial.seed, attempts=crashes + 1, gl=report.gl, spent=spent,
        perturbation=report.perturbation, level=report.level, **watched,
    )  # fmt: skip


def _finish(ended: _Running, report: TrialDone | Crash) -> Watched:
    if ended.watcher is None:
        return Watched()
    if isinstance(report, Crash):
        return ended.watcher.finish(Ending("crashed", ended.steps))
    if report.last is not None:
        ended.watcher.see(report.last, None)
    return ended.watcher.finish(Ending(_outcome(report), report.steps))


def _outcome(report: TrialDone) -> Outcome:
    return "success" if report.success else "failure"
