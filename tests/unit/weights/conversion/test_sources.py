"""Published files are opened without executing or reading them, and what is no state dict is refused."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from pokevla.errors import CheckpointError
from pokevla.weights.conversion import sources
from pokevla.weights.conversion.sources import WeightFiles, entries_of, find_files, open_files

WEIGHT = torch.arange(6.0).reshape(2, 3)


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_both_kinds_of_files_give_shapes_types_and_values(tmp_path: Path, dtype: torch.dtype) -> None:
    weight = WEIGHT.to(dtype)
    save_file({"a.w": weight, "b": weight[0].clone()}, tmp_path / "w.safetensors")
    for path in (tmp_path / "w.safetensors", saved(tmp_path / "w.pt", {"a": {"w": weight}, "b": weight[0]})):
        entries = entries_of(path)
        assert [(name, e.shape, e.dtype) for name, e in entries.items()] == [("a.w", (2, 3), dtype), ("b", (3,), dtype)]
        assert torch.equal(entries["a.w"].read(), weight)


def test_entries_that_are_no_tensors_are_listed_with_their_type(tmp_path: Path) -> None:
    entries = entries_of(saved(tmp_path / "w.pt", {"w": WEIGHT, "step": 3, "groups": [{"lr": 0.1}, None], "empty": {}}))
    others = {name: value for name, value in entries.items() if isinstance(value, str)}
    assert others == {"step": "int", "groups.0.lr": "float", "groups.1": "NoneType", "empty": "dict"}


class Executes:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("is_archive", [True, False])
def test_a_pickle_with_code_is_refused_by_name_and_not_executed(tmp_path: Path, is_archive: bool) -> None:
    path, target = tmp_path / "model.pt", tmp_path / "executed"
    if is_archive:
        saved(path, {"w": WEIGHT, "x": Executes(target)})
    else:
        path.write_bytes(pickle.dumps({"x": Executes(target)}))
    with pytest.raises(CheckpointError, match=r"model\.pt cannot be read safely") as caught:
        entries_of(path)
    assert "posix.mkdir" in caught.value.message or not is_archive
    assert not target.exists()


def loop() -> dict[str, Any]:
    content: dict[str, Any] = {"w": WEIGHT}
    content["self"] = content
    return content


def doubled(levels: int) -> dict[str, Any]:
    content: dict[str, Any] = {"w": WEIGHT}
    for _ in range(levels):
        content = {str(k): content for k in range(40)}
    return content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (WEIGHT, None),
        ({"step": 3}, "not a state dict: it holds no tensors"),
        ([], "not a state dict: it holds no tensors"),
        (7, "not a state dict: it holds no tensors"),
        (loop(), "nested too deeply"),
        (doubled(4), "more than 100000 entries"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: Any, reason: str | None) -> None:
    path = saved(tmp_path / "model.pt", content)
    if reason is None:
        assert list(entries_of(path)) == [""]  # a bare tensor has no name, so no format has a row for it
        return
    with pytest.raises(CheckpointError, match=reason):
        entries_of(path)


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save_file({"w": torch.zeros(1000)}, path) if path.suffix == ".safetensors" else torch.save({"w": WEIGHT}, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read safely"):
        entries_of(path)


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_changed_byte_gives_an_error_or_a_state_dict(tmp_path_factory: Any, position: int, value: int) -> None:
    path = tmp_path_factory.mktemp("bytes") / "model.safetensors"
    save_file({"a": WEIGHT, "b": WEIGHT[0].to(torch.bfloat16)}, path)
    content = bytearray(path.read_bytes())
    content[position % len(content)] = value
    path.write_bytes(content)
    try:
        entries = entries_of(path)
    except CheckpointError:
        return
    for entry in entries.values():
        assert isinstance(entry, str) or entry.read().shape == entry.shape


def sharded(folder: Path, weight_map: dict[str, str]) -> Path:
    save_file({"a": WEIGHT}, folder / "model-00001-of-00002.safetensors")
    save_file({"b": WEIGHT}, folder / "model-00002-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def opened(folder: Path) -> sources.Source:
    files = [WeightFiles(sources.SAFETENSORS)]
    found = find_files(folder, files)
    assert found is not None
    return open_files(folder, "hf", found)


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def test_shards_give_the_tensors_of_all_files(tmp_path: Path) -> None:
    assert list(opened(sharded(tmp_path, {"a": FIRST, "b": SECOND})).tensors) == ["a", "b"]


@pytest.mark.parametrize(
    ("weight_map", "reason"),
    [
        ({"a": FIRST, "b": SECOND, "c": SECOND}, "lacks c, which model.safetensors.index.json lists there"),
        ({"a": SECOND, "b": SECOND}, "lacks a"),
        ({"a": FIRST, "b": "model-00003-of-00003.safetensors"}, "model-00003-of-00003.safetensors does not exist"),
        ({"a": "../elsewhere.safetensors"}, "does not lie in its folder"),
        ({}, "no `weight_map`"),
    ],
)
def test_an_incomplete_set_of_shards_is_refused(tmp_path: Path, weight_map: dict[str, str], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        opened(sharded(tmp_path, weight_map))
