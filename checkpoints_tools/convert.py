"""Converts a checkpoint for any number of ranks before a resume needs it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from checkpoints_tools.source import CheckpointSource, opened_weights
from pokevla.checkpoint.universal import convert as convert_checkpoint
from pokevla.errors import UsageError
from pokevla.runs.creation import run_lock
from pokevla.weights.named_tensors import refuse_non_finite


def convert(source: CheckpointSource) -> Path:
    """Write DeepSpeed's universal form of a checkpoint beside its state, where a resume uses it. Returns its folder.

    A resume with another number of ranks does this by itself, while all its ranks wait.

    Raises:
        UsageError: ZeRO stage 0, which does not shard; or the run is in use by another process.
        DiskFullError: disk full; nothing is left behind.
        CheckpointError: a weight is not finite, or DeepSpeed cannot convert it; nothing is left behind.
    """
    if source.info.zero_stage == 0:
        raise UsageError(
            f"{source.folder} has ZeRO stage 0: any number of ranks can resume from it without conversion."
        )
    with opened_weights(source) as weights:
        for name in weights.specs:
            refuse_non_finite(name, weights.read(name))
    with (
        run_lock(source.run_dir),
        contextlib.redirect_stdout(sys.stderr),
    ):  # DeepSpeed prints its arguments; stdout is for --json
        return convert_checkpoint(source.folder, source.info)
