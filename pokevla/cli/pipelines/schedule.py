"""How long the stages of a pipeline still take, from what they usually take and how fast this machine has been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pokevla.recipe.schema import Stage
from pokevla.telemetry.figures import duration


@dataclass
class Schedule:
    """The usual duration of each stage in seconds, and what those of this call have taken."""

    usual_s: Mapping[str, float]
    spent_s: dict[str, float] = field(default_factory=dict)

    def expected_s(self, names: Sequence[str]) -> float | None:
        """Expected duration of stages on this machine; None if that of one of them is not known."""
        if any(name not in self.usual_s for name in names):
            return None
        known = [name for name in self.spent_s if name in self.usual_s]
        usual = sum(self.usual_s[name] for name in known)
        pace = sum(self.spent_s[name] for name in known) / usual if usual > 0 else 1.0
        return pace * sum(self.usual_s[name] for name in names)

    def before(self, names: Sequence[str]) -> str:
        """What is expected before the first of the `names` begins, in brackets; empty if nothing is known."""
        stage_s, all_s = self.expected_s(names[:1]), self.expected_s(names)
        parts = [f"about {duration(stage_s)}"] if stage_s is not None else []
        parts += [f"pipeline ETA {duration(all_s)}"] if all_s is not None and len(names) > 1 else []
        return f" ({', '.join(parts)})" if parts else ""

    def after(self, name: str, seconds: float, rest: Sequence[str]) -> str:
        """Record that a stage has taken `seconds`, and say what is left."""
        self.spent_s[name] = seconds
        left_s = self.expected_s(rest)
        so_far = f"; {duration(sum(self.spent_s.values()))} so far" if len(self.spent_s) > 1 else ""
        left = f", pipeline ETA {duration(left_s)}" if left_s and rest else ""
        return f"finished in {duration(seconds)}{so_far}{left}"


def usual_durations(stages: Sequence[Stage], before: Mapping[str, float]) -> dict[str, float]:
    """Seconds by stage: those of an earlier call if it has run all stages, otherwise those of the recipe."""
    if all(stage.name in before for stage in stages):
        return dict(before)
    return {stage.name: stage.seconds for stage in stages if stage.seconds is not None}
