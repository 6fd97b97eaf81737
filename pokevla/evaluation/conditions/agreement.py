"""Whether an evaluation shows and asks its policies what they were trained on.

Compared are the size and rendering of the images and the wording of the instructions. What a policy was trained on is
in its exported model (`trained_on` in `config.json`). Where the recipe leaves it to the models there is nothing to
compare (`pokevla.evaluation.conditions.settling`). The crop comes with the policy; an evaluation has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pokevla.errors import RecipeError
from pokevla.evaluation.conditions.settling import WORDINGS, known_models, value_text
from pokevla.recipe.checking.recorded import Recorded
from pokevla.recipe.eval_sections.policies import PolicySpec
from pokevla.recipe.schema import EvalRecipe

_REMEDIES = {
    "image_size": "set image_size={value}",
    "fast_rendering": "set fast_rendering={value}",
    "instructions": "convert the data with `--instructions task` and train again",
}


@dataclass(frozen=True)
class Agreement:
    """Result of the comparison, for the user and for the summary."""

    accepted: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Policy -> what differs -> `trained` (list) and `evaluated`, of the differences that the recipe accepts."""
    notes: tuple[str, ...] = ()
    """A sentence for each policy of which something is unknown, and for each accepted difference."""


@dataclass(frozen=True)
class _Difference:
    policy: str
    name: str
    trained: tuple[Any, ...]
    evaluated: Any

    def __str__(self) -> str:
        return (
            f"policies: {self.policy} was trained with {self.name} {value_text(self.trained)}, these trials have "
            f"{value_text((self.evaluated,))}."
        )


def check_agreement(recipe: EvalRecipe, instructions: str | None = None) -> Agreement:
    """Compare the trials with what each policy was trained on, from its exported model. Reads JSON only.

    Policies without such a record (exports of earlier versions) give a note. Baselines that do not look (`replay`,
    `untrained`) are not compared, and blank images with nothing.

    Args:
        instructions: wording of the trials' instructions, `task` or another name; None: the environment's own.

    Raises:
        RecipeError: something differs that `accept_differences` does not name; gives both values and the remedy.
        CheckpointError, DataError: an exported model is damaged.
    """
    shown = {
        "image_size": recipe.image_size,
        "fast_rendering": recipe.fast_rendering,
        "instructions": instructions or wording_of(recipe),
    }
    notes: list[str] = []
    found: list[_Difference] = []
    for spec in recipe.policies:
        for model in known_models(spec):
            unknown = [part for part in model.compared if getattr(model.trained, part) is None]
            if unknown:
                notes.append(f"policies: {model.name} does not say with what {', '.join(unknown)} it was trained.")
            found += _differences(model.name, model.trained, {part: shown[part] for part in model.compared})
        notes += _image_notes(spec)
    refused = [each for each in found if each.name not in recipe.accept_differences]
    if refused:
        raise RecipeError("\n".join(map(str, refused)), _remedy(refused))
    accepted: dict[str, dict[str, dict[str, Any]]] = {}
    for each in found:
        differing = {"trained": list(each.trained), "evaluated": each.evaluated}
        accepted.setdefault(each.policy, {})[each.name] = differing
        notes.append(f"{each} Accepted by accept_differences.")
    return Agreement(accepted, tuple(notes))


def wording_of(recipe: EvalRecipe) -> str | None:
    """Wording of the instructions of the trials; None if it is not known.

    LIBERO's are those of the tasks' names (`TaskInfo.instruction`).
    """
    known = {"libero": "task", "libero_plus": WORDINGS.get(recipe.trials.instructions or "")}
    return known.get(recipe.trials.environment)


def _image_notes(spec: PolicySpec) -> Iterator[str]:
    """A published model that gets its pictures in another way than it was trained on, because the recipe says so."""
    if spec.kind == "model" and spec.images == "plain":
        yield f"policies: {spec.name} gets its pictures resampled as our own models do (images: plain)."


def _differences(policy: str, trained: Recorded, shown: dict[str, Any]) -> Iterator[_Difference]:
    for name, value in shown.items():
        known = getattr(trained, name)
        if known is not None and value is not None and value not in known:
            yield _Difference(policy, name, known, value)


def _remedy(refused: list[_Difference]) -> str:
    names = list(dict.fromkeys(each.name for each in refused))
    trained = {each.name: each.trained for each in refused}
    steps = [_REMEDIES[name].format(value=value_text(trained[name][-1:])) for name in names]
    text = "; ".join(steps)
    return f"{text[0].upper()}{text[1:]}. Or accept it: accept_differences=[{','.join(names)}]."
