"""Dropout as a function of the position, so that no random state has to be saved."""

from __future__ import annotations

import hashlib

import torch


def seed_for(seed: int, position: int) -> int:
    """63-bit seed of the micro-batch whose first sample is at `position`."""
    digest = hashlib.blake2b(f"{seed}/{position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_dropout(seed: int, position: int) -> None:
    """Seed torch (all devices) for one micro-batch: what it draws depends on nothing that came before."""
    torch.manual_seed(seed_for(seed, position))
