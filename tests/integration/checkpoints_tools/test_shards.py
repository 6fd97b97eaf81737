"""What we read from the shards of real engines is what DeepSpeed itself says is in them, to the last bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from pokevla.runs.checkpoints import STATE, checkpoint_folder, read_info
from pokevla.weights.torch_files import KNOWN_CLASSES
from pokevla.weights.zero_layout import OBJECTIVE_PREFIX, CheckpointWeights, open_checkpoint

KINDS = ["0-fp32", "0-bf16", "1-fp32", "1-bf16", "2-fp32", "2-bf16", "3-fp32", "3-bf16"]
KINDS_OF_DEEPSPEEDS_TOOL = [kind for kind in KINDS if kind not in ("0-fp32", "0-bf16", "1-bf16")]


def opened(runs: Path, kind: str) -> CheckpointWeights:
    folder = checkpoint_folder(runs / kind, 2)
    return open_checkpoint(folder, read_info(folder))


def consolidated_by_deepspeed(folder: Path) -> dict[str, Tensor]:
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    state = get_fp32_state_dict_from_zero_checkpoint(str(folder), tag=STATE, exclude_frozen_parameters=True)
    return {str(name).removeprefix(OBJECTIVE_PREFIX): value for name, value in (state or {}).items()}


def same_bits(one: Tensor, two: Tensor) -> bool:
    return one.dtype == two.dtype and one.shape == two.shape and torch.equal(one, two)


@pytest.mark.parametrize("kind", KINDS_OF_DEEPSPEEDS_TOOL)
def test_weights_are_those_of_zero_to_fp32(engine_runs: Path, kind: str) -> None:
    ours = opened(engine_runs, kind)
    theirs = consolidated_by_deepspeed(checkpoint_folder(engine_runs / kind, 2))
    assert set(ours.specs) == set(theirs)
    assert [name for name in theirs if not same_bits(ours.read(name), theirs[name].contiguous())] == []


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_the_master_copies_of_the_living_engine(engine_runs: Path, kind: str) -> None:
    ours = opened(engine_runs, kind)
    masters = load_file(engine_runs / kind / "masters.safetensors")
    masters = {name.removeprefix(OBJECTIVE_PREFIX): value for name, value in masters.items()}
    assert len(masters) > 50
    assert [name for name, value in masters.items() if not same_bits(ours.read(name), value)] == []


def test_precisions_are_told_apart(engine_runs: Path) -> None:
    """The master copies of a bf16 run are finer than bf16: reading the rounded weights would go unnoticed otherwise."""
    for kind in ("0-bf16", "1-bf16", "2-bf16", "3-bf16"):
        ours = opened(engine_runs, kind)
        rounded = [name for name in ours.specs if torch.equal(ours.read(name), ours.read(name).bfloat16().float())]
        assert len(rounded) < len(ours.specs) / 2


@pytest.mark.parametrize("kind", ["0-fp32", "0-bf16", "1-bf16"])
def test_deepspeeds_tool_cannot_read_these(engine_runs: Path, kind: str) -> None:
    with pytest.raises((ValueError, TypeError)):  # "not a zero checkpoint"; of stage 0 it misses the shapes
        consolidated_by_deepspeed(checkpoint_folder(engine_runs / kind, 2))


def test_the_named_classes_are_those_that_the_files_ask_for(engine_runs: Path) -> None:
    files = [path for kind in KINDS for path in (checkpoint_folder(engine_runs / kind, 2) / STATE).glob("*.pt")]
    assert len(files) > 20
    asked = {name for path in files for name in get_unsafe_globals_in_checkpoint(path)}
    assert asked == {f"{module}.{name}" for module, name in KNOWN_CLASSES}
