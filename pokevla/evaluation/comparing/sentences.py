"""A comparison in words."""

from __future__ import annotations

from pokevla.evaluation.comparing.compare import Comparison, Row
from pokevla.evaluation.statistics.power import detectable_difference
from pokevla.evaluation.statistics.sequential import Decision, SequentialTest

POWER = 0.8
"""Power of the smallest difference that a comparison would have shown."""


def verdict(comparison: Comparison) -> str:
    """What the comparison shows, in one or two plain sentences."""
    row, level = comparison.total, f"{1 - comparison.alpha:.0%}"
    interval = f"{level} interval {span(row.low, row.high)} points, p = {p_text(row.p)}"
    if row.p <= comparison.alpha and row.difference:
        better, worse = (comparison.a, comparison.b) if row.difference > 0 else (comparison.b, comparison.a)
        difference = points(row.difference)
        text = f"{better} is better than {worse}: {_rates(comparison)} (difference {difference}, {interval})."
    else:
        text = (
            f"No difference between {comparison.a} and {comparison.b} is shown: {_rates(comparison)} "
            f"(difference {points(row.difference)}, {interval}).{_visible(comparison)}"
        )
    clear = [row for row in comparison.rows[1:] if row.p_holm <= comparison.alpha]
    if clear:
        named = ", ".join(f"{row.name} ({_better(comparison, row)})" for row in clear)
        text += f" They differ in {named}, after Holm's correction."
    return text


def left_out(comparison: Comparison) -> str | None:
    """Trials that do not count, and why; None if all do."""
    parts = []
    if comparison.crashed:
        parts.append(f"{comparison.crashed} because the simulator crashed")
    for name, number in ((comparison.a, comparison.only_in_a), (comparison.b, comparison.only_in_b)):
        if number:
            parts.append(f"{number} that only {name} has done")
    return f"Left out: {', '.join(parts)}." if parts else None


def points(difference: float | None) -> str:
    """A difference of rates in percentage points, with its sign; `-` for None."""
    return "-" if difference is None else f"{100 * difference:+.1f} points"


def span(low: float, high: float) -> str:
    """Both ends of an interval of differences, in points."""
    return f"{100 * low:+.1f} to {100 * high:+.1f}"


def p_text(p: float) -> str:
    """A p-value with two significant digits."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def _rates(comparison: Comparison) -> str:
    row = comparison.total
    a, b = (f"{side.successes} of {side.trials} ({side.rate or 0:.1%})" for side in (row.a, row.b))
    return f"{comparison.a} solves {a}, {comparison.b} {b}"


def _better(comparison: Comparison, row: Row) -> str:
    better = comparison.a if (row.difference or 0) > 0 else comparison.b
    return f"{better} by {points(abs(row.difference or 0)).lstrip('+')}"


def _visible(comparison: Comparison) -> str:
    """Which difference so many trials would have shown."""
    row = comparison.total
    rate = (row.a.successes + row.b.successes) / (row.a.trials + row.b.trials)
    trials = min(row.a.trials, row.b.trials)
    agreement = None
    if row.only_a is not None and row.only_b is not None:
        agreement = 1 - (row.only_a + row.only_b) / trials
    found = detectable_difference(
        trials, rate, agreement, paired=comparison.paired, alpha=comparison.alpha, power=POWER
    )
    if found is None:
        return f" {trials} trials are too few to show any."
    return f" {trials} trials show differences from about {100 * found:.0f} points on (power {POWER:g})."


def decision_text(decision: Decision, test: SequentialTest, a: str, b: str) -> str:
    """What a sequential test of A and B has found, in one sentence."""
    counts, done = decision.counts, f"{decision.trials} of at most {test.trials} trials"
    seen = (
        f"{a} solves {counts.successes_a} of {counts.pairs}, {b} {counts.successes_b} "
        f"(difference {points(counts.difference)}, bounds {span(decision.low, decision.high)} points)"
    )
    findings = {
        "a_better": f"{a} is better than {b}",
        "b_better": f"{b} is better than {a}",
        "no_difference": f"{a} and {b} differ by less than {100 * test.difference:g} points",
        "undecided": f"No answer about {a} and {b}",
        "continue": f"No answer about {a} and {b} yet",
    }
    return f"{findings[decision.verdict]} after {done}: {seen}."
