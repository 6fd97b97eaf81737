"""What an evaluation needs of a policy, whatever it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class ActingPolicy(Protocol):
    """Turns observations into action chunks. Several trials are served in one call, so a policy keeps no state."""

    @property
    def needs_images(self) -> bool:
        """False: `images` may be None, and nothing is rendered for this policy."""
        ...

    def act(
        self,
        images: np.ndarray | None,
        proprio: np.ndarray,
        instructions: Sequence[str],
        steps: Sequence[int] | None = None,
    ) -> np.ndarray:
        """`images` (N, 2, H, W, 3) uint8 right way up, base then wrist; `proprio` (N, 8) in metres and radians;
        `steps` actions executed so far in each trial. Returns (N, K, 7) raw LIBERO actions: gripper -1 open, +1
        close."""
        ...
