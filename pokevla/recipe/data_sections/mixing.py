"""Sections of a recipe of kind `mixture`: sources and their bounds, categories and their budgets, answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pokevla.recipe.paths import UserPath
from pokevla.recipe.running import Fraction, Positive, Section

QuestionCategory = Literal["general", "grounding", "affordance", "reasoning"]
Count = Annotated[int, Field(ge=0)]


class CapConfig(Section):
    """A bound on samples that resemble each other."""

    by: Literal["image", "group", "run"]
    """What they share: `image`; `group`, which the source names, such as a scan or an episode, and otherwise the image;
    `run`, the same question in consecutive samples, for sources that do not say which samples are of one episode."""
    at_most: Positive
    """Most samples of one image, group or run."""


class MixtureSource(Section):
    """A converted question set."""

    path: UserPath
    """Dataset directory, written by `pokevla data convert`."""
    categories: tuple[QuestionCategory, ...] | None = None
    """Categories to take; `null`: all that it has."""
    caps: tuple[CapConfig, ...] = ()
    """Bounds on samples of one image, group or run, each applied to what the one before leaves."""
    whole: bool = False
    """Take all samples before the rest of the budget is shared."""
    weight: Annotated[float, Field(gt=0.0)] = 1.0
    """Factor on the share of each of its tasks."""
    at_most: dict[str, Count] = {}  # noqa: RUF012 (pydantic copies it)
    """Most samples of a task, by the task's name; 0 leaves it out."""
    yes_no: Literal["balanced", "as_is"] = "balanced"
    """`balanced`: as many samples of a task are answered by yes as by no; the more frequent answer is cut down. Samples
    with several turns are not counted."""
    questions_per_sample: Positive = 1
    """Most questions about one image, of one category, that become one sample, a conversation of as many turns, as in
    LLaVA-1.5's training set. 1: each question is a sample. Budgets and caps count questions."""


class CategoryConfig(Section):
    """A category of the mixture."""

    budget: Positive
    """Number of samples."""
    exponent: Fraction = 0.5
    """Share of each source and task: its number of samples to this power, times the weight of the source. 0.5: the
    square root, as in MolmoAct's mixture; 1: in proportion to size; 0: equal shares."""
    floor: Count = 0
    """Least number of samples of each source and task; of a smaller one all are taken."""


class AnswersConfig(Section):
    """What is changed in questions and answers."""

    letters: Literal["uniform", "as_is"] = "uniform"
    """`uniform`: the options of multiple-choice questions change places, so that each letter is the right one equally
    often in each source and task. Options keep their places where a text of the sample refers to letters."""
    max_points: Positive | None = 10
    """Most points of one answer; of longer lists an evenly drawn part is kept, in its order. `null`: no bound."""
