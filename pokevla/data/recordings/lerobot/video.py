"""Images of a video at given times, decoded in order with PyAV, few in memory at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.data.recordings.faults import Fault
from pokevla.data.recordings.frames import DEPTH_REMEDY
from pokevla.errors import EnvironmentSetupError

REMEDY = "Download or record this video again."


def import_av() -> Any:
    """PyAV. Raises EnvironmentSetupError if it is not installed."""
    try:
        import av
    except ImportError as error:
        raise EnvironmentSetupError(
            "Videos are read with PyAV, which is not installed.", "Install it with: pip install 'pokevla[recordings]'"
        ) from error
    return av


def video_rate(path: Path) -> float | None:
    """Images per second of a video; None if it does not say.

    Raises:
        Fault: the file is missing, truncated or not a video.
    """
    av = import_av()
    try:
        with av.open(str(path)) as container:
            rate = container.streams.video[0].average_rate
            return float(rate) if rate else None
    except (av.FFmpegError, IndexError) as error:
        raise _unreadable(path, error) from error


def video_frames(path: Path, times_s: np.ndarray, rate_hz: float) -> Iterator[np.ndarray]:
    """Yield the image (H,W,3) at each of the ascending `times_s`: the one whose time stamp is nearest.

    It seeks to the key frame before the first time and decodes from there, so that each image is decoded once.

    Raises:
        Fault: `unreadable` for a damaged file, `short_video` if the video ends or has a hole of more than half a frame
            (1 / (2 `rate_hz`)) where an image is expected.
    """
    av = import_av()
    half_s = 0.5 / rate_hz
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            _refuse_depth(stream, path)
            stream.codec_context.options = {"err_detect": "explode"}  # FFmpeg would paint over damage
            stream.codec_context.thread_count = 1  # the other cores have other episodes
            start = round(float(times_s[0]) / float(stream.time_base)) if len(times_s) else 0
            container.seek(max(start - 1, 0), stream=stream, backward=True, any_frame=False)
            decoded = _timed(container, stream, path)
            nearest = next(decoded, None)
            following = next(decoded, None)
            for number, time_s in enumerate(times_s):
                while following is not None and nearest is not None and _nearer(following, nearest, time_s):
                    nearest, following = following, next(decoded, None)
                if nearest is None or abs(nearest[0] - time_s) >= half_s:
                    end = "is empty" if nearest is None else f"has its nearest image at {nearest[0]:.4f} s"
                    raise Fault(
                        "short_video",
                        f"{path} {end}; image {number} of {len(times_s)} is expected at {time_s:.4f} s.",
                        REMEDY,
                    )
                yield nearest[1].to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError) as error:
        raise _unreadable(path, error) from error


def _refuse_depth(stream: Any, path: Path) -> None:
    """Depth maps are stored as grey of more than 8 bits, of which nothing is left in an image of 8."""
    pixels = stream.codec_context.format
    if pixels is not None and pixels.name.startswith("gray") and pixels.components[0].bits > 8:
        raise Fault(
            "layout", f"{path} has pixels of {pixels.name}, as depth maps have; policies see colours.", DEPTH_REMEDY
        )


def _timed(container: Any, stream: Any, path: Path) -> Iterator[tuple[float, Any]]:
    """(time in seconds, frame) of every image, in the order in which they are shown."""
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise Fault("unreadable", f"{path} is damaged at {frame.time} s.", REMEDY)
        if frame.pts is not None:
            yield float(frame.pts * stream.time_base), frame


def _nearer(one: tuple[float, Any], other: tuple[float, Any], time_s: float) -> bool:
    return abs(one[0] - time_s) < abs(other[0] - time_s)


def _unreadable(path: Path, error: Exception) -> Fault:
    return Fault("unreadable", f"{path} cannot be decoded ({error}).", REMEDY)
