"""What the trials show and ask where a recipe leaves it to the models: what these were trained on.

That is in an exported model (`trained_on` in `config.json`), and in a run that has no export yet (`trained_on.json`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pokevla.errors import RecipeError
from pokevla.recipe.checking.recorded import TRAINED_ON, Recorded, read_recorded
from pokevla.recipe.eval_sections.policies import PolicySpec
from pokevla.recipe.schema import EvalRecipe
from pokevla.recipe.values import DEFAULTS_WITHOUT_MODEL
from pokevla.runs.directory import EXPORT_CONFIG, find_export, holds_recipe, read_run_recipe
from pokevla.runs.directory import TRAINED_ON as TRAINED_ON_FILE
from pokevla.weights.export_files import read_export_config, read_trained_on

WORDINGS = {"clean": "task", "bddl": "file", "filename": "filename"}
"""`trials.instructions` of LIBERO-Plus -> the wording of the instructions that it shows, as training data name it."""
_FIELDS = {"image_size": "image_size", "fast_rendering": "fast_rendering", "trials.instructions": "instructions"}
"""Fields of a recipe that models can settle -> what of them is in `trained_on`."""


@dataclass(frozen=True)
class KnownModel:
    """A model that the trials have to suit."""

    name: str
    """Of its policy, and with one model for each suite that of the suite."""
    folder: Path
    trained: Recorded
    compared: tuple[str, ...]
    """What of `trained` concerns the trials: a policy that sees nothing is only asked."""


@dataclass(frozen=True)
class Settled:
    """A recipe whose conditions are all known."""

    recipe: EvalRecipe
    lines: tuple[str, ...] = ()
    """For the user: a sentence on what was taken and from which policies."""
    sources: Mapping[str, list[str]] = dataclasses.field(default_factory=dict)
    """Field -> the policies that it was taken from; none of them where it is the default."""


def settle(recipe: EvalRecipe) -> Settled:
    """Fill in image size, rendering and wording of the instructions where the recipe says null. Reads JSON only.

    All models of the evaluation must agree. Of several values that all of them were trained on, the default is taken if
    it is one of them, else the largest. Without a model that tells, it is the default.

    Raises:
        RecipeError: two models were trained on different values; names both.
        CheckpointError, DataError: a model's record is damaged.
    """
    missing = {field: part for field, part in _FIELDS.items() if _value(recipe, field) is None}
    if not missing:
        return Settled(recipe)
    models = [model for spec in recipe.policies for model in known_models(spec)]
    if recipe.trials.environment != "libero_plus" and "trials.instructions" in missing:
        del missing["trials.instructions"]  # only LIBERO-Plus has a choice
        recipe = _with_value(recipe, "trials.instructions", DEFAULTS_WITHOUT_MODEL["trials.instructions"])
    sources: dict[str, list[str]] = {}
    for field, part in missing.items():
        known = {model.name: _known(model, field, part) for model in models if part in model.compared}
        told = {name: values for name, values in known.items() if values is not None}
        recipe = _with_value(recipe, field, _agreed(field, told))
        sources[field] = list(told)
    return Settled(recipe, tuple(_lines(recipe, sources)), sources)


def known_models(spec: PolicySpec) -> Iterator[KnownModel]:
    """The models of a policy that trials are compared with: not of baselines that do not look (`replay`, `untrained`),
    and none that is not there, which another check reports."""
    if spec.kind not in ("model", "blanked"):
        return
    for suite, run in spec.runs.items():
        name = f"{spec.name} ({suite})" if isinstance(spec.run, dict) else spec.name
        export = find_export(run)
        if export is not None and (export / EXPORT_CONFIG).is_file():
            config = read_export_config(export)
            trained, is_blank = (
                read_recorded(config.get(TRAINED_ON), export / EXPORT_CONFIG),
                config.get("blank_images"),
            )
        elif (run / TRAINED_ON_FILE).is_file():
            export, trained = run, read_trained_on(run)
            is_blank = holds_recipe(run) and read_run_recipe(run).data.blank_images
        else:
            continue
        looks = spec.kind == "model" and not is_blank
        compared = ("image_size", "fast_rendering", "instructions") if looks else ("instructions",)
        yield KnownModel(name, export, trained, compared)


def _known(model: KnownModel, field: str, part: str) -> tuple[Any, ...] | None:
    """Values of a recipe's field that a model was trained on."""
    values = getattr(model.trained, part)
    if values is None or field != "trials.instructions":
        return values
    return tuple(name for name, wording in WORDINGS.items() if wording in values) or None


def _agreed(field: str, told: Mapping[str, tuple[Any, ...]]) -> Any:
    default = DEFAULTS_WITHOUT_MODEL[field]
    if not told:
        return default
    common = set.intersection(*(set(values) for values in told.values()))
    if not common:
        listed = ", ".join(f"{name} with {value_text(values)}" for name, values in told.items())
        raise RecipeError(
            f"{field}: the recipe leaves it to the policies, and they were trained differently: {listed}.",
            f"Evaluate them one by one. Or set {field}, and accept it for the others: "
            f"accept_differences=[{_FIELDS[field]}].",
        )
    return default if default in common else max(common)


def _lines(recipe: EvalRecipe, sources: Mapping[str, list[str]]) -> Iterator[str]:
    """One sentence for the fields that come from the same policies."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for field, policies in sources.items():
        groups.setdefault(tuple(policies), []).append(f"{field} {value_text((_value(recipe, field),))}")
    asks_models = any(spec.kind in ("model", "remote") for spec in recipe.policies)
    for policies, settings in groups.items():
        if policies:
            verb = "was" if len(policies) == 1 else "were"
            yield f"{', '.join(settings)}: as {' and '.join(policies)} {verb} trained."
        elif asks_models:
            yield f"{', '.join(settings)}: the default, because no policy says what it was trained with."


def _value(recipe: EvalRecipe, field: str) -> Any:
    return recipe.trials.instructions if field == "trials.instructions" else getattr(recipe, field)


def _with_value(recipe: EvalRecipe, field: str, value: Any) -> EvalRecipe:
    section, _, name = field.rpartition(".")
    if section:
        return recipe.model_copy(update={section: getattr(recipe, section).model_copy(update={name: value})})
    return recipe.model_copy(update={name: value})


def value_text(values: tuple[Any, ...]) -> str:
    """Values as a recipe spells them."""
    return " and ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in values)
