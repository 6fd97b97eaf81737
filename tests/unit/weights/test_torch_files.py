"""Files of torch.save are opened without running what is in them, and read from the place where a tensor lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pokevla.errors import CheckpointError
from pokevla.weights.torch_files import StoredTensor, locate, open_torch_file


def saved(path: Path, content: Any) -> Any:
    torch.save(content, path)
    return open_torch_file(path)


def test_nothing_is_read_until_asked(tmp_path: Path) -> None:
    content = saved(tmp_path / "x.pt", {"w": torch.arange(6.0).view(2, 3), "step": 4})
    assert content["step"] == 4
    assert content["w"].device.type == "meta"
    assert torch.equal(locate(tmp_path / "x.pt", content["w"]).read(), torch.arange(6.0).view(2, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_views_of_one_storage_are_found_at_their_places(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = torch.randint(0, 2, (40,)).to(dtype)
    tensors: list[Tensor] = [whole[:7], whole[7:31].view(4, 6), whole[31:]]
    content = saved(tmp_path / "x.pt", tensors)
    for tensor, original in zip(content, tensors, strict=True):
        assert torch.equal(locate(tmp_path / "x.pt", tensor).read(), original)


def test_a_part_is_read_and_converted(tmp_path: Path) -> None:
    content = saved(tmp_path / "x.pt", torch.arange(10.0, dtype=torch.bfloat16))
    target = torch.empty(4)
    locate(tmp_path / "x.pt", content).read_into(target, start=3)
    assert target.tolist() == [3.0, 4.0, 5.0, 6.0]


def test_a_tensor_that_is_not_contiguous_is_refused(tmp_path: Path) -> None:
    content = saved(tmp_path / "x.pt", torch.zeros(3, 4).t())
    with pytest.raises(CheckpointError, match="not contiguous"):
        locate(tmp_path / "x.pt", content)


class Intruder:
    """An object of a class that no checkpoint of ours holds."""


def test_a_class_that_is_not_named_is_refused_with_its_name(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1), "x": Intruder()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"cannot be read safely.*"):
        open_torch_file(tmp_path / "x.pt")


@pytest.mark.parametrize("content", [b"", b"half a file", b"PK\x03\x04 and then nothing"])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pt cannot be read safely"):
        open_torch_file(tmp_path / "x.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"x\.pt is missing"):
        open_torch_file(tmp_path / "x.pt")


def test_a_file_that_ends_too_early_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"\0" * 10)
    with pytest.raises(CheckpointError, match="ends in the middle"):
        StoredTensor(tmp_path / "x.bin", 4, (2,), torch.float32).read()
