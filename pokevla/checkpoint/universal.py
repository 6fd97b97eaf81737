"""Converts a sharded checkpoint for another number of ranks, through DeepSpeed's universal checkpoint.

    RUN/checkpoints/step-00000100/universal/zero/<parameter>/{fp32,exp_avg,exp_avg_sq,step}.pt     whole tensors
                                            zero/optimizer_state.pt, *_model_states.pt
                                            COMPLETE.json                                           written last

Each rank then takes its own piece of every whole tensor. The folder is beside the state it was converted from, is
complete or absent, and is deleted with it.
"""

from __future__ import annotations

import logging
import threading
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pokevla.distributed.collectives import broadcast_object, first_error
from pokevla.errors import CheckpointError, DiskFullError, PokeVLAError
from pokevla.files.checksums import file_damage, measure_file, stored_files, with_checksum, without_checksum
from pokevla.files.failures import free_bytes
from pokevla.files.names import remove_folder
from pokevla.files.texts import read_json_object, write_json
from pokevla.files.writing import atomic_path
from pokevla.runs.checkpoints import CONVERTED, FREE_SPACE, MARKER, STATE, CheckpointInfo, save_error

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine
    from torch.optim import Optimizer

logger = logging.getLogger(__name__)

POLL_S = 0.5
"""Seconds between two messages of the converting rank: a large state takes longer than the timeout of a collective."""
ROOM = 2.2
"""Disk space that a conversion needs, in sizes of the checkpoint: pieces and whole tensors once each, plus the overhead
of many small files."""


def convert(folder: Path, info: CheckpointInfo) -> Path:
    """Convert a complete checkpoint of ZeRO stage 1 to 3, unless it is already converted. Called by one process.

    At most the optimizer file of one rank is in memory at a time.

    Args:
        folder: the checkpoint; `info` is its COMPLETE.json, verified.

    Returns:
        the folder `universal` inside it.

    Raises:
        DiskFullError: disk full; nothing is left behind.
        CheckpointError: DeepSpeed cannot convert it.
    """
    target = folder / CONVERTED
    if _is_converted(target):
        return target
    need = int(ROOM * info.size_bytes)
    if free_bytes(folder) < need:
        raise DiskFullError(
            f"Converting {folder} to another number of ranks takes {need / 2**20:.0f} MiB, "
            f"{free_bytes(folder) / 2**20:.0f} MiB are free.",
            f"Free some space, or resume with {info.world_size} ranks.",
        )
    remove_folder(target, MARKER)
    try:
        with atomic_path(target, kind=CheckpointError, remedy=FREE_SPACE) as new:
            _ds_to_universal(folder / STATE, new)
            _seal(new, info)
    except RuntimeError as error:
        raise save_error(error, target) from error
    except (LookupError, AssertionError, ValueError) as error:
        raise CheckpointError(
            f"{folder} cannot be converted to another number of ranks: {error}",
            f"Resume with {info.world_size} ranks.",
        ) from error
    return target


def _is_converted(target: Path) -> bool:
    """Whether there is a conversion and it is whole. A damaged one is made again."""
    if not (target / MARKER).exists():
        return False
    try:
        content = read_json_object(target / MARKER, kind=CheckpointError)
        content = without_checksum(content, target / MARKER, kind=CheckpointError)
        files = stored_files(content.get("files"), target / MARKER, kind=CheckpointError, remedy=None)
        damage = next((text for file in files if (text := file_damage(target, file))), None)
    except CheckpointError as error:
        damage = str(error)
    if damage is not None:
        logger.error("converting again: %s", damage)
    return damage is None


def _ds_to_universal(state: Path, out: Path) -> None:
    from pokevla.distributed.engine import import_deepspeed

    import_deepspeed()
    from deepspeed.checkpoint import ds_to_universal

    # One worker: forking from a process with threads is unsafe, and memory stays bounded by one file.
    ds_to_universal.main(
        Namespace(
            input_folder=str(state),
            output_folder=str(out),
            num_extract_workers=1,
            num_merge_workers=1,
            keep_temp_folder=False,
            strict=True,
            inject_missing_state=True,
        )
    )


def _seal(folder: Path, info: CheckpointInfo) -> None:
    """Write the marker, with the checksums of all files."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    files = [asdict(measure_file(folder, name)) for name in names]
    content = {"step": info.step, "world_size": info.world_size, "files": files}
    write_json(folder / MARKER, with_checksum(content), sort_keys=True)


def convert_while_all_wait(folder: Path, info: CheckpointInfo, *, is_main: bool) -> None:
    """`convert` on rank 0 while the others wait without a time limit. Called by all ranks; raises on all of them."""
    error = _while_all_wait(lambda: convert(folder, info), is_main)
    failure = first_error(error)
    if failure is not None:
        raise failure[1]


def _while_all_wait(action: Callable[[], Any], is_main: bool) -> PokeVLAError | None:
    errors: list[PokeVLAError] = []

    def run() -> None:
        try:
            action()
        except PokeVLAError as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="pokevla-convert", daemon=True)
    if is_main:
        thread.start()
    working = True
    while working:
        if is_main:
            thread.join(POLL_S)
        working = broadcast_object(thread.is_alive())
    return errors[0] if errors else None


def load_state(engine: DeepSpeedEngine, folder: Path, tag: str) -> bool:
    """Have DeepSpeed load `folder`/`tag`; False if it does not exist."""
    # Not strict: frozen weights are not stored (they are checked by their hash).
    loaded, _ = engine.load_checkpoint(str(folder), tag=tag, load_module_strict=False, load_lr_scheduler_states=False)
    return loaded is not None


def load_converted(engine: DeepSpeedEngine, folder: Path) -> bool:
    """Load the converted state of a checkpoint. Called by all ranks; False if there is none.

    Restores trained weights and optimizer state. Frozen weights and buffers of the engine do not change.
    """
    optimizer, config = cast("Optimizer", engine.basic_optimizer), cast(Any, engine._config)
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    config.load_universal_checkpoint = True  # read at each load
    try:
        loaded = load_state(engine, folder, CONVERTED)
    finally:
        config.load_universal_checkpoint = False
    # Two silent faults of DeepSpeed 0.19.8 in stage 3 (load_hp_checkpoint_state_from_checkpoint_dir_stage3): every
    # group gets the settings of the first one, so that norms and biases decay; and all groups share one step counter,
    # which AdamW then increments once per group.
    for group, settings in zip(optimizer.param_groups, groups, strict=True):
        group.update(settings)
    for state in optimizer.state.values():
        if "step" in state:
            state["step"] = state["step"].clone().to(state["exp_avg"].device)  # fused AdamW requires it on the device
    return loaded
