"""Searches one parser for inputs that it does not survive, and makes what it finds small."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as start_from
from hypothesis.errors import HypothesisException

from tests.fuzz.mutation import inputs
from tests.fuzz.target import Target
from tests.fuzz.worker import Outcome, Worker

ROUND = 200
"""Inputs between two looks at the clock."""
SHRINK_S = 20.0
LONGEST_ROUND_S = 30.0


@dataclass
class Finding:
    """An input that a parser did not survive."""

    target: str
    seed: int
    outcome: Outcome
    content: bytes


@dataclass
class Tally:
    """What was tried on one parser."""

    count: int = 0
    values: int = 0
    named: int = 0
    findings: list[Finding] = field(default_factory=list)


class NotSurvived(AssertionError):
    """Tells hypothesis that an input is a finding."""


class Search:
    """Mutated inputs for one parser, round after round. A finding is counted once, however often it comes back."""

    def __init__(self, target: Target, folder: Path, seed: int) -> None:
        folder.mkdir(parents=True)
        self.target, self.tally = target, Tally()
        self._seeds = target.prepare(folder)
        self._worker = Worker(target.parse, folder)
        self._seed = seed

    def check_seeds(self) -> None:
        """AssertionError if a seed is not accepted: mutations of it would test nothing."""
        for seed in self._seeds:
            outcome = self._worker.run(seed)
            assert outcome.kind == "value", f"{self.target.name}: the seed gives {outcome}"

    def run(self, until: Callable[[], bool]) -> None:
        """Try inputs, at least one round of them, until the clock says so."""
        while True:
            self._round(until)
            self._seed += 1
            if until():
                return

    def close(self) -> None:
        """End the worker."""
        self._worker.close()

    def _round(self, until: Callable[[], bool]) -> None:
        """Up to ROUND inputs; slow ones do not keep the other parsers waiting."""
        latest = time.monotonic() + LONGEST_ROUND_S
        known = {finding.outcome.what for finding in self.tally.findings}
        smallest: Finding | None = None
        begun = 0.0

        @settings(
            max_examples=ROUND, database=None, deadline=None, print_blob=False, report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
            verbosity=Verbosity.quiet,
        )  # fmt: skip
        @start_from(self._seed)
        @given(inputs(self._seeds, is_json=self.target.is_json, repair=self.target.repair))
        def survives(content: bytes) -> None:
            nonlocal smallest, begun
            if smallest is not None and time.monotonic() - begun > SHRINK_S:
                return
            if smallest is None and time.monotonic() > latest and until():
                return
            outcome = self._worker.run(content)
            self.tally.count += 1
            self.tally.values += outcome.kind == "value"
            self.tally.named += outcome.kind == "named"
            if outcome.kind != "finding" or outcome.what in known:
                return
            if smallest is None:
                begun = time.monotonic()
            elif outcome.what != smallest.outcome.what:
                return
            if smallest is None or len(content) <= len(smallest.content):
                smallest = Finding(self.target.name, self._seed, outcome, content)
            raise NotSurvived(outcome.what)

        try:
            survives()
        except (NotSurvived, HypothesisException, ExceptionGroup):  # the last two: shrinking ran out of time
            if smallest is None:
                raise
            self.tally.findings.append(smallest)
