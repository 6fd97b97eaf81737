"""Runs the library of a foreign binary format in a child process: its crash, its hang or a compression bomb is an error
about one file, and not the end of the program.

The parent asks, the child answers: JSON and the bytes of arrays, through a socket. Nothing is unpickled. A child
that dies or takes too long is replaced at the next request, so requests name everything they need.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from math import prod
from typing import Any, NoReturn, Self

import numpy as np

from pokevla.errors import DataError, EnvironmentSetupError
from pokevla.files.foreign.child import receive_message, send_message

READ_TIMEOUT_S = 60.0
"""Time for one request, without what its array adds."""
SLOWEST_BYTES_PER_S = 1 << 20
"""How slowly an array may arrive: a busy network file system."""
_START_TIMEOUT_S = 120.0
_GRACE_S = 5.0
"""How much later than the child itself the parent ends it, for a child that waits for a dead disk."""
_MAX_MESSAGE_BYTES = 64 << 20
_DTYPE = re.compile(r"[<>|][biufS][1-9]\d*")


class ForeignReader:
    """A child process that reads files with one library. Started by the first request; use it as a context manager.

    Not thread-safe.
    """

    def __init__(self, module: str, library: str, timeout_s: float = READ_TIMEOUT_S) -> None:
        """`module` has the class `Answers` (see `child.py`); `library` is named when it crashes."""
        self._module, self._library, self._timeout_s = module, library, timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # it waits for a dead disk: the kernel ends it once that answers
                self._process.wait(_GRACE_S)
        self._process = self._connection = None

    def ask(
        self,
        request: dict[str, Any],
        what: str,
        remedy: str,
        *,
        memory_bytes: int,
        array_bytes: int = 0,
        why: str = "cannot be read: the file is damaged",
    ) -> tuple[Any, np.ndarray | None]:
        """The child's answer: JSON content, and the array if there is one.

        Args:
            what: file and key, the beginning of an error message.
            memory_bytes: the largest array that the child may make.
            array_bytes: size of the expected array, which gets more time the larger it is.
            why: what an error of the library means.

        Raises:
            DataError: the library failed, crashed, took too long or too much memory. Has `remedy`.
            EnvironmentSetupError: the child does not start.
        """
        timeout_s = self._timeout_s + array_bytes / SLOWEST_BYTES_PER_S
        connection = self._started()
        limits = {"timeout_s": timeout_s, "memory_bytes": memory_bytes}
        try:
            connection.settimeout(timeout_s + _GRACE_S)
            send_message(connection, {**request, "limits": limits})
            reply = receive_message(connection, _MAX_MESSAGE_BYTES)
            array = _receive_array(connection, reply.get("array"), memory_bytes, what)
        except (EOFError, OSError, ValueError):
            self._raise_for_death(f"{what} {why}", remedy, timeout_s)
        except BaseException:
            self.close()  # interrupted between request and answer: the next answer would be of this request
            raise
        if "error" in reply:
            raise DataError(f"{what} {why} ({reply['error']}).", remedy)
        return reply["content"], array

    def _started(self) -> socket.socket:
        if self._connection is not None:
            return self._connection
        here, there = socket.socketpair()
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pokevla.files.foreign.child", self._module, str(there.fileno())],
                pass_fds=(there.fileno(),),
                env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        self._connection = here
        try:
            here.settimeout(_START_TIMEOUT_S)
            receive_message(here, _MAX_MESSAGE_BYTES)
        except (EOFError, OSError) as error:
            self.close()
            raise EnvironmentSetupError(
                f"The child process that reads files with {self._library} does not start.",
                f"Try: {sys.executable} -c 'import {self._module}'",
            ) from error
        return here

    def _raise_for_death(self, complaint: str, remedy: str, timeout_s: float) -> NoReturn:
        process = self._process
        code = None
        if process is not None:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(_GRACE_S)
        self.close()
        if code in (None, -signal.SIGALRM):
            raise DataError(f"{complaint} ({self._library} did not return within {timeout_s:.3g} s).", remedy)
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise DataError(f"{complaint} ({self._library} crashed: {how}).", remedy)


def _receive_array(connection: socket.socket, described: Any, memory_bytes: int, what: str) -> np.ndarray | None:
    if described is None:
        return None
    shape, dtype = tuple(int(size) for size in described["shape"]), str(described["dtype"])
    if not _DTYPE.fullmatch(dtype) or min(shape, default=0) < 0:
        raise DataError(f"{what} has the type {dtype}, which is not a number.")
    size = prod(shape) * np.dtype(dtype).itemsize
    if size > memory_bytes:
        raise DataError(f"{what} is larger than {memory_bytes} bytes.")
    array = np.empty(shape, np.dtype(dtype))
    view, position = array.reshape(-1).view(np.uint8).data, 0
    while position < size:
        count = connection.recv_into(view[position:], 0, socket.MSG_WAITALL)
        if count == 0:
            raise EOFError
        position += count
    return array
