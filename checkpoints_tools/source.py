"""Opens what a command-line argument names: a run, one of its checkpoints, or a folder of weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pokevla.errors import CheckpointError, UsageError, command_line
from pokevla.files.ownership import refuse_overlap
from pokevla.recipe.schema import PosttrainRecipe, PretrainRecipe
from pokevla.runs.checkpoints import CheckpointInfo, checkpoint_folder, list_checkpoints
from pokevla.runs.directory import CHECKPOINTS, EXPORT, EXPORT_WEIGHTS, holds_recipe, read_run_recipe
from pokevla.runs.verification import OnDamage, latest_complete, verify

if TYPE_CHECKING:
    from pokevla.weights.named_tensors import Weights


@dataclass(frozen=True)
class CheckpointSource:
    """A complete, undamaged checkpoint of a run."""

    run_dir: Path
    folder: Path
    info: CheckpointInfo
    recipe: PretrainRecipe | PosttrainRecipe


@dataclass(frozen=True)
class WeightsSource:
    """A folder of safetensors: an export, or the output of `consolidate` or `merge-lora`."""

    folder: Path


def is_checkpoint_folder(path: Path) -> bool:
    """Whether `path` looks like a checkpoint: RUN/checkpoints/step-..."""
    return path.name.startswith("step-") and path.parent.name == CHECKPOINTS


def step_of(folder: Path) -> int:
    """The step in the name of a checkpoint folder.

    Raises:
        UsageError: the name has no step.
    """
    digits = folder.name.removeprefix("step-")
    if not digits.isdecimal():
        raise UsageError(f"{folder} is not named like a checkpoint (step-00000100).", "Check the path.")
    return int(digits)


def refuse_output(source: Path, out: Path, *, is_export: bool = False) -> None:
    """Refuse a folder of weights that cannot be written, before a checkpoint is read.

    Raises:
        UsageError: `out` overlaps the run, checkpoint or folder of weights `source`. With `is_export` it may be the
            run's own export.
        CheckpointError: `out` exists.
    """
    run_dir = source.parent.parent if is_checkpoint_folder(source) else source
    if is_export and out.resolve() == (run_dir / EXPORT).resolve():
        return
    refuse_overlap(out, [run_dir, source])
    if out.exists():
        raise CheckpointError(f"{out} exists.", "Choose another name.")


def open_checkpoint_source(
    path: Path, step: int | None = None, on_damage: OnDamage = lambda message: None
) -> CheckpointSource:
    """The checkpoint that `path` names: a checkpoint folder, or a run (its newest undamaged one, or that of `step`).

    All checksums are verified. If the newest one is damaged, it is reported through `on_damage`, and the one before it
    is used.

    Raises:
        UsageError: `path` is neither.
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    if not is_checkpoint_folder(path):
        recipe = read_run_recipe(path)
        if step is not None:
            folder = existing_checkpoint(path, step)
            return CheckpointSource(path, folder, verify(folder), recipe)
        latest = latest_complete(path, on_damage)
        if latest is None:
            raise CheckpointError(
                f"{path} has no complete checkpoint.", f"Continue with: {command_line('resume', path)}"
            )
        return CheckpointSource(path, *latest, recipe)
    if step is not None and step != step_of(path):
        raise UsageError(f"{path} is already a checkpoint, --step {step} names another one.", "Use only one of them.")
    run_dir = path.parent.parent
    folder = existing_checkpoint(run_dir, step_of(path))
    return CheckpointSource(run_dir, folder, verify(folder), read_run_recipe(run_dir))


def existing_checkpoint(run_dir: Path, step: int) -> Path:
    """Folder of a complete checkpoint.

    Raises:
        CheckpointError: there is none of this step; names the existing ones.
    """
    steps = [known for known, _ in list_checkpoints(run_dir)]
    folder = checkpoint_folder(run_dir, step)
    if step in steps:
        return folder
    existing = f"Complete ones: {', '.join(map(str, steps))}." if steps else "The run has none yet."
    if folder.is_dir():
        raise CheckpointError(f"{folder} is incomplete: partly written or partly deleted.", existing)
    raise CheckpointError(f"{run_dir} has no checkpoint of step {step}.", existing)


def open_source(path: Path, on_damage: OnDamage = lambda message: None) -> CheckpointSource | WeightsSource:
    """The checkpoint or folder of weights that `path` names.

    Raises:
        UsageError: `path` is none of them.
        CheckpointError: as in `open_checkpoint_source`.
    """
    if is_checkpoint_folder(path) or holds_recipe(path):
        return open_checkpoint_source(path, on_damage=on_damage)
    if (path / EXPORT_WEIGHTS).is_file() or (path / "model.safetensors.index.json").is_file():
        return WeightsSource(path)
    raise UsageError(
        f"{path} is neither a run, nor a checkpoint, nor a folder of weights.",
        "Name one below `runs/`, such as runs/NAME or runs/NAME/checkpoints/step-00000100.",
    )


@contextlib.contextmanager
def opened_weights(source: CheckpointSource | WeightsSource) -> Iterator[Weights]:
    """The weights in the files of a source, read one at a time; those of a checkpoint are the trained ones.

    Raises:
        CheckpointError: the files cannot be read.
    """
    if isinstance(source, CheckpointSource):
        from pokevla.weights.zero_layout import open_checkpoint

        yield open_checkpoint(source.folder, source.info)
        return
    from pokevla.weights.safetensors_files import FileWeights

    with FileWeights(source.folder) as weights:
        yield weights
