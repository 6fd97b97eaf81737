"""A small robot dataset on disk, written with the converters' writer."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pokevla.data.sources.episodes import EPISODE_SCHEMA, SAMPLE_SCHEMA
from pokevla.data.writer import DatasetWriter
from pokevla.embodiment.libero import LIBERO
from pokevla.recipe.sections import CacheConfig, TeacherConfig


def picture(rng: np.random.Generator, side: int) -> bytes:
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Return a function (name, samples, shard_samples, seed, side) -> dataset directory."""

    def make(name: str = "dataset", samples: int = 20, shard_samples: int = 8, seed: int = 0, side: int = 32) -> Path:
        rng = np.random.default_rng(seed)
        out = tmp_path / name
        task = {"suite": "libero_object", "task": "pick", "task_index": 0, "instruction": "pick", "split": "train"}
        with DatasetWriter(
            out,
            group="libero_object",
            samples=SAMPLE_SCHEMA,
            episodes=EPISODE_SCHEMA,
            embodiment=LIBERO,
            shard_samples=shard_samples,
        ) as writer:
            for frame in range(samples):
                members = {f"{view}.jpg": picture(rng, side) for view in LIBERO.views}
                row = {**task, "episode": 0, "frame": frame, "proprio": [0.0] * 8}
                writer.add_sample(f"libero_object-t0-e0-f{frame:04d}", members, row)
            zeros = {"actions": [[0.0] * 7] * samples, "executed_actions": [[0.0] * 7] * samples}
            sequences = {**zeros, "proprio": [[0.0] * 8] * samples, "length": samples, "init_state_index": 0}
            writer.add_episode({**task, "episode": 0, "target_shift": [0.0, 0.0], **sequences})
            writer.finish({"statistics": None})
        return out

    return make


@pytest.fixture
def dataset_root(make_dataset: Callable[..., Path]) -> Path:
    """20 samples in shards of 8, 8 and 4."""
    return make_dataset()


@pytest.fixture
def cache_config(tmp_path: Path) -> CacheConfig:
    """Tiny teachers with random weights."""
    return CacheConfig(
        root=tmp_path / "cache",
        sam=TeacherConfig(kind="sam", preset="tiny"),
        vggt=TeacherConfig(kind="vggt", preset="tiny"),
    )
