"""Colour changes on planar RGB pictures (3,H,W) float32 in [0,1]; each returns a new clipped picture.

Definitions are those of tf.image (random_brightness, random_contrast, random_saturation, random_hue), which OpenVLA-OFT
uses through dlimp. Saturation and hue are HSV operations written without the detour through HSV.
"""

from __future__ import annotations

import numpy as np


def adjust_brightness(image: np.ndarray, delta: float) -> np.ndarray:
    """Add `delta`."""
    return np.clip(image + np.float32(delta), 0.0, 1.0)


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale the distance to each channel's mean by `factor`."""
    mean = image.mean(axis=(1, 2), keepdims=True)
    return np.clip((image - mean) * np.float32(factor) + mean, 0.0, 1.0)


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale HSV saturation by `factor`, at most to 1.

    With value V = max(R,G,B) and hue fixed, each channel is V minus a part proportional to S; so V - channel scales,
    and S <= 1 bounds the factor by V / (V - min).
    """
    value = np.maximum(np.maximum(image[0], image[1]), image[2])
    chroma = value - np.minimum(np.minimum(image[0], image[1]), image[2])
    bound = np.divide(value, chroma, out=np.full_like(value, np.float32(factor)), where=chroma > 0)
    out = value - np.minimum(bound, np.float32(factor)) * (value - image)
    return np.clip(out, np.float32(0.0), np.float32(1.0), out=out)  # of rounding only


def adjust_hue(image: np.ndarray, turns: float) -> np.ndarray:
    """Shift HSV hue by `turns` of the circle; value and saturation stay."""
    red, green, blue = image
    value = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    chroma = value - low
    inverse = np.reciprocal(np.maximum(chroma, np.float32(1e-12)))  # grey pixels: their numerators below are 0
    # Hue in sixths of the circle: 0 red, 2 green, 4 blue, measured from the largest channel.
    sixths = np.where(
        value == red,
        (green - blue) * inverse,
        np.where(value == green, (blue - red) * inverse + np.float32(2.0), (red - green) * inverse + np.float32(4.0)),
    )
    sixths += np.float32(6.0 * turns)
    sixths -= np.float32(6.0) * np.floor(sixths * np.float32(1.0 / 6.0))  # floor, not %: much faster in numpy
    out = np.empty_like(image)
    # Share of the chroma in each channel over the circle: a plateau of two sixths with ramps of one on both sides.
    np.abs(sixths - np.float32(3.0), out=out[0])
    out[0] -= np.float32(1.0)
    for channel, centre in ((1, np.float32(2.0)), (2, np.float32(4.0))):
        np.abs(sixths - centre, out=out[channel])
        np.subtract(np.float32(2.0), out[channel], out=out[channel])
    np.clip(out, np.float32(0.0), np.float32(1.0), out=out)
    out *= chroma
    out += low
    return out
