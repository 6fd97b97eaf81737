"""A checkpoint for any number of ranks, made before it is needed."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from checkpoints_tools.source import CheckpointSource
from pokevla.checkpoint.universal import convert as convert_checkpoint
from pokevla.errors import UsageError


def convert(source: CheckpointSource) -> Path:
    """Make DeepSpeed's universal form beside the state of a checkpoint; resume then finds it. Returns its folder.

    A resume with another number of ranks does this by itself, while all its ranks wait.

    Raises:
        UsageError: ZeRO stage 0, which shards nothing.
        DiskFullError: no room. CheckpointError: DeepSpeed cannot convert it. Nothing is left behind.
    """
    if source.info.zero_stage == 0:
        raise UsageError(f"{source.folder} is of ZeRO stage 0: any number of ranks can resume from it as it is.")
    with contextlib.redirect_stdout(sys.stderr):  # DeepSpeed prints its arguments; stdout is for --json
        return convert_checkpoint(source.folder, source.info)
