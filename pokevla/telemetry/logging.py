"""One log format for all ranks: one file per rank under `logs/`, and the console for rank 0."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from pokevla.files.appending import LineFile

LOGGER = "pokevla"
LOGS = "logs"
"""Folder of the ranks' logs, in the directory of a run."""


class _RankFilter(logging.Filter):
    """Adds the rank to every record."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    def filter(self, record: logging.LogRecord) -> bool:
        record.rank = self.rank
        return True


class _LogFile(logging.Handler):
    """The log of a rank. On a full disk its lines wait in memory."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._lines = LineFile(path)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.write(f"{self.format(record)}\n".encode(errors="backslashreplace"))

    def close(self) -> None:
        self._lines.close()
        super().close()


class _Console(logging.StreamHandler):
    """Standard error, which may be a file on a full disk: no traceback for each line then."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  name of the base class
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def setup_logging(run_dir: Path | None, rank: int = 0, level: int = logging.INFO) -> logging.Logger:
    """Send the logger `pokevla` to `run_dir/logs/rank_00000.log` (appending) and, on rank 0, to stderr.

    Modules log through `logging.getLogger(__name__)`. A second call replaces the handlers of the first.
    """
    logger = logging.getLogger(LOGGER)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    handlers: list[logging.Handler] = [_Console(sys.stderr)] if rank == 0 else []
    if run_dir is not None:
        path = log_path(run_dir, rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(_LogFile(path))
    formatter = logging.Formatter("%(asctime)s rank %(rank)d %(levelname)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    for handler in handlers:
        handler.setFormatter(formatter)
        handler.addFilter(_RankFilter(rank))
        logger.addHandler(handler)
    logger.setLevel(level)
    # Libraries add handlers to the root logger, which would print our lines a second time.
    logger.propagate = False
    return logger


def log_path(run_dir: Path, rank: int) -> Path:
    """`logs/rank_00000.log` of a run."""
    return run_dir / LOGS / f"rank_{rank:05d}.log"


def stacks_path(run_dir: Path, rank: int) -> Path:
    """`logs/rank_00000.hang` of a run: the stacks of a rank that hung."""
    return run_dir / LOGS / f"rank_{rank:05d}.hang"


def list_stacks(run_dir: Path) -> list[Path]:
    """The stacks of all ranks that hung, by rank."""
    return sorted((run_dir / LOGS).glob("rank_*.hang"))
