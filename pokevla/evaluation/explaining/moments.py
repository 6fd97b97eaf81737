"""The moments of an episode that are explained: frames of a dataset, or the queries of a trial in the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pokevla.data.dataset import Dataset, open_dataset
from pokevla.data.images.decoding import decode_image, decode_mask
from pokevla.data.reader import ShardReader, member
from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.mixing import misfits
from pokevla.embodiment.table import get_embodiment
from pokevla.errors import DataError, SimulationError, UsageError
from pokevla.evaluation.running.messages import Query
from pokevla.evaluation.running.places import plan_places
from pokevla.evaluation.running.pool import Limits, worker_pool
from pokevla.evaluation.running.serving import Serving, run_trials
from pokevla.evaluation.running.watching import Ending, Watched
from pokevla.evaluation.running.worker import BenchmarkFactory
from pokevla.evaluation.selection import ENVIRONMENT_SEED
from pokevla.evaluation.trial_records import TrialRecord
from pokevla.evaluation.trials import plan_trials
from pokevla.parts import ENVIRONMENTS, get_part
from pokevla.policy.acting import ActingPolicy
from pokevla.recipe.eval_sections.trials import TrialsConfig
from pokevla.simulation.benchmark import EnvironmentSettings

POLICY = "explained"


@dataclass(frozen=True)
class Moment:
    """What the robot observes at one step, and where the goal is."""

    step: int  # actions executed so far
    images: np.ndarray  # (V, H, W, 3) uint8
    proprio: np.ndarray  # (P,) raw
    masks: np.ndarray | None  # (V, H, W) bool, the true masks of the goal


@dataclass(frozen=True)
class Scene:
    """An episode to explain."""

    name: str
    """For file names."""
    title: str
    instruction: str
    embodiment: Embodiment
    moments: list[Moment]


@dataclass(frozen=True)
class SimulatedTrial:
    """A trial in the simulator that `pokevla.parts.ENVIRONMENTS` names."""

    suite: str
    task_index: int
    init_state_index: int = 0
    environment: str = "libero"
    image_size: int = 256
    fast_rendering: bool = False
    actions_per_query: int = 8
    max_steps: int | None = None
    """None: the suite's own limit."""


def stored_scene(dataset_path: Path, episode: int, every: int, robot: Embodiment) -> Scene:
    """Every `every`-th frame of an episode of a robot dataset, the last one included.

    Raises:
        UsageError: the dataset holds questions or another robot than `robot`, or has no such episode.
        DataError: the dataset is damaged.
    """
    dataset = open_dataset(dataset_path)
    if dataset.embodiment is None:
        raise UsageError(f"{dataset_path} is a dataset of questions: it has no episode.", "Name a robot dataset.")
    refuse_other_robot(robot, dataset.embodiment, str(dataset_path))
    columns = dataset.samples.select(["episode", "frame", "instruction", "suite", "task"]).to_pydict()
    rows = [row for row, number in enumerate(columns["episode"]) if number == episode]
    if not rows:
        raise UsageError(*_no_episode(dataset_path, episode, sorted(set(columns["episode"]))))
    rows.sort(key=columns["frame"].__getitem__)
    chosen = sorted({*range(0, len(rows), every), len(rows) - 1})
    first = rows[0]
    return Scene(
        name=f"episode-{episode:04d}",
        title=f"{columns['suite'][first]}, {columns['task'][first]}, stored episode {episode}",
        instruction=columns["instruction"][first],
        embodiment=dataset.embodiment,
        moments=_stored_moments(dataset, [(rows[index], columns["frame"][rows[index]]) for index in chosen]),
    )


def simulated_scene(trial: SimulatedTrial, policy: ActingPolicy, extensions: Sequence[str] = ()) -> Scene:
    """A closed-loop trial of `policy`: what it saw at each query.

    Raises:
        UsageError: there is no such suite or task, or the simulator has another robot.
        SimulationError: there is no such initial state, or the simulator died.
    """
    benchmark = get_part("trials.environment", trial.environment, ENVIRONMENTS)
    task = benchmark.get_task(trial.suite, trial.task_index)
    robot = get_embodiment(benchmark.embodiment)
    refuse_other_robot(policy.embodiment, robot, f"the simulator {trial.environment}")
    if not 0 <= trial.init_state_index < task.num_init_states:
        raise SimulationError(
            f"{trial.suite} task {trial.task_index} has no initial state {trial.init_state_index}.",
            f"Choose one of 0 to {task.num_init_states - 1}.",
        )
    watcher, records = _Watcher(), list[TrialRecord]()
    settings = EnvironmentSettings(trial.image_size, trial.fast_rendering, ENVIRONMENT_SEED)
    factory = BenchmarkFactory(trial.environment, tuple(extensions), settings)
    state = trial.init_state_index
    config = TrialsConfig(suite=trial.suite, tasks=[trial.task_index], init_states=(state, state + 1))
    limit = {trial.suite: trial.max_steps or benchmark.max_steps(trial.suite)}
    planned = plan_trials(config, [POLICY], limit)
    with worker_pool(plan_places(1), factory, Limits()) as pool:
        serving = Serving(trial.actions_per_query)
        run_trials(planned, {(POLICY, trial.suite): policy}, pool, serving, lambda _: watcher, records.append)
    record = records[0]
    if record.outcome == "crashed" or not watcher.queries:
        raise SimulationError(f"The trial crashed: {record.error}.", "Try `pokevla doctor`.")
    return Scene(
        name=f"{trial.suite}-t{trial.task_index}-i{state:02d}",
        title=f"{trial.suite} task {trial.task_index}, state {state}: {record.outcome} after {record.steps} steps",
        instruction=task.instruction,
        embodiment=robot,
        moments=[_seen(query) for query in watcher.queries],
    )


def refuse_other_robot(policy: Embodiment, other: Embodiment, where: str) -> None:
    """Refuse to show a policy what another robot sees.

    Raises:
        UsageError: says what differs.
    """
    clauses = misfits(policy, other)
    if clauses:
        raise UsageError(
            f"The policy drives the embodiment {policy.name}, {where} has {other.name}: {'; '.join(clauses)}.",
            "Name a dataset of the policy's own robot.",
        )


class _Watcher:
    """Keeps the queries of a trial (a `TrialWatcher`)."""

    wants_masks = True

    def __init__(self) -> None:
        self.queries: list[Query] = []

    def see(self, query: Query, chunk: np.ndarray | None) -> None:
        self.queries.append(query)

    def finish(self, ending: Ending) -> Watched:
        return Watched()


def _seen(query: Query) -> Moment:
    if query.images is None:
        raise RuntimeError("the trial was watched, but its images were not rendered")
    masks = None if query.masks is None else query.masks.astype(bool)
    return Moment(query.step, query.images, query.proprio, masks)


def _stored_moments(dataset: Dataset, rows: list[tuple[int, int]]) -> list[Moment]:
    """(row, frame) of each sample to read."""
    reader, moments = ShardReader(dataset), []
    views = dataset.embodiment.views if dataset.embodiment is not None else ()
    try:
        for row, frame in rows:
            sample = dataset.samples.slice(row, 1).select(["key", "proprio"]).to_pylist()[0]
            key, members = sample["key"], reader.read(row)
            images = [np.asarray(decode_image(member(members, f"{view}.jpg", key), key)) for view in views]
            sizes = {image.shape for image in images}
            if len(sizes) > 1:
                raise DataError(f"sample {key} has views of different sizes.", "Convert the dataset again.")
            masks = None
            if dataset.has_masks:
                masks = np.stack(
                    [np.asarray(decode_mask(member(members, f"{view}.mask.png", key), key)) for view in views]
                )
            moments.append(Moment(frame, np.stack(images), np.asarray(sample["proprio"], np.float32), masks))
    finally:
        reader.close()
    return moments


def _no_episode(path: Path, episode: int, known: list[int]) -> tuple[str, str]:
    closest = min(known, key=lambda number: abs(number - episode))
    return (
        f"{path} has no episode {episode}; it has {len(known)}, numbered {known[0]} to {known[-1]}.",
        f"The nearest is {closest}.",
    )
