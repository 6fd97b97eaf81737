"""Episodes whose states do not fit their pictures are left out and counted; a file of such episodes is refused."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from pokevla.errors import DataError
from pokevla.files.writing import atomic_path
from pokevla.simulation.recordings.mask_files import add_masks, write_with_masks
from pokevla.simulation.recordings.mask_replay import EpisodeFit, EpisodeMasks
from pokevla.simulation.recordings.stored_episodes import DemoSource

FRAMES, SIDE = 3, 8
GOOD = EpisodeFit(picture_difference=2.0, shifted_difference=9.0, joint_error_rad=0.001, other_joint_error_rad=0.02)
BAD = replace(GOOD, picture_difference=40.0)


def masks(fit: EpisodeFit, value: int) -> EpisodeMasks:
    values = np.full((2, FRAMES, SIDE, SIDE), value, np.uint8)
    return EpisodeMasks(fit, ["milk_1", "basket_1"], ["milk_1"], values.shape, zlib.compress(values.tobytes()))


@pytest.fixture
def source(tmp_path: Path) -> DemoSource:
    """A file of three episodes, and where its copy goes."""
    names = ("demo_0", "demo_1", "demo_2")
    with h5py.File(tmp_path / "published.hdf5", "w") as file:
        for name in names:
            file[f"data/{name}/obs/agentview_rgb"] = np.zeros((FRAMES, SIDE, SIDE, 3), np.uint8)
        file["data"].attrs.update({"num_demos": 3, "total": 3 * FRAMES, "env_name": "x"})
    return DemoSource(tmp_path / "published.hdf5", tmp_path / "out" / "new.hdf5", "libero_object", 0, names, False)


def test_a_misfit_is_left_out_and_named_with_its_figures(source: DemoSource) -> None:
    heard: list[bool] = []
    results = iter([masks(GOOD, 1), masks(BAD, 2), masks(GOOD, 3)])

    report = write_with_masks(source, results, heard.append)

    assert (report.kept, list(report.left_out), heard) == (2, ["demo_1"], [True, False, True])
    with h5py.File(source.target) as file:
        data = file["data"]
        assert list(data) == ["demo_0", "demo_2"]
        assert (data.attrs["num_demos"], data.attrs["total"], data.attrs["env_name"]) == (2, 2 * FRAMES, "x")
        assert (data["demo_2/obs/eye_in_hand_mask"][()] == 3).all()
        made = json.loads(data.attrs["pokevla_masks"])
    assert "40.0 grey levels" in made["left_out"]["demo_1"]
    assert made["fit"]["demo_1"]["picture_difference"] == 40.0


def test_a_file_of_misfits_is_refused_and_nothing_is_left(source: DemoSource) -> None:
    results = iter([masks(BAD, 0), masks(GOOD, 1), masks(BAD, 0)])
    with pytest.raises(DataError, match=r"data/demo_0: .*grey levels.* the same holds for 2 of 3 episodes"):
        write_with_masks(source, results, lambda fits: None)
    assert list(source.target.parent.iterdir()) == []


def test_what_is_not_ours_stays_even_with_overwrite(source: DemoSource) -> None:
    source.target.parent.mkdir()
    source.target.write_bytes(source.source.read_bytes())
    with pytest.raises(DataError, match="was not written by this command: it is not replaced"):
        add_masks([source], 1, overwrite=True)
    assert source.target.read_bytes() == source.source.read_bytes()


def test_a_second_writer_is_refused_before_any_work(source: DemoSource) -> None:
    unreadable = replace(source, source=source.source.with_name("missing.hdf5"), target=source.target.with_name("a"))
    with atomic_path(source.target) as first:
        with pytest.raises(DataError, match=r"Another process \(process \d+ on .*\) is writing .*new.hdf5"):
            add_masks([unreadable, source], 1)
        first.write_text("whole")
    assert source.target.read_text() == "whole"
