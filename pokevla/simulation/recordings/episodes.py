"""One attempt of the expert: state, action and requested images of every step."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pokevla.simulation.environment import LiberoEnvironment
from pokevla.simulation.expert.scripted import ScriptedExpert
from pokevla.simulation.suites import MAX_STEPS

# DART (Laskey et al. 2017) with Ornstein-Uhlenbeck noise, so that a push lasts a few steps and shows.
NOISE_RECALL = 0.8  # share of the noise kept from step to step
TAIL_STEPS = 8  # recorded after success: no chunk starts in the last seven frames, and the release must be learnt
ROTATION_NOISE_SHARE = 0.25  # of the position noise, in action units


@dataclass(frozen=True)
class DemoSettings:
    """What to collect. Lengths in m, `dart_sigma` in action units, `init_states` and shift ranges half open."""

    suite: str
    task_index: int
    episodes: int
    out: Path
    seed: int = 0
    image_size: int = 128
    image_stride: int = 1
    masks: bool = True
    dart_sigma: float = 0.0
    random_start_steps: int = 0
    target_shift_m: tuple[float, float] | None = None
    init_states: tuple[int, int] = (0, 50)
    val_fraction: float = 0.0
    max_attempts: int | None = None
    workers: int = 2
    fast_rendering: bool = False


@dataclass
class Episode:
    """One attempt of T steps. Row t is the observation before `actions[t]`.

    `arrays` by their names in the file have T rows each; images (upside down, as LIBERO stores them) only those of the
    steps that `obs/rendered` marks, in order. Empty for a failed attempt.
    """

    success: bool
    init_state_index: int
    target_shift: tuple[float, float]
    seed: int
    init_state: np.ndarray
    arrays: dict[str, np.ndarray]
    instances: list[str]
    target_instances: list[str]
    model_xml: str
    cpu_s: dict[str, float] = field(default_factory=dict)


class Attempts:
    """Runs attempts of one task. An attempt is a pure function of (settings.seed, its number)."""

    def __init__(self, settings: DemoSettings, first: int = 0) -> None:
        """`first` is the number of the attempt that job 0 runs."""
        self._settings = settings
        self._first = first
        self._env = LiberoEnvironment(
            settings.suite,
            settings.task_index,
            image_size=settings.image_size,
            fast_rendering=settings.fast_rendering,
        )
        self._expert = ScriptedExpert(self._env)

    def __call__(self, job: int) -> Episode:
        """Run one attempt to success or to the suite's step limit."""
        settings, env, number = self._settings, self._env, self._first + job
        seed = episode_seed(settings.seed, number)
        rng = np.random.default_rng(seed)
        init_state = init_state_of(settings, number)
        cpu_s = {"physics": 0.0, "rgb": 0.0, "masks": 0.0}
        with _Stopwatch(cpu_s, "physics"):
            shift = (0.0, 0.0)
            if settings.target_shift_m is not None:
                shift = env.sample_target_shift(init_state, rng, *settings.target_shift_m)
            env.reset(init_state, target_shift=shift if any(shift) else None)
            _wander(env, rng, settings.random_start_steps)
        start = env.state()
        rows, success = self._run(rng, cpu_s)
        return Episode(
            success=success,
            init_state_index=init_state,
            target_shift=shift,
            seed=seed,
            init_state=start,
            # Failed attempts are only counted, so their images are not sent.
            arrays={name: np.stack(values) for name, values in rows.items()} if success else {},
            instances=env.instances,
            target_instances=env.target_instances,
            model_xml=env.libero.sim.model.get_xml() if success else "",
            cpu_s=cpu_s,
        )

    def _run(self, rng: np.random.Generator, cpu_s: dict[str, float]) -> tuple[dict[str, list], bool]:
        settings, env, expert = self._settings, self._env, self._expert
        rows: dict[str, list] = {}
        noise = np.zeros(6)
        succeeded, tail = False, 0
        for step in range(MAX_STEPS[settings.suite]):
            row = {**robot_row(env), **self._pictures(step % settings.image_stride == 0, cpu_s)}
            with _Stopwatch(cpu_s, "physics"):
                action = expert.act()
                noise = _next_noise(noise, rng, settings.dart_sigma)
                executed = action.copy()
                if not expert.is_closing:
                    executed[:6] = np.clip(action[:6] + noise, -1.0, 1.0)
                success = env.step(executed)
            row |= {"actions": action, "executed_actions": executed}
            for name, value in row.items():
                rows.setdefault(name, []).append(value)
            succeeded = succeeded or success
            if succeeded:
                tail += 1
            if tail > TAIL_STEPS:
                return rows, True
        return rows, succeeded

    def _pictures(self, rendered: bool, cpu_s: dict[str, float]) -> dict[str, np.ndarray]:
        row = {"obs/rendered": np.array(rendered)}
        if not rendered:
            return row
        with _Stopwatch(cpu_s, "rgb"):
            base, wrist = self._env.stored_images()
            row |= {"obs/agentview_rgb": base, "obs/eye_in_hand_rgb": wrist}
        if self._settings.masks:
            with _Stopwatch(cpu_s, "masks"):
                base, wrist = self._env.stored_masks()
                row |= {"obs/agentview_mask": base, "obs/eye_in_hand_mask": wrist}
        return row


def episode_seed(seed: int, number: int) -> int:
    """The seed of attempt `number`."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def init_state_of(settings: DemoSettings, number: int) -> int:
    """Initial state of attempt `number`: every one of the range once before any repeats, in an order from the seed."""
    low, high = settings.init_states
    order = np.random.default_rng([settings.seed, number // (high - low), 1]).permutation(high - low)
    return low + int(order[number % (high - low)])


def robot_row(env: LiberoEnvironment) -> dict[str, np.ndarray]:
    """One row of what LIBERO's files hold of the simulation and the robot, by names in the file."""
    env.refresh()
    position, quaternion, fingers = env.robot_pose()
    proprio = env.proprio().astype(np.float64)
    return {
        "states": env.state(),
        "robot_states": np.concatenate([fingers, position, quaternion]),
        "obs/gripper_states": fingers,
        "obs/joint_states": env.joint_positions(),
        "obs/ee_states": np.concatenate([position, proprio[3:6]]),
        "obs/ee_pos": position,
        "obs/ee_ori": proprio[3:6],
    }


def _wander(env: LiberoEnvironment, rng: np.random.Generator, max_steps: int) -> None:
    """Up to `max_steps` steps in one random direction with an open gripper, so that episodes start apart."""
    # Half as much up and down: the hand starts 25 cm above the table, and must not come down on an object.
    direction = rng.uniform(-1.0, 1.0, size=3) * np.array([1.0, 1.0, 0.5])
    for _ in range(int(rng.integers(0, max_steps + 1))):
        env.step(np.concatenate([direction, np.zeros(3), [-1.0]]))


def _next_noise(noise: np.ndarray, rng: np.random.Generator, sigma: float) -> np.ndarray:
    """One Ornstein-Uhlenbeck step with stationary standard deviation `sigma` (a quarter of it for rotations)."""
    scale = sigma * np.repeat([1.0, ROTATION_NOISE_SHARE], 3)
    return NOISE_RECALL * noise + np.sqrt(1.0 - NOISE_RECALL**2) * scale * rng.standard_normal(6)


class _Stopwatch:
    """Adds the CPU time of a block to `totals[name]`."""

    def __init__(self, totals: dict[str, float], name: str) -> None:
        self._totals, self._name = totals, name

    def __enter__(self) -> None:
        self._start = time.process_time()

    def __exit__(self, *_: object) -> None:
        self._totals[self._name] += time.process_time() - self._start
