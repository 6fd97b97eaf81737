"""Renders the masks that published LIBERO demonstrations lack, by restoring their states in the simulator.

No physics runs, except for the last row of published files. Some rows of every episode are compared with the stored
images: see `EpisodeFit`.
"""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from pokevla.errors import SimulationError
from pokevla.files.foreign.hdf5 import hdf5_reader
from pokevla.simulation.environment import LiberoEnvironment
from pokevla.simulation.recordings.stored_episodes import CAMERAS, DemoSource, StoredEpisode, open_episode

CHECKED_ROWS = 4
"""Number of rows of an episode whose image is rendered and compared: evenly spread, without the last one."""
APART_ROWS = 20
"""One second: how far off the pictures are that a right state must fit worse."""
MAX_PICTURE_DIFFERENCE = 12.0
"""Grey levels. Measured (docs/simulation.md): 2 to 5 for other lights, 6 to 9 for thinned meshes without
anti-aliasing, 19 to 25 for states one second off."""
MAX_JOINT_ERROR_RAD = 0.05
"""Ours: what an arm on its way moves in one row (0.006 to 0.058 measured), some 3 cm at the hand."""


@dataclass(frozen=True)
class EpisodeFit:
    """How well the stored states match the stored observations.

    Image differences are grey levels (0 to 255), mean over rows and views, with brightness and contrast fitted.
    """

    picture_difference: float
    """Between the pictures drawn from the states and the stored ones of the same rows."""
    shifted_difference: float
    """Between the same drawn pictures and the stored ones of one second away."""
    joint_error_rad: float
    """Largest distance of a joint in the states from `obs/joint_states`, mean over rows."""
    other_joint_error_rad: float
    """The same, were the observations taken at the other side of the action."""

    def complaint(self) -> str | None:
        """What is wrong, as a clause; None if states and observations match."""
        if self.other_joint_error_rad < min(self.joint_error_rad, MAX_JOINT_ERROR_RAD):
            return "its observations fit the states at the other side of the action: it has another alignment"
        if self.joint_error_rad > MAX_JOINT_ERROR_RAD:
            return f"its joints are {self.joint_error_rad:.2f} rad from those of its states"
        if self.picture_difference > MAX_PICTURE_DIFFERENCE:
            return f"its images differ by {self.picture_difference:.1f} grey levels from those of its states"
        if self.picture_difference > self.shifted_difference:
            return "its images look more like those of states one second away"
        return None


@dataclass(frozen=True)
class EpisodeMasks:
    """The masks of one episode, packed because they wait in memory until they are written."""

    fit: EpisodeFit
    instances: list[str]
    target_instances: list[str]
    shape: tuple[int, ...]
    packed: bytes
    packed_pictures: bytes | None = None
    """Pictures of the same size, if they were drawn anew."""

    def unpack(self) -> np.ndarray:
        """(2, T, H, H) uint8, index in `instances` plus 1, as LIBERO stores pictures (upside down)."""
        return np.frombuffer(zlib.decompress(self.packed), np.uint8).reshape(self.shape)

    def images(self) -> dict[str, np.ndarray]:
        """Masks (T, H, H), and pictures (T, H, H, 3) if they were drawn, by their name in `obs`."""
        drawn = {f"{camera}_mask": values for camera, values in zip(CAMERAS, self.unpack(), strict=True)}
        if self.packed_pictures is not None:
            pictures = np.frombuffer(zlib.decompress(self.packed_pictures), np.uint8).reshape(*self.shape, 3)
            drawn |= {f"{camera}_rgb": values for camera, values in zip(CAMERAS, pictures, strict=True)}
        return drawn


class EpisodeReplay:
    """Draws the masks of stored episodes, numbered through all `files`. Lives in a worker process.

    The simulation is built for one task and image size, and kept while the episodes are of these.
    """

    def __init__(self, files: tuple[DemoSource, ...], image_size: int | None = None) -> None:
        """`image_size` in pixels: draw pictures too, of this size. None: masks only, of the stored pictures' size."""
        self._image_size = image_size
        self._jobs = [(file, demo) for file in files for demo in file.demo_names]
        # Its process ends with this one. One for all episodes: it takes a quarter of a second to start.
        self._reader = hdf5_reader()
        self._env: LiberoEnvironment | None = None
        self._built_for: tuple[str, int, int] | None = None

    def __call__(self, number: int) -> EpisodeMasks:
        """Masks of episode `number`. Raises DataError naming file and demo for what cannot be replayed."""
        file, demo = self._jobs[number]
        episode = open_episode(file, demo, self._reader)
        try:
            redrawn = self._image_size is not None
            return replay_episode(
                self._environment(file, self._image_size or episode.image_size), episode, with_pictures=redrawn
            )
        except SimulationError as error:
            raise SimulationError(f"{file.source}: data/{demo}: {error.message}", error.remedy) from error

    def _environment(self, file: DemoSource, image_size: int) -> LiberoEnvironment:
        required = (file.suite, file.task_index, image_size)
        if self._env is None or self._built_for != required:
            if self._env is not None:
                self._env.close()
            # Default rendering: `fast_rendering` simplifies meshes, and masks would not match the edges in the images.
            self._env = LiberoEnvironment(file.suite, file.task_index, image_size=image_size)
            self._built_for = required
        return self._env


def replay_episode(env: LiberoEnvironment, episode: StoredEpisode, *, with_pictures: bool = False) -> EpisodeMasks:
    """Masks of one episode, and pictures if asked for; all zero if its states and stored images do not match.

    `env` has the episode's task. Raises SimulationError for states or fixtures of another model, and DataError naming
    file and demo for what cannot be read.
    """
    if env.has_fixtures:
        env.place_fixtures(episode.model_poses())
    fit = measure_fit(env, episode)
    masks, pictures = draw_views(env, episode, drawn=fit.complaint() is None, with_pictures=with_pictures)
    return EpisodeMasks(
        fit,
        env.instances,
        env.target_instances,
        masks.shape,
        zlib.compress(masks.tobytes(), 1),
        None if pictures is None else zlib.compress(pictures.tobytes(), 1),
    )


def draw_views(
    env: LiberoEnvironment, episode: StoredEpisode, *, drawn: bool = True, with_pictures: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """(2, T, H, H) uint8 instance masks, and (2, T, H, H, 3) uint8 pictures if asked for, upside down as LIBERO stores
    images; rows without an image stay zero."""
    shape = (2, len(episode.states), env.image_size, env.image_size)
    masks = np.zeros(shape, np.uint8)
    pictures = np.zeros((*shape, 3), np.uint8) if with_pictures else None
    for row in np.flatnonzero(episode.drawn) if drawn else ():
        show_row(env, episode, int(row))
        masks[:, row] = env.stored_masks()
        if pictures is not None:
            pictures[:, row] = env.stored_images()
    return masks, pictures


def show_row(env: LiberoEnvironment, episode: StoredEpisode, row: int) -> None:
    """Set the simulation to the moment at which the image of `row` was rendered."""
    shown = episode.state_row(row)
    if shown is not None:
        env.set_state(episode.states[shown])
    else:
        env.set_state(episode.states[-1], list(episode.actions[:-1]))
        env.step(episode.actions[-1])


def measure_fit(env: LiberoEnvironment, episode: StoredEpisode) -> EpisodeFit:
    """Compare all joints and the images of some rows with the states. See `EpisodeFit`."""
    rows = np.flatnonzero(episode.drawn)
    inner = rows[:-1] if len(rows) > 1 else rows
    own, shifted = [], []
    for row in np.unique(inner[np.linspace(0, len(inner) - 1, CHECKED_ROWS).astype(int)]):
        show_row(env, episode, int(row))
        seen = resized(env.stored_images(), episode.image_size)
        # The nearest row with an image at least a second away, a later one if the episode is long enough.
        apart = rows[np.abs(rows - row) >= APART_ROWS]
        other = min(apart, key=lambda at: (abs(at - row), -at), default=None)
        own.append(picture_difference(seen, episode.pictures(int(row))))
        if other is not None:
            shifted.append(picture_difference(seen, episode.pictures(int(other))))
    error, other_error = joint_errors(env, episode)
    return EpisodeFit(float(np.mean(own)), float(np.mean(shifted)) if shifted else np.inf, error, other_error)


def joint_errors(env: LiberoEnvironment, episode: StoredEpisode) -> tuple[float, float]:
    """`EpisodeFit.joint_error_rad` and `other_joint_error_rad`: all rows, nothing drawn."""
    in_states = episode.states[:, env.joint_columns]
    if len(in_states) < 2:
        return 0.0, 0.0
    same = np.abs(in_states - episode.joints).max(axis=1)[1:]
    following = np.abs(in_states[1:] - episode.joints[:-1]).max(axis=1)
    errors = float(same.mean()), float(following.mean())
    return errors if episode.state_row(0) == 0 else (errors[1], errors[0])


def resized(pictures: np.ndarray, size: int) -> np.ndarray:
    """Pictures (V, H, H, 3) uint8 as (V, size, size, 3), averaged over areas, to be compared with stored ones."""
    if pictures.shape[1] == size:
        return pictures
    return np.stack([np.asarray(Image.fromarray(each).resize((size, size), Image.Resampling.BOX)) for each in pictures])


def picture_difference(drawn: np.ndarray, stored: np.ndarray) -> float:
    """Mean absolute difference of pictures (V, H, W, 3) in grey levels, each view's brightness and contrast fitted.

    MuJoCo versions light the same scene differently (a quarter darker from 3.3.3 on); the fit removes this difference.
    """
    differences = []
    for one, other in zip(drawn.astype(np.float64), stored.astype(np.float64), strict=True):
        centred = one - one.mean()
        spread = (centred**2).mean()
        gain = (centred * other).mean() / spread if spread > 0 else 0.0
        differences.append(np.abs(gain * centred + other.mean() - other).mean())
    return float(np.mean(differences))


def figures(fit: EpisodeFit) -> dict[str, float | None]:
    """The fit for the file's attributes: rounded, and None for what cannot be measured in a short episode."""
    return {name: round(value, 5) if np.isfinite(value) else None for name, value in asdict(fit).items()}
