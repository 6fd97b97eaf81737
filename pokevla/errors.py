"""Every error a user can cause or meet, each with its remedy and the exit code of the command line.

An error's message is one sentence for a person: what was wrong, where, what to do about it.
"""

from __future__ import annotations


class PokeVLAError(Exception):
    """Base of all errors we raise on purpose. `exit_code` is what the command line returns."""

    exit_code = 1

    def __init__(self, message: str, remedy: str | None = None) -> None:
        """`message` says what is wrong and where; `remedy` says what to do (printed after it)."""
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}" if self.remedy else self.message


class UsageError(PokeVLAError):
    """A wrong argument on the command line."""

    exit_code = 2


class RecipeError(PokeVLAError):
    """A recipe that cannot be loaded or makes no sense. Names file, line and field."""

    exit_code = 2


class EnvironmentSetupError(PokeVLAError):
    """The machine lacks something (a GL library, a free port, a package)."""

    exit_code = 2


class DataError(PokeVLAError):
    """A file that is missing, truncated, corrupted or not of the expected form."""

    exit_code = 3


class CacheMismatchError(DataError):
    """A feature cache that was made by another teacher, codec or dataset than the recipe names."""


class DiskFullError(DataError):
    """No room left while writing. Nothing was left under a final name."""


class CheckpointError(DataError):
    """No usable checkpoint, or one that does not fit."""


class SimulationError(DataError):
    """A suite, task or initial state that does not exist, or a simulator that cannot run."""


class TrainingError(PokeVLAError):
    """Training cannot go on: non-finite loss, ranks that disagree, a dead rank."""

    exit_code = 1


class ClusterError(PokeVLAError):
    """Slurm refused, or is not there."""

    exit_code = 4


class HangError(ClusterError):
    """A rank has not moved for too long: a host, a network or a file system that does not answer."""


class Requeued(PokeVLAError):
    """The job was asked to stop, has saved, and can run again.

    `reason`: `timeout` (SIGUSR2: the time limit is near), `terminated` (SIGTERM) or `interrupted` (SIGINT).
    """

    exit_code = 75

    def __init__(self, message: str, remedy: str | None = None, *, reason: str = "terminated") -> None:
        super().__init__(message, remedy)
        self.reason = reason
