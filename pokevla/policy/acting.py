"""What an evaluation needs of a policy, whatever it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from pokevla.embodiment.description import Embodiment


class ActingPolicy(Protocol):
    """Turns observations into action chunks. Several trials are served in one call, so a policy keeps no state."""

    @property
    def embodiment(self) -> Embodiment:
        """The robot that it observes and commands."""
        ...

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
        """The next actions of N trials, in views, fields and units of the policy's embodiment.

        Args:
            images: (N, V, H, W, 3) uint8, the right way up.
            proprio: (N, P) raw.
            instructions: one per trial.
            steps: actions executed so far in each trial.

        Returns:
            (N, K, A) raw actions.
        """
        ...
