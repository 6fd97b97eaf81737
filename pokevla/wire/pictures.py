"""Compressed pictures in messages of vla-eval.

The format is that of allenai/vla-evaluation-harness, src/vla_eval/protocol/image_codec.py.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from pokevla.errors import ProtocolError

MARK = "__image__"
"""Key of a map that stands for a picture."""
MAX_SIDE = 4096
"""Longest side of a picture in pixels: 50 MB once decompressed."""
_FORMATS = {"png": "PNG", "jpeg": "JPEG"}
_MODES = {"L": 1, "RGB": 3, "RGBA": 4}
"""Channels of Pillow's modes that are read."""


def read_picture(entry: Mapping[str, Any]) -> np.ndarray:
    """The picture of a map with `format` (png or jpeg), `data` and `shape`: (H, W, C) or, with one channel, (H, W, 1)
    uint8. Its size is checked before it is decompressed.

    Raises:
        ProtocolError: another format, a damaged picture, or one of another size than `shape` says.
    """
    form, data, shape = entry.get("format"), entry.get("data"), entry.get("shape")
    if form not in _FORMATS or not isinstance(data, bytes):
        raise ProtocolError("a picture of the message is neither png, jpeg nor raw.")
    try:
        with Image.open(io.BytesIO(data), formats=[_FORMATS[form]]) as picture:
            found = [picture.height, picture.width, _MODES.get(picture.mode, 0)]
            if found != shape or max(picture.size) > MAX_SIDE or 0 in found:
                raise ProtocolError(
                    f"a picture of the message is {picture.width} x {picture.height} px, mode {picture.mode}; its "
                    f"shape says {str(shape)[:60]}, and up to {MAX_SIDE} px are read."
                )
            pixels = np.array(picture, dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: Pillow, broken PNG
        raise ProtocolError(f"a picture of the message is damaged ({error}).") from error
    return pixels.reshape(found)
