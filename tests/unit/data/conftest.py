"""Small synthetic inputs in the real layouts: random images, official structure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

OBJECT_TASK = "pick_up_the_milk_and_place_it_in_the_basket"
INSTANCES = ["milk_1", "basket_1", "bbq_sauce_1"]


def smooth_pictures(rng: np.random.Generator, count: int, side: int) -> np.ndarray:
    """(count,side,side,3) uint8: enlarged noise, which JPEG preserves as well as a photo."""
    noise = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(n).resize((side, side), Image.Resampling.BICUBIC)) for n in noise])


def instance_squares(count: int, side: int) -> np.ndarray:
    """(count,side,side) uint8: three squares of instances 1, 2, 3, upright, moving over time."""
    masks = np.zeros((count, side, side), dtype=np.uint8)
    unit = side // 8
    for t in range(count):
        step = t % unit
        masks[t, unit : 3 * unit, unit + step : 3 * unit + step] = 1
        masks[t, 4 * unit : 7 * unit, 4 * unit : 7 * unit] = 2
        masks[t, 5 * unit : 6 * unit, unit : 2 * unit] = 3
    return masks


def write_libero_file(
    path: Path,
    *,
    demos: int = 3,
    frames: int = 20,
    side: int = 32,
    ours: bool = True,
    masks: bool = True,
    stride: int = 1,
    splits: tuple[str, ...] = ("train", "val"),
    seed: int = 0,
) -> Path:
    """A demonstration file in the official layout; `ours` adds our extensions. Some frames are no-ops."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_name"] = "Libero_Floor_Manipulation"
        data.attrs["problem_info"] = json.dumps({"language_instruction": list("Pick up the milk")})
        data.attrs["bddl_file_name"], data.attrs["bddl_file_content"] = f"{OBJECT_TASK}.bddl", "(define (problem x))"
        data.attrs["env_args"] = json.dumps({"type": 1, "env_name": "Libero_Floor_Manipulation", "env_kwargs": {}})
        data.attrs["macros_image_convention"] = "opengl"
        data.attrs["num_demos"], data.attrs["total"] = demos, demos * frames
        if ours:
            data.attrs["pokevla_obs_alignment"] = "before"
            data.attrs["pokevla_collection"] = json.dumps({"seed": 0})
        if ours and masks:
            data.attrs["instances"] = json.dumps(INSTANCES)
            data.attrs["target_instances"] = json.dumps(INSTANCES[:2])
        for d in range(demos):
            demo = data.create_group(f"demo_{d}")
            demo.attrs["num_samples"] = frames
            actions = rng.uniform(-0.9, 0.9, (frames, 7))
            actions[:, 6] = np.where(np.arange(frames) < frames // 2, -1.0, 1.0)
            actions[3:5, :6] = 0.0
            demo["actions"] = actions
            states = rng.normal(size=(frames + 1, 92))
            states[:, 1:8] = np.cumsum(rng.uniform(0.006, 0.058, (frames + 1, 7)), axis=0)  # measured: a row's move
            demo["states"] = states[:-1]
            demo["robot_states"] = rng.normal(size=(frames, 9))
            demo["rewards"] = demo["dones"] = (np.arange(frames) == frames - 1).astype(np.uint8)
            demo.attrs["init_state"] = demo["states"][0]
            demo.attrs["model_file"] = "<mujoco/>"
            obs = demo.create_group("obs")
            obs["ee_states"] = rng.normal(size=(frames, 6))
            obs["ee_pos"], obs["ee_ori"] = obs["ee_states"][:, :3], obs["ee_states"][:, 3:]
            obs["gripper_states"] = rng.normal(size=(frames, 2))
            obs["joint_states"] = states[:-1, 1:8] if ours else states[1:, 1:8]
            rendered = np.arange(frames) % stride == 0
            instance_ids = instance_squares(frames, side)
            for camera in ("agentview", "eye_in_hand"):
                pictures = smooth_pictures(rng, frames, side) * rendered[:, None, None, None]
                obs[f"{camera}_rgb"] = pictures[:, ::-1, ::-1].astype(np.uint8)
                if ours and masks:
                    stored = (instance_ids * rendered[:, None, None])[:, ::-1, ::-1]
                    obs.create_dataset(f"{camera}_mask", data=stored, compression="gzip")
            if ours:
                demo["executed_actions"] = actions + 0.01
                demo.attrs["split"] = splits[d % len(splits)]
                demo.attrs["init_state_index"] = d
                demo.attrs["target_shift"] = np.array([0.01, -0.02])
                obs["rendered"] = rendered
    return path


def write_scenes_file(path: Path, *, count: int = 6, side: int = 64, seed: int = 0) -> Path:
    """A file of still scenes with instance masks (contract of pokevla.simulation.recordings.scenes)."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["images"] = np.stack([smooth_pictures(rng, 2, side) for _ in range(count)])
        file["masks"] = np.stack([instance_squares(2 * count, side)[[i, 2 * i]] for i in range(count)])
        file["scene_task"] = np.zeros(count, dtype=np.int64)
        file["split"] = np.array(["train"] * (count - 1) + ["val"], dtype="S5")
        file.attrs["instances/0"] = json.dumps(INSTANCES)
        file["init_state_index"] = 5 + np.arange(count) % 3
    return path


@pytest.fixture(scope="session")
def write_libero() -> Callable[..., Path]:
    """`write_libero_file`, for fixtures with a wider scope."""
    return write_libero_file


@pytest.fixture(scope="session")
def write_scenes() -> Callable[..., Path]:
    """`write_scenes_file`, for fixtures with a wider scope."""
    return write_scenes_file


@pytest.fixture
def libero_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a demonstration file under a suite folder of the test's directory."""

    def write(name: str = OBJECT_TASK, folder: str = "source", **options: object) -> Path:
        return write_libero_file(tmp_path / folder / "libero_object" / f"{name}_demo.hdf5", **options)  # type: ignore[arg-type]

    return write


@pytest.fixture
def scenes_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a scenes file in the test's directory."""

    def write(**options: object) -> Path:
        return write_scenes_file(tmp_path / "scenes" / "libero_object_scenes.hdf5", **options)  # type: ignore[arg-type]

    return write


@pytest.fixture
def robot_dataset(tmp_path: Path, libero_file: Callable[..., Path]) -> Callable[..., Path]:
    """Converts a synthetic demonstration file to a dataset directory."""
    from pokevla.data.sources.libero import LiberoSettings, convert_libero

    def convert(out: str = "dataset", shard_samples: int = 16, val_fraction: float = 0.0, **options: object) -> Path:
        source = libero_file(**options)
        settings = LiberoSettings(source, tmp_path / out, shard_samples, val_fraction=val_fraction, noops="drop")
        return convert_libero(settings)

    return convert


class WordTokenizer:
    """A tokenizer with the interface used here. Each special token and each character is one id."""

    pad_token_id = 0
    specials = ("<|im_start|>", "<|im_end|>")

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        ids: list[int] = []
        while text:
            special = next((s for s in self.specials if text.startswith(s)), None)
            piece = special or text[0]
            ids.append(1 + self.specials.index(special) if special else 3 + ord(piece) % 500)
            text = text[len(piece) :]
        return {"input_ids": ids}


@pytest.fixture
def tokenizer() -> WordTokenizer:
    """Character tokenizer, so that unit tests need no file."""
    return WordTokenizer()
