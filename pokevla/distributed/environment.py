"""Rank of this process, from RANK, WORLD_SIZE and LOCAL_RANK, which torchrun, our Slurm jobs and our spawner set."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from pokevla.errors import EnvironmentSetupError

RENDEZVOUS_TIMEOUT_S = 600.0
"""Default time ranks wait for each other. On a loaded file system imports take minutes."""
RENDEZVOUS_VARIABLE = "POKEVLA_RENDEZVOUS_TIMEOUT_S"
"""Environment variable: seconds to wait for the other ranks. Overrides the recipe."""


@dataclass(frozen=True)
class RankInfo:
    """Position of this process among all ranks."""

    rank: int
    world_size: int
    local_rank: int

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes the files that exist once per run."""
        return self.rank == 0


def inside_a_rank(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun, a Slurm job or our spawner started this process as a rank."""
    return "RANK" in environment


def read_rank(environment: Mapping[str, str] = os.environ) -> RankInfo:
    """Read the position of this process among the ranks.

    Raises:
        EnvironmentSetupError: a variable is missing, not a number, or out of range.
    """
    try:
        values = [int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    except KeyError as error:
        # DeepSpeed would fall back on MPI discovery and end in "No module named 'mpi4py'".
        raise EnvironmentSetupError(
            f"RANK is set but {error.args[0]} is not.",
            "Set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, or none of them.",
        ) from error
    except ValueError as error:
        raise EnvironmentSetupError(f"RANK, WORLD_SIZE or LOCAL_RANK is not a number ({error}).") from error
    info = RankInfo(*values)
    if not 0 <= info.rank < info.world_size:
        raise EnvironmentSetupError(f"RANK {info.rank} is outside [0, {info.world_size}).", "Check WORLD_SIZE.")
    return info


def rendezvous_place(environment: Mapping[str, str] = os.environ) -> str:
    """Where the ranks of this job meet: `MASTER_ADDR:MASTER_PORT`."""
    return f"{environment.get('MASTER_ADDR')}:{environment.get('MASTER_PORT')}"


def rendezvous_timeout_s(usual_s: float, environment: Mapping[str, str] = os.environ) -> float:
    """Seconds to wait for the other ranks: POKEVLA_RENDEZVOUS_TIMEOUT_S if set, otherwise `usual_s`.

    Raises:
        EnvironmentSetupError: the variable is not a positive number.
    """
    value = environment.get(RENDEZVOUS_VARIABLE)
    if value is None:
        return usual_s
    try:
        timeout_s = float(value)
    except ValueError:
        timeout_s = math.nan
    if not 0 < timeout_s < math.inf:
        raise EnvironmentSetupError(f"{RENDEZVOUS_VARIABLE}={value} is not a number of seconds.", "Unset it.")
    return timeout_s


def choose_port(environment: Mapping[str, str] = os.environ) -> int:
    """MASTER_PORT if it is set, otherwise any free port.

    Raises:
        EnvironmentSetupError: MASTER_PORT is not a port number, or in use.
    """
    asked = environment.get("MASTER_PORT")
    if asked is not None and not (asked.isdigit() and 0 < int(asked) < 65536):
        raise EnvironmentSetupError(f"MASTER_PORT={asked} is not a port number.", "Unset it to take any free port.")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(asked or 0)))
        except OSError as error:
            raise EnvironmentSetupError(
                f"Port {asked} (MASTER_PORT) is in use ({error.strerror}).", "Unset MASTER_PORT to take any free port."
            ) from error
        return int(probe.getsockname()[1])
