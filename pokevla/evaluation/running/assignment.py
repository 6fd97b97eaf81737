"""Which trial a worker runs next: it keeps its task as long as it can, and no worker idles at the end.

Building a task's environment takes longer than many a trial. So a worker takes a whole task, the longest first, and
goes on with it. Then it takes the one that has most in common with its last: its environment becomes that task in a
fraction of the time. When no task is left untouched it helps with the one that has most left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pokevla.evaluation.trials import Trial

TaskKey = tuple[str, int]

Kinship = Callable[[str, int], tuple[str, ...]]
"""`pokevla.simulation.benchmark.Benchmark.kinship`."""


@dataclass
class _Pending:
    trials: deque[Trial] = field(default_factory=deque)
    steps_left: int = 0
    """Step limits of the trials, an upper bound of their length."""


class WorkQueue:
    """Pending trials by task. The outcome of a trial does not depend on the order, so it is free to be the quickest."""

    def __init__(self, trials: Iterable[Trial], kinship: Kinship = lambda _suite, _index: ()) -> None:
        self._kinship = kinship
        self._kin: dict[TaskKey, tuple[str, ...]] = {}
        self._pending: dict[TaskKey, _Pending] = {}
        self._task_of_slot: dict[int, TaskKey] = {}
        for trial in trials:
            self._add(trial)

    def __len__(self) -> int:
        """Number of pending trials."""
        return sum(len(pending.trials) for pending in self._pending.values())

    def next(self, slot: int) -> Trial | None:
        """The next trial for the worker in `slot`; None if none is left."""
        key = self._choose(slot)
        if key is None:
            return None
        pending = self._pending[key]
        trial = pending.trials.popleft()
        pending.steps_left -= trial.max_steps
        if not pending.trials:
            del self._pending[key]
        self._task_of_slot[slot] = key
        return trial

    def forget(self, slot: int) -> None:
        """The worker of `slot` was replaced: it has no environment any more."""
        self._task_of_slot.pop(slot, None)

    def put_back(self, trial: Trial) -> None:
        """A trial that is to be tried again, before the others of its task."""
        self._add(trial, first=True)

    def _add(self, trial: Trial, *, first: bool = False) -> None:
        key = (trial.suite, trial.task_index)
        pending = self._pending.setdefault(key, _Pending())
        self._kin.setdefault(key, (trial.suite, *self._kinship(*key)))
        (pending.trials.appendleft if first else pending.trials.append)(trial)
        pending.steps_left += trial.max_steps

    def _choose(self, slot: int) -> TaskKey | None:
        own = self._task_of_slot.get(slot)
        if own in self._pending:
            return own
        others = [key for other, key in self._task_of_slot.items() if other != slot]
        untouched = [key for key in self._pending if key not in others]
        return max(untouched or self._pending, key=lambda key: self._preference(key, own, others), default=None)

    def _preference(self, key: TaskKey, own: TaskKey | None, others: Sequence[TaskKey]) -> tuple[int, int, int]:
        """What a worker has in common with the task, what the others have not, and how much is left of it."""
        kin = self._kin[key]
        shared = _in_common(kin, self._kin[own]) if own is not None else 0
        crowd = sum(_in_common(kin, self._kin[other]) for other in others)
        return shared, -crowd, self._pending[key].steps_left


def _in_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Leading words that both have, beyond that of the suite."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return max(0, count - 1)
