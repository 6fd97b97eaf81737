"""Recordings of an arm with eight joints and three cameras, in the layouts of other projects.

Every image shows its camera, episode and frame as black and white blocks, which survive video compression.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CAMERAS = ("front", "left", "wrist")
JOINTS = (*(f"joint_{number}.pos" for number in range(7)), "gripper.pos")
FPS = 30
HEIGHT, WIDTH = 48, 64
_BLOCK, _BITS = 8, 24


def picture(camera: int, episode: int, frame: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(height,width,3) uint8: 24 blocks of 8 pixels with the bits of camera (4), episode (8) and frame (12)."""
    code = camera << 20 | episode << 12 | frame
    columns = width // _BLOCK
    image = np.full((height, width, 3), 40, np.uint8)
    for bit in range(_BITS):
        y, x = divmod(bit, columns)
        value = 235 if code >> bit & 1 else 20
        image[y * _BLOCK : (y + 1) * _BLOCK, x * _BLOCK : (x + 1) * _BLOCK] = value
    image[-_BLOCK:, :, 0] = 40 + 60 * camera
    return image


def shown(image: np.ndarray, height: int = HEIGHT, width: int = WIDTH) -> tuple[int, int, int]:
    """(camera, episode, frame) that an image shows, whatever its size."""
    scale_y, scale_x = image.shape[0] / height, image.shape[1] / width
    columns, code = width // _BLOCK, 0
    for bit in range(_BITS):
        y, x = divmod(bit, columns)
        centre = image[int((y + 0.5) * _BLOCK * scale_y), int((x + 0.5) * _BLOCK * scale_x)]
        code |= int(centre.mean() > 128) << bit
    return code >> 20, code >> 12 & 0xFF, code & 0xFFF


@dataclass
class Recorded:
    """One episode as an arm's recorder has it: joints in rad, the gripper from 0 (closed) to 1 (open)."""

    number: int
    task: str
    times: np.ndarray
    state: np.ndarray
    action: np.ndarray
    pictures: dict[str, list[np.ndarray]] = field(default_factory=dict)


def record(number: int, frames: int = 45, task: str = "Pick up the cube") -> Recorded:
    """An episode in which the joints follow their commands, and the gripper closes in the middle."""
    rng = np.random.default_rng(number)
    times = np.arange(frames) / FPS
    phase, speed = rng.uniform(0, np.pi, 7), rng.uniform(0.5, 1.5, 7)
    action = np.concatenate(
        [0.8 * np.sin(phase + speed * times[:, None]), (times[:, None] < times[-1] / 2).astype(float)], axis=1
    )
    state = np.concatenate([action[:1], action[:-1]]) + rng.normal(0, 1e-4, action.shape)
    pictures = {
        camera: [picture(place, number, frame) for frame in range(frames)] for place, camera in enumerate(CAMERAS)
    }
    return Recorded(number, task, times, state.astype(np.float32), action.astype(np.float32), pictures)


def write_video(path: Path, pictures: list[np.ndarray], fps: int = FPS, codec: str = "libx264", gop: int = 12) -> None:
    """A video with B-frames and few key frames, as recorders write it."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        options = {"g": str(gop), "crf": "18"}
        stream = container.add_stream(codec, rate=Fraction(fps), options=options)
        stream.height, stream.width = pictures[0].shape[:2]  # pyright: ignore[reportAttributeAccessIssue]
        stream.pix_fmt = "yuv420p"  # pyright: ignore[reportAttributeAccessIssue]
        for image in pictures:
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):  # pyright: ignore[reportAttributeAccessIssue]
                container.mux(packet)
        for packet in stream.encode():  # pyright: ignore[reportAttributeAccessIssue]
            container.mux(packet)


def _features(images: str) -> dict[str, Any]:
    numbers = {"dtype": "float32", "shape": [8], "names": list(JOINTS)}
    cameras = {
        f"observation.images.{camera}": {
            "dtype": images,
            "shape": [HEIGHT, WIDTH, 3],
            "names": ["height", "width", "channels"],
        }
        for camera in CAMERAS
    }
    index = {
        name: {"dtype": "int64", "shape": [1], "names": None} for name in ("frame_index", "episode_index", "index")
    }
    return {
        "action": numbers,
        "observation.state": numbers,
        **cameras,
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **index,
        "task_index": {"dtype": "int64", "shape": [1], "names": None},
    }


def _png(image: np.ndarray) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _table(episode: Recorded, start: int, tasks: list[str], images: str) -> pa.Table:
    count = len(episode.times)
    columns: dict[str, Any] = {
        "action": pa.array(list(episode.action), pa.list_(pa.float32(), 8)),
        "observation.state": pa.array(list(episode.state), pa.list_(pa.float32(), 8)),
    }
    if images == "image":
        for camera, pictures in episode.pictures.items():
            rows = [{"bytes": _png(image), "path": f"frame-{n:06d}.png"} for n, image in enumerate(pictures)]
            columns[f"observation.images.{camera}"] = pa.array(rows)
    columns |= {
        "timestamp": episode.times.astype(np.float32),
        "frame_index": np.arange(count),
        "episode_index": np.full(count, episode.number),
        "index": np.arange(start, start + count),
        "task_index": np.full(count, tasks.index(episode.task)),
    }
    return pa.table(columns)


def _info(version: str, episodes: list[Recorded], images: str, **paths: Any) -> dict[str, Any]:
    return {
        "codebase_version": version,
        "robot_type": "toy_arm",
        "total_episodes": len(episodes),
        "total_frames": sum(len(e.times) for e in episodes),
        "total_tasks": len({e.task for e in episodes}),
        "chunks_size": 1000,
        "fps": FPS,
        "splits": {"train": f"0:{len(episodes)}"},
        "features": _features(images),
        **paths,
    }


def write_lerobot_v21(root: Path, episodes: list[Recorded], images: str = "video") -> Path:
    """Format v2.1: one parquet file, and one video per camera, for each episode."""
    (root / "meta").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    tasks = sorted({e.task for e in episodes})
    info = _info(
        "v2.1", episodes, images,
        data_path="data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        video_path="videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    )  # fmt: skip
    (root / "meta/info.json").write_text(json.dumps(info))
    rows = [{"episode_index": e.number, "tasks": [e.task], "length": len(e.times)} for e in episodes]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [json.dumps({"task_index": n, "task": task}) + "\n" for n, task in enumerate(tasks)]
    (root / "meta/tasks.jsonl").write_text("".join(lines))
    start = 0
    for e in episodes:
        pq.write_table(_table(e, start, tasks, images), root / f"data/chunk-000/episode_{e.number:06d}.parquet")
        start += len(e.times)
        for camera, pictures in e.pictures.items() if images == "video" else ():
            write_video(root / f"videos/chunk-000/observation.images.{camera}/episode_{e.number:06d}.mp4", pictures)
    return root


def write_lerobot_v3(root: Path, episodes: list[Recorded], images: str = "video", per_file: int = 2) -> Path:
    """Format v3.0: files with `per_file` episodes each."""
    tasks = sorted({e.task for e in episodes})
    video_path = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    rows, start = [], 0
    for number in range(0, len(episodes), per_file):
        group, index = episodes[number : number + per_file], number // per_file
        data = root / f"data/chunk-000/file-{index:03d}.parquet"
        data.parent.mkdir(parents=True, exist_ok=True)
        tables, first = [], 0
        for e in group:
            tables.append(_table(e, start, tasks, images))
            row: dict[str, Any] = {
                "episode_index": e.number, "tasks": [e.task], "length": len(e.times), "data/chunk_index": 0,
                "data/file_index": index, "dataset_from_index": start, "dataset_to_index": start + len(e.times),
            }  # fmt: skip
            for camera in CAMERAS if images == "video" else ():
                prefix = f"videos/observation.images.{camera}"
                row |= {f"{prefix}/chunk_index": 0, f"{prefix}/file_index": index, f"{prefix}/from_timestamp":
                        first / FPS, f"{prefix}/to_timestamp": (first + len(e.times)) / FPS}  # fmt: skip
            start, first = start + len(e.times), first + len(e.times)
            rows.append(row)
        pq.write_table(pa.concat_tables(tables), data)
        for camera in CAMERAS if images == "video" else ():
            path = root / f"videos/observation.images.{camera}/chunk-000/file-{index:03d}.mp4"
            write_video(path, [image for e in group for image in e.pictures[camera]])
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), root / "meta/episodes/chunk-000/file-000.parquet")
    table = pa.table({"task_index": np.arange(len(tasks)), "__index_level_0__": tasks})
    pq.write_table(table, root / "meta/tasks.parquet")
    info = _info(
        "v3.0", episodes, images,
        data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        video_path=video_path if images == "video" else None,
    )  # fmt: skip
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def write_aloha(path: Path, episode: Recorded, compressed: bool = False) -> Path:
    """An episode as tonyzhaozh/act stores it; two arms that move alike. `compressed`: padded JPEGs."""
    import h5py

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
            encoded = [_jpeg(image) for image in images]
            padded = np.zeros((len(encoded), max(map(len, encoded))), np.uint8)
            for row, content in enumerate(encoded):
                padded[row, : len(content)] = np.frombuffer(content, np.uint8)
            file[f"observations/images/{name}"] = padded
    return path


def _jpeg(image: np.ndarray) -> bytes:
    from pokevla.data.sources.images import encode_jpeg

    return encode_jpeg(image, 90)


def write_robomimic(path: Path, episodes: list[Recorded]) -> Path:
    """Episodes in the layout of robomimic's image datasets, with its masks of splits."""
    import h5py

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
        file["mask/train"], file["mask/valid"] = np.array(names[:-1], "S8"), np.array(names[-1:], "S8")
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
    return path


def _tensor(*shape: int, dtype: str = "float32") -> dict[str, Any]:
    dimensions = {"dimensions": [str(size) for size in shape]} if shape else {}
    return {"pythonClassName": "Tensor", "tensor": {"shape": dimensions, "dtype": dtype, "encoding": "none"}}


def _dict(**features: Any) -> dict[str, Any]:
    return {"pythonClassName": "FeaturesDict", "featuresDict": {"features": features}}


def rlds_features() -> dict[str, Any]:
    """features.json of openvla/modified_libero_rlds."""
    image = {"image": {"shape": {"dimensions": ["48", "64", "3"]}, "dtype": "uint8", "encodingFormat": "jpeg"}}
    step = _dict(
        action=_tensor(7),
        is_terminal=_tensor(dtype="bool"),
        is_last=_tensor(dtype="bool"),
        is_first=_tensor(dtype="bool"),
        language_instruction={"pythonClassName": "Text", "text": {}},
        observation=_dict(image=image, wrist_image=image, state=_tensor(8), joint_state=_tensor(7)),
        discount=_tensor(),
        reward=_tensor(),
    )
    steps = {"pythonClassName": "Dataset", "sequence": {"feature": step, "length": "-1"}}
    return _dict(steps=steps, episode_metadata=_dict(file_path={"text": {}}))


def rlds_example(e: Recorded) -> bytes:
    """An episode as a serialised tf.train.Example."""
    from pokevla.data.recordings.rlds.example import new_example

    example = new_example()
    features, count = example.features.feature, len(e.times)
    action = np.concatenate([e.action[:, :6], 1 - 2 * e.action[:, 7:]], axis=1)
    fingers = 0.04 * np.concatenate([e.state[:, 7:], -e.state[:, 7:]], axis=1)
    state = np.concatenate([e.state[:, :6], fingers], axis=1)
    features["steps/action"].float_list.value.extend(action.reshape(-1).tolist())
    features["steps/observation/state"].float_list.value.extend(state.reshape(-1).tolist())
    features["steps/observation/joint_state"].float_list.value.extend(e.state[:, :7].reshape(-1).tolist())
    features["steps/observation/image"].bytes_list.value.extend(_jpeg(image) for image in e.pictures["front"])
    features["steps/observation/wrist_image"].bytes_list.value.extend(_jpeg(image) for image in e.pictures["wrist"])
    features["steps/language_instruction"].bytes_list.value.extend([e.task.encode()] * count)
    features["steps/is_first"].int64_list.value.extend([1] + [0] * (count - 1))
    features["steps/reward"].float_list.value.extend([0.0] * count)
    features["episode_metadata/file_path"].bytes_list.value.append(b"x.hdf5")
    return example.SerializeToString()


def tfrecord(contents: list[bytes]) -> bytes:
    """The records of a TFRecord file."""
    import struct

    from pokevla.data.recordings.rlds.tfrecord import masked_crc32c

    parts = []
    for content in contents:
        length = struct.pack("<Q", len(content))
        parts += [length, struct.pack("<I", masked_crc32c(length)), content, struct.pack("<I", masked_crc32c(content))]
    return b"".join(parts)


def write_rlds(root: Path, episodes: list[Recorded], per_file: int = 2, name: str = "libero_toy") -> Path:
    """A dataset as TFDS stores it, with `per_file` episodes in each file."""
    folder = root / "1.0.0"
    folder.mkdir(parents=True)
    groups = [episodes[start : start + per_file] for start in range(0, len(episodes), per_file)]
    for number, group in enumerate(groups):
        path = folder / f"{name}-train.tfrecord-{number:05d}-of-{len(groups):05d}"
        path.write_bytes(tfrecord([rlds_example(e) for e in group]))
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    split = {"name": "train", "filepathTemplate": template, "shardLengths": [str(len(group)) for group in groups]}
    info = {"name": name, "version": "1.0.0", "fileFormat": "tfrecord", "splits": [split]}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps(rlds_features()))
    return root
