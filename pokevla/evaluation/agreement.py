"""Whether an evaluation shows and asks its policies what they were trained on.

Compared are the size and rendering of the images and the wording of the instructions. What a policy was trained on is
in its exported model (`trained_on` in `config.json`). The crop comes with the policy; an evaluation has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pokevla.errors import RecipeError
from pokevla.recipe.checking.recorded import TRAINED_ON, Recorded, read_recorded
from pokevla.recipe.eval_sections.policies import PolicySpec
from pokevla.recipe.schema import EvalRecipe
from pokevla.runs.directory import EXPORT_CONFIG, find_export
from pokevla.weights.export_files import read_export_config

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
            f"policies: {self.policy} was trained with {self.name} {_text(self.trained)}, these trials have "
            f"{_text((self.evaluated,))}."
        )


def check_agreement(recipe: EvalRecipe, instructions: str | None = None) -> Agreement:
    """Compare the trials with what each policy was trained on, from its exported model. Reads JSON only.

    Policies without such a record (exports of earlier versions, imported ones) and runs without an export give a note
    at most. Baselines that do not look (`replay`, `untrained`) are not compared, and blank images with nothing.

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
        for name, export in _exports_of(spec):
            config = read_export_config(export)
            trained = read_recorded(config.get(TRAINED_ON), export / EXPORT_CONFIG)
            compared = _compared(spec, config)
            unknown = [part for part in compared if getattr(trained, part) is None]
            if unknown:
                notes.append(f"policies: {name} does not say with what {', '.join(unknown)} it was trained.")
            found += _differences(name, trained, {part: shown[part] for part in compared})
    refused = [each for each in found if each.name not in recipe.accept_differences]
    if refused:
        raise RecipeError("\n".join(map(str, refused)), _remedy(refused))
    accepted: dict[str, dict[str, dict[str, Any]]] = {}
    for each in found:
        differing = {"trained": list(each.trained), "evaluated": each.evaluated}
        accepted.setdefault(each.policy, {})[each.name] = differing
        notes.append(f"{each} Accepted by accept_differences.")
    return Agreement(accepted, tuple(notes))


_PERTURBED = {"clean": "task", "bddl": "file", "filename": "filename"}
"""`trials.instructions` of LIBERO-Plus -> the wording of the instructions that it shows, as training data name it."""


def wording_of(recipe: EvalRecipe) -> str | None:
    """Wording of the instructions of the trials; None if it is not known.

    LIBERO's are those of the tasks' names (`TaskInfo.instruction`).
    """
    known = {"libero": "task", "libero_plus": _PERTURBED.get(recipe.trials.instructions)}
    return known.get(recipe.trials.environment)


def _exports_of(spec: PolicySpec) -> Iterator[tuple[str, Path]]:
    """Name and folder of each exported model of a policy that is compared. With one for each suite, the name says of
    which."""
    if spec.kind not in ("model", "blanked"):
        return
    for suite, run in spec.runs.items():
        export = find_export(run)
        if export is not None and (export / EXPORT_CONFIG).is_file():
            yield f"{spec.name} ({suite})" if isinstance(spec.run, dict) else spec.name, export


def _compared(spec: PolicySpec, config: dict[str, Any]) -> tuple[str, ...]:
    if spec.kind == "blanked" or config.get("blank_images"):
        return ("instructions",)
    return ("image_size", "fast_rendering", "instructions")


def _differences(policy: str, trained: Recorded, shown: dict[str, Any]) -> Iterator[_Difference]:
    for name, value in shown.items():
        known = getattr(trained, name)
        if known is not None and value is not None and value not in known:
            yield _Difference(policy, name, known, value)


def _remedy(refused: list[_Difference]) -> str:
    names = list(dict.fromkeys(each.name for each in refused))
    trained = {each.name: each.trained for each in refused}
    steps = [_REMEDIES[name].format(value=_text(trained[name][-1:])) for name in names]
    text = "; ".join(steps)
    return f"{text[0].upper()}{text[1:]}. Or accept it: accept_differences=[{','.join(names)}]."


def _text(values: tuple[Any, ...]) -> str:
    return " and ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in values)
