"""Which trials judge the checkpoints of a run, and which checkpoint they choose.

OUTPUT/NAME-checkpoints/step-00001000/   a complete evaluation of one checkpoint, on drawn placements
OUTPUT/NAME-checkpoints/choice.json      all checkpoints with their rates, and the chosen one
OUTPUT/NAME/                             the test of the chosen one
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from pokevla.errors import RecipeError
from pokevla.files.records import as_type
from pokevla.files.texts import read_json
from pokevla.recipe.eval_sections.policies import PolicySpec
from pokevla.recipe.schema import EvalRecipe

CHOICE = "choice.json"


@dataclass(frozen=True)
class Judged:
    """One checkpoint and its validation trials."""

    step: int
    successes: int
    trials: int  # without crashed ones
    crashed: int
    low: float  # 95 % interval of the success rate
    high: float

    @property
    def rate(self) -> float:
        """Success rate; 0 if all trials crashed, which can not win."""
        return self.successes / self.trials if self.trials else 0.0


class Choice(TypedDict):
    """Content of choice.json."""

    run: str
    chosen: int | None  # step
    seed: int  # of the placements
    trials_per_task: int
    checkpoints: list[dict[str, Any]]


def policy_to_judge(recipe: EvalRecipe) -> PolicySpec:
    """The policy of a recipe for `eval best`.

    Raises:
        RecipeError: it has another number of policies, or one that is no model; or the benchmark's trials end early.
    """
    models = [spec for spec in recipe.policies if spec.kind == "model"]
    if len(models) != 1 or len(recipe.policies) != 1:
        raise RecipeError(
            f"policies: `pokevla eval best` judges the checkpoints of one policy of kind model, the recipe has "
            f"{len(recipe.policies)} policies.",
            "Leave one.",
        )
    if recipe.trials.until is not None:
        raise RecipeError("trials.until compares policies; `pokevla eval best` has one.", "Set trials.until=null.")
    return models[0]


def validation_recipe(recipe: EvalRecipe, step: int, model: Path) -> EvalRecipe:
    """The evaluation of one checkpoint, exported to `model`: the tasks of the recipe, on placements of its own."""
    spec = policy_to_judge(recipe)
    drawn = {
        "placements": "drawn",
        "seed": recipe.validation.seed,
        "init_states": (0, recipe.validation.trials_per_task),
        "target_shift_m": None,
    }
    return recipe.model_copy(
        update={
            "name": f"{recipe.name}-checkpoints/step-{step:08d}",
            "trials": recipe.trials.model_copy(update=drawn),
            "policies": [spec.model_copy(update={"run": model})],
            "videos": 0,
        }
    )


def judged_of(step: int, summary: dict[str, Any], policy: str) -> Judged:
    """The row of one checkpoint from the summary of its evaluation."""
    row = summary["policies"][policy]
    return Judged(step, row["successes"], row["trials"], row["crashed"], row["low"], row["high"])


def best_of(judged: Sequence[Judged]) -> Judged | None:
    """The checkpoint with the highest success rate; of several, the earliest, which was trained least. None without
    any trial."""
    able = [each for each in judged if each.trials]
    return max(able, key=lambda each: (each.rate, -each.step), default=None)


def read_choice(folder: Path) -> Choice | None:
    """`choice.json` in a folder; None without one. DataError if it is damaged."""
    path = folder / CHOICE
    if not path.is_file():
        return None
    return as_type(read_json(path), Choice, path, remedy="Run `pokevla eval best` again.")
