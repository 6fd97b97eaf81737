"""The toy arm's recordings in the HDF5 layouts of ALOHA and robomimic."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

from benchmarks.recorded.episodes import CAMERAS, Recorded
from pokevla.data.sources.images import encode_jpeg


def write_aloha(path: Path, episode: Recorded, compressed: bool = False) -> Path:
    """An episode as tonyzhaozh/act stores it; two arms that move alike. `compressed`: padded JPEGs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    both = np.concatenate([np.delete(episode.state, 6, axis=1)] * 2, axis=1).astype(np.float64)
    commands = np.concatenate([np.delete(episode.action, 6, axis=1)] * 2, axis=1).astype(np.float64)
    with h5py.File(path, "w") as file:
        file.attrs["sim"] = False
        file["observations/qpos"], file["observations/qvel"] = both, np.zeros_like(both)
        file["action"] = commands
        for name, camera in zip(("cam_high", "cam_left_wrist", "cam_right_wrist"), CAMERAS, strict=True):
            images = np.stack(episode.pictures[camera])
            if not compressed:
                file.create_dataset(f"observations/images/{name}", data=images, chunks=(1, *images.shape[1:]))
                continue
            encoded = [encode_jpeg(image, 90) for image in images]
            padded = np.zeros((len(encoded), max(map(len, encoded))), np.uint8)
            for row, content in enumerate(encoded):
                padded[row, : len(content)] = np.frombuffer(content, np.uint8)
            file[f"observations/images/{name}"] = padded
    return path


def write_robomimic(path: Path, episodes: list[Recorded], num_val: int = 1) -> Path:
    """Episodes in the layout of robomimic's image datasets, with its masks of splits: the last are `valid`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for place, e in enumerate(episodes):
            demo = file.create_group(f"data/demo_{place}")
            demo.attrs["num_samples"] = len(e.times)
            demo["actions"] = np.concatenate([e.action[:, :6], 1 - 2 * e.action[:, 7:]], axis=1).astype(np.float64)
            demo["obs/robot0_eef_pos"] = e.state[:, :3].astype(np.float64)
            demo["obs/robot0_eef_quat"] = np.concatenate([e.state[:, 3:6], e.state[:, 5:6]], axis=1)
            demo["obs/robot0_gripper_qpos"] = 0.04 * np.concatenate([e.state[:, 7:], -e.state[:, 7:]], axis=1)
            demo["obs/agentview_image"] = np.stack(e.pictures["front"])
            demo["obs/robot0_eye_in_hand_image"] = np.stack(e.pictures["wrist"])
        names = [f"demo_{place}" for place in range(len(episodes))]
        file["mask/train"], file["mask/valid"] = np.array(names[:-num_val], "S8"), np.array(names[-num_val:], "S8")
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
    return path
