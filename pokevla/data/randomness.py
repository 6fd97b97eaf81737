"""Random numbers as pure functions of their purpose, from the counter-based generator Philox.

Only `random_raw` of numpy's Philox is used: numpy guarantees that its stream never changes, unlike that of `Generator`
methods.
"""

from __future__ import annotations

import hashlib
import math
import threading

import numpy as np

_UNIT = 2.0**-53
_WORD = (1 << 64) - 1
_of_thread = threading.local()


def _key(*parts: str | int) -> int:
    """128-bit key of a tuple of strings and integers."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


def raw(count: int, *parts: str | int) -> np.ndarray:
    """(count,) uint64 random numbers that depend on `parts` only."""
    key = _key(*parts)
    generator = getattr(_of_thread, "generator", None)
    if generator is None:  # making one takes four times as long as giving it another key: it draws a seed
        generator = _of_thread.generator = np.random.Philox(key=0)
    zeros, words = np.zeros(4, dtype=np.uint64), np.array([key & _WORD, key >> 64], dtype=np.uint64)
    generator.state = {  # of a Philox that has drawn nothing
        "bit_generator": "Philox", "state": {"counter": zeros, "key": words},
        "buffer": zeros, "buffer_pos": 4, "has_uint32": 0, "uinteger": 0,
    }  # fmt: skip
    return generator.random_raw(count)


def permutation(count: int, *parts: str | int) -> np.ndarray:
    """A permutation (count,) int64 of 0..count-1 that depends on `parts` only."""
    return np.argsort(raw(count, *parts), kind="stable")


def uniform(seed: int, purpose: str, position: int, lane: int, count: int) -> np.ndarray:
    """(count,) float64 in [0, 1) for one purpose at one position of the sample order. `lane` is, for example, the
    view."""
    return (raw(count, seed, purpose, position, lane) >> np.uint64(11)).astype(np.float64) * _UNIT


def normal(seed: int, purpose: str, position: int, lane: int, count: int) -> np.ndarray:
    """(count,) float64 standard normal numbers (Box-Muller)."""
    u = uniform(seed, purpose, position, lane, 2 * count)
    return np.sqrt(-2.0 * np.log1p(-u[:count])) * np.cos(2.0 * math.pi * u[count:])
