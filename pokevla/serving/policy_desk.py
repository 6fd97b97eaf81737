"""Where all connections of a server queue for the policy: one observation at a time, outside the event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pokevla.errors import DataError, PokeVLAError
from pokevla.policy.acting import ActingPolicy
from pokevla.wire.checks import Observation

_LOG = logging.getLogger(__name__)


class PolicyDesk:
    """Answers observations with the actions of a policy."""

    def __init__(self, policy: ActingPolicy) -> None:
        self.policy = policy
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="policy")

    async def actions(self, observation: Observation, step: int = 0) -> tuple[np.ndarray, float]:
        """The chunk (K, A) for an observation before action number `step`, and the milliseconds it took.

        Raises:
            PokeVLAError: the policy refuses the observation, fails, or its actions hold a NaN.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._act, observation, step)

    def _act(self, observation: Observation, step: int) -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        images, proprio = observation.images[None], observation.proprio[None]
        try:
            chunk = self.policy.act(images, proprio, [observation.instruction], [step])[0]
        except PokeVLAError:
            raise
        except Exception as error:
            _LOG.exception("the policy failed")
            raise DataError(f"The policy failed ({type(error).__name__}: {error}).", "See the server's log.") from error
        if not np.isfinite(chunk).all():
            raise DataError("The policy's actions hold a NaN or an infinity.", "Serve another checkpoint.")
        return chunk, (time.perf_counter() - started) * 1000

    def close(self) -> None:
        """Let the observation at the policy finish, and take no other."""
        self._thread.shutdown(wait=True, cancel_futures=True)
