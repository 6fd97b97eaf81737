"""Hashes by which nearly equal pictures are found."""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image

from pokevla.errors import EnvironmentSetupError

HASH_SIDE = 16


def picture_hash(image: Image.Image) -> np.ndarray:
    """(32,) uint8, the 256 bits of a difference hash: whether each cell of a 16 x 17 thumbnail in grey is darker than
    its right neighbour (dHash, Krawetz 2013, hackerfactor.com). Scaling, recompression and a change of brightness alter
    few bits."""
    small = image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, dtype=np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1])


def frequency_hash(image: Image.Image) -> int:
    """64 bits, the signs of the lowest frequencies against their median (pHash, `imagehash.phash`). It moves less than
    `picture_hash` when the border is cut, and more when something is drawn in.

    Raises:
        EnvironmentSetupError: imagehash is not installed.
    """
    try:
        import imagehash
    except ImportError as error:
        raise EnvironmentSetupError(
            "Pictures are compared with imagehash, which is not installed.",
            "Install it with: pip install 'pokevla[curation]'",
        ) from error
    return int.from_bytes(np.packbits(imagehash.phash(image).hash).tobytes())


def pixels_sha256(rgb: Image.Image) -> str:
    """sha256 (hex) of size and pixels of an RGB image: equal for equal pictures, whatever file they come from."""
    return hashlib.sha256(f"{rgb.width}x{rgb.height}".encode() + rgb.tobytes()).hexdigest()
