"""Puts a compiled model back as the compiler left it, so that it need not be compiled or copied for its next user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xxhash

LARGE_BYTES = 1 << 20
"""An array above this (vertices, textures, bounding volumes) is only compared: all of them are some 270 MB."""


class ModelSnapshot:
    """All that can be changed of one `mujoco.MjModel`: its arrays, and the fields of `opt`, `vis` and `stat`."""

    def __init__(self, model: Any) -> None:
        """`model` as it was compiled."""
        arrays = dict(_arrays(model))
        self._large = [array for array in arrays.values() if array.nbytes > LARGE_BYTES]
        self._small = [(array, array.copy()) for array in arrays.values() if array.nbytes <= LARGE_BYTES]
        self._digest = self._large_digest()
        self._numbers: list[tuple[Any, str, float | int]] = []
        for struct in (model.opt, model.vis, model.stat):
            for owner, name, value in _fields(struct):
                if isinstance(value, np.ndarray):
                    self._small.append((value, value.copy()))
                else:
                    self._numbers.append((owner, name, value))

    def restore(self) -> bool:
        """Put everything back; False, and the model is not to be used again, if a large array was changed."""
        for array, value in self._small:
            array[...] = value
        for owner, name, number in self._numbers:
            setattr(owner, name, number)
        return self._large_digest() == self._digest

    def _large_digest(self) -> int:
        digest = xxhash.xxh3_64()
        for array in self._large:
            digest.update(array.data.cast("B"))
        return digest.intdigest()


def _arrays(model: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Views of the model's arrays by name, without the empty ones."""
    for name in dir(model):
        if not name.startswith("_"):
            value = getattr(model, name)
            if isinstance(value, np.ndarray) and value.size:
                yield name, value


def _fields(struct: Any) -> Iterator[tuple[Any, str, Any]]:
    """(owner, name, number or array) of a structure of MuJoCo and those in it."""
    for name in dir(struct):
        if name.startswith("_"):
            continue
        value = getattr(struct, name)
        if isinstance(value, int | float | np.ndarray):
            yield struct, name, value
        elif not callable(value):
            yield from _fields(value)
