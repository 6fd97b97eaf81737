"""Option letters, and yes and no, before and after mixing."""

from __future__ import annotations

from typing import Any

from pokevla.data.mixing.choices import LETTERS
from pokevla.data.mixing.summary import MixtureSummary


def letter_figures(summary: MixtureSummary) -> list[dict[str, Any]]:
    """Multiple-choice questions by category, source and number of options (0: cannot be told apart, so that the options
    keep their places): counts of letters in their order, `before` of the samples read and `after` of those taken.

    `skew` is how much more often than evenly the most frequent letter is right after mixing; 0 if none is taken.
    """
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for each in summary.letters:
        row = found.setdefault((each.category, each.source, each.options), {"before": {}, "after": {}, "fixed": 0})
        row["fixed"] += each.fixed
        for name, counts in (("before", each.before), ("after", each.after)):
            for letter, count in counts.items():
                row[name][letter] = row[name].get(letter, 0) + count
    rows = []
    for (category, source, options), row in found.items():
        letters = [each for each in LETTERS if each in LETTERS[:options] or each in {**row["before"], **row["after"]}]
        before, after = ([row[name].get(letter, 0) for letter in letters] for name in ("before", "after"))
        skew = max(after) * len(letters) / sum(after) if sum(after) else 0.0
        rows.append(
            {"category": category, "source": source, "options": options, "letters": letters, "before": before,
             "after": after, "fixed": row["fixed"], "skew": skew}
        )  # fmt: skip
    return rows


def yes_no_figures(summary: MixtureSummary) -> list[dict[str, Any]]:
    """Questions answered by yes or no, by category, source and task: numbers and the share of yes before and after."""
    return [
        {"category": each.category, "source": each.source, "task": each.task, "before": each.before,
         "after": each.after, "share_before": _share(each.before), "share_after": _share(each.after)}
        for each in summary.yes_no
    ]  # fmt: skip


def _share(counts: dict[str, int]) -> float | None:
    total = sum(counts.values())
    return counts.get("yes", 0) / total if total else None
