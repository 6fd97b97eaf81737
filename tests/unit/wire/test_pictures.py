"""Compressed pictures, as vla-eval's benchmarks send them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from vla_eval.protocol.image_codec import encode_image

from pokevla.errors import ProtocolError
from pokevla.wire.arrays import VLA_EVAL, pack, unpack

PICTURE = np.random.default_rng(3).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def png(height: int, width: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def entry(**changes: Any) -> dict[str, Any]:
    return {"__image__": True, "format": "png", "data": png(4, 6), "shape": [4, 6, 3], **changes}


@pytest.mark.parametrize("form", ["png", "raw"])
def test_lossless_pictures_of_vla_eval_arrive_exactly(form: Any) -> None:
    back = unpack(pack({"x": encode_image(PICTURE, form)}, VLA_EVAL), VLA_EVAL)["x"]

    np.testing.assert_array_equal(back, PICTURE)


def test_a_jpeg_of_vla_eval_arrives_as_its_own_reader_sees_it() -> None:
    encoded = encode_image(PICTURE, "jpeg")
    seen = np.array(Image.open(io.BytesIO(encoded["data"])))

    np.testing.assert_array_equal(unpack(pack({"x": encoded}, VLA_EVAL), VLA_EVAL)["x"], seen)


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (entry(format="gif"), "neither png, jpeg nor raw"),
        (entry(format="jpeg"), "damaged"),
        (entry(data="text"), "neither"),
        (entry(data=b""), "damaged"),
        (entry(data=png(64, 64)[:60], shape=[64, 64, 3]), "damaged"),
        (entry(shape=[6, 4, 3]), "6 x 4 px"),
        (entry(shape=None), "says None"),
        (entry(data=png(2, 5000), shape=[2, 5000, 3]), "up to 4096 px are read"),
        (entry(data=png(4, 6, "P"), shape=[4, 6, 3]), "mode P"),
    ],
)
def test_a_picture_that_is_not_what_it_says_is_refused(damaged: dict[str, Any], reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        unpack(pack({"x": damaged}, VLA_EVAL), VLA_EVAL)

    assert reason in str(caught.value)
