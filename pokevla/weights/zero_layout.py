"""Reads the trained weights of a checkpoint in fp32 by the model's names, for any ZeRO stage.

DeepSpeed's own tool (`deepspeed.utils.zero_to_fp32`) unpickles the files, holds whole groups of weights in memory, and
supports neither stage 0 nor stage 1 in bf16. Here the offsets of all pieces are computed first, and a weight is read
when needed; the results are bit-identical (tests/integration/checkpoints_tools/test_shards.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pokevla.errors import CheckpointError
from pokevla.files.foreign.torch_archives import StoredTensor
from pokevla.recipe.planning.precision import PRECISIONS
from pokevla.runs.checkpoints import STATE, CheckpointInfo
from pokevla.weights.named_tensors import WeightSpec, stored_dtype
from pokevla.weights.parameter_groups import split_by_dimensions
from pokevla.weights.torch_files import locate, open_torch_file

OBJECTIVE_PREFIX = "model."
"""Attribute of the trained objective that holds the model, and prefix of all names."""
SECOND_NAME = "lm_head.weight"
"""The head of a language model, which may be tied to its embedding, whose name comes first."""


@dataclass(frozen=True)
class Piece:
    """Consecutive elements of one weight: `count` of them from `start` on in a stored tensor."""

    stored: StoredTensor
    start: int
    count: int


class CheckpointWeights:
    """Trained weights (fp32 master copies) and buffers of a checkpoint, which stores no frozen weights.

    Memory: the layout of the files and the weight being read.
    """

    def __init__(self, specs: Mapping[str, WeightSpec], pieces: Mapping[str, Sequence[Piece]]) -> None:
        self._specs = specs
        self._pieces = pieces

    @property
    def specs(self) -> Mapping[str, WeightSpec]:
        """Shape and dtype by name."""
        return self._specs

    def read(self, name: str) -> Tensor:
        """One weight.

        Raises:
            CheckpointError: a file is truncated.
        """
        spec = self._specs[name]
        flat = torch.empty(spec.numel, dtype=spec.dtype)
        done = 0
        for piece in self._pieces[name]:
            piece.stored.read_into(flat[done : done + piece.count], piece.start)
            done += piece.count
        return flat.view(spec.shape)


def open_checkpoint(folder: Path, info: CheckpointInfo) -> CheckpointWeights:
    """Compute where each weight of a checkpoint is stored. The caller verifies the checkpoint first.

    Raises:
        CheckpointError: a file is missing or cannot be read safely, or the layout is unknown.
    """
    layout = _Layout(folder / STATE, info)
    try:
        if info.zero_stage == 0:
            layout.add_whole()
        else:
            layout.add_buffers()
            if info.zero_stage == 3:
                layout.add_partitioned_weights()
            else:
                layout.add_partitioned_groups()
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{folder} does not have the layout of ZeRO stage {info.zero_stage} of this DeepSpeed ({error!r}).",
            "Read it with the version of PokeVLA that wrote it (manifest.json of the run names it).",
        ) from error
    return CheckpointWeights(layout.specs, layout.pieces)


class _Layout:
    """Collects specs and pieces; one method per kind of sharding."""

    def __init__(self, state: Path, info: CheckpointInfo) -> None:
        self.state = state
        self.info = info
        self.specs: dict[str, WeightSpec] = {}
        self.pieces: dict[str, list[Piece]] = {}
        name = "zero_pp_rank_0_mp_rank_00" if info.zero_stage == 3 else "mp_rank_00"
        self.model_file = state / f"{name}_model_states.pt"
        self.model_states: dict[str, Any] = open_torch_file(self.model_file)

    # -------------------------------------------------------------------------------------------- whole tensors

    def add_buffers(self) -> None:
        """Buffers are stored whole in the model file of rank 0."""
        for name in self.model_states["buffer_names"]:
            if name in self.model_states["module"]:
                self._add_tensor(name, self.model_file, self.model_states["module"][name])

    def add_whole(self) -> None:
        """Stage 0 does not shard. In bf16 the module is rounded and the optimizer has the master copies."""
        module, optimizer = self.model_states["module"], self.model_states["optimizer"]
        masters = optimizer["fp32_groups"] if PRECISIONS[self.info.precision].master_weights else None
        groups = masters if masters is not None else [group["params"] for group in optimizer["param_groups"]]
        trained = self._trained_names(count=sum(len(group) for group in groups))
        for name in trained:
            self._add_tensor(name, self.model_file, module[name])
        self.add_buffers()
        if masters is not None:
            groups_of_names = split_by_dimensions((name, module[name].ndim) for name in trained)
            for names, group in zip(groups_of_names, masters, strict=True):
                for name, tensor in zip(names, group, strict=True):
                    self._add_tensor(name, self.model_file, tensor)

    def _trained_names(self, count: int) -> list[str]:
        """Names of the weights that the optimizer has, `count` of them, in the order of `named_parameters`.

        The file does not name them. Its module contains them, the buffers, and the second names of tied weights: for
        trained ones both names of one tensor, for frozen ones only the second, because DeepSpeed omits frozen weights
        only under their first name (`module_state_dict`).
        """
        module, buffers = self.model_states["module"], set(self.model_states["buffer_names"])
        firsts = {locate(self.model_file, tensor): name for name, tensor in reversed(module.items())}
        names = [name for name in firsts.values() if name not in buffers]
        names.sort(key=list(module).index)
        if len(names) > count:
            names = [name for name in names if not name.endswith(SECOND_NAME)]
        if len(names) != count:
            raise CheckpointError(f"{self.model_file} holds {len(names)} weights, its optimizer {count}.")
        return names

    def _add_tensor(self, name: str, path: Path, tensor: Any) -> None:
        stored = locate(path, tensor)
        self._add(name, stored.shape, stored.dtype, [Piece(stored, 0, stored.numel)])

    def _add(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, pieces: list[Piece]) -> None:
        name = name.removeprefix(OBJECTIVE_PREFIX)
        self.specs[name] = WeightSpec(shape, stored_dtype(dtype))
        self.pieces[name] = pieces

    # -------------------------------------------------------------------------------------------- stages 1 and 2

    def add_partitioned_groups(self) -> None:
        """Stages 1 and 2: a parameter group is one flat vector; each rank has a piece of it, padded at the end."""
        optimizers = list(self._optimizers())
        paddings = optimizers[0][1].get("param_alignment_paddings")  # absent from stage 1 in bf16
        for group, shapes in enumerate(self.model_states["param_shapes"]):
            flats = [locate(path, state["single_partition_of_fp32_groups"][group]) for path, state in optimizers]
            offset = 0
            for index, (name, shape) in enumerate(shapes.items()):
                count = math.prod(shape)
                self._add(name, tuple(shape), torch.float32, self._cut(name, flats, offset, count))
                offset += count + (paddings[group][index] if paddings is not None else 0)

    def _cut(self, name: str, flats: Sequence[StoredTensor], offset: int, count: int) -> list[Piece]:
        """The elements [offset, offset + count) of the concatenation of `flats`."""
        pieces, begin, end = [], 0, offset + count
        for flat in flats:
            first, last = max(offset, begin), min(end, begin + flat.numel)
            if first < last:
                pieces.append(Piece(flat, first - begin, last - first))
            begin += flat.numel
        if sum(piece.count for piece in pieces) != count:
            raise CheckpointError(f"{self.state.parent} lacks a piece of {name}.", "Use another checkpoint.")
        return pieces

    # -------------------------------------------------------------------------------------------- stage 3

    def add_partitioned_weights(self) -> None:
        """Stage 3: each rank has an equal piece of every weight, the last one padded.

        The pieces of a rank are consecutive in the order of the groups, in vectors that may begin in mid-weight.
        """
        ranks = [[locate(path, flat) for flat in state["fp32_flat_groups"]] for path, state in self._optimizers()]
        offset = 0
        for name, shape in chain.from_iterable(shapes.items() for shapes in self.model_states["param_shapes"]):
            count = math.prod(shape)
            share = math.ceil(count / len(ranks))
            pieces: list[Piece] = []
            for rank, flats in enumerate(ranks):
                piece_count = min(share, count - rank * share)
                if piece_count > 0:  # a weight with few elements ends before the last rank
                    pieces += self._cut(name, flats, offset, piece_count)
            self._add(name, tuple(shape), torch.float32, pieces)
            offset += share

    def _optimizers(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """File and state of each rank's optimizer, in rank order."""
        prefix = "bf16_" if PRECISIONS[self.info.precision].master_weights else ""
        for rank in range(self.info.world_size):
            path = self.state / f"{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
            yield path, open_torch_file(path)["optimizer_state_dict"]
