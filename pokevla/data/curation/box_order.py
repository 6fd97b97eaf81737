"""Whether the boxes of a file end in a corner (x1, y1, x2, y2) or in a size (x, y, width, height): decided from all of
them, once for the file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pokevla.data.curation.drafts import BoxOrder

NEARLY_ALL, NEARLY_NONE, OFTEN = 0.99, 0.01, 0.05
_SLACK = 0.005


@dataclass(frozen=True)
class BoxDecision:
    """The decision for a file, and the numbers behind it. Goes into the manifest."""

    order: BoxOrder | None
    """None: the numbers allow both or neither, so the boxes are rejected."""
    num_boxes: int
    inverted: int
    """Boxes whose third number is below the first, or fourth below the second: impossible as corners."""
    too_large: int
    """Boxes that would leave the image if the last two numbers were a size."""
    chosen_by: str = "data"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def decide_order(boxes: Iterable[Sequence[float]]) -> BoxDecision:
    """Decide from boxes of four fractions.

    Corners never come inverted; sizes often do, because they are small, and then stay inside the image. (Of the
    readers of RoboPoint's detection rows one takes them as corners and one as sizes.)
    """
    count = inverted = too_large = 0
    for a, b, c, d in boxes:
        count += 1
        inverted += c < a or d < b
        too_large += a + c > 1 + _SLACK or b + d > 1 + _SLACK
    order: BoxOrder | None = None
    if count and inverted > OFTEN * count and too_large <= (1 - NEARLY_ALL) * count:
        order = "xywh"
    elif count and inverted <= NEARLY_NONE * count and too_large > OFTEN * count:
        order = "xyxy"
    return BoxDecision(order, count, inverted, too_large)
