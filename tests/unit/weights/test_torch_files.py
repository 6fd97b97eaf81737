"""Files of torch.save are opened without running what is in them, and read from the place where a tensor lies."""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pokevla.errors import CheckpointError
from pokevla.files.foreign.torch_archives import StoredTensor
from pokevla.weights.torch_files import locate, open_torch_file
from tests.flips import flipped


def saved(path: Path, content: Any) -> Any:
    torch.save(content, path)
    return open_torch_file(path)


def test_nothing_is_read_until_asked(tmp_path: Path) -> None:
    content = saved(tmp_path / "x.pt", {"w": torch.arange(6.0).view(2, 3), "step": 4})
    assert content["step"] == 4
    assert (content["w"].shape, content["w"].dtype, content["w"].ndim) == ((2, 3), torch.float32, 2)
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


def with_pickle(path: Path, data_pkl: bytes) -> Path:
    """A file of torch.save whose description is replaced; its storage `0` has twelve numbers."""
    torch.save(torch.arange(12.0), path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, data_pkl if name.endswith("data.pkl") else content)
    return path


TENSOR = (
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000"
    b"X\x03\0\0\0cpuK\x0ctQ%s\x89ccollections\nOrderedDict\n)RtR."
)
"""A tensor of storage `0`; %s is its offset, sizes and strides."""
NUMBER = b"\x8a\x08%s"


def of_place(offset: int, size: int, stride: int) -> bytes:
    values = [NUMBER % number.to_bytes(8, "little", signed=True) for number in (offset, size, stride)]
    return TENSOR % (values[0] + values[1] + b"\x85" + values[2] + b"\x85")


@pytest.mark.parametrize(
    ("data_pkl", "words"),
    [
        (of_place(1 << 30, 12, 1), "ends at element 1073741835 of a storage of 12"),
        (of_place(0, 13, 1), "ends at element 12 of a storage of 12"),
        (of_place(0, 12, -1), r"the shape \(12,\) and the strides \(-1,\)"),
        (of_place(0, -1, 1), r"the shape \(-1,\) and"),
        (of_place(0, 12, 1).replace(b"K\x0ctQ", b"J\xff\xff\xff\x7ftQ"), "storage 0 has 48 bytes for 2147483647 num"),
        (b"\x80\x02c__builtin__\nbytearray\n(J\xff\xff\xff\x7ftR.", "names the class __builtin__.bytearray"),
        (b"\x80\x02ctorch\nFloatTensor\n(J\xff\xff\xff\x7ftR.", "names the class torch.FloatTensor"),
        (b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"x.", ""),  # BINBYTES8
        (b"\x80\x02K\x01r\xff\xff\xff\xff.", None),  # a memo index of four billion takes no room
        (b"\x80\x02", ""),
    ],
)
def test_what_a_file_claims_is_not_allocated(tmp_path: Path, data_pkl: bytes, words: str | None) -> None:
    path = with_pickle(tmp_path / "x.pt", data_pkl)
    if words is None:
        assert open_torch_file(path) == 1
        return
    with pytest.raises(CheckpointError, match=rf"x\.pt cannot be read safely.*{words}"):
        open_torch_file(path)


def test_an_expanded_tensor_is_refused_when_it_is_asked_for(tmp_path: Path) -> None:
    path = with_pickle(tmp_path / "x.pt", of_place(0, 1 << 40, 0))
    with pytest.raises(CheckpointError, match="not contiguous"):
        locate(path, open_torch_file(path))
    with pytest.raises(CheckpointError, match="not contiguous"):
        open_torch_file(path).read()
    path = with_pickle(tmp_path / "x.pt", of_place(3, 4, 1))
    assert locate(path, open_torch_file(path)).read().tolist() == [3.0, 4.0, 5.0, 6.0]


def test_a_compressed_file_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(CheckpointError, match=r"y\.pt cannot be read safely \(its entry .* is compressed"):
        open_torch_file(tmp_path / "y.pt")


def test_every_flipped_byte_is_refused_or_changes_only_values(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"w": torch.arange(4.0), "step": 3}, path)
    size = path.stat().st_size
    for changed in flipped(path.read_bytes()):
        path.write_bytes(changed)
        with contextlib.suppress(CheckpointError):
            content = open_torch_file(path)
            tensors = content.values() if isinstance(content, dict) else []
            assert all(t.numel * 8 <= size for t in tensors if isinstance(t, StoredTensor))


def test_a_file_that_ends_too_early_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"\0" * 10)
    with pytest.raises(CheckpointError, match="ends in the middle"):
        StoredTensor(tmp_path / "x.bin", 4, (2,), torch.float32).read()
