"""One small all-reduce after every step. Ranks compare step, position and gradient norm, and share the worst loss and
any request to stop."""

from __future__ import annotations

import math
import socket
from dataclasses import dataclass

import torch

from pokevla.distributed.collectives import gather_objects, max_over_ranks
from pokevla.errors import TrainingError

NORM_TOLERANCE = 1e-4
"""Relative tolerance for gradient norms: different GPU models round differently."""
_SKIPPED = -1.0  # stands for the gradient norm of a skipped step


@dataclass(frozen=True)
class Agreed:
    """The values all ranks share after the exchange."""

    worst_loss: float  # largest micro-batch loss of all ranks; -inf if none was finite
    stop_code: int  # largest stop code of all ranks (pokevla.training.health.signals)


@dataclass(frozen=True)
class Exchange:
    """An exchange that has begun. On a GPU its result travels to the host by itself; `result` waits for it."""

    step: int
    position: int
    grad_norm: float | None
    maxima: torch.Tensor  # in host memory, valid once `arrived`
    arrived: torch.cuda.Event | None

    def result(self) -> Agreed:
        """Compare the ranks. Called by all of them.

        Raises (on all ranks):
            TrainingError: step, position or gradient norm differ. The message names ranks and values.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
        code, most_steps, least_steps, most_position, least_position, most_norm, least_norm, loss = self.maxima.tolist()
        same_norm = math.isclose(most_norm, -least_norm, rel_tol=NORM_TOLERANCE)
        if most_steps != -least_steps or most_position != -least_position or not same_norm:
            ranks = enumerate(gather_objects((socket.gethostname(), self.step, self.position, self.grad_norm)))
            raise TrainingError(
                "Ranks disagree: " + "; ".join(f"rank {rank} {_describe(*place)}" for rank, place in ranks) + ".",
                "One of them computes or communicates incorrectly. Exclude its host and resume.",
            )
        return Agreed(worst_loss=loss, stop_code=int(code))


def start_exchange(
    *, step: int, position: int, grad_norm: float | None, worst_loss: torch.Tensor, stop_code: int
) -> Exchange:
    """Begin the exchange after a step. Called by all ranks.

    The maxima of x and of -x show whether all ranks have the same x, for any number of ranks.

    Args:
        worst_loss: scalar, this rank's largest finite micro-batch loss; the exchange runs on its device.
    """
    norm = _SKIPPED if grad_norm is None else grad_norm
    own = torch.tensor(
        [stop_code, step, -step, position, -position, norm, -norm], dtype=torch.float64, device=worst_loss.device
    )
    maxima = max_over_ranks(torch.cat([own, worst_loss.double().reshape(1)]))
    if maxima.device.type != "cuda":
        return Exchange(step, position, grad_norm, maxima, None)
    maxima = maxima.to("cpu", non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return Exchange(step, position, grad_norm, maxima, arrived)


def agree(*, step: int, position: int, grad_norm: float | None, worst_loss: torch.Tensor, stop_code: int) -> Agreed:
    """`start_exchange` and its result at once."""
    return start_exchange(
        step=step, position=position, grad_norm=grad_norm, worst_loss=worst_loss, stop_code=stop_code
    ).result()


def _describe(host: str, step: int, position: int, grad_norm: float | None) -> str:
    norm = "not finite" if grad_norm is None else f"{grad_norm:.6g}"
    return f"on {host} is at step {step}, position {position}, gradient norm {norm}"
