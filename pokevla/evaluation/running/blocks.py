"""Trials in blocks, and the end of an evaluation as soon as its comparison is decided (`trials.until`).

The order of the trials mixes the tasks, as the sequential test assumes. A block has a few trials of every task, so that
a worker still builds an environment for several trials. After each block the test looks at all trials so far, in the
planned order: whether and where it ends depends on outcomes alone, not on workers or interruptions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pokevla.evaluation.comparing.sentences import decision_text
from pokevla.evaluation.statistics.sequential import Decision, SequentialTest, mixed_order, pairs_in_order
from pokevla.evaluation.trial_records import TrialRecord
from pokevla.evaluation.trials import Trial
from pokevla.recipe.eval_sections.trials import UntilConfig

ROUNDS = 5
"""Trials of each task in a block. Ours: an environment takes as long to build as a trial or two."""

Place = tuple[str, int, int]
"""(suite, task, initial state): a trial, whoever acts in it."""


@dataclass(frozen=True)
class Judged:
    """The first policy compared with another one."""

    a: str
    b: str
    decision: Decision
    sentence: str
    """The decision in words."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the summary."""
        return {"a": self.a, "b": self.b, "sentence": self.sentence, **dataclasses.asdict(self.decision)}


class Blocks:
    """The trials of an evaluation that may end early."""

    def __init__(self, config: UntilConfig, trials: Sequence[Trial], policies: Sequence[str], seed: int) -> None:
        """`trials` of all `policies`, in planned order; `seed` mixes them. ValueError with fewer than two policies."""
        if len(policies) < 2:
            raise ValueError(f"{len(policies)} policies cannot be compared")
        self._policies = policies
        places = list(dict.fromkeys(place_of(trial) for trial in trials))
        order = mixed_order([place[:2] for place in places], seed)
        self._test = SequentialTest.from_config(config, len(places), len(policies) - 1)
        self.places: list[Place] = [places[index] for index in order][: self._test.trials]
        """Planned trials in the order in which they are judged."""
        self._trials: dict[Place, list[Trial]] = {}
        for trial in trials:
            self._trials.setdefault(place_of(trial), []).append(trial)

    def __iter__(self) -> Iterator[list[Trial]]:
        """The blocks, one after the other, until all trials are planned."""
        width = ROUNDS * len({place[:2] for place in self.places})
        for start in range(0, len(self.places), width):
            yield [trial for place in self.places[start : start + width] for trial in self._trials[place]]

    def judge(self, records: Iterable[TrialRecord]) -> list[Judged]:
        """Compare the first policy with each other one."""
        outcomes: dict[str, dict[Place, Any]] = {name: {} for name in self._policies}
        for record in records:
            place = (record.suite, record.task_index, record.init_state_index)
            outcomes[record.policy][place] = record.outcome
        first, judged = self._policies[0], []
        for other in self._policies[1:]:
            decision = self._test.look(pairs_in_order(self.places, outcomes[first], outcomes[other]))
            judged.append(Judged(first, other, decision, decision_text(decision, self._test, first, other)))
        return judged


def place_of(trial: Trial) -> Place:
    """Where a trial takes place."""
    return (trial.suite, trial.task_index, trial.init_state_index)
