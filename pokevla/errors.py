"""Named errors with remedy and exit code.

A message is one sentence for a person: what was wrong, where, and what to do about it.
"""

from __future__ import annotations

import errno
import shlex

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers of a full disk: no space, quota exceeded, file too large. The user can do the same about each."""


def command_line(*words: object) -> str:
    """A `pokevla` command that can be copied from a message into a shell, whatever characters its paths hold."""
    return shlex.join(["pokevla", *map(str, words)])


class PokeVLAError(Exception):
    """Base of all errors raised on purpose. `exit_code` is the exit code of the command line."""

    exit_code = 1

    def __init__(self, message: str, remedy: str | None = None) -> None:
        """`message`: what is wrong and where. `remedy`: what to do, printed after it."""
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}" if self.remedy else self.message


class UsageError(PokeVLAError):
    """Wrong command-line argument."""

    exit_code = 2


class RecipeError(PokeVLAError):
    """Invalid recipe. Names file, line and field."""

    exit_code = 2


class EnvironmentSetupError(PokeVLAError):
    """The machine lacks something: a GL library, a free port, a package."""

    exit_code = 2


class DataError(PokeVLAError):
    """A file is missing, truncated, corrupted or in an unexpected format."""

    exit_code = 3


class DamagedDataError(DataError):
    """Stored bytes of a sample are not those that were written: a checksum differs, a shard ends early, or an image
    cannot be decoded. `data.damaged: skip` replaces such a sample by another."""


class CacheMismatchError(DataError):
    """A feature cache was built with another teacher, codec or dataset than the recipe names."""


class DiskFullError(DataError):
    """Disk full while writing. Nothing incomplete has its final name."""


class CheckpointError(DataError):
    """No usable checkpoint, or one that does not match the run."""


class SimulationError(DataError):
    """The simulator, a scene or the expert cannot do what was asked, or a simulator process died."""


class PolicyError(PokeVLAError):
    """A policy returned actions that no robot can execute: another shape, or numbers that are not finite."""

    exit_code = 1


class ProtocolError(DataError):
    """What arrived over a connection is not what its protocol allows."""


class PolicyServerError(DataError):
    """A policy server cannot be reached, is silent, closes, or sends what is no answer. Names the server."""


class TrainingError(PokeVLAError):
    """Training cannot continue: non-finite loss, ranks that disagree, a dead rank."""

    exit_code = 1


class ClusterError(PokeVLAError):
    """Slurm refused a request or is not available."""

    exit_code = 4


class HangError(ClusterError):
    """A rank has been in one phase for too long: a host, network or file system does not answer."""


class Requeued(PokeVLAError):
    """The job was asked to stop, has saved, and can be resumed.

    `reason`: `timeout` (SIGUSR2: the time limit is near), `terminated` (SIGTERM) or `interrupted` (SIGINT).
    """

    exit_code = 75

    def __init__(self, message: str, remedy: str | None = None, *, reason: str = "terminated") -> None:
        super().__init__(message, remedy)
        self.reason = reason
