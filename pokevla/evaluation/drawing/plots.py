"""Small line plots, drawn with Pillow: one takes about a millisecond, where matplotlib takes thirty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from pokevla.evaluation.drawing.lettering import Colour

_FINER = 3
"""Lines are drawn so many times as large and averaged, which smooths their edges."""


@dataclass(frozen=True)
class Curve:
    """One line. A value of None interrupts it."""

    xs: Sequence[float]
    ys: Sequence[float | None]
    colour: Colour


@dataclass(frozen=True)
class Style:
    """Colours of a plot, and what is drawn at its points."""

    ground: Colour
    grid: Colour
    dots: bool


ON_DARK = Style((36, 39, 48), (74, 79, 94), dots=True)
ON_PAPER = Style((245, 246, 249), (214, 217, 225), dots=False)


@dataclass(frozen=True)
class Axes:
    """What a plot shows: values at its left, right, lower and upper edge."""

    left: float
    right: float
    low: float
    high: float

    def at(self, x: float, y: float, width: int, height: int) -> tuple[float, float]:
        """Pixel of a point, with a margin of 3 % above and below. Values outside end at the edge."""
        across = (x - self.left) / (self.right - self.left or 1.0)
        up = (min(max(y, self.low), self.high) - self.low) / (self.high - self.low or 1.0)
        return across * (width - 1), (0.97 - 0.94 * up) * (height - 1)


def draw_plot(
    size: tuple[int, int],
    curves: Sequence[Curve],
    axes: Axes,
    style: Style,
    *,
    lines: Sequence[float] = (),
    marks: Sequence[float] = (),
    shaded_until: float | None = None,
) -> Image.Image:
    """A plot without any text.

    Args:
        size: width and height in pixels.
        curves: drawn one over the other.
        axes: the range of both axes.
        style: of the plot.
        lines: values with a horizontal line.
        marks: places with a vertical line.
        shaded_until: the part left of this place is lighter.
    """
    width, height = size[0] * _FINER, size[1] * _FINER
    plot = Image.new("RGB", (width, height), style.ground)
    draw = ImageDraw.Draw(plot)
    if shaded_until is not None:
        end, _ = axes.at(shaded_until, axes.low, width, height)
        draw.rectangle((0, 0, end, height), _between(style.ground, style.grid, 0.4))
    for value in lines:
        _, y = axes.at(axes.left, value, width, height)
        draw.line((0, y, width, y), style.grid, _FINER)
    for place in marks:
        x, _ = axes.at(place, axes.low, width, height)
        draw.line((x, 0, x, height), style.grid, _FINER)
    for curve in curves:
        for points in _pieces(curve, axes, width, height):
            if len(points) > 1:
                draw.line(points, curve.colour, round(1.6 * _FINER), joint="curve")
            if style.dots or len(points) == 1:
                for x, y in points:
                    radius = 2 * _FINER
                    draw.ellipse((x - radius, y - radius, x + radius, y + radius), curve.colour)
    return plot.reduce(_FINER)


def _pieces(curve: Curve, axes: Axes, width: int, height: int) -> list[list[tuple[float, float]]]:
    """Pixels of the parts of a curve between its interruptions."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(curve.xs, curve.ys, strict=True):
        if y is None:
            pieces.append([])
        else:
            pieces[-1].append(axes.at(x, y, width, height))
    return [piece for piece in pieces if piece]


def _between(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(one, other, strict=True))
    return red, green, blue
