"""Pictures of coloured shapes at known places, and what is true about them.

A scene is a pure function of (seed, source, number). Coordinates are pixels of its picture unless a name says `unit`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "red": (214, 39, 40), "green": (44, 140, 60), "blue": (31, 90, 200), "yellow": (240, 205, 30),
    "purple": (130, 60, 170), "orange": (240, 130, 20), "black": (25, 25, 25), "white": (245, 245, 245),
}  # fmt: skip
SHAPES = ("square", "circle", "triangle", "diamond")
COLUMNS, ROWS = 4, 3
"""Each shape has one cell of a grid for itself, so that shapes never overlap and empty cells are free space."""
DIRECTIONS = {"to the left of": (-1, 0), "to the right of": (1, 0), "above": (0, -1), "below": (0, 1)}


@dataclass(frozen=True)
class Thing:
    """One shape: its name is unique in the scene."""

    colour: str
    shape: str
    x: int
    y: int
    half: int
    """Half of its width and height."""
    cell: tuple[int, int]
    """Column and row of the grid."""

    @property
    def name(self) -> str:
        """Such as `red square`."""
        return f"{self.colour} {self.shape}"

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 in pixels; x2 and y2 are outside."""
        return self.x - self.half, self.y - self.half, self.x + self.half, self.y + self.half


@dataclass(frozen=True)
class Scene:
    """Things on a table, the largest difference between scenes being where they are."""

    width: int
    height: int
    things: tuple[Thing, ...]
    ground: tuple[int, int, int]
    """Colour behind the things."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.width, self.height

    def unit(self, x: float, y: float) -> tuple[float, float]:
        """A point as fractions of the picture, three decimals."""
        return round(x / self.width, 3), round(y / self.height, 3)

    def unit_box(self, thing: Thing) -> tuple[float, float, float, float]:
        """The box of a thing as fractions, x1, y1, x2, y2."""
        x1, y1, x2, y2 = thing.box
        return (*self.unit(x1, y1), *self.unit(x2, y2))

    def points_on(self, thing: Thing, rng: random.Random, count: int) -> list[tuple[float, float]]:
        """Fractions of up to `count` different points inside of a thing."""
        reach = 0.25 * thing.half
        places = [(thing.x + rng.uniform(-reach, reach), thing.y + rng.uniform(-reach, reach)) for _ in range(count)]
        return list(dict.fromkeys(self.unit(*place) for place in places))  # two may be rounded to one

    def free_beside(self, rng: random.Random) -> tuple[Thing, str, tuple[int, int]] | None:
        """A thing, a direction, and the empty cell next to it in that direction. None: there is none."""
        taken = {thing.cell for thing in self.things}
        found = [
            (thing, words, cell)
            for thing in self.things
            for words, (dx, dy) in DIRECTIONS.items()
            if (cell := (thing.cell[0] + dx, thing.cell[1] + dy)) not in taken
            and 0 <= cell[0] < COLUMNS
            and 0 <= cell[1] < ROWS
        ]
        return rng.choice(found) if found else None

    def points_in(self, cell: tuple[int, int], rng: random.Random, count: int) -> list[tuple[float, float]]:
        """Fractions of up to `count` different points in the middle of a cell."""
        column, row = cell
        places = [(column + rng.uniform(0.35, 0.65), row + rng.uniform(0.35, 0.65)) for _ in range(count)]
        return list(dict.fromkeys((round(x / COLUMNS, 3), round(y / ROWS, 3)) for x, y in places))


def relation(one: Thing, other: Thing) -> str:
    """Where `one` is, seen from `other`."""
    dx, dy = one.x - other.x, one.y - other.y
    if abs(dx) >= abs(dy):
        return "to the left of" if dx < 0 else "to the right of"
    return "above" if dy < 0 else "below"


def random_of(seed: int, *names: object) -> random.Random:
    """Random numbers that depend on nothing but their name."""
    return random.Random("/".join(map(str, (seed, *names))))


@lru_cache(maxsize=256)
def make_scene(seed: int, source: str, number: int, size: tuple[int, int], fewest: int = 3, most: int = 5) -> Scene:
    """`fewest` to `most` things of different names in different cells."""
    rng = random_of(seed, source, "scene", number)
    width, height = size
    cells = rng.sample([(column, row) for column in range(COLUMNS) for row in range(ROWS)], rng.randint(fewest, most))
    names = rng.sample([(colour, shape) for colour in COLOURS for shape in SHAPES], len(cells))
    step_x, step_y = width / COLUMNS, height / ROWS
    things = []
    for (column, row), (colour, shape) in zip(cells, names, strict=True):
        half = int(rng.uniform(0.34, 0.45) * min(step_x, step_y))
        slack_x, slack_y = 0.8 * (step_x / 2 - half), 0.8 * (step_y / 2 - half)
        x = int((column + 0.5) * step_x + rng.uniform(-slack_x, slack_x))
        y = int((row + 0.5) * step_y + rng.uniform(-slack_y, slack_y))
        things.append(Thing(colour, shape, x, y, half, (column, row)))
    grey = rng.randint(120, 200)
    return Scene(width, height, tuple(things), (grey, grey + rng.randint(-15, 15), grey + rng.randint(-15, 15)))


def draw_scene(scene: Scene, *, photo: bool = False) -> Image.Image:
    """The picture of a scene. `photo`: on a real photograph, so that it has as many bytes as one."""
    image = _photo(scene) if photo else Image.new("RGB", scene.size, scene.ground)
    draw = ImageDraw.Draw(image)
    for thing in scene.things:
        draw_thing(draw, thing, COLOURS[thing.colour])
    return image


def draw_thing(draw: ImageDraw.ImageDraw, thing: Thing, fill: tuple[int, int, int] | int) -> None:
    """Fill the shape of a thing."""
    x1, y1, x2, y2 = thing.box
    x2, y2 = x2 - 1, y2 - 1  # Pillow takes the last pixel
    if thing.shape == "square":
        draw.rectangle((x1, y1, x2, y2), fill=fill)
    elif thing.shape == "circle":
        draw.ellipse((x1, y1, x2, y2), fill=fill)
    elif thing.shape == "triangle":
        draw.polygon([(thing.x, y1), (x1, y2), (x2, y2)], fill=fill)
    else:
        draw.polygon([(thing.x, y1), (x2, thing.y), (thing.x, y2), (x1, thing.y)], fill=fill)


def draw_mask(scene: Scene, thing: Thing) -> Image.Image:
    """Grey picture: 255 on the thing."""
    image = Image.new("L", scene.size, 0)
    draw_thing(ImageDraw.Draw(image), thing, 255)
    return image


def draw_gripper(image: Image.Image, x: float, y: float) -> None:
    """Two fingers and a palm at a point, in grey with a dark edge."""
    draw = ImageDraw.Draw(image)
    unit = min(image.size) / 24
    for left, top, right, bottom in ((-2, -2.4, 2, -1.2), (-2, -1.2, -1.2, 1), (1.2, -1.2, 2, 1)):
        corners = (x + left * unit, y + top * unit, x + right * unit, y + bottom * unit)
        draw.rectangle(corners, fill=(150, 150, 160), outline=(40, 40, 40))


def heat_map(size: tuple[int, int], point: Sequence[float]) -> Image.Image:
    """Grey picture: a Gaussian of 255 at its point, of a quarter of the side."""
    width, height = max(1, size[0] // 4), max(1, size[1] // 4)
    x, y = point[0] / 4 - 0.5, point[1] / 4 - 0.5
    rows, columns = np.ogrid[:height, :width]
    sigma = 0.06 * max(width, height)
    values = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return Image.fromarray((255 * values / values.max()).astype(np.uint8))


@lru_cache(maxsize=1)
def _photograph() -> Image.Image:
    import matplotlib

    path = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
    with Image.open(path) as image:
        return image.convert("RGB")


def _photo(scene: Scene) -> Image.Image:
    """A part of a photograph, its place and colours drawn for the scene."""
    rng = random.Random(repr(scene))
    photograph = _photograph()
    side = rng.randint(200, 400)
    left, top = rng.randint(0, photograph.width - side), rng.randint(0, photograph.height - side)
    part = photograph.crop((left, top, left + side, top + side)).resize(scene.size, Image.Resampling.BICUBIC)
    channels = list(part.split())
    rng.shuffle(channels)
    return Image.merge("RGB", channels)
