"""Random initialisation as a pure function of (seed, name of the part)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, part: str) -> Iterator[None]:
    """Run the body with torch's CPU generator seeded from `(seed, part)`, and restore the generator after it.

    Each part has its own stream, so that changing the size of one leaves the weights of the others alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{seed}/{part}".encode()))
        yield
