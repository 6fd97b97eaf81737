"""The five kinds of sensor noise of LIBERO-Plus, equal to the official ones pixel for pixel for the same random draws.

Kinds and parameters: sylvestf/LIBERO-plus, libero/libero/envs/env_wrapper.py, which took the formulas from ImageNet-C
(hendrycks/robustness, ImageNet-C/create_c/make_imagenet_c.py). Every function takes an image (H, W, 3) uint8 as OpenGL
delivers it (upside down), a severity from 1 to 10, and a generator of numpy's legacy kind.
"""

from __future__ import annotations

import numpy as np

_MOTION = ((5, 2), (8, 3), (10, 4), (12, 5), (15, 6), (18, 8), (20, 10), (25, 12), (30, 15), (35, 20))
"""(radius, sigma) in pixels."""
_ZOOM_END_AND_STEP = (
    (1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03),
    (1.36, 0.01), (1.41, 0.01), (1.46, 0.02), (1.51, 0.02), (1.56, 0.03),
)  # fmt: skip
_FOG = (
    (0.5, 3), (1.0, 2.8), (1.5, 2.5), (2.0, 2.2), (2.5, 2.0),
    (3.0, 1.8), (3.5, 1.6), (4.0, 1.5), (4.5, 1.4), (5.0, 1.3),
)  # fmt: skip
"""(strength, decay of the roughness per halving)."""
_GLASS = (
    (0.5, 1, 3), (0.7, 1, 3), (0.9, 2, 3), (1.0, 2, 2), (1.1, 3, 2),
    (1.3, 3, 2), (1.5, 4, 2), (1.8, 4, 2), (2.2, 5, 1), (2.5, 5, 1),
)  # fmt: skip
"""(sigma, largest displacement, rounds)."""
FOG_MAP_SIZE = 256
"""Side of the fog map, and so the largest image that the official fog accepts."""
_QUANTUM = 257  # ImageMagick's 16-bit value of one 8-bit step


def motion_blur(image: np.ndarray, severity: int, rng: np.random.RandomState) -> np.ndarray:
    """One-sided Gaussian blur along a line, its angle drawn from -45 to 45 degrees. One draw.

    Source: ImageMagick 6 MotionBlurImageChannel, GetMotionBlurKernel (magick/effect.c), 16-bit quanta.
    """
    radius, sigma = _MOTION[severity - 1]
    angle = np.radians(rng.uniform(-45, 45))
    width = 2 * radius + 1
    steps = np.arange(width)
    weights = np.exp(-(steps**2) / (2.0 * sigma**2)) / (np.sqrt(2.0 * np.pi) * sigma)
    weights /= weights.sum()
    across, along = width * np.sin(angle), width * np.cos(angle)
    length = np.hypot(across, along)
    shifts_x = np.ceil(steps * along / length - 0.5).astype(int)
    shifts_y = np.ceil(steps * across / length - 0.5).astype(int)
    height, wide = image.shape[:2]
    rows, columns = np.arange(height), np.arange(wide)
    total = np.zeros(image.shape)
    for weight, x, y in zip(weights, shifts_x, shifts_y, strict=True):
        # Outside the image the nearest pixel counts (ImageMagick's default for virtual pixels).
        taken = image[np.clip(rows + y, 0, height - 1)][:, np.clip(columns + x, 0, wide - 1)]
        total += weight * (taken.astype(np.float64) * _QUANTUM)
    quanta = np.floor(total + 0.5).astype(np.int64)
    return (quanta // _QUANTUM).astype(np.uint8)  # as its PNG coder writes 8 bits


def gaussian_blur(image: np.ndarray, severity: int, rng: np.random.RandomState) -> np.ndarray:
    """Gaussian blur with a sigma of `severity` pixels. Draws nothing."""
    return _as_bytes(_gaussian(image / 255.0, severity))


def zoom_blur(image: np.ndarray, severity: int, rng: np.random.RandomState) -> np.ndarray:
    """Mean of the image and enlargements of its middle. Draws nothing."""
    end, step = _ZOOM_END_AND_STEP[severity - 1]
    factors = np.arange(1, end, step)
    plain = (image / 255.0).astype(np.float32)
    total = np.zeros(plain.shape, np.float32)
    for factor in factors:
        total += _enlarged(plain, factor)
    return _as_bytes((plain + total) / (len(factors) + 1))


def fog(image: np.ndarray, severity: int, rng: np.random.RandomState) -> np.ndarray:
    """Adds a cloud of plasma. 65,535 draws, for every image size."""
    strength, decay = _FOG[severity - 1]
    plain = image / 255.0
    brightest = plain.max()
    height, width = plain.shape[:2]
    foggy = plain + strength * _plasma(decay, rng)[:height, :width, np.newaxis]
    return _as_bytes(foggy * brightest / (brightest + strength))


def glass_blur(image: np.ndarray, severity: int, rng: np.random.RandomState) -> np.ndarray:
    """Each pixel takes the value of one nearby, between two Gaussian blurs. Two draws per pixel and round."""
    sigma, reach, rounds = _GLASS[severity - 1]
    soft = (_gaussian(image / 255.0, sigma) * 255).astype(np.uint8)
    height, width = soft.shape[:2]
    rows = np.arange(height - reach, reach, -1)
    columns = np.arange(width - reach, reach, -1)
    targets = (rows[:, np.newaxis] * width + columns).ravel()
    flat = soft.reshape(-1, 3).astype(np.int64) @ np.array([1, 1 << 8, 1 << 16])
    pixels = flat.tolist()
    for _ in range(rounds):
        moves = rng.randint(-reach, reach, size=(len(targets), 2))
        # The official code means to swap two pixels, but both sides are views of one array, so the second assignment
        # does nothing. A later pixel takes what an earlier one has become: the order counts.
        for target, source in zip(
            targets.tolist(), (targets + moves[:, 1] * width + moves[:, 0]).tolist(), strict=True
        ):
            pixels[target] = pixels[source]
    packed = np.array(pixels)[:, np.newaxis]
    shuffled = (packed >> np.array([0, 8, 16]) & 255).astype(np.uint8).reshape(soft.shape)
    return _as_bytes(_gaussian(shuffled / 255.0, sigma))


def skip_draws(kind: str, severity: int, size: int, rng: np.random.RandomState) -> None:
    """Draw what one image (size, size) of the kind would, without making it."""
    if kind == "motion_blur":
        rng.uniform(-45, 45)
    elif kind == "fog":
        rng.uniform(size=FOG_MAP_SIZE**2 - 1)
    elif kind == "glass_blur":
        _, reach, rounds = _GLASS[severity - 1]
        for _ in range(rounds):
            rng.randint(-reach, reach, size=(max(0, size - 2 * reach) ** 2, 2))


def _as_bytes(image: np.ndarray) -> np.ndarray:
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    """`skimage.filters.gaussian(image, sigma, channel_axis=-1)`, which is scipy's with these settings."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(image, sigma=(sigma, sigma, 0), mode="nearest", truncate=4.0)


def _enlarged(image: np.ndarray, factor: float) -> np.ndarray:
    """The middle of the image, enlarged to at least its size, cut to it."""
    from scipy.ndimage import zoom

    size = image.shape[0]
    cut = int(np.ceil(size / factor))
    start = (size - cut) // 2
    large = np.asarray(zoom(image[start : start + cut, start : start + cut], (factor, factor, 1), order=1))
    start = (large.shape[0] - size) // 2
    return large[start : start + size, start : start + size]


def _plasma(decay: float, rng: np.random.RandomState) -> np.ndarray:
    """Height map (FOG_MAP_SIZE, FOG_MAP_SIZE) in [0, 1] by the diamond-square algorithm, periodic at its borders."""
    heights = np.zeros((FOG_MAP_SIZE, FOG_MAP_SIZE))
    step, roughness = FOG_MAP_SIZE, 100.0

    def displaced(sums: np.ndarray) -> np.ndarray:
        return sums / 4 + roughness * rng.uniform(-roughness, roughness, sums.shape)

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        heights[half::step, half::step] = displaced(pairs + np.roll(pairs, -1, axis=1))
        centres = heights[half::step, half::step]
        left_right = corners + np.roll(corners, -1, axis=1)
        heights[::step, half::step] = displaced((centres + np.roll(centres, 1, axis=0)) + left_right)
        top_bottom = corners + np.roll(corners, -1, axis=0)
        heights[half::step, ::step] = displaced((centres + np.roll(centres, 1, axis=1)) + top_bottom)
        step = half
        roughness /= decay
    heights -= heights.min()
    return heights / heights.max()
