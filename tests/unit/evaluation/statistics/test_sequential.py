"""The sequential test: its error rates, that it depends on the planned order alone, and what it answers."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pokevla.evaluation.statistics.evidence import difference_bounds, log_evidence_below, log_evidence_of_difference
from pokevla.evaluation.statistics.sequential import (
    EARLY_SHARE,
    Pair,
    SequentialTest,
    final_leads,
    mixed_order,
    pairs_in_order,
)
from pokevla.evaluation.trial_records import Outcome
from pokevla.recipe.eval_sections.trials import UntilConfig

TEST = SequentialTest(difference=0.05, alpha=0.05, trials=500)
A_BETTER, B_BETTER, NO_DIFFERENCE = 1, 2, 3
COMPARISONS = 10_000


def simulate(difference: float, agreement: float, *, trials: int = 500, seed: int = 0) -> np.ndarray:
    """(COMPARISONS, trials): 1 where only A succeeds, -1 where only B does."""
    only_a = (1 - agreement + difference) / 2
    dice = np.random.default_rng(seed).random((COMPARISONS, trials), dtype=np.float32)
    return (dice < only_a).astype(np.int8) - ((dice >= only_a) & (dice < 1 - agreement)).astype(np.int8)


def as_pairs(signs: Sequence[int]) -> list[Pair]:
    outcomes: dict[int, tuple[Outcome, Outcome]] = {
        1: ("success", "failure"), -1: ("failure", "success"), 0: ("success", "success"),
    }  # fmt: skip
    return [Pair(number, *outcomes[sign]) for number, sign in enumerate(signs)]


# ---------------------------------------------------------------------------------------------- error rates


@pytest.mark.parametrize("agreement", [0.95, 0.9, 0.6])
def test_at_most_5_percent_of_10000_comparisons_of_equally_good_policies_find_a_difference(agreement: float) -> None:
    lengths, verdicts, _ = TEST.judge_paths(simulate(0.0, agreement), ended=True)
    assert np.isin(verdicts, (A_BETTER, B_BETTER)).mean() <= 0.05
    if agreement >= 0.9:
        assert lengths.mean() < 450  # trials are saved


def test_at_most_5_percent_of_10000_comparisons_of_policies_that_differ_find_no_difference() -> None:
    lengths, verdicts, _ = TEST.judge_paths(simulate(0.05, 0.95), ended=True)
    assert (verdicts == NO_DIFFERENCE).mean() <= 0.05
    assert (verdicts == A_BETTER).mean() > 0.95
    assert (verdicts == B_BETTER).mean() < 0.001
    assert lengths.mean() < 250


@pytest.mark.parametrize("agreement", [0.0, 0.3, 0.7])
def test_exact_false_positive_rate_is_at_most_alpha(agreement: float) -> None:
    """Over all 3^11 sequences of outcomes, weighted by their probability: no simulation."""
    trials = 11
    test = SequentialTest(difference=0.3, alpha=0.2, trials=trials)
    paths = np.array(list(itertools.product([-1, 0, 1], repeat=trials)), np.int8)
    agreed = (paths == 0).sum(axis=1)
    weights = agreement**agreed * ((1 - agreement) / 2) ** (trials - agreed)
    _, verdicts, _ = test.judge_paths(paths, ended=True)
    rate = weights[np.isin(verdicts, (A_BETTER, B_BETTER))].sum()
    assert 0.02 < rate <= 0.2


@pytest.mark.parametrize("tosses", [6, 11, 14])
def test_last_look_needs_the_smallest_lead_that_keeps_alpha(tosses: int) -> None:
    """From the definitions, over all sequences of wins: the early limit is crossed, or the lead at the end suffices."""
    early = {
        (length, wins)
        for length in range(1, tosses + 1)
        for wins in range(length + 1)
        if 2**length / ((length + 1) * comb(length, wins)) >= 1 / (EARLY_SHARE * 0.2)
    }
    stopped, leads = 0, []
    for sequence in itertools.product([0, 1], repeat=tosses):
        wins = list(itertools.accumulate(sequence))
        if any((number, total) in early for number, total in enumerate(wins, start=1)):
            stopped += 1
        else:
            leads.append(abs(2 * wins[-1] - tosses))
    affordable = [
        lead for lead in range(1, tosses + 2) if stopped + sum(one >= lead for one in leads) <= 0.2 * 2**tosses
    ]
    assert final_leads(20, 0.2)[tosses] == affordable[0]


def test_expected_fortune_of_a_bet_stays_one_if_the_hypothesis_is_true() -> None:
    """One more trial changes the mean of the e-process by nothing: it is a martingale, for any past."""
    for a, b, n in [(0, 0, 0), (3, 1, 10), (5, 9, 40)]:
        now = np.exp(log_evidence_of_difference(a, b))
        then = (np.exp(log_evidence_of_difference(a + 1, b)) + np.exp(log_evidence_of_difference(a, b + 1))) / 2
        assert then == pytest.approx(now)
        for difference, disagreement in [(0.05, 0.05), (0.05, 0.4), (-0.2, 0.3)]:
            p_a, p_b = (disagreement + difference) / 2, (disagreement - difference) / 2
            now = np.exp(log_evidence_below(a, b, n, difference))
            then = (
                p_a * np.exp(log_evidence_below(a + 1, b, n + 1, difference))
                + p_b * np.exp(log_evidence_below(a, b + 1, n + 1, difference))
                + (1 - p_a - p_b) * np.exp(log_evidence_below(a, b, n + 1, difference))
            )
            assert then == pytest.approx(now)


def test_bounds_hold_at_all_looks_of_all_but_alpha_of_the_comparisons() -> None:
    paths = simulate(0.1, 0.8, trials=60, seed=5)[:400]
    missed = 0
    for path in paths:
        wins, losses = np.cumsum(path > 0), np.cumsum(path < 0)
        above = log_evidence_below(wins, losses, np.arange(1, 61), 0.1)  # true: never below 0.1 for sure
        missed += bool(np.any(above >= -np.log(0.05)))
    assert missed / len(paths) <= 0.05
    low, high = difference_bounds(30, 10, 200, 0.05)
    assert low < 0.1 < high
    assert log_evidence_below(30, 10, 200, high) == pytest.approx(-np.log(0.05))
    assert difference_bounds(10, 30, 200, 0.05) == pytest.approx((-high, -low))


# ---------------------------------------------------------------------------------------------- decisions


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([1, 1, 0, 0, 0, -1]), max_size=60), st.integers(0, 60))
def test_decision_is_a_function_of_the_planned_order(signs: list[int], known: int) -> None:
    """Workers that run ahead, or a run that was interrupted, find the same trial that decides."""
    test = SequentialTest(difference=0.2, alpha=0.1, trials=60)
    pairs = as_pairs(signs)
    whole = test.look(pairs)
    part = test.look(pairs[:known])
    if part.stops:
        assert whole == part
    else:
        assert whole.trials >= part.trials
    holes = [pair if number < known else Pair(pair.key, None, pair.b) for number, pair in enumerate(pairs)]
    assert test.look(holes) == part


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([1, 1, 0, 0, 0, -1]), min_size=1, max_size=40))
def test_exchanging_the_policies_exchanges_the_verdict(signs: list[int]) -> None:
    test = SequentialTest(difference=0.2, alpha=0.1, trials=40)
    here, there = test.look(as_pairs(signs)), test.look(as_pairs([-sign for sign in signs]))
    swap = {"a_better": "b_better", "b_better": "a_better"}
    assert there.verdict == swap.get(here.verdict, here.verdict)
    assert (there.trials, there.counts.swapped().discordant) == (here.trials, here.counts.discordant)
    assert (there.low, there.high) == pytest.approx((-here.high, -here.low))


def test_a_policy_that_always_wins_is_better_after_eight_trials() -> None:
    decision = TEST.look(as_pairs([1] * 300))
    assert (decision.verdict, decision.trials, decision.last_key) == ("a_better", 8, 7)
    assert decision.evidence == pytest.approx(2**8 / 9)  # 1 / (binomial mean over all shares)
    assert decision.low > 0


def test_policies_that_always_agree_do_not_differ() -> None:
    decision = TEST.look(as_pairs([0] * 300))
    assert (decision.verdict, decision.counts.pairs) == ("no_difference", decision.trials)
    assert decision.trials < 100
    assert -0.05 < decision.low < 0 < decision.high < 0.05


def test_the_end_of_the_plan_is_a_last_look_with_its_own_limit() -> None:
    signs = [1, 1, 1, 1, 1, 1, -1, 0, 0, 0, 1, 1]
    open_end = SequentialTest(difference=0.01, alpha=0.1, trials=100).look(as_pairs(signs))
    end = SequentialTest(difference=0.01, alpha=0.1, trials=12).look(as_pairs(signs))
    assert (open_end.verdict, end.verdict) == ("continue", "a_better")
    even = SequentialTest(difference=0.01, alpha=0.1, trials=4).look(as_pairs([1, -1, 1, -1]))
    assert (even.verdict, even.trials) == ("undecided", 4)


def test_crashed_trials_count_for_neither_policy_but_for_the_plan() -> None:
    test = SequentialTest(difference=0.05, alpha=0.05, trials=12)
    crash = Pair("crash", "crashed", "success")
    pairs = [crash, *as_pairs([1] * 8), crash, crash]
    decision = test.look(pairs)
    assert (decision.verdict, decision.trials, decision.crashed, decision.counts.only_a) == ("a_better", 9, 1, 8)
    assert test.look(pairs[:9]) == decision
    nothing = test.look([crash] * 12)
    assert (nothing.verdict, nothing.trials, nothing.counts.pairs) == ("undecided", 12, 0)


def test_outcomes_are_put_into_planned_order_with_what_is_not_known_yet() -> None:
    a: dict[Hashable, Outcome] = {"t2": "failure", "t1": "success"}
    pairs = pairs_in_order(["t1", "t2", "t3"], a, {"t1": "crashed", "t3": "success"})
    assert pairs == [Pair("t1", "success", "crashed"), Pair("t2", "failure", None), Pair("t3", None, "success")]
    assert TEST.look(pairs).trials == 1


def test_nothing_is_known_before_the_first_trial() -> None:
    decision = TEST.look([])
    assert (decision.verdict, decision.trials, decision.last_key, decision.stops) == ("continue", 0, None, False)
    assert (decision.low, decision.high) == (-1.0, 1.0)


def test_recipe_gives_the_test_and_several_comparisons_share_alpha() -> None:
    config = UntilConfig(difference=0.05, alpha=0.06, max=500)
    assert SequentialTest.from_config(config, 2000) == SequentialTest(0.05, 0.06, 500)
    assert SequentialTest.from_config(config, 200, comparisons=3) == SequentialTest(0.05, 0.02, 200)
    with pytest.raises(ValueError, match="0 planned trials"):
        SequentialTest.from_config(config, 0)


# ---------------------------------------------------------------------------------------------- order


@given(st.lists(st.integers(0, 4), max_size=40), st.integers(0, 3))
def test_mixed_order_has_each_trial_once_and_each_task_as_often_as_possible(strata: list[int], seed: int) -> None:
    order = mixed_order(strata, seed)
    assert sorted(order) == list(range(len(strata)))
    assert order == mixed_order(strata, seed)
    seen = [strata[index] for index in order]
    rounds = [seen[: seen.index(task) + 1].count(task) for task in set(strata)]
    assert rounds == [1] * len(rounds)
    for place in range(len(seen)):
        left = set(seen[place:])
        counts = [seen[:place].count(task) for task in left]
        assert not counts or max(counts) - min(counts) <= 1


def test_policies_that_are_better_at_different_tasks_are_not_told_apart_in_mixed_order() -> None:
    """A wins all differing trials of five tasks, B those of the other five: equally good."""
    tasks = np.repeat(np.arange(10), 50)
    differs = np.random.default_rng(4).random((2000, 500)) < 0.1
    paths = (differs * np.where(tasks % 2, -1, 1)).astype(np.int8)
    mixed = np.stack([path[mixed_order(tasks.tolist(), seed)] for seed, path in enumerate(paths)])
    _, verdicts, _ = TEST.judge_paths(mixed, ended=True)
    assert np.isin(verdicts, (A_BETTER, B_BETTER)).mean() <= 0.05
    _, by_task, _ = TEST.judge_paths(paths, ended=True)
    assert np.isin(by_task, (A_BETTER, B_BETTER)).mean() > 0.1  # in the order of tasks, the first one may decide
