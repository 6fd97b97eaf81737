"""Comparisons of evaluations: which trials count, and what is said about them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pokevla.errors import DataError, UsageError
from pokevla.evaluation.comparing.compare import Comparison, compare
from pokevla.evaluation.comparing.folders import Evaluated, read_policy
from pokevla.evaluation.comparing.sentences import decision_text, left_out, points, verdict
from pokevla.evaluation.statistics.corrections import holm
from pokevla.evaluation.statistics.intervals import newcombe_interval, wilson_interval
from pokevla.evaluation.statistics.paired import mcnemar_exact, tango_interval
from pokevla.evaluation.statistics.sequential import Pair, SequentialTest
from pokevla.evaluation.statistics.unpaired import barnard
from pokevla.evaluation.trial_records import rewrite_records
from tests.unit.evaluation.comparing.evaluations import records, write_evaluation


def two(tmp_path: Path, a: str, b: str, **settings_of_b: object) -> tuple[Evaluated, Evaluated]:
    """Evaluations of `one` and `other` with these outcomes of one task."""
    first = write_evaluation(tmp_path / "a", records("one", a))
    second = write_evaluation(tmp_path / "b", records("other", b), **settings_of_b)
    return read_policy(first), read_policy(second)


def test_paired_figures_are_those_of_the_trials_that_both_did(tmp_path: Path) -> None:
    #                                only one   only other  both  crashed  only a has it
    comparison = compare(*two(tmp_path, "++++++" + "-" + "+++" + "x+" + "++", "------" + "+" + "+++" + "+x" + "  "))
    row = comparison.total
    assert (row.a.successes, row.a.trials, row.b.successes, row.b.trials) == (9, 10, 4, 10)
    assert (row.only_a, row.only_b, row.difference) == (6, 1, pytest.approx(0.5))
    assert row.p == mcnemar_exact(6, 1)
    assert (row.low, row.high) == pytest.approx(tango_interval(6, 1, 10))
    assert (row.a.low, row.a.high) == pytest.approx(wilson_interval(9, 10))
    assert (comparison.crashed, comparison.only_in_a, comparison.only_in_b) == (2, 2, 0)
    assert left_out(comparison) == "Left out: 2 because the simulator crashed, 2 that only one has done."


def test_trials_are_matched_by_content_not_by_place_in_the_file(tmp_path: Path) -> None:
    a, b = two(tmp_path, "+-+-+", "-++--")
    shuffled = dataclasses.replace(b, records=b.records[::-1])
    assert compare(a, shuffled) == compare(a, b)
    assert (compare(a, b).total.only_a, compare(a, b).total.only_b) == (2, 1)


def test_exchanging_the_sides_changes_signs_only(tmp_path: Path) -> None:
    a, b = two(tmp_path, "++++++++-+", "--+--+--+-")
    for paired in (True, False):
        here, there = compare(a, b, paired=paired).total, compare(b, a, paired=paired).total
        assert (there.p, there.difference) == pytest.approx((here.p, -(here.difference or 0)))
        assert (there.low, there.high) == pytest.approx((-here.high, -here.low))


def test_unpaired_figures_are_those_of_all_trials(tmp_path: Path) -> None:
    comparison = compare(*two(tmp_path, "+++++++++-", "+---x-----+-"), paired=False)
    row = comparison.total
    assert (row.a.trials, row.b.trials, row.only_a, row.only_b) == (10, 11, None, None)
    assert row.p == barnard((9, 2), (10, 11))
    assert (row.low, row.high) == pytest.approx(newcombe_interval((9, 2), (10, 11)))
    assert (comparison.crashed, left_out(comparison)) == (1, "Left out: 1 because the simulator crashed.")


def many_suites(tmp_path: Path) -> Comparison:
    suites = {
        "libero_goal": ("+" * 12, "-" * 12),
        "libero_10": ("+-" * 6, "-+" * 6),
        "libero_object": ("+" * 5, "-" * 5),
    }
    kinds = {"libero_goal": "Sensor Noise", "libero_10": "Sensor Noise", "libero_object": "Light Conditions"}
    sides = [
        [
            record
            for suite, outcomes in suites.items()
            for record in records(name, outcomes[place], suite=suite, perturbation=kinds[suite], level=1)
        ]
        for place, name in enumerate(("one", "other"))
    ]
    a, b = (write_evaluation(tmp_path / name, side) for name, side in zip("ab", sides, strict=True))
    return compare(read_policy(a), read_policy(b))


def test_each_suite_and_each_perturbation_has_a_row_corrected_within_its_family(tmp_path: Path) -> None:
    rows = many_suites(tmp_path).rows
    assert [(row.family, row.name) for row in rows] == [
        ("total", "total"), ("suite", "libero_goal"), ("suite", "libero_10"), ("suite", "libero_object"),
        ("perturbation", "Sensor Noise"), ("perturbation", "Light Conditions"),
    ]  # fmt: skip
    assert [row.a.trials for row in rows] == [29, 12, 12, 5, 24, 5]
    assert rows[0].p_holm == rows[0].p
    assert [row.p_holm for row in rows[1:4]] == holm([row.p for row in rows[1:4]])
    assert [row.p_holm for row in rows[4:]] == holm([row.p for row in rows[4:]])


def test_verdict_names_the_better_policy_and_the_suites(tmp_path: Path) -> None:
    text = verdict(many_suites(tmp_path))
    assert text.startswith("one is better than other: one solves 23 of 29 (79.3%), other 6 of 29 (20.7%)")
    assert "libero_goal (one by 100.0 points)" in text
    assert "libero_object" not in text  # five trials are too few after the correction


def test_verdict_without_a_difference_says_what_would_have_been_seen(tmp_path: Path) -> None:
    text = verdict(compare(*two(tmp_path, "+" * 30 + "--", "+" * 29 + "-+-")))
    assert text.startswith("No difference between one and other is shown: one solves 30 of 32 (93.8%), other 30 of 32")
    assert "32 trials show differences from about" in text
    assert "are too few to show any" in verdict(compare(*(two(tmp_path / "few", "+-", "+-"))))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("seed", 8), ("fast_rendering", True), ("mujoco", "3.4.0"), ("image_size", 128), ("max_steps", 600),
     ("fixtures", "per_trial"), ("instructions", "bddl")],
)  # fmt: skip
def test_other_settings_make_other_trials_which_is_refused_by_name(tmp_path: Path, setting: str, value: object) -> None:
    a, b = two(tmp_path, "++", "+-", **{setting: value})
    with pytest.raises(UsageError, match=f"are not the same: {setting}.*: .*--unpaired"):
        compare(a, b)
    assert any(setting in note for note in compare(a, b, paired=False).notes)


def test_settings_without_effect_may_differ_and_those_of_the_policy_are_noted(tmp_path: Path) -> None:
    a, b = two(tmp_path, "++", "+-", workers=8, tasks=[0], actions_per_query=16, gl="egl")
    assert compare(a, b).notes == (
        "The settings differ in actions_per_query: 8, 16.", "The settings differ in gl: osmesa, egl.",
    )  # fmt: skip


def test_step_limits_are_compared_by_suite(tmp_path: Path) -> None:
    """`max_steps` is a number of an evaluation of one suite, and one number for each suite of others."""
    a, b = two(
        tmp_path, "++", "+-", suites=["libero_goal", "libero_10"], max_steps={"libero_goal": 300, "libero_10": 520}
    )
    assert compare(a, b).notes == ()
    _, other = two(tmp_path / "other", "++", "+-", max_steps={"libero_goal": 400})
    with pytest.raises(UsageError, match="max_steps of libero_goal: 300, 400"):
        compare(a, other)


def test_an_evaluation_that_could_stop_early_is_said_to_be_one(tmp_path: Path) -> None:
    a, b = two(tmp_path, "++", "+-", until={"difference": 0.05, "alpha": 0.05, "max": 2})
    (note,) = compare(a, b).notes
    assert "could stop early (trials.until)" in note


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    a, b = two(tmp_path, "++  ", "  ++")
    with pytest.raises(UsageError, match=r"none in common.*--unpaired"):
        compare(a, b)
    with pytest.raises(UsageError, match="with itself"):
        compare(a, a)
    with pytest.raises(UsageError, match="--alpha 5"):
        compare(a, b, alpha=5)
    crashed_a, crashed_b = two(tmp_path / "crashed", "xx", "++")
    with pytest.raises(UsageError, match="all crashed"):
        compare(crashed_a, crashed_b)
    with pytest.raises(UsageError, match=r"All trials of .*a:one"):
        compare(crashed_a, crashed_b, paired=False)


def test_a_trial_given_twice_is_named(tmp_path: Path) -> None:
    a, b = two(tmp_path, "++", "+-")
    twice = dataclasses.replace(a, records=(*a.records, a.records[1]))
    with pytest.raises(DataError, match="task 0 of libero_goal from initial state 1 twice for policy one"):
        compare(twice, b)


def test_a_folder_with_several_policies_needs_the_name_of_one(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "x", [*records("one", "+"), *records("other", "-")])
    with pytest.raises(UsageError, match=r"several policies: one, other\. Name one: .*x:one"):
        read_policy(folder)
    assert read_policy(tmp_path / "x:other").records == tuple(records("other", "-"))
    with pytest.raises(UsageError, match=r"no policy 'third'\. It has: one, other"):
        read_policy(tmp_path / "x:third")
    assert compare(read_policy(tmp_path / "x:one"), read_policy(tmp_path / "x:other")).total.only_a == 1


def test_folders_that_are_no_finished_evaluation_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a directory"):
        read_policy(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="not an evaluation with trials"):
        read_policy(tmp_path)
    folder = write_evaluation(tmp_path / "x", records("one", "+"))
    (folder / "summary.json").write_text('{"settings": 3}')
    with pytest.raises(DataError, match=r"summary\.json is damaged"):
        read_policy(folder)
    (folder / "summary.json").unlink()
    with pytest.raises(UsageError, match="is not complete"):
        read_policy(folder)
    write_evaluation(tmp_path / "y", records("one", "+"))
    rewrite_records(tmp_path / "y" / "episodes.jsonl", [])
    with pytest.raises(DataError, match="has no trials"):
        read_policy(tmp_path / "y")


def test_differences_are_shown_in_points_with_their_sign() -> None:
    assert [points(value) for value in (0.05, -0.123, 0.0, None)] == ["+5.0 points", "-12.3 points", "+0.0 points", "-"]


def test_decision_of_a_sequential_test_is_one_sentence() -> None:
    test = SequentialTest(difference=0.05, alpha=0.05, trials=20)
    wins = [Pair(number, "success", "failure") for number in range(20)]
    assert decision_text(test.look(wins), test, "one", "other").startswith(
        "one is better than other after 8 of at most 20 trials: one solves 8 of 8, other 0 (difference +100.0 points"
    )
    assert decision_text(test.look(wins[:3]), test, "one", "other").startswith(
        "No answer about one and other yet after 3"
    )
