"""Runs a parser on one input after the other in a process of its own, with limits of time and memory."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import resource
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pokevla.errors import PokeVLAError

REPOSITORY = Path(__file__).resolve().parents[2]
CPU_S = 5.0
"""Processor time for one input."""
HANG_S = 60.0
"""Wall-clock time for one input; the machine may be busy."""
MEMORY_BYTES = 1 << 30
"""Address space beyond what the process has when it starts."""
MAX_MESSAGE = 20_000
"""Longest message of a named error, in characters."""
INPUTS_PER_PROCESS = 5000


@dataclass(frozen=True)
class Outcome:
    """What a parser did with one input."""

    kind: str  # `value`, `named` (a PokeVLAError), or `finding`
    what: str = ""  # of a finding: its exception and place, by which findings are told apart
    details: str = ""


class TooSlow(BaseException):
    """An input took more than CPU_S. No handler of the parser catches it."""


class Worker:
    """A process that runs `parse(folder, content)`. It is started again after a crash, a hang or many inputs."""

    def __init__(self, parse: Callable[[Path, bytes], Any], folder: Path) -> None:
        self._parse, self._folder = parse, folder
        self._process: Any = None
        self._connection: Connection | None = None
        self._count = 0

    def run(self, content: bytes) -> Outcome:
        """Parse one input."""
        connection = self._started()
        self._count += 1
        connection.send_bytes(content)
        try:
            if connection.poll(HANG_S):
                return Outcome(*connection.recv())
            self.close()
            return Outcome("finding", f"hang: no answer within {HANG_S:g} s")
        except (EOFError, ConnectionResetError):
            self._process.join(10)
            code = self._process.exitcode
            self.close()
            name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
            return Outcome("finding", f"crash: {name}")

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _started(self) -> Connection:
        if self._count >= INPUTS_PER_PROCESS:
            self.close()
        if self._connection is None:
            self._count = 0
            self._connection, theirs = multiprocessing.Pipe()
            context = multiprocessing.get_context("fork")  # the parent has imported the libraries
            self._process = context.Process(target=_serve, args=(theirs, self._parse, self._folder), daemon=True)
            self._process.start()
            theirs.close()
        return self._connection


def _serve(connection: Connection, parse: Callable[[Path, bytes], Any], folder: Path) -> None:
    faulthandler.disable()  # pytest's: a crash is a finding, not a report on the terminal
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, _raise_too_slow)
    with open(os.devnull, "r+b") as nothing:
        for descriptor in (0, 1, 2):
            os.dup2(nothing.fileno(), descriptor)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    with contextlib.suppress(EOFError):
        while True:
            content = connection.recv_bytes()
            connection.send(_parsed(parse, folder, content))


def _parsed(parse: Callable[[Path, bytes], Any], folder: Path, content: bytes) -> tuple[str, str, str]:
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    try:
        parse(folder, content)
        return ("value", "", "")
    except PokeVLAError as error:
        if len(str(error)) > MAX_MESSAGE:
            return ("finding", f"long message: {type(error).__name__} at {_place(error)}", str(error)[:1000])
        return ("named", type(error).__name__, str(error)[:300])
    except BaseException as error:  # noqa: BLE001  everything else is a finding
        return (
            "finding",
            f"{type(error).__name__} at {_place(error)}",
            "".join(traceback.format_exception(error))[-8000:],
        )
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _place(error: BaseException) -> str:
    """File and function of our own code in which the error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f.filename.startswith(str(REPOSITORY)) and f.filename != __file__]
    frame = (ours or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.name}"


def _raise_too_slow(_number: int, _frame: Any) -> None:
    raise TooSlow(f"more than {CPU_S:g} s of processor time")


def _address_space() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
