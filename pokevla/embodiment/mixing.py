"""Checks whether robots are similar enough: those of a mixture, or of a policy and its simulator."""

from __future__ import annotations

from collections.abc import Sequence

from pokevla.embodiment.description import Embodiment
from pokevla.errors import RecipeError


def common_embodiment(datasets: Sequence[tuple[str, Embodiment]]) -> Embodiment:
    """The embodiment of a mixture, given (name, embodiment) of each dataset: that of the first dataset.

    Robots can be mixed if all widths match and the action columns are normalised alike. Names, units and control rates
    may differ; the export stores those of the first.

    Raises:
        RecipeError: two robots cannot be mixed. The message says what differs.
    """
    (first_name, first), *others = datasets
    for name, other in others:
        clauses = misfits(first, other)
        if clauses:
            raise RecipeError(
                f"data.datasets: {first_name} (embodiment {first.name}) and {name} (embodiment {other.name}) cannot be "
                f"mixed: {'; '.join(clauses)}.",
                "Train on datasets of one robot, or convert them to the same views and widths.",
            )
    return first


def refuse_other_robot(policy: str, trained: Embodiment, simulated: Embodiment) -> None:
    """Refuse a policy, called by its name in the recipe, that cannot drive the simulated robot.

    Raises:
        RecipeError: says what differs.
    """
    clauses = misfits(trained, simulated)
    if clauses:
        raise RecipeError(
            f"policies: {policy} drives the embodiment {trained.name}, trials.environment simulates "
            f"{simulated.name}: {'; '.join(clauses)}.",
            "Evaluate it in an environment of its own robot.",
        )


def misfits(one: Embodiment, other: Embodiment) -> list[str]:
    """One clause per difference that prevents two robots from sharing a model: `views base, wrist against front`."""
    pairs = {
        "views": (", ".join(one.views), ", ".join(other.views)),
        "proprio width": (one.proprio_width, other.proprio_width),
        "action width": (one.action_width, other.action_width),
    }
    clauses = [f"{what} {mine} against {theirs}" for what, (mine, theirs) in pairs.items() if mine != theirs]
    if one.action_width == other.action_width:
        conventions = {
            "grippers": (_grippers(one), _grippers(other)),
            "normalised action columns": (_columns(one), _columns(other)),
        }
        clauses += [f"{what} {mine} against {theirs}" for what, (mine, theirs) in conventions.items() if mine != theirs]
    return clauses


def _grippers(embodiment: Embodiment) -> str:
    return ", ".join(f"column {g.column} open {g.open:g} closed {g.closed:g}" for g in embodiment.grippers) or "none"


def _columns(embodiment: Embodiment) -> str:
    return ", ".join(str(column) for column, scaled in enumerate(embodiment.action_mask) if scaled) or "none"
