"""Maps over images, one for each thing that a policy can be asked about, and how they are coloured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pokevla.evaluation.explaining.moments import Moment
from pokevla.policy.explanation.explanation import Explanation
from pokevla.policy.masks import paste, paste_values
from pokevla.policy.pictures import draw_masks, resized_image, resized_mask

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Look:
    """One moment with everything that is drawn of it. Maps are (V, M, M) or (V, G, G) over the crop of each view."""

    moment: Moment
    crop_box: Box
    maps: dict[str, np.ndarray]
    """By name of the panel, and only those that exist."""
    shares: dict[str, float]
    """By name of a panel of attention: how much of it is on images."""


@dataclass(frozen=True)
class Panel:
    """One kind of map."""

    name: str
    title: str
    subtitle: str
    colours: str
    """Colour map of matplotlib."""
    symmetric: bool
    """Whether the scale is symmetric around 0; otherwise it begins at 0."""


MASK = "mask"
PANELS = (
    Panel(MASK, "goal mask", "predicted, true outlined", "", False),
    Panel("coarse", "coarse decoding", "logits", "coolwarm", True),
    Panel("fine", "fine decoding", "logits", "coolwarm", True),
    Panel("head", "action head", "attention, 1 = uniform", "inferno", False),
    Panel("seg", "<SEG> token", "attention, 1 = uniform", "inferno", False),
    Panel("queries", "action queries", "attention, 1 = uniform", "inferno", False),
)
"""In the order in which they are drawn. Attention is the mean over layers and heads, and over latents or queries."""


def look_at(moment: Moment, explanation: Explanation, row: int = 0) -> Look:
    """Reduce observation `row` of an explanation to its maps. Attention 1 is that of a policy that looks at all patches
    of all views alike."""
    maps: dict[str, np.ndarray] = {}
    shares: dict[str, float] = {}
    if explanation.fine_logits is not None and explanation.coarse_logits is not None:
        maps |= {MASK: explanation.fine_logits[row], "coarse": explanation.coarse_logits[row]}
        maps["fine"] = explanation.fine_logits[row]
    attention = {
        "head": explanation.head_vision, "seg": explanation.seg_vision, "queries": explanation.query_vision,
    }  # fmt: skip
    for name, weights in ((name, values[row]) for name, values in attention.items() if values is not None):
        mean = weights.reshape(-1, *weights.shape[-3:]).mean(axis=0)  # (V, G, G)
        shares[name] = float(mean.sum())
        maps[name] = mean * (mean.size / mean.sum())
    return Look(moment, explanation.crop_box, maps, shares)


def drawn_panels(looks: list[Look]) -> list[Panel]:
    """The panels that these looks have maps for; the first always, for the image itself."""
    return [panel for panel in PANELS if panel.name == MASK or panel.name in looks[0].maps]


def scale_of(panel: Panel, looks: list[Look]) -> tuple[float, float]:
    """Values at both ends of a panel's colour scale: the same for all moments and views. The outermost
    0.2 % of the values are left out."""
    values = np.concatenate([look.maps[panel.name].ravel() for look in looks])
    if panel.symmetric:
        largest = float(np.quantile(np.abs(values), 0.998))
        return (-largest, largest) if largest > 0 else (-1.0, 1.0)
    return 0.0, max(float(np.quantile(values, 0.998)), 2.0)  # at least 2, so that looking everywhere alike is no glare


def draw_panel(panel: Panel, look: Look, view: int, side: int, scale: tuple[float, float]) -> np.ndarray:
    """One view of one moment, (side, side, 3) uint8."""
    moment = look.moment
    image = resized_image(moment.images[view], side)
    if panel.name == MASK:
        predicted = None if MASK not in look.maps else paste(look.maps[MASK][view], look.crop_box, (side, side))
        true = None if moment.masks is None else resized_mask(moment.masks[view], side)
        return draw_masks(image, predicted, true)
    return heat(image, paste_values(look.maps[panel.name][view], look.crop_box, (side, side)), panel, scale)


def heat(image: np.ndarray, values: np.ndarray, panel: Panel, scale: tuple[float, float]) -> np.ndarray:
    """Lay coloured values (H, W) over a grey image (H, W, 3) uint8. The stronger the value, the less of the image is
    left; where it is NaN, the image stays alone, and dark."""
    low, high = scale
    position = np.clip((np.nan_to_num(values) - low) / (high - low), 0, 1)
    strength = np.abs(2 * position - 1) if panel.symmetric else position
    alpha = np.where(np.isnan(values), 0.0, 0.2 + 0.6 * strength)[..., None]
    grey = image.astype(np.float32).mean(axis=-1, keepdims=True) * np.where(np.isnan(values), 0.5, 1.0)[..., None]
    return ((1 - alpha) * grey + alpha * colours(panel.colours, position)).round().astype(np.uint8)


def colours(name: str, position: np.ndarray) -> np.ndarray:
    """Colours (..., 3) in 0 to 255 of positions in [0, 1] on a colour map of matplotlib."""
    from matplotlib import colormaps  # slow to import

    return colormaps[name](position)[..., :3] * 255
