"""Weights are written one at a time, whole or not at all, in the format that everybody reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pokevla.errors import CheckpointError, DiskFullError
from pokevla.weights.named_tensors import WeightSpec
from pokevla.weights.safetensors_files import INDEX, SINGLE, FileWeights, write_weights


class MemoryWeights:
    """Weights in a dict, which note what is read."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.reads: list[str] = []

    @property
    def specs(self) -> Mapping[str, WeightSpec]:
        return {name: WeightSpec(tuple(value.shape), value.dtype) for name, value in self.tensors.items()}

    def read(self, name: str) -> Tensor:
        self.reads.append(name)
        return self.tensors[name]


def weights() -> MemoryWeights:
    return MemoryWeights(
        {
            "flags": torch.tensor([True, False, True]),
            "matrix": torch.arange(12.0).view(3, 4),
            "empty": torch.zeros(0, 5),
            "scalar": torch.tensor(2.5),
            "counts": torch.tensor([1, 2, 3]),
        }
    )


def test_what_is_written_is_read_by_the_safetensors_library(tmp_path: Path) -> None:
    source = weights()
    write_weights(source, tmp_path, metadata={"step": "7"})
    state = load_file(tmp_path / SINGLE)
    assert set(state) == set(source.tensors)
    assert all(torch.equal(state[name], value) for name, value in source.tensors.items())
    assert all(state[name].dtype == value.dtype for name, value in source.tensors.items())
    with safe_open(tmp_path / SINGLE, framework="pt") as file:
        assert file.metadata() == {"format": "pt", "step": "7"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_refused_by_name(tmp_path: Path, value: float) -> None:
    source = weights()
    source.tensors["matrix"][1, 2] = value
    with pytest.raises(CheckpointError, match="matrix holds 1 of 12 numbers that are NaN or infinite"):
        write_weights(source, tmp_path, metadata={})


def test_every_weight_is_read_once(tmp_path: Path) -> None:
    source = weights()
    progress: list[tuple[int, int]] = []
    write_weights(source, tmp_path, metadata={}, on_progress=lambda done, total: progress.append((done, total)))
    assert sorted(source.reads) == sorted(source.tensors)
    total = 3 + 12 * 4 + 4 + 3 * 8
    assert progress[-1] == (total, total)


def test_several_files_have_an_index_and_none_is_larger_than_asked(tmp_path: Path) -> None:
    source = MemoryWeights({f"w{k}": torch.full((10,), float(k)) for k in range(5)})
    write_weights(source, tmp_path, metadata={}, max_file_bytes=80)
    index = json.loads((tmp_path / INDEX).read_text())
    assert sorted(index["weight_map"]) == sorted(source.tensors)
    assert sorted(set(index["weight_map"].values())) == [f"model-0000{k}-of-00003.safetensors" for k in (1, 2, 3)]
    with FileWeights(tmp_path) as stored:
        assert all(torch.equal(stored.read(name), value) for name, value in source.tensors.items())
        assert stored.specs == source.specs


def test_half_precision_is_read_as_fp32(tmp_path: Path) -> None:
    value = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    save_file({"w": value}, tmp_path / SINGLE)
    with FileWeights(tmp_path) as stored:
        assert stored.specs["w"].dtype == torch.float32
        assert torch.equal(stored.read("w"), value.float())


def test_too_little_room_is_found_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = MemoryWeights({"w": torch.zeros(1000)})
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 3999})())
    with pytest.raises(DiskFullError, match="free, the weights need"):
        write_weights(source, tmp_path, metadata={})
    assert list(tmp_path.iterdir()) == []
    assert source.reads == []


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no weights"):
        FileWeights(tmp_path)
    (tmp_path / SINGLE).write_bytes(b"no safetensors")
    with pytest.raises(CheckpointError, match="not readable safetensors"):
        FileWeights(tmp_path)


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ('{"weight_map": {"w": "../secret.safetensors"}}', "which does not lie in its folder"),
        ('{"weight_map": {"w": 5}}', "weight_map.w"),
        ('{"weight_map": []}', "weight_map"),
        ("{}", "weight_map"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_a_damaged_index_is_named(tmp_path: Path, index: str, reason: str) -> None:
    (tmp_path / INDEX).write_text(index, encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"{INDEX}.*{reason}"):
        FileWeights(tmp_path)
