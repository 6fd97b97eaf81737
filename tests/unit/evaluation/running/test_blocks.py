"""An evaluation that may end early looks at its trials in one order, whoever runs them."""

from __future__ import annotations

import itertools

import pytest

from pokevla.evaluation.running.blocks import ROUNDS, Blocks, place_of
from pokevla.evaluation.trial_records import Outcome, TrialRecord
from pokevla.evaluation.trials import plan_trials
from pokevla.recipe.eval_sections.trials import TrialsConfig, UntilConfig

TRIALS = plan_trials(
    TrialsConfig(suite=("a", "b"), tasks=[0, 1], init_states=(0, 50)), ["one", "two"], {"a": 10, "b": 20}
)
UNTIL = UntilConfig(difference=0.2, alpha=0.05, max=150)


def record(policy: str, place: tuple[str, int, int], outcome: Outcome) -> TrialRecord:
    suite, task, state = place
    return TrialRecord(policy, suite, task, "t", state, state, None, outcome, 5, 1, 0.1)


def test_each_block_has_the_same_trials_of_every_task_and_policy() -> None:
    blocks = Blocks(UNTIL, TRIALS, ["one", "two"], seed=7)
    assert len(blocks.places) == 150
    first, *_ = blocks
    assert len(first) == ROUNDS * 4 * 2
    counts = {(t.policy, t.suite, t.task_index): 0 for t in first}
    for trial in first:
        counts[trial.policy, trial.suite, trial.task_index] += 1
    assert set(counts.values()) == {ROUNDS}
    assert [place_of(trial) for trial in itertools.chain(*blocks)][::2] == blocks.places
    assert Blocks(UNTIL, TRIALS, ["one", "two"], seed=7).places == blocks.places


def test_a_clear_difference_ends_it_whatever_order_the_records_have() -> None:
    blocks = Blocks(UNTIL, TRIALS, ["one", "two"], seed=7)
    (none,) = blocks.judge([])
    assert not none.decision.stops
    places = blocks.places[:60]
    records = [record("one", place, "success") for place in places] + [
        record("two", place, "failure") for place in places
    ]
    (judged,) = blocks.judge(records)
    (reversed_,) = blocks.judge(records[::-1])
    assert judged == reversed_
    assert judged.decision.verdict == "a_better"
    assert judged.decision.trials < 20
    assert judged.sentence.startswith("one is better than two after ")
    assert judged.to_dict()["counts"]["only_a"] == judged.decision.trials
    later = [r for r in records if (r.suite, r.task_index, r.init_state_index) != places[0]]
    assert not blocks.judge(later)[0].decision.stops, "the first planned trial is missing"


def test_two_policies_are_needed() -> None:
    with pytest.raises(ValueError, match="1 policies"):
        Blocks(UNTIL, TRIALS, ["one"], seed=7)
