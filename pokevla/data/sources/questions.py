"""Template questions about a labelled image. Every answer is derived from the instance mask.

Each maker returns one question, or None if the image does not allow it. The random generator passed in selects
template, object and option letter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pokevla.data.prompts import INSTRUCTION_TEMPLATE
from pokevla.data.records import (
    REPLY_WITH,
    Category,
    box_record,
    choice_record,
    point_record,
    text_record,
)
from pokevla.data.sources.pictures import LabelledPicture, Visible
from pokevla.embodiment.libero import BASE

CLEAR_GAP = 0.08
"""Minimum distance between two objects, relative to the image side, for questions that compare their positions."""


@dataclass(frozen=True)
class Question:
    """A question made from a template: the fields of the answer, and the region that counts as correct."""

    category: Category
    task: str
    question: str
    answer: dict[str, Any]
    region: np.ndarray | None = None
    """(H,W) bool; None if the answer is not a location."""


Maker = Callable[[LabelledPicture, np.random.Generator], Question | None]


def _pick(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    """A random choice of `options`."""
    return options[int(rng.integers(len(options)))]


def _ask(rng: np.random.Generator, templates: Sequence[str], kind: str, **words: str) -> str:
    """A random template, filled in, followed by the sentence that states the answer format."""
    return f"{_pick(rng, templates).format(**words)} {REPLY_WITH[kind]}"


def _any(
    picture: LabelledPicture, rng: np.random.Generator, accepts: Callable[[Visible], bool] = lambda _: True
) -> Visible | None:
    """A random nameable object of the image that satisfies `accepts`, or None."""
    candidates = [v for v in picture.nameable if accepts(v)]
    return _pick(rng, candidates) if candidates else None


# ------------------------------------------------------------------------------------------------ grounding

POINT = (
    "Point to the {name}.",
    "Where is the {name}?",
    "Mark the {name} with one point.",
    "Locate the {name} in the picture.",
    "Find the {name}.",
)
BOX = (
    "Draw a box around the {name}.",
    "Give the bounding box of the {name}.",
    "Which box encloses the {name}?",
    "Outline the {name} with a box.",
)


def point_to(picture: LabelledPicture, rng: np.random.Generator) -> Question | None:
    """Ask for one point on an object."""
    thing = _any(picture, rng)
    if thing is None:
        return None
    text = _ask(rng, POINT, "point", name=thing.phrase)
    return Question("grounding", "object_point", text, point_record([thing.centre]), thing.mask)


def box_of(picture: LabelledPicture, rng: np.random.Generator) -> Question | None:
    """Ask for the tight bounding box of an object."""
    thing = _any(picture, rng)
    if thing is None:
        return None
    text = _ask(rng, BOX, "box", name=thing.phrase)
    return Question("grounding", "object_box", text, box_record(thing.box), thing.mask)


# ------------------------------------------------------------------------------------------------ affordance

GRASP = (
    "Where should the gripper grasp the {name}?",
    "Show where the robot can take hold of the {name}.",
    "Which spot should the robot pinch to pick up the {name}?",
    "Mark a grasp point on the {name}.",
)
MOVE = "pick up the {name} and place it in the {place}"  # as libero_object words it
PLACE = (
    "Where should the gripper let go of an object to put it in or on the {name}?",
    "Mark where to put something down so that it ends up in or on the {name}.",
    "Show a spot for placing an object in or on the {name}.",
)


def act_on(picture: LabelledPicture, rng: np.random.Generator) -> Question | None:
    """Ask the policy's own question. The answer is the point where the gripper has to go first (ours).

    No sentence states the answer format: the prompt is identical to the one that precedes the action queries in
    post-training, so the policy is prompted for what pre-training has learned to locate.
    """
    thing = _any(picture, rng, lambda v: v.graspable)
    places = sorted({v.phrase for v in picture.visible if v.container} | set(picture.hidden_containers))
    if thing is None or not (places := [name for name in places if name != thing.phrase]):
        return None
    point = thing.grasp if picture.view == BASE else thing.centre
    text = INSTRUCTION_TEMPLATE.format(instruction=MOVE.format(name=thing.phrase, place=_pick(rng, places)))
    return Question("affordance", "act_on", text, point_record([point]), thing.mask)


def grasp_point(picture: LabelledPicture, rng: np.random.Generator) -> Question | None:
    """Ask for a grasp point of an object that a gripper can lift."""
    thing = _any(picture, rng, lambda v: v.graspable)
    if thing is None:
        return None
    point = thing.grasp if picture.view == BASE else thing.centre  # the wrist camera sees objects from above
    text = _ask(rng, GRASP, "point", name=thing.phrase)
    return Question("affordance", "grasp_point", text, point_record([point]), thing.mask)


def place_point(picture: LabelledPicture, rng: np.random.Generator) -> Question | None:
    """Ask for a point of a container in or on which something can be placed."""
    thing = _any(picture, rng, lambda v: v.container)
    if thing is None:
        return None
    text = _ask(rng, PLACE, "point", name=thing.phrase)
    return Question("affordance", "place_point", text, point_record([thing.centre]), thing.mask)


# ------------------------------------------------------------------------------------------------ reasoning

LEFT_OF = (
    "Which is further {side} in the picture? (A) {a} (B) {b}.",
    "Compare the two objects: which one is more to the {side}? (A) {a} (B) {b}.",
    "(A) {a} (B) {b}. Which of them lies further {side}?",
)
NEARER = (
    "Which is {relation} the robot? (A) {a} (B) {b}.",
    "(A) {a} (B) {b}. Which of them stands {relation} the robot?",
    "Which of the two objects is {relation} the robot's base? (A) {a} (B) {b}.",
)
IS_LEFT = (
    "Is the {a} to the {side} of the {b} in the picture? (A) yes (B) no.",
    "In this picture, does the {a} lie {side} of the {b}? (A) yes (B) no.",
    "Is the {a} to the {side} of the {b} in the picture? (A) no (B) yes.",
    "In this picture, does the {a} lie {side} of the {b}? (A) no (B) yes.",
)


def _apart(picture: LabelledPicture, rng: np.random.Generator, axis: int) -> tuple[Visible, Visible] | None:
    """Two objects clearly apart along x (axis 0) or, by their lower edges, along y (axis 1). The smaller coordinate
    comes first."""
    place = (lambda v: v.centre[0]) if axis == 0 else (lambda v: v.box[3])
    things = picture.nameable
    pairs = [(a, b) for a in things for b in things if place(b) - place(a) >= CLEAR_GAP]
    return _pick(rng, pairs) if pairs else None


def _two_options(
    rng: np.random.Generator, task: str, templates: Sequence[str], right: Visible, wrong: Visible, **words: str
) -> Question:
    """A choice between two objects. The letter of the correct one is uniformly random."""
    first = bool(rng.integers(2))
    a, b = (right, wrong) if first else (wrong, right)
    text = _ask(rng, templates, "choice", a=a.phrase, b=b.phrase, **words)
    return Question("reasoning", task, text, choice_record("A" if first else "B"))


def further_to_side(picture: LabelledPicture, rng: np.random.Generator) -> Question | None:
    """Ask which of two objects is further left or right in the image."""
    pair = _apart(picture, rng, 0)
    if pair is None:
        return None
    left, right = pair
    side = _pick(rng, ("left", "right"))
    answer, other = (left, right) if side == "left" else (right, left)
    return _two_options(rng, "compare_side", LEFT_OF, answer, other, side=side)


def nearer_to_robot(picture: LabelledPicture, rng: np.random.Generator) -> Question | None:
    """Ask which of two objects is nearer to the robot. LIBERO's base camera faces the robot, so it is the higher one.

    Asked only if all objects stand on the table: then the lower edge of a mask is where the object touches the table.
    """
    if picture.view != BASE or not picture.at_rest:
        return None
    pair = _apart(picture, rng, 1)
    if pair is None:
        return None
    near, far = pair
    relation = _pick(rng, ("nearer to", "further from"))
    answer, other = (near, far) if relation == "nearer to" else (far, near)
    return _two_options(rng, "compare_depth", NEARER, answer, other, relation=relation)


def is_to_side(picture: LabelledPicture, rng: np.random.Generator) -> Question | None:
    """Ask whether one object is left (or right) of another. Yes and no, and their letters, are uniformly random."""
    pair = _apart(picture, rng, 0)
    if pair is None:
        return None
    side, true = _pick(rng, ("left", "right")), bool(rng.integers(2))
    left, right = pair
    a, b = (left, right) if (side == "left") == true else (right, left)
    text = _ask(rng, IS_LEFT, "choice", a=a.phrase, b=b.phrase, side=side)
    yes = "A" if "(A) yes" in text else "B"
    no = "B" if yes == "A" else "A"
    return Question("reasoning", "judge_side", text, choice_record(yes if true else no))


# ------------------------------------------------------------------------------------------------ general

NAME_AT = (
    "Which object is at ({x:.3f}, {y:.3f})?",
    "Name the object at the point ({x:.3f}, {y:.3f}).",
    "What do you see at ({x:.3f}, {y:.3f})?",
)
COUNT = (
    "How many of these are visible: {names}?",
    "Count the visible ones: {names}.",
    "Of these objects, how many does the picture show: {names}?",
)
IS_VISIBLE = (
    "Is the {name} visible? Answer yes or no.",
    "Does the picture show the {name}? Answer yes or no.",
    "Can you see the {name}? Answer yes or no.",
)


def name_at_point(picture: LabelledPicture, rng: np.random.Generator) -> Question | None:
    """Ask for the name of the object at a point."""
    if not picture.visible:
        return None
    thing = _pick(rng, picture.visible)
    x, y = thing.centre
    text = f"{_pick(rng, NAME_AT).format(x=x, y=y)} {REPLY_WITH['text']}"
    return Question("general", "name_at_point", text, text_record(thing.phrase))


def count_visible(picture: LabelledPicture, rng: np.random.Generator) -> Question | None:
    """Ask how many of several named objects are visible."""
    shown = sorted({v.phrase for v in picture.visible})
    most = min(3, len(shown))
    if not picture.hidden or not shown:
        return None
    number = int(rng.integers(0, most + 1))
    absent = min(len(picture.hidden), int(rng.integers(1, 3)))
    names = [*rng.choice(shown, number, replace=False), *rng.choice(picture.hidden, absent, replace=False)]
    rng.shuffle(names)
    text = _ask(rng, COUNT, "text", names=", ".join(names))
    return Question("general", "count_visible", text, text_record(str(number)))


def is_visible(picture: LabelledPicture, rng: np.random.Generator) -> Question | None:
    """Ask whether an object is visible. Yes and no are equally likely."""
    shown = sorted({v.phrase for v in picture.visible})
    if not picture.hidden or not shown:
        return None
    yes = bool(rng.integers(2))
    text = _ask(rng, IS_VISIBLE, "text", name=_pick(rng, shown if yes else picture.hidden))
    return Question("general", "is_visible", text, text_record("yes" if yes else "no"))


MAKERS: dict[str, tuple[Maker, ...]] = {
    "grounding": (point_to, box_of),
    "affordance": (act_on, grasp_point, place_point),
    "reasoning": (further_to_side, nearer_to_robot, is_to_side),
    "general": (name_at_point, count_visible, is_visible),
}
"""Makers by category. One is drawn; if it does not apply to the image, the next ones are tried."""


def ask(picture: LabelledPicture, category: str, rng: np.random.Generator) -> Question | None:
    """A question of a category about an image, or None if none of its makers applies."""
    makers = MAKERS[category]
    for place in rng.permutation(len(makers)):
        question = makers[place](picture, rng)
        if question is not None:
            return question
    return None
