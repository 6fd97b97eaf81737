from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from pokevla.errors import DataError
from pokevla.files.foreign.hdf5 import Hdf5File, hdf5_reader
from pokevla.files.foreign.process import ForeignReader

DEMONSTRATION = Path(__file__).with_name("demonstration.hdf5.gz")
"""A demonstration of six frames. One changed byte of it crashes or hangs libhdf5 2.0."""


@pytest.fixture(scope="module")
def reader() -> Iterator[ForeignReader]:
    with hdf5_reader(timeout_s=3.0) as reader:
        yield reader


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.hdf5"


@pytest.mark.parametrize(("place", "value"), [(1889, 255), (2168, 134)], ids=["crash", "hang"])
def test_one_changed_byte_that_crashes_or_hangs_libhdf5_is_named(
    path: Path, reader: ForeignReader, place: int, value: int
) -> None:
    content = bytearray(gzip.decompress(DEMONSTRATION.read_bytes()))
    path.write_bytes(content)
    assert Hdf5File(path, reader).json_attribute("data", "problem_info")["language_instruction"].startswith("pick up")
    content[place] = value
    damaged = path.with_name("damaged.hdf5")
    damaged.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged\.hdf5: attribute `problem_info` of data cannot be read"):
        Hdf5File(damaged, reader).json_attribute("data", "problem_info")


def test_an_array_that_claims_more_than_its_file_can_hold_is_not_allocated(path: Path, reader: ForeignReader) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("data/demo_0/actions", shape=(60_000_000, 7), dtype="f8", chunks=(1000, 7))
    with pytest.raises(DataError, match=r"x\.hdf5: data/demo_0/actions claims 3\.1 GiB: more than 1\.0 GiB"):
        Hdf5File(path, reader).read("data/demo_0/actions")


def test_what_lies_in_another_file_is_refused(path: Path, reader: ForeignReader, tmp_path: Path) -> None:
    secret = tmp_path / "secret.hdf5"
    with h5py.File(secret, "w") as file:
        file["values"] = np.arange(3.0)
    (tmp_path / "secret.bin").write_bytes(bytes(24))
    layout = h5py.VirtualLayout(shape=(3,), dtype="f8")
    layout[:] = h5py.VirtualSource(str(secret), "values", shape=(3,))
    with h5py.File(path, "w") as file:
        file["external_link"] = h5py.ExternalLink(str(secret), "values")
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("stored_outside", (3,), "f8", external=[(str(tmp_path / "secret.bin"), 0, 24)])
        file["through_a_link"] = h5py.SoftLink("/external_link")
    opened = Hdf5File(path, reader)
    for key, reason in (
        ("external_link", "an external link"),
        ("virtual", "a virtual dataset"),
        ("stored_outside", "external storage"),
        ("through_a_link", "an external link"),
    ):
        with pytest.raises(DataError, match=rf"x\.hdf5: {key} cannot be read: .*{reason}"):
            opened.read(key)


def test_soft_links_within_the_file_are_followed_as_far_as_they_lead(path: Path, reader: ForeignReader) -> None:
    with h5py.File(path, "w") as file:
        file["group/values"] = np.arange(3)
        file["absolute"] = h5py.SoftLink("/group/values")
        file["group/relative"] = h5py.SoftLink("values")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["loop"] = h5py.SoftLink("/loop")
    opened = Hdf5File(path, reader)
    assert opened.read("absolute").tolist() == opened.read("group/relative").tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="dangling is missing"):
        opened.read("dangling")
    with pytest.raises(DataError, match=r"loop cannot be read: .*soft links in a row"):
        opened.read("loop")


def test_arrays_rows_and_attributes_are_read_as_h5py_reads_them(path: Path, reader: ForeignReader) -> None:
    values = np.arange(12, dtype=">f4").reshape(4, 3)
    with h5py.File(path, "w") as file:
        file.create_dataset("values", data=values, compression="gzip", chunks=(1, 3))
        file["splits"] = np.array([b"train", b"val"])
        file["numbers"] = 3
        file.attrs.update({"text": "é", "bytes": np.bytes_(b"abc"), "one": 7, "many": values, "json": json.dumps([1])})
    opened = Hdf5File(path, reader)
    assert opened.read("values").dtype == values.dtype
    np.testing.assert_array_equal(opened.read("values"), values)
    np.testing.assert_array_equal(opened.read("values", row=2), values[2])
    assert opened.describe("values").storage == {"chunks": [1, 3], "compression": "gzip", "compression_opts": 4}
    assert opened.texts("splits") == ["train", "val"]
    assert opened.read("numbers").shape == ()
    assert opened.keys("") == ["numbers", "splits", "values"]
    assert opened.attributes("") == ["bytes", "json", "many", "one", "text"]
    assert [opened.attribute("", name) for name in ("text", "bytes", "one", "none")] == ["é", "abc", 7, None]
    np.testing.assert_array_equal(opened.attribute("", "many"), values)
    assert opened.json_attribute("", "json") == [1]


def test_odd_attributes_are_named(path: Path, reader: ForeignReader) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["latin"] = np.bytes_(b"\xff\xfe")
        file.attrs["empty"] = h5py.Empty("f4")
        file.attrs["nan"] = '{"a": NaN}'
        file.attrs["deep"] = "[" * 50_000
    opened = Hdf5File(path, reader)
    for name in ("latin", "empty"):
        with pytest.raises(DataError, match=f"attribute `{name}` of the file cannot be read"):
            opened.attribute("", name)
    for name in ("nan", "deep"):
        with pytest.raises(DataError, match=f"attribute `{name}` of the file is damaged"):
            opened.json_attribute("", name)


def test_what_is_no_hdf5_file_is_told_apart(tmp_path: Path, reader: ForeignReader) -> None:
    (tmp_path / "text").write_text("no HDF5")
    os.mkfifo(tmp_path / "fifo")
    for name, reason in (
        ("text", "truncated, or not HDF5"),
        ("fifo", "cannot be opened .it is not a regular file."),
        ("none", "is missing"),
    ):
        with pytest.raises(DataError, match=f"{name} .*{reason}|{name} {reason}"):
            Hdf5File(tmp_path / name, reader)
