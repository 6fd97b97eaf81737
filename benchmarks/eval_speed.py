"""Episodes per hour of our evaluation against the loop that published evaluations run, in one go.

    python benchmarks/eval_speed.py [--suite libero_object] [--tasks 0,3,5] [--states 2] [--workers N] [--json PATH]

Both execute the same actions in the same episodes (those of the scripted expert, recorded first) and must come to the
same outcomes. The serial loop is that of OpenVLA-OFT (experiments/robot/libero/run_libero_eval.py): one environment of
LIBERO's own class, both cameras rendered at every step, one query at a time. Ours renders when the policy looks, every
eight steps, in several processes. The policy takes no time in either, so this measures simulation alone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from reporting import report, row

from pokevla.embodiment.libero import LIBERO
from pokevla.evaluation.drawing.first_and_last import FirstAndLast
from pokevla.evaluation.running.places import plan_places
from pokevla.evaluation.running.pool import Limits, worker_pool
from pokevla.evaluation.running.serving import Serving, run_trials
from pokevla.evaluation.running.worker import BenchmarkFactory
from pokevla.evaluation.selection import ENVIRONMENT_SEED
from pokevla.evaluation.trial_records import TrialRecord
from pokevla.evaluation.trials import Trial
from pokevla.simulation.benchmark import EnvironmentSettings
from pokevla.simulation.environment import IDLE_ACTION, LiberoEnvironment
from pokevla.simulation.expert.scripted import ScriptedExpert
from pokevla.simulation.libero import LIBERO as LIBERO_BENCHMARK
from pokevla.simulation.simulator import load_simulator
from pokevla.simulation.suites import MAX_STEPS, get_task, load_init_states

IMAGE_SIZE, SETTLE_STEPS, ACTIONS_PER_QUERY = 256, 10, 8
VLA_EVAL_OBSERVATIONS_PER_S = 11.2
"""One environment shard of vla-eval (allenai/vla-evaluation-harness, its published throughput)."""


@dataclass(frozen=True)
class Recorded:
    """One episode: where it starts, and what is done in it."""

    task: int
    state: int
    actions: np.ndarray  # (T, 7)


@dataclass(frozen=True)
class LookingReplay:
    """A policy that looks, and then does what was recorded."""

    actions: np.ndarray  # (T, 7)
    embodiment: Any = LIBERO
    needs_images: bool = True

    def act(
        self, images: np.ndarray | None, proprio: np.ndarray, instructions: Sequence[str], steps: Any = None
    ) -> np.ndarray:
        """The next eight actions for each of N trials: (N, 8, 7)."""
        if images is None or images.shape != (len(proprio), 2, IMAGE_SIZE, IMAGE_SIZE, 3):
            raise ValueError("the pictures are missing")
        return np.stack([self._chunk(step) for step in steps])

    def _chunk(self, step: int) -> np.ndarray:
        rest = self.actions[step : step + ACTIONS_PER_QUERY]
        idle = np.repeat(IDLE_ACTION[None], ACTIONS_PER_QUERY - len(rest), axis=0)
        return np.concatenate([rest, idle]) if len(idle) else rest


def record(suite: str, tasks: Sequence[int], states: int) -> list[Recorded]:
    """The expert's actions in the first initial states of some tasks. Renders nothing."""
    episodes = []
    for task in tasks:
        environment = LiberoEnvironment(suite, task, seed=ENVIRONMENT_SEED)
        for state in range(states):
            environment.reset(state, settle_steps=SETTLE_STEPS)
            expert, actions = ScriptedExpert(environment), []
            for _ in range(MAX_STEPS[suite]):
                actions.append(np.asarray(expert.act(), np.float64))
                if environment.step(actions[-1]):
                    break
            episodes.append(Recorded(task, state, np.stack(actions)))
        environment.close()
    return episodes


def run_serial(suite: str, episodes: Sequence[Recorded]) -> tuple[float, dict[tuple[int, int], bool], int]:
    """The published loop: seconds, outcomes, and the number of steps."""
    _, envs = load_simulator()
    outcomes: dict[tuple[int, int], bool] = {}
    started, steps, loaded, env, states = time.perf_counter(), 0, None, None, np.empty(0)
    for episode in episodes:
        if loaded != episode.task:
            if env is not None:
                env.close()
            task = get_task(suite, episode.task)
            with contextlib.redirect_stdout(io.StringIO()):
                env = envs.OffScreenRenderEnv(
                    bddl_file_name=str(task.bddl_file), camera_heights=IMAGE_SIZE, camera_widths=IMAGE_SIZE
                )
            env.seed(ENVIRONMENT_SEED)
            loaded, states = episode.task, load_init_states(task)
        assert env is not None
        env.reset()
        env.set_init_state(states[episode.state])
        for _ in range(SETTLE_STEPS):
            env.step(IDLE_ACTION.tolist())
        done = False
        for action in episode.actions:
            _, _, done, _ = env.step(action.tolist())
            steps += 1
            if done:
                break
        outcomes[episode.task, episode.state] = bool(done)
    if env is not None:
        env.close()
    return time.perf_counter() - started, outcomes, steps


def run_ours(suite: str, episodes: Sequence[Recorded], workers: int, folder: Path) -> tuple[float, list[TrialRecord]]:
    """Our evaluation, with a picture of the first and last observation of every trial: seconds and records."""
    trials = [
        Trial(f"{e.task}-{e.state}", suite, e.task, e.state, e.state, 7, None, MAX_STEPS[suite], SETTLE_STEPS)
        for e in episodes
    ]
    policies = {(f"{e.task}-{e.state}", suite): LookingReplay(e.actions) for e in episodes}
    factory = BenchmarkFactory("libero", (), EnvironmentSettings(IMAGE_SIZE, False, ENVIRONMENT_SEED))
    serving = Serving(ACTIONS_PER_QUERY, kinship=LIBERO_BENCHMARK.kinship)
    records: list[TrialRecord] = []
    started = time.perf_counter()
    with worker_pool(plan_places(workers), factory, Limits()) as pool:
        run_trials(trials, policies, pool, serving, lambda t: FirstAndLast(folder, t.policy), records.append)
    return time.perf_counter() - started, records


def main() -> int:
    """Measure both and print the table."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--suite", default="libero_object")
    parser.add_argument("--tasks", default="0,3,5,8", help="task indices, with commas")
    parser.add_argument("--states", type=int, default=5, help="initial states of each task")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tasks = [int(task) for task in arguments.tasks.split(",")]
    episodes = record(arguments.suite, tasks, arguments.states)
    with tempfile.TemporaryDirectory() as folder:
        ours_s, records = run_ours(arguments.suite, episodes, arguments.workers, Path(folder))
    serial_s, outcomes, steps = run_serial(arguments.suite, episodes)
    report(rows_of(records, ours_s, outcomes, serial_s, steps, arguments.workers), arguments.json)
    return 0


def rows_of(
    records: Sequence[TrialRecord], ours_s: float, outcomes: dict[tuple[int, int], bool], serial_s: float, steps: int,
    workers: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """The table; raises SystemExit if the two did not come to the same outcomes."""
    ours = {(each.task_index, each.init_state_index): each.outcome == "success" for each in records}
    if ours != outcomes or sum(each.steps for each in records) != steps:
        raise SystemExit(f"The outcomes differ: ours {ours}, serial {outcomes}; nothing is compared.")
    count = len(records)
    per_hour, serial_per_hour = 3600 * count / ours_s, 3600 * count / serial_s
    # The serial loop renders every step; what a policy sees is the same.
    rows = [
        row("episodes_per_hour/serial", per_hour, "1/h", "episodes per hour of the serial loop",
            per_hour / serial_per_hour, workers=workers, serial_per_hour=serial_per_hour),
        row("steps_per_s_and_core", steps / ours_s / workers, "1/s", "observations/s of one vla-eval shard",
            steps / ours_s / workers / VLA_EVAL_OBSERVATIONS_PER_S),
    ]  # fmt: skip
    total = ours_s * workers
    for name in ("load", "reset", "physics", "rendering", "waiting"):
        spent = sum(each.spent.get(name, 0.0) for each in records)
        rows.append(row(f"share/{name}", spent / count, "s/episode", "of all worker time", spent / total))
    busy = sum(sum(each.spent.values()) for each in records)
    rows.append(row("share/rest", (total - busy) / count, "s/episode", "imports, idle, the end", 1 - busy / total))
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
