"""Opens DeepSpeed's files without running pickled code; their tensors are read one at a time.

They hold three classes of DeepSpeed beside plain values (a test keeps the list complete). The inert stand-ins below are
created instead: no code of DeepSpeed runs, it need not even be installed, and a file that names any other class is
refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pokevla.errors import CheckpointError
from pokevla.files.foreign.torch_archives import UNREADABLE, Classes, StoredTensor, is_archive, read_archive


class StandIn:
    """Replaces an object that only DeepSpeed's own loading needs. Keeps its state and has no behaviour."""


KNOWN_CLASSES: Classes = {
    ("deepspeed.runtime.fp16.loss_scaler", "LossScaler"): StandIn,
    ("deepspeed.utils.tensor_fragment", "fragment_address"): StandIn,
    ("deepspeed.runtime.zero.config", "ZeroStageEnum"): int,  # an enum of integers
}


def open_torch_file(path: Path) -> Any:
    """The saved object, with a `StoredTensor` for each tensor, whose data is not read.

    Raises:
        CheckpointError: the file is missing, damaged, not from `torch.save`, or names a class that is not in
            KNOWN_CLASSES.
    """
    try:
        if not is_archive(path):
            raise ValueError("it is not a zip archive of torch.save")
        return read_archive(path, KNOWN_CLASSES)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing.", "Use another checkpoint.") from error
    except UNREADABLE as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} cannot be read safely ({reason}).", "Use another checkpoint.") from error


def locate(path: Path, tensor: Any) -> StoredTensor:
    """A tensor of `open_torch_file(path)`.

    Raises:
        CheckpointError: this is not a tensor, or it is not contiguous.
    """
    if not isinstance(tensor, StoredTensor):
        raise CheckpointError(f"{path} holds {tensor!r:.60} where a tensor belongs.", "Use another checkpoint.")
    if not tensor.is_contiguous:
        raise CheckpointError(f"{path} holds a tensor that is not contiguous.", "Use another checkpoint.")
    return tensor
