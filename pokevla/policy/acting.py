"""The interface between policies and evaluations."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from pokevla.embodiment.description import Embodiment


class ActingPolicy(Protocol):
    """Turns observations into action chunks. One call serves several trials, so a policy is stateless."""

    @property
    def embodiment(self) -> Embodiment:
        """The robot that the policy observes and controls."""
        ...

    @property
    def needs_images(self) -> bool:
        """If False, `images` may be None and no image is rendered for this policy."""
        ...

    def act(
        self,
        images: np.ndarray | None,
        proprio: np.ndarray,
        instructions: Sequence[str],
        steps: Sequence[int] | None = None,
    ) -> np.ndarray:
        """The next actions of N trials. Views, fields and units are those of the policy's embodiment.

        Args:
            images: (N, V, H, W, 3) uint8, upright.
            proprio: (N, P) raw.
            instructions: one per trial.
            steps: actions executed so far in each trial.

        Returns:
            (N, K, A) raw actions.
        """
        ...


@runtime_checkable
class TrialKeepingPolicy(ActingPolicy, Protocol):
    """A policy that keeps something for each trial, such as a connection. It has to know whose observation it gets."""

    def end_trial(self, trial: Hashable) -> None:
        """No observation of this trial follows, unless it is repeated from its beginning."""
        ...

    def act(
        self,
        images: np.ndarray | None,
        proprio: np.ndarray,
        instructions: Sequence[str],
        steps: Sequence[int] | None = None,
        trials: Sequence[Hashable] | None = None,
    ) -> np.ndarray:
        """As `ActingPolicy.act`; `trials` names the trial of each observation. Rows of one trial are copies."""
        ...
