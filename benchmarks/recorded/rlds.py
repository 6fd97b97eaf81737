"""The toy arm's recordings as RLDS datasets: TFRecord files as TFDS writes them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recorded.episodes import CAMERAS, Recorded, encode_png
from pokevla.data.recordings.rlds.example import new_example
from pokevla.data.recordings.rlds.tfrecord import masked_crc32c
from pokevla.data.sources.images import encode_jpeg


def _tensor(*shape: int, dtype: str = "float32") -> dict[str, Any]:
    dimensions = {"dimensions": [str(size) for size in shape]} if shape else {}
    return {"pythonClassName": "Tensor", "tensor": {"shape": dimensions, "dtype": dtype, "encoding": "none"}}


def _dict(**features: Any) -> dict[str, Any]:
    return {"pythonClassName": "FeaturesDict", "featuresDict": {"features": features}}


_IMAGE = {"image": {"shape": {"dimensions": ["48", "64", "3"]}, "dtype": "uint8", "encodingFormat": "jpeg"}}


def rlds_features() -> dict[str, Any]:
    """features.json of openvla/modified_libero_rlds."""
    step = _dict(
        action=_tensor(7),
        is_terminal=_tensor(dtype="bool"),
        is_last=_tensor(dtype="bool"),
        is_first=_tensor(dtype="bool"),
        language_instruction={"pythonClassName": "Text", "text": {}},
        observation=_dict(image=_IMAGE, wrist_image=_IMAGE, state=_tensor(8), joint_state=_tensor(7)),
        discount=_tensor(),
        reward=_tensor(),
    )
    steps = {"pythonClassName": "Dataset", "sequence": {"feature": step, "length": "-1"}}
    return _dict(steps=steps, episode_metadata=_dict(file_path={"text": {}}))


def rlds_example(e: Recorded) -> bytes:
    """An episode as a serialised tf.train.Example."""
    example = new_example()
    features, count = example.features.feature, len(e.times)
    action = np.concatenate([e.action[:, :6], 1 - 2 * e.action[:, 7:]], axis=1)
    fingers = 0.04 * np.concatenate([e.state[:, 7:], -e.state[:, 7:]], axis=1)
    state = np.concatenate([e.state[:, :6], fingers], axis=1)
    features["steps/action"].float_list.value.extend(action.reshape(-1).tolist())
    features["steps/observation/state"].float_list.value.extend(state.reshape(-1).tolist())
    features["steps/observation/joint_state"].float_list.value.extend(e.state[:, :7].reshape(-1).tolist())
    features["steps/observation/image"].bytes_list.value.extend(encode_jpeg(image, 90) for image in e.pictures["front"])
    features["steps/observation/wrist_image"].bytes_list.value.extend(
        encode_jpeg(image, 90) for image in e.pictures["wrist"]
    )
    features["steps/language_instruction"].bytes_list.value.extend([e.task.encode()] * count)
    features["steps/is_first"].int64_list.value.extend([1] + [0] * (count - 1))
    features["steps/reward"].float_list.value.extend([0.0] * count)
    features["episode_metadata/file_path"].bytes_list.value.append(b"x.hdf5")
    return example.SerializeToString()


def tfrecord(contents: list[bytes]) -> bytes:
    """The records of a TFRecord file."""
    parts = []
    for content in contents:
        length = struct.pack("<Q", len(content))
        parts += [length, struct.pack("<I", masked_crc32c(length)), content, struct.pack("<I", masked_crc32c(content))]
    return b"".join(parts)


def write_rlds(root: Path, episodes: list[Recorded], per_file: int = 2, name: str = "libero_toy") -> Path:
    """A dataset in the layout of openvla/modified_libero_rlds, with `per_file` episodes in each file."""
    return _write(root, name, [rlds_example(e) for e in episodes], per_file, rlds_features())


def write_rlds_arm(root: Path, episodes: list[Recorded], per_file: int = 2, names: tuple[str, ...] = CAMERAS) -> Path:
    """A dataset of the arm as it is: eight joints and three cameras of these names, which no metadata explain."""
    cameras = dict.fromkeys(names, _IMAGE)
    step = _dict(
        action=_tensor(8),
        language_instruction={"pythonClassName": "Text", "text": {}},
        observation=_dict(state=_tensor(8), **cameras),
    )
    steps = {"pythonClassName": "Dataset", "sequence": {"feature": step, "length": "-1"}}
    return _write(root, "toy_arm", [_arm_example(e, names) for e in episodes], per_file, _dict(steps=steps))


def _arm_example(e: Recorded, names: tuple[str, ...]) -> bytes:
    example = new_example()
    features = example.features.feature
    features["steps/action"].float_list.value.extend(e.action.reshape(-1).tolist())
    features["steps/observation/state"].float_list.value.extend(e.state.reshape(-1).tolist())
    for camera, pictures in zip(names, e.pictures.values(), strict=True):
        features[f"steps/observation/{camera}"].bytes_list.value.extend(encode_png(image) for image in pictures)
    features["steps/language_instruction"].bytes_list.value.extend([e.task.encode()] * len(e.times))
    return example.SerializeToString()


def _write(root: Path, name: str, examples: list[bytes], per_file: int, features: dict[str, Any]) -> Path:
    folder = root / "1.0.0"
    folder.mkdir(parents=True)
    groups = [examples[start : start + per_file] for start in range(0, len(examples), per_file)]
    for number, group in enumerate(groups):
        path = folder / f"{name}-train.tfrecord-{number:05d}-of-{len(groups):05d}"
        path.write_bytes(tfrecord(group))
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    split = {"name": "train", "filepathTemplate": template, "shardLengths": [str(len(group)) for group in groups]}
    info = {"name": name, "version": "1.0.0", "fileFormat": "tfrecord", "splits": [split]}
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    (folder / "features.json").write_text(json.dumps(features), encoding="utf-8")
    return root
