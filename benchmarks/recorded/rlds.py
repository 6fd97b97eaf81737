"""The toy arm's recordings as RLDS datasets: TFRecord files as TFDS writes them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recorded.episodes import Recorded
from pokevla.data.recordings.rlds.example import new_example
from pokevla.data.recordings.rlds.tfrecord import masked_crc32c
from pokevla.data.sources.images import encode_jpeg


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
