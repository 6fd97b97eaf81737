"""Where training starts: at step 0, or from the newest complete checkpoint."""

from __future__ import annotations

import dataclasses
import logging
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pokevla.checkpoint.store import find_on_all_ranks, load_checkpoint
from pokevla.data.mixture import Mixture, dataset_names
from pokevla.distributed.collectives import gather_objects
from pokevla.distributed.environment import RankInfo
from pokevla.errors import CheckpointError, DataError
from pokevla.recipe.load import recipe_hash, recipe_hash_at
from pokevla.recipe.schema import TrainRecipe
from pokevla.recipe.values import LENGTH, describe_changes, resumable_settings
from pokevla.runs.checkpoints import CheckpointInfo, refuse_misfit, remove_unfinished
from pokevla.runs.verification import OnDamage
from pokevla.telemetry.jsonl import EVENTS, EventLog
from pokevla.telemetry.manifest import add_caches, add_machines, add_restart
from pokevla.training.health.guards import Guards
from pokevla.training.measuring import MetricSums

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

logger = logging.getLogger(__name__)


@dataclass
class RunState:
    """The part of a checkpoint that is not the engine's state, on one rank."""

    recipe: TrainRecipe
    identity: CheckpointInfo  # of this job's checkpoints, at step 0
    guards: Guards
    metric_sums: MetricSums = field(default_factory=MetricSums)

    def at(self, step: int, position: int) -> CheckpointInfo:
        """The description of a checkpoint of this job, without the state of guards and metric sums."""
        return dataclasses.replace(self.identity, step=step, position=position)

    def expected(self, stored: CheckpointInfo) -> CheckpointInfo:
        """The description that a checkpoint of this run has at the step and for the length of `stored`."""
        expected_hash = recipe_hash_at(self.recipe, stored.settings)
        return dataclasses.replace(self.at(stored.step, stored.position), recipe_hash=expected_hash)

    def checkpoint_info(self, step: int, position: int) -> CheckpointInfo:
        """The description of a checkpoint saved now. Called by all ranks."""
        return dataclasses.replace(
            self.at(step, position),
            recent_losses=self.guards.spikes.state(),
            skips=self.guards.skips.state(),
            metrics=self.metric_sums.state(),
        )

    def restore(self, saved: CheckpointInfo, rank: RankInfo, device: torch.device) -> None:
        """Restore guards and metric sums from a checkpoint."""
        self.guards.spikes.restore(saved.recent_losses)
        self.guards.skips.restore(saved.skips)
        self.metric_sums.restore(saved.metrics, rank.rank, rank.world_size, device)


def build_identity(
    recipe: TrainRecipe, world_size: int, frozen_hash: str, mixture: Mixture, caches: dict[str, str]
) -> CheckpointInfo:
    """The values shared by all checkpoints of a job.

    `frozen_hash` is the hash of the frozen weights. `caches` maps the path of a dataset to the fingerprint of its
    feature cache.
    """
    names = dataset_names(recipe)
    return CheckpointInfo(
        step=0,
        position=0,
        world_size=world_size,
        zero_stage=recipe.zero.stage,
        precision=recipe.precision,
        recipe_hash=recipe_hash(recipe),
        frozen_hash=frozen_hash,
        datasets={names[path]: fingerprint for path, fingerprint in mixture.fingerprints.items()},
        embodiment=mixture.embodiment.to_dict() if mixture.embodiment is not None else {},
        caches={names[path]: fingerprint for path, fingerprint in caches.items()},
        settings=resumable_settings(recipe),
    )


def restore(
    engine: DeepSpeedEngine, state: RunState, run_dir: Path, rank: RankInfo, device: torch.device
) -> CheckpointInfo:
    """Load the newest checkpoint that is complete and can be read, if any, and return the step and position that
    training starts from.

    Raises:
        CheckpointError: all checkpoints are damaged, or the newest does not match this job.
    """
    if rank.is_main:
        remove_unfinished(run_dir)
    damaged: list[str] = []
    loaded = _load_newest(engine, state, run_dir, rank, damaged.append)
    start, changes = loaded or state.at(0, 0), ""
    if loaded is not None:
        state.restore(loaded, rank, device)
        changes = describe_changes(_changeable(loaded), _changeable(state.identity, loaded))
    machines = gather_objects((socket.gethostname(), _device_name(device)))
    if rank.is_main:
        _record_start(run_dir, start, loaded is not None, damaged, changes)
        with _noting_in_manifest():
            add_machines(run_dir, start.step, machines)
    logger.info("training starts at step %d, position %d", start.step, start.position)
    return start


def _load_newest(
    engine: DeepSpeedEngine, state: RunState, run_dir: Path, rank: RankInfo, on_damage: OnDamage
) -> CheckpointInfo | None:
    """Load the newest checkpoint that all ranks can read; None without checkpoints. Called by all ranks.

    A file can become unreadable after its checksum was verified, or on the machine of another rank only. Loading the
    one before replaces everything that a failed attempt has loaded.
    """
    before: int | None = None
    failure: CheckpointError | None = None
    while (found := find_on_all_ranks(run_dir, rank.is_main, on_damage, before=before)) is not None:
        folder, info = found
        refuse_misfit(folder, info, state.expected(info))
        try:
            load_checkpoint(engine, folder, info)
        except CheckpointError as error:
            on_damage(str(error))
            before, failure = info.step, error
        else:
            return info
    if failure is not None:
        raise failure
    return None


def _record_start(run_dir: Path, start: CheckpointInfo, resumed: bool, damaged: Sequence[str], changes: str) -> None:
    """Log where training starts, which checkpoints are damaged, and which settings have changed."""
    changed = {"changed": f"Resumed at step {start.step} with {changes}."} if changes else {}
    with closing(EventLog(run_dir / EVENTS)) as events:
        for message in damaged:
            logger.error("skipped a damaged checkpoint: %s", message)
            events.add("damaged", message=message)
        events.add("resumed" if resumed else "started", step=start.step, position=start.position, **changed)
    if changes:
        logger.warning("%s", changed["changed"])
    with _noting_in_manifest():
        if resumed:
            add_restart(run_dir, start.step, **changed)
        else:
            add_caches(run_dir, start.caches)


@contextmanager
def _noting_in_manifest() -> Iterator[None]:
    """A manifest that is damaged or cannot be written is a warning: the run does not depend on it."""
    try:
        yield
    except DataError as error:
        logger.warning("this start is not recorded in the manifest: %s", error)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _changeable(info: CheckpointInfo, stored: CheckpointInfo | None = None) -> dict[str, Any]:
    """The settings that may change between two starts of a run. `stored` is the checkpoint to compare with: those of
    earlier versions do not hold the length."""
    unknown = () if stored is None else [name for name in LENGTH if name not in stored.settings]
    settings = {name: value for name, value in info.settings.items() if name not in unknown}
    return {**settings, "number of ranks": info.world_size}
