"""Who am I among the ranks: read from RANK, WORLD_SIZE, LOCAL_RANK, as torchrun, Slurm and our own spawner set them."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from pokevla.errors import EnvironmentSetupError

RENDEZVOUS_VARIABLE = "POKEVLA_RENDEZVOUS_TIMEOUT_S"
"""For who starts the ranks: seconds to wait for the others, before what the recipe says."""


@dataclass(frozen=True)
class RankInfo:
    """This process among all ranks."""

    rank: int
    world_size: int
    local_rank: int

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the files that exist once."""
        return self.rank == 0


def inside_a_rank(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody else (torchrun, Slurm, our spawner) has already started this process as a rank."""
    return "RANK" in environment


def read_rank(environment: Mapping[str, str] = os.environ) -> RankInfo:
    """Read this process's place.

    Raises:
        EnvironmentSetupError: a variable is missing, no number, or out of range.
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


def rendezvous_timeout_s(usual_s: float, environment: Mapping[str, str] = os.environ) -> float:
    """Seconds to wait for the other ranks: POKEVLA_RENDEZVOUS_TIMEOUT_S if set, otherwise `usual_s`.

    Raises:
        EnvironmentSetupError: the variable is no positive number.
    """
    told = environment.get(RENDEZVOUS_VARIABLE)
    if told is None:
        return usual_s
    try:
        timeout_s = float(told)
    except ValueError:
        timeout_s = math.nan
    if not 0 < timeout_s < math.inf:
        raise EnvironmentSetupError(f"{RENDEZVOUS_VARIABLE}={told} is not a number of seconds.", "Unset it.")
    return timeout_s


def choose_port(environment: Mapping[str, str] = os.environ) -> int:
    """MASTER_PORT if the user has set it and it is free; otherwise any free port.

    Raises:
        EnvironmentSetupError: MASTER_PORT is no port number, or in use.
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
