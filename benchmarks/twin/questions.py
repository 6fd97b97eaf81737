"""Questions with true answers about a scene, worded in several ways."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

from benchmarks.twin.scenes import COLOURS, SHAPES, Scene, Thing, relation

FORM_POINTS = "Give a list of tuples [(x1, y1), (x2, y2), ...] of points that fit, with x and y normalized to 0 to 1."
FORM_BOXES = "Give a list of tuples, each the normalized top left corner and size of a box, 0 to 1."
SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
POINT_AT = ("Point at the {}.", "Where is the {}?", "Locate the {} in the image.", "Find points on the {}.")
FREE = (
    "Find a few empty spots {} the {}.",
    "Where is free space {} the {}?",
    "Point at places {} the {} where something could be put down.",
)
OPPOSITE = {
    "to the left of": "to the right of",
    "to the right of": "to the left of",
    "above": "below",
    "below": "above",
}


def yes_no(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """A statement that is true or false with equal chance."""
    one, other = rng.sample(scene.things, 2)
    words, truth = relation(one, other), rng.random() < 0.5
    return f"Is the {one.name} {words if truth else OPPOSITE[words]} the {other.name}?", "Yes" if truth else "No"


def short_question(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """A question that one word answers."""
    kind = rng.randrange(4)
    thing = rng.choice(scene.things)
    if kind == 0:
        shape = rng.choice([shape for shape in SHAPES if _count(scene, shape) == 1] or [""])
        if shape:
            (only,) = (each for each in scene.things if each.shape == shape)
            return f"What colour is the {shape}?", only.colour
    if kind == 1:
        return "How many shapes are in the picture?", str(len(scene.things))
    if kind == 2:
        colour = rng.choice([*{each.colour for each in scene.things}, *COLOURS])
        there = any(each.colour == colour for each in scene.things)
        return f"Is anything {colour} in the picture?", "Yes" if there else "No"
    if thing.x < 0.45 * scene.width or thing.x > 0.55 * scene.width:
        side = "left" if thing.x < scene.width / 2 else "right"
        return f"On which side of the picture is the {thing.name}, left or right?", side
    return yes_no(scene, rng)


def _count(scene: Scene, shape: str) -> int:
    return sum(each.shape == shape for each in scene.things)


def describe(scene: Scene) -> str:
    """All things from left to right, with their relations."""
    ordered = sorted(scene.things, key=lambda thing: thing.x)
    parts = [f"The picture shows {len(ordered)} shapes. From left to right they are"]
    parts.append(", ".join(f"a {thing.name}" for thing in ordered[:-1]) + f" and a {ordered[-1].name}.")
    for one, other in pairwise(ordered):
        parts.append(f"The {one.name} is {relation(one, other)} the {other.name}.")
    return " ".join(parts)


def choice(scene: Scene, rng: random.Random) -> tuple[str, list[str], int]:
    """A question, its options, and the number of the right one."""
    kind = rng.randrange(3)
    if kind == 0:
        count = len(scene.things)
        options = [str(count), str(count + rng.choice([-1, 1, 2]))]
        question = "How many shapes are there?"
    elif kind == 1:
        one, other = rng.sample(scene.things, 2)
        sideways = abs(one.x - other.x) > abs(one.y - other.y)
        question = "Which is further to the left?" if sideways else "Which is higher?"
        first = min((one, other), key=lambda thing: thing.x if sideways else thing.y)
        options = [first.name, (other if first is one else one).name]
    else:
        one, other = rng.sample(scene.things, 2)
        words = relation(one, other)
        question = f"Where is the {one.name} relative to the {other.name}?"
        options = [_side(words), _side(OPPOSITE[words])]
    right = options[0]
    rng.shuffle(options)
    return question, options, options.index(right)


def _side(words: str) -> str:
    return {"to the left of": "left", "to the right of": "right"}.get(words, words)


def lettered(options: Sequence[str]) -> str:
    """`(A) cup (B) bowl`."""
    return " ".join(f"({'ABCD'[place]}) {option}" for place, option in enumerate(options))


def referring(scene: Scene, thing: Thing, rng: random.Random) -> str:
    """Words that mean this thing and no other of the scene."""
    others = [each for each in scene.things if each is not thing]
    if rng.random() < 0.4 and all(each.colour != thing.colour for each in others):
        return f"{thing.colour} thing"
    return thing.name


def free_space(scene: Scene, rng: random.Random, count: int) -> tuple[str, list[tuple[float, float]], str]:
    """A question for free space, points there, and the relation; a scene always has an empty cell beside a thing."""
    found = scene.free_beside(rng)
    if found is None:  # at most 5 of 12 cells are taken, and the grid is connected
        raise RuntimeError("no empty cell beside a thing")
    thing, words, cell = found
    return rng.choice(FREE).format(words, thing.name), scene.points_in(cell, rng, count), words
