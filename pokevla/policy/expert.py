"""The benchmark's scripted expert in the place of a policy: it shows which trials can be solved, and how fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pokevla.embodiment.description import Embodiment


@dataclass(frozen=True)
class ExpertPolicy:
    """Stands for the expert, which reads the simulator's state and so acts in the environment's own process.

    It observes nothing and is never asked for actions; whoever runs trials recognises it by its class.
    """

    embodiment: Embodiment
    needs_images: bool = False

    def act(
        self,
        images: np.ndarray | None,
        proprio: np.ndarray,
        instructions: Sequence[str],
        steps: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Always raises RuntimeError: an observation does not hold what the expert needs."""
        raise RuntimeError("the scripted expert acts in the environment's process")
