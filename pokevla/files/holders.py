"""Who holds a lock: written into the lock file by its holder, read by whoever finds it taken.

It only informs. Whether the lock is taken is decided by the lock itself (`pokevla.files.locks`).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from pokevla.errors import DataError
from pokevla.files.records import as_type

_MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock, or held it last."""

    host: str
    pid: int
    since: str = ""  # UTC, ISO 8601; "" in a file of an earlier version
    command: str = ""  # such as `pokevla ckpt prune`
    job_id: str = ""  # of the job that it is part of; "" outside jobs
    rendezvous: str = ""  # where the ranks of its training meet; "" if it is no rank

    def describe(self) -> str:
        """One phrase for a person: `process 12 on node-3 (pokevla resume), since 2026-11-29T10:00:00+00:00`."""
        command = f" ({self.command})" if self.command else ""
        job = f", job {self.job_id}" if self.job_id else ""
        return f"process {self.pid} on {self.host}{command}{job}" + (f", since {self.since}" if self.since else "")


def this_process(*, job_id: str = "", rendezvous: str = "") -> Holder:
    """This process as a holder."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return Holder(socket.gethostname(), os.getpid(), since, _command(sys.argv), job_id, rendezvous)


def _command(argv: list[str]) -> str:
    """Program and verb, without paths and options."""
    program = Path(argv[0]).name if argv else ""
    verbs = []
    for word in argv[1:3]:
        if not word.replace("-", "").isalpha() or word.startswith("-"):
            break
        verbs.append(word)
    return " ".join(["pokevla" if program == "main.py" else program, *verbs]).strip()


@contextlib.contextmanager
def named_holder(descriptor: int, holder: Holder) -> Iterator[None]:
    """Have an open lock file name its holder until the block ends. On a full disk it stays empty: the lock holds."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)


def read_holder(path: Path) -> Holder | None:
    """Who holds the lock file `path`, or held it when it was killed; None if it does not say."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return as_type(json.loads(os.pread(descriptor, _MAX_BYTES, 0)), Holder, path)
    except (OSError, ValueError, RecursionError, DataError):  # empty, or written by another program
        return None
    finally:
        os.close(descriptor)
