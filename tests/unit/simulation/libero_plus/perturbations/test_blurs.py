"""Sensor noise against pictures that the official functions made (tests/libero_plus_sample/README.md)."""

from __future__ import annotations

import numpy as np
import pytest

from pokevla.simulation.libero_plus.perturbations import blurs
from pokevla.simulation.libero_plus.perturbations.noise import SensorNoise
from tests.libero_plus import SAMPLE

KINDS = ("motion_blur", "gaussian_blur", "zoom_blur", "fog", "glass_blur")
OFFICIAL = np.load(SAMPLE / "noise.npz")
NUMBERS = OFFICIAL["numbers"].tolist()


@pytest.mark.parametrize("number", NUMBERS)
def test_pictures_and_random_numbers_equal_the_official_ones(number: int) -> None:
    kind, severity = KINDS[(number - 1) // 10], (number - 1) % 10 + 1
    place = NUMBERS.index(number)
    rng = np.random.RandomState(number)

    noisy = getattr(blurs, kind)(OFFICIAL["image"], severity, rng)

    np.testing.assert_array_equal(noisy, OFFICIAL["outputs"][place])
    assert rng.uniform() == OFFICIAL["next_draws"][place]


@pytest.mark.parametrize("number", NUMBERS)
def test_skipping_an_image_draws_what_making_it_draws(number: int) -> None:
    rng = np.random.RandomState(number)
    blurs.skip_draws(KINDS[(number - 1) // 10], (number - 1) % 10 + 1, 32, rng)
    assert rng.uniform() == OFFICIAL["next_draws"][NUMBERS.index(number)]


@pytest.mark.parametrize("number", [7, 33, 45])
def test_the_image_of_a_step_does_not_depend_on_which_steps_are_looked_at(number: int) -> None:
    image, state = OFFICIAL["image"], np.random.RandomState(0).get_state()
    rng = np.random.RandomState(0)
    kind, severity = KINDS[(number - 1) // 10], (number - 1) % 10 + 1
    official = [getattr(blurs, kind)(image, severity, rng) for _ in range(6)]  # the reset's, then five steps

    every = SensorNoise(number, 32, state)
    seen = []
    for _ in range(5):
        every.advance()
        seen.append(every.apply(image))
    np.testing.assert_array_equal(seen, official[1:])

    last = SensorNoise(number, 32, state)
    for _ in range(2):
        last.begin()
        np.testing.assert_array_equal(last.apply(image), image)  # right after the initial state: none
        for _ in range(5):
            last.advance()
        np.testing.assert_array_equal(last.apply(image), official[5])
        np.testing.assert_array_equal(last.apply(image), official[5])
