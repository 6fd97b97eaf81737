"""Sensor noise over an episode: each control step has its own draws, whether or not its image is looked at."""

from __future__ import annotations

from typing import Any

import numpy as np

from pokevla.simulation.libero_plus.perturbations import blurs

_KINDS = ("motion_blur", "gaussian_blur", "zoom_blur", "fog", "glass_blur")
SEVERITIES = 10


class SensorNoise:
    """Noise `number` (1 to 50) of LIBERO-Plus on the base view, with the draws of the official loop.

    The official environment makes one image per reset and step, and takes their random numbers from numpy's global
    generator, seeded before the reset. `generator` is that generator's state after the reset's placements. The image
    right after the initial state is set has no noise and draws nothing.
    """

    def __init__(self, number: int, image_size: int, generator: Any) -> None:
        self.kind = _KINDS[(number - 1) // SEVERITIES]
        self.severity = number - SEVERITIES * ((number - 1) // SEVERITIES)
        self._size = image_size
        self._first = generator
        self._rng = np.random.RandomState()
        self.begin()

    def begin(self) -> None:
        """Begin an episode."""
        self._rng.set_state(self._first)
        self._drawn = 0  # images whose numbers have been drawn, the reset's included
        self._skip_to(1)
        self._step = 0

    def advance(self) -> None:
        """A control step has been made."""
        self._step += 1

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The noisy form of the current step's base view, (H, W, 3) uint8 upside down. Asking twice gives the same."""
        if self._step == 0:
            return image
        self._skip_to(self._step)
        now = self._rng.get_state()
        noisy = getattr(blurs, self.kind)(image, self.severity, self._rng)
        self._rng.set_state(now)
        return noisy

    def _skip_to(self, num_images: int) -> None:
        while self._drawn < num_images:
            blurs.skip_draws(self.kind, self.severity, self._size, self._rng)
            self._drawn += 1
