"""Two policies compared: success rates, difference, exact tests, by suite, by perturbation and in total."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from pokevla.errors import UsageError
from pokevla.evaluation.comparing.folders import Evaluated, settings_that_matter, settings_to_note
from pokevla.evaluation.comparing.matching import match_trials
from pokevla.evaluation.statistics.corrections import holm
from pokevla.evaluation.statistics.groups import GroupResult, result_of
from pokevla.evaluation.statistics.intervals import newcombe_interval, two_sided_z
from pokevla.evaluation.statistics.paired import count_pairs, mcnemar_exact, tango_interval
from pokevla.evaluation.statistics.unpaired import barnard
from pokevla.evaluation.trial_records import TrialRecord

Family = Literal["total", "suite", "perturbation"]


@dataclass(frozen=True)
class Row:
    """One comparison: all trials, or those of one suite or perturbation. Success rates and differences are in [0,
    1]."""

    family: Family
    name: str
    a: GroupResult
    b: GroupResult
    difference: float | None  # rate of A minus rate of B; None where a side has no trials
    low: float  # its interval
    high: float
    only_a: int | None  # trials that only A solved; None if unpaired
    only_b: int | None
    p: float
    p_holm: float  # corrected for the rows of the family; of the total, p itself


@dataclass(frozen=True)
class Comparison:
    """A comparison of A with B. The total is the main result; rows of a family share a level by Holm's correction."""

    a: str
    b: str
    paired: bool
    alpha: float
    rows: tuple[Row, ...]  # the total first
    crashed: int  # trials left out because the simulator crashed for A or B
    only_in_a: int  # trials left out because B has not done them; 0 if unpaired
    only_in_b: int
    notes: tuple[str, ...]

    @property
    def total(self) -> Row:
        """All trials."""
        return self.rows[0]


def compare(a: Evaluated, b: Evaluated, *, paired: bool = True, alpha: float = 0.05) -> Comparison:
    """Compare two policies: paired on the trials that both did (McNemar, Tango), or unpaired on all (Barnard,
    Newcombe).

    Raises:
        UsageError: A and B are the same, paired evaluations differ in a setting that changes trials or have no trial
            in common, or `alpha` is not in (0, 1).
        DataError: an evaluation has a trial twice.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"--alpha {alpha:g} is not between 0 and 1.", "0.05 is usual.")
    if (a.folder.resolve(), a.policy) == (b.folder.resolve(), b.policy):
        raise UsageError(f"{a.title} is compared with itself.", "Name two policies.")
    changed = settings_that_matter(a.settings, b.settings)
    if paired and changed:
        raise UsageError(
            f"The trials of {a.folder} and {b.folder} are not the same: {'; '.join(changed)}.",
            "Evaluate both with the same settings, or compare them as different trials: --unpaired.",
        )
    notes = [f"The settings differ in {change}." for change in [*changed, *settings_to_note(a.settings, b.settings)]]
    notes += _notes_about_stopping(a, b)
    rows, crashed, left = (_paired_rows if paired else _unpaired_rows)(a, b, alpha)
    names = (a.policy, b.policy) if a.policy != b.policy else (a.title, b.title)
    return Comparison(*names, paired, alpha, tuple(_with_holm(rows)), crashed, *left, tuple(notes))


def _paired_rows(a: Evaluated, b: Evaluated, alpha: float) -> tuple[list[Row], int, tuple[int, int]]:
    matched = match_trials(a, b)
    if not matched.pairs:
        why = "all crashed" if matched.crashed else "they have none in common"
        raise UsageError(
            f"{a.title} and {b.title} cannot be compared on the same trials: {why}.",
            "Evaluate both on the same suite, tasks and initial states, or compare them with --unpaired.",
        )
    z = two_sided_z(alpha)

    def row(family: Family, name: str, pairs: list[tuple[TrialRecord, TrialRecord]]) -> Row:
        counts = count_pairs((one.outcome == "success", other.outcome == "success") for one, other in pairs)
        return Row(
            family, name, result_of((one for one, _ in pairs), z), result_of((other for _, other in pairs), z),
            counts.difference, *tango_interval(counts.only_a, counts.only_b, counts.pairs, z),
            counts.only_a, counts.only_b, p := mcnemar_exact(counts.only_a, counts.only_b), p,
        )  # fmt: skip

    rows = [row("total", "total", list(matched.pairs))]
    for family, name_of in _FAMILIES.items():
        names = _names(name_of, (one for one, _ in matched.pairs))
        rows += [row(family, name, [pair for pair in matched.pairs if name_of(pair[0]) == name]) for name in names]
    return rows, matched.crashed, (matched.only_in_a, matched.only_in_b)


def _unpaired_rows(a: Evaluated, b: Evaluated, alpha: float) -> tuple[list[Row], int, tuple[int, int]]:
    z = two_sided_z(alpha)

    def row(family: Family, name: str, of_a: list[TrialRecord], of_b: list[TrialRecord]) -> Row:
        one, other = result_of(of_a, z), result_of(of_b, z)
        successes, trials = (one.successes, other.successes), (one.trials, other.trials)
        difference = None if one.rate is None or other.rate is None else one.rate - other.rate
        p = barnard(successes, trials)
        return Row(family, name, one, other, difference, *newcombe_interval(successes, trials, z), None, None, p, p)

    total = row("total", "total", list(a.records), list(b.records))
    if 0 in (total.a.trials, total.b.trials):
        raise UsageError(f"All trials of {a.title} or of {b.title} crashed.", "Run the evaluation again.")
    rows = [total]
    for family, name_of in _FAMILIES.items():
        of_a, of_b = ([record for record in side.records if name_of(record) is not None] for side in (a, b))
        rows += [
            row(family, name, *([one for one in side if name_of(one) == name] for side in (of_a, of_b)))
            for name in _names(name_of, [*of_a, *of_b])
        ]
    return rows, total.a.crashed + total.b.crashed, (0, 0)


_FAMILIES: dict[Family, Callable[[TrialRecord], str | None]] = {
    "suite": lambda record: record.suite,
    "perturbation": lambda record: record.perturbation,
}


def _names(name_of: Callable[[TrialRecord], str | None], records: Iterable[TrialRecord]) -> list[str]:
    """Names in order of appearance; none if there is only one, which the total shows already."""
    names = [name for name in dict.fromkeys(map(name_of, records)) if name is not None]
    return names if len(names) > 1 else []


def _with_holm(rows: list[Row]) -> list[Row]:
    """The rows with p-values corrected within each family."""
    corrected = list(rows)
    for family in _FAMILIES:
        places = [place for place, row in enumerate(rows) if row.family == family]
        for place, p in zip(places, holm([rows[place].p for place in places]), strict=True):
            corrected[place] = dataclasses.replace(rows[place], p_holm=p)
    return corrected


def _notes_about_stopping(a: Evaluated, b: Evaluated) -> list[str]:
    """A test of a fixed number of trials does not know that the trials ended because of their outcomes."""
    stopped = [str(side.folder) for side in (a, b) if side.settings.get("until") is not None]
    if not stopped:
        return []
    folders = " and ".join(dict.fromkeys(stopped))
    return [
        f"{folders} could stop early (trials.until), so that p-values here are too small and intervals too narrow: "
        "the decision in its summary counts."
    ]
