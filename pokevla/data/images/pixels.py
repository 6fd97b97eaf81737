"""From the uint8 images of a batch to the floats that the model takes, colour changes included. Runs on the device.

A batch carries images as uint8: a quarter of the bytes to collate, pin and copy. The definitions of the colour changes
are those of tf.image (random_brightness, random_contrast, random_saturation, random_hue), which OpenVLA-OFT uses
through dlimp; saturation and hue are HSV operations computed without converting to HSV. The adjust_ functions take and
return images (N,3,H,W) float32 in [0,1]; their amounts are (N,1,1,1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pokevla.data.batch import Colours


def to_unit_range(pixel_values: Tensor, colours: Colours | None = None) -> Tensor:
    """Images (B,V,3,S,S) uint8 to float32 in [0,1] with the batch's colour changes. Floats are taken as in [0,1]."""
    images = pixel_values.float().mul_(1 / 255) if pixel_values.dtype == torch.uint8 else pixel_values
    return images if colours is None else change_colours(images.flatten(0, 1), colours).unflatten(0, images.shape[:2])


def change_colours(images: Tensor, colours: Colours) -> Tensor:
    """Brightness, contrast, saturation, hue in OFT's order, clipped to [0,1] after each."""
    for change, amounts in (
        (adjust_brightness, colours.brightness),
        (adjust_contrast, colours.contrast),
        (adjust_saturation, colours.saturation),
        (adjust_hue, colours.hue),
    ):
        if amounts is not None:
            images = change(images, amounts.flatten()[:, None, None, None])
    return images


def adjust_brightness(images: Tensor, delta: Tensor) -> Tensor:
    """Add `delta`."""
    return (images + delta).clamp_(0.0, 1.0)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the difference from each channel's mean by `factor`."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    return ((images - mean) * factor + mean).clamp_(0.0, 1.0)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Scale HSV saturation by `factor`, clipped at 1.

    With value V = max(R,G,B) and hue fixed, each channel is V minus a term proportional to S. So V - channel is scaled,
    and S <= 1 bounds the factor by V / (V - min).
    """
    value, low = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    chroma = value - low
    bound = torch.where(chroma > 0, value / chroma, factor)
    return (value - torch.minimum(bound, factor) * (value - images)).clamp_(0.0, 1.0)  # removes rounding errors only


def adjust_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Shift HSV hue by `turns` of the circle. Value and saturation are unchanged."""
    red, green, blue = images.unbind(dim=1)
    value, low = images.amax(dim=1), images.amin(dim=1)
    chroma = value - low
    inverse = chroma.clamp(min=1e-12).reciprocal()  # grey pixels: their numerators below are 0
    # Hue in sixths of the circle: 0 red, 2 green, 4 blue, measured from the largest channel.
    sixths = torch.where(
        value == red,
        (green - blue) * inverse,
        torch.where(value == green, (blue - red) * inverse + 2.0, (red - green) * inverse + 4.0),
    )
    sixths = (sixths + 6.0 * turns[:, 0]).remainder_(6.0)
    # Fraction of the chroma in each channel around the circle: a plateau of two sixths with ramps of one sixth on both
    # sides.
    shares = torch.stack([(sixths - 3).abs() - 1, 2 - (sixths - 2).abs(), 2 - (sixths - 4).abs()], dim=1)
    return shares.clamp_(0.0, 1.0) * chroma[:, None] + low[:, None]
