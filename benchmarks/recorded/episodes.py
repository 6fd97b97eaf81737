"""Recordings of an arm with seven joints, a gripper and three cameras.

Every image shows its camera, episode and frame as black and white blocks, which survive video compression.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

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
        stream: Any = container.add_stream(codec, rate=Fraction(fps), options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in pictures:
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def encode_png(image: np.ndarray) -> bytes:
    """A PNG of (H,W,3) uint8."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
