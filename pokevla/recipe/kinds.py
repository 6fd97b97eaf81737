"""The kinds of recipe, and what a job of each kind can do. One entry makes a kind known to loading, checks, commands.

What follows from the values of one recipe (its cache, its datasets) are properties of the recipe itself
(`pokevla.recipe.schema.JobRecipe`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from pokevla.errors import RecipeError
from pokevla.recipe import schema

AnyRecipe = (
    schema.PretrainRecipe
    | schema.PosttrainRecipe
    | schema.CacheRecipe
    | schema.EvalRecipe
    | schema.GroundingRecipe
    | schema.MixtureRecipe
    | schema.PipelineRecipe
)
TrainingRecipe = schema.PretrainRecipe | schema.PosttrainRecipe
ModelName = Literal["pokevlm", "pokevla"]
DataKind = Literal["vlm", "robot"]

MODEL_TITLES: dict[ModelName, str] = {"pokevlm": "PokeVLM", "pokevla": "PokeVLA"}


@dataclass(frozen=True)
class Kind:
    """Properties of one kind of recipe."""

    name: str  # value of a recipe's `kind`
    recipe: type[AnyRecipe]
    title: str  # for reports
    model: ModelName | None = None  # the model that it trains
    data_kind: DataKind | None = None  # kind of its datasets
    builds_cache: bool = False
    is_job: bool = True  # can be submitted to a cluster; others run on one machine

    @property
    def trains(self) -> bool:
        """Whether it trains a model, in a run directory with checkpoints."""
        return self.model is not None


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("pretrain", schema.PretrainRecipe, "Pre-training of PokeVLM", model="pokevlm", data_kind="vlm"),
        Kind("posttrain", schema.PosttrainRecipe, "Post-training of PokeVLA", model="pokevla", data_kind="robot"),
        Kind("cache", schema.CacheRecipe, "Feature cache", data_kind="robot", builds_cache=True),
        Kind("eval", schema.EvalRecipe, "Trials in LIBERO"),
        Kind("grounding", schema.GroundingRecipe, "Grounding of PokeVLM", data_kind="vlm"),
        Kind("mixture", schema.MixtureRecipe, "Mixture of question sets", data_kind="vlm", is_job=False),
        Kind("pipeline", schema.PipelineRecipe, "Pipeline", is_job=False),
    )
}
_BY_CLASS = {kind.recipe: kind for kind in KINDS.values()}


def kind_of(recipe: BaseModel) -> Kind:
    """The entry of a loaded recipe's kind."""
    return _BY_CLASS[type(recipe)]  # pyright: ignore[reportArgumentType]


def model_of(recipe: BaseModel) -> ModelName:
    """The model that a recipe trains.

    Raises:
        RecipeError: recipes of this kind train none.
    """
    kind = kind_of(recipe)
    if kind.model is None:
        raise RecipeError(f"A recipe of kind {kind.name} trains no model.", "Use one of kind pretrain or posttrain.")
    return kind.model


def data_kind_of(recipe: BaseModel) -> DataKind:
    """Kind of a recipe's datasets.

    Raises:
        RecipeError: recipes of this kind name no datasets.
    """
    kind = kind_of(recipe)
    if kind.data_kind is None:
        raise RecipeError(f"A recipe of kind {kind.name} names no datasets.", "Use one of kind pretrain or posttrain.")
    return kind.data_kind


def training_of(recipe: BaseModel) -> TrainingRecipe | None:
    """The recipe itself if it trains a model, otherwise None."""
    return recipe if isinstance(recipe, TrainingRecipe) else None
