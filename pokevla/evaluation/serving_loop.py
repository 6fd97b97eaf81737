"""Main process of an evaluation: assigns trials to workers and answers all waiting workers with one batched query."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from pokevla.errors import SimulationError
from pokevla.evaluation.pool import Crash, Report, WorkerPool
from pokevla.evaluation.trial_records import TrialRecord
from pokevla.evaluation.trials import Trial
from pokevla.evaluation.worker import Actions, Query, RunTrial, TrialDone
from pokevla.policy.acting import ActingPolicy

MAX_FIRST_CRASHES = 3
"""The evaluation stops if this many trials have crashed and none has finished: the simulator does not work here."""


class TrialWatcher(Protocol):
    """Observes a trial as it runs (pokevla.evaluation.videos.TrialRecorder)."""

    wants_masks: bool

    def see(self, query: Query) -> None: ...

    def finish(self) -> tuple[str | None, float | None]:
        """(video path relative to the evaluation directory, mean mask IoU)."""
        ...


def run_trials(
    trials: Iterable[Trial],
    policies: Mapping[str, ActingPolicy],
    pool: WorkerPool,
    actions_per_query: int,
    watch: Callable[[Trial], TrialWatcher | None],
    on_record: Callable[[TrialRecord], None],
) -> None:
    """Run all `trials`, executing `actions_per_query` actions of each chunk.

    `on_record` receives each record as soon as its trial has ended. Waiting workers are served at once, so a slow
    worker delays no other. Raises SimulationError if the first trials all crash.
    """
    pending = deque(trials)
    watchers: dict[int, TrialWatcher | None] = {}
    queries: dict[int, int] = {}
    crashes = finished = 0
    while True:
        for slot in pool.idle_slots():
            if pending:
                trial = pending.popleft()
                watchers[slot], queries[slot] = watch(trial), 0
                pool.start_trial(slot, _request(trial, policies[trial.policy], watchers[slot]))
        busy = [slot for slot in range(len(pool.workers)) if slot not in pool.idle_slots()]
        if not busy:
            return
        waiting: list[tuple[int, Query]] = []
        trial_of = {slot: _running(pool, slot) for slot in busy}
        for slot, report in pool.reports(busy):
            watcher = watchers[slot]
            if isinstance(report, Query):
                queries[slot] += 1
                waiting.append((slot, report))
                continue
            record = _record(trial_of[slot], report, queries[slot], watcher)
            crashes, finished = crashes + isinstance(report, Crash), finished + isinstance(report, TrialDone)
            worker = pool.workers[slot]
            if worker is not None:
                worker.running = None
            on_record(record)
            if finished == 0 and crashes >= MAX_FIRST_CRASHES:
                raise SimulationError(
                    f"The first {crashes} trials all crashed; the last one: {record.error}.",
                    "Try `pokevla doctor`, then one trial with workers=1.",
                )
        _answer(pool, waiting, trial_of, policies, actions_per_query)
        for slot, query in waiting:  # after the answer, so that workers step while images are drawn
            watcher = watchers[slot]
            if watcher is not None:
                watcher.see(query)


def act_padded(policy: ActingPolicy, queries: Sequence[Query], size: int) -> np.ndarray:
    """Actions (len(queries), K, A) of one batch padded to `size` rows with copies of the last.

    Matrix products of another batch size round differently, and a closed loop amplifies the last bit. With a fixed
    size, the result of a trial does not depend on which other workers wait at the same time.
    """
    padded = list(queries) + [queries[-1]] * (size - len(queries))
    images = None
    if policy.needs_images:
        images = np.stack([query.images for query in padded if query.images is not None])
    actions = policy.act(
        images,
        np.stack([query.proprio for query in padded]),
        [query.instruction for query in padded],
        [query.step for query in padded],
    )
    return actions[: len(queries)]


def _answer(
    pool: WorkerPool,
    waiting: Sequence[tuple[int, Query]],
    trial_of: Mapping[int, Trial],
    policies: Mapping[str, ActingPolicy],
    actions_per_query: int,
) -> None:
    for name in dict.fromkeys(trial_of[slot].policy for slot, _ in waiting):
        group = [(slot, query) for slot, query in waiting if trial_of[slot].policy == name]
        chunks = act_padded(policies[name], [query for _, query in group], len(pool.workers))
        for (slot, _), chunk in zip(group, chunks, strict=True):
            pool.send_actions(slot, Actions(chunk[:actions_per_query]))


def _request(trial: Trial, policy: ActingPolicy, watcher: TrialWatcher | None) -> RunTrial:
    masks = watcher is not None and watcher.wants_masks
    return RunTrial(trial, images=policy.needs_images or watcher is not None, masks=masks)


def _running(pool: WorkerPool, slot: int) -> Trial:
    worker = pool.workers[slot]
    if worker is None or worker.running is None:
        raise RuntimeError(f"slot {slot} runs no trial")
    return worker.running.trial


def _record(trial: Trial, report: Report, queries: int, watcher: TrialWatcher | None) -> TrialRecord:
    if isinstance(report, TrialDone):
        if watcher is not None and report.last is not None:
            watcher.see(report.last)
        video, mask_iou = watcher.finish() if watcher is not None else (None, None)
        return TrialRecord(
            policy=trial.policy, suite=trial.suite, task_index=trial.task_index, task=report.task,
            trial=trial.number, init_state_index=trial.init_state_index, target_shift=report.target_shift,
            outcome="success" if report.success else "failure", steps=report.steps, queries=report.queries,
            seconds=round(report.seconds, 2), video=video, mask_iou=mask_iou,
        )  # fmt: skip
    reason = report.reason if isinstance(report, Crash) else "unknown"
    return TrialRecord(
        policy=trial.policy, suite=trial.suite, task_index=trial.task_index, task="", trial=trial.number,
        init_state_index=trial.init_state_index, target_shift=None, outcome="crashed", steps=0, queries=queries,
        seconds=0.0, error=reason,
    )  # fmt: skip
