"""Recordings from which a policy of size `tiny` learns something within a minute on a CPU."""

from __future__ import annotations

import numpy as np

from benchmarks.recorded.episodes import CAMERAS, FPS, HEIGHT, WIDTH, Recorded

SPEED = 0.15
"""Radians per frame by which joints 0 and 1 turn around the centre."""
_DISK = 6  # px


def swing(number: int, frames: int = 40, task: str = "Swing", *, steps: bool = False) -> Recorded:
    """An episode in which joints 0 and 1 turn around a fixed centre; every command follows from where they are.

    The other joints are moved by someone else, at random. Each camera shows two joints as a disk, before a background
    that is another in each episode. So what copies the recorded frame that looks most alike is misled, and what finds
    out which readings count is not. The gripper closes where joint 0 is negative.

    Args:
        number: of the episode; also the seed.
        frames: its length.
        task: its instruction.
        steps: commands are changes from one frame to the next, as of arms that are moved by changes of their pose.
    """
    rng = np.random.default_rng((20, number))
    radius, phase = rng.uniform(0.4, 1.0), rng.uniform(0, 2 * np.pi)
    angles = phase + SPEED * np.arange(frames + 1)
    x, y = radius * np.cos(angles), radius * np.sin(angles)  # (T+1,)
    commands = np.stack([x, y, 0.5 * (x + y), 0.5 * (x - y), -y, 0.8 * x, 0.6 * y], axis=1)
    state = np.concatenate([np.stack([x, y], axis=1)[:-1], _wander(rng, frames)], axis=1)
    arm = 5 * np.diff(commands, axis=0) if steps else commands[1:]
    opened = x[:, None] > 0
    backgrounds = rng.integers(20, 200, (len(CAMERAS), HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    pictures = {
        camera: [_scene(background, *place) for place in state[:, 2 * column : 2 * column + 2]]
        for column, (camera, background) in enumerate(zip(CAMERAS, backgrounds, strict=True))
    }
    state = np.concatenate([state + rng.normal(0, 1e-4, state.shape), opened[:-1]], axis=1).astype(np.float32)
    action = np.concatenate([arm, opened[1:]], axis=1).astype(np.float32)
    return Recorded(number, task, np.arange(frames) / FPS, state, action, pictures)


def _wander(rng: np.random.Generator, frames: int) -> np.ndarray:
    """(frames,5) smooth random movements in [-1, 1]."""
    speed, phase = rng.uniform(0.03, 0.12, (2, 5)), rng.uniform(0, 2 * np.pi, (2, 5))
    return 0.5 * np.sin(phase[:, None] + speed[:, None] * np.arange(frames)[:, None]).sum(axis=0)


def _scene(background: np.ndarray, x: float, y: float) -> np.ndarray:
    """(HEIGHT,WIDTH,3) uint8: a disk at x and y in [-1, 1] before a background of blocks (HEIGHT/8,WIDTH/8,3)."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    centre_x, centre_y = (0.5 + 0.4 * x) * WIDTH, (0.5 + 0.4 * y) * HEIGHT
    image = background.repeat(8, axis=0).repeat(8, axis=1)
    image[(rows - centre_y) ** 2 + (columns - centre_x) ** 2 < _DISK**2] = (255, 255, 0)
    return image
