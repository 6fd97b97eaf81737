"""What a conversion noticed, by code and by episode: for the user, and as `checks.json` in the dataset."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from pokevla.data.dataset import CHECKS_NAME as CHECKS_NAME
from pokevla.data.recordings.faults import REFUSED, WARNED, Finding
from pokevla.data.statistics import Statistics, open_is_one

MIN_ROWS = 100
MAX_OUTSIDE = 0.1
"""Share of an episode's values outside of q01 to q99 from which it is reported: five times the 2 % of the whole set."""
_SHOWN = 3
"""Findings of one code that are printed in full."""


class Report:
    """Collects findings in the order of the episodes."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._findings: dict[str, list[Finding]] = {}
        self._refused: set[str] = set()
        self._added = 0

    @property
    def num_kept(self) -> int:
        """Episodes added so far that were not refused."""
        return self._added - len(self._refused)

    def add(self, episode: str, findings: Sequence[Finding], *, refused: bool) -> None:
        """Add the findings of an episode."""
        self._added += 1
        if findings:
            self._findings[episode] = list(findings)
        if refused:
            self._refused.add(episode)

    def notice(self, episode: str, code: str, message: str, count: int = 1) -> None:
        """Add one more finding of an episode."""
        self._findings.setdefault(episode, []).append(Finding(code, message, count))

    def weigh_outside(self, episodes: Sequence[tuple[str, np.ndarray, np.ndarray]], statistics: Statistics) -> None:
        """Report episodes (name, actions, proprio) with many values outside of q01 to q99 of the dataset. Of fewer than
        100 rows those are the extremes, which say nothing."""
        if sum(len(actions) for _, actions, _ in episodes) < MIN_ROWS:
            return
        scaled = statistics.action_mask
        for name, actions, proprio in episodes:
            commands = open_is_one(actions, statistics.grippers)[:, scaled]
            outside = [
                (commands < statistics.action.q01[scaled]) | (commands > statistics.action.q99[scaled]),
                (proprio < statistics.proprio.q01) | (proprio > statistics.proprio.q99),
            ]
            share = float(np.concatenate(outside, axis=1).mean())
            if share > MAX_OUTSIDE:
                text = f"{name}: {100 * share:.0f} % of its values lie outside of the dataset's q01 to q99."
                self.notice(name, "outside_quantiles", text, int(np.concatenate(outside, axis=1).sum()))

    def counts(self) -> dict[str, dict[str, int]]:
        """Code -> number of episodes that have it, and the sum of their counts."""
        episodes: Counter[str] = Counter()
        sums: Counter[str] = Counter()
        for findings in self._findings.values():
            episodes.update({finding.code for finding in findings})
            for finding in findings:
                sums[finding.code] += finding.count
        return {code: {"episodes": episodes[code], "count": sums[code]} for code in sorted(episodes)}

    def content(self) -> dict[str, Any]:
        """Number of episodes and of those left out, the counts by code, and the episodes with their findings."""
        rows: list[dict[str, Any]] = [
            {
                "episode": name,
                "left_out": name in self._refused,
                "findings": [vars(finding) for finding in findings],
            }
            for name, findings in self._findings.items()
        ]
        return {"episodes": self._total, "left_out": len(self._refused), "codes": self.counts(), "found": rows}

    def to_json(self) -> bytes:
        """Content of `checks.json`."""
        return (json.dumps(self.content(), indent=1) + "\n").encode()

    def notes(self) -> list[str]:
        """Sentences for the user: for each code its episodes and the first messages."""
        lines = []
        for code, numbers in self.counts().items():
            what = REFUSED.get(code) or WARNED[code]
            lost = sum(self._findings[name][-1].code == code for name in self._refused)
            fate = f" ({lost} left out)" if lost else ""
            lines.append(f"{code}: {numbers['episodes']} of {self._total} episodes{fate}: {what}")
            found = [f.message for findings in self._findings.values() for f in findings if f.code == code]
            lines += [f"  {message}" for message in found[:_SHOWN]]
            if len(found) > _SHOWN:
                lines.append(f"  and {len(found) - _SHOWN} more in {CHECKS_NAME}")
        return lines
