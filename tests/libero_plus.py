"""A small checkout of LIBERO-Plus for tests: twelve official tasks, taken as if they were all (see its README)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pokevla.simulation.benchmark import TaskSource
from pokevla.simulation.libero_plus import benchmark, checkout

SAMPLE = Path(__file__).parent / "libero_plus_sample"
COUNTS = {"libero_spatial": 1, "libero_object": 8, "libero_goal": 1, "libero_10": 2}
CAMERA, ROBOT, LANGUAGE, NOISE, MOVED, LIGHT, BACKGROUND, ADDED = range(8)
"""Tasks of libero_object in the sample, by index."""


def sample_source(monkeypatch: pytest.MonkeyPatch, **settings: object) -> TaskSource:
    """The sample as a task source; its table is taken for the official one until the test ends."""
    monkeypatch.setattr(checkout, "NUM_TASKS", COUNTS)
    monkeypatch.setattr(benchmark, "NUM_TASKS", COUNTS)
    table = SAMPLE / "task_classification.json"
    digest = checkout.table_digest(checkout._rows(table, checkout._read(table)))
    monkeypatch.setattr(checkout, "TABLE_SHA256", digest)
    return TaskSource(**{"checkout": SAMPLE, **settings})  # pyright: ignore[reportArgumentType]


def copied_sample(folder: Path) -> Path:
    """A copy of the sample that a test may change."""
    return Path(shutil.copytree(SAMPLE, folder / "LIBERO-plus"))


def official_checkout() -> Path:
    """The user's checkout; the test is skipped if there is none."""
    folder = os.environ.get("POKEVLA_LIBERO_PLUS")
    if folder is None:
        pytest.skip("POKEVLA_LIBERO_PLUS names no checkout of github.com/sylvestf/LIBERO-plus")
    return Path(folder)
