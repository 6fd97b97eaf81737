"""Child side of `process.py`: answers requests about files until its parent is gone.

    python -m pokevla.files.foreign.child MODULE SOCKET

MODULE has a class `Answers`, called as `answers(request)`. SOCKET is an inherited descriptor. A message is a length and
JSON; the bytes of an array follow the message that describes it.
"""

from __future__ import annotations

import importlib
import json
import mmap
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LENGTH = struct.Struct("!Q")
SPARE_BYTES = 256 << 20
"""Address space for everything besides arrays: metadata, chunk caches, the allocator's arenas."""

Answer = tuple[Any, np.ndarray | None]
"""JSON content, and an array."""


def send_message(connection: socket.socket, content: Any) -> None:
    """Send one message."""
    payload = json.dumps(content).encode()
    connection.sendall(LENGTH.pack(len(payload)) + payload)


def receive_message(connection: socket.socket, max_bytes: int) -> Any:
    """Receive one message. Raises EOFError at the end of the connection, or if the message is too long."""
    (length,) = LENGTH.unpack(_receive(connection, LENGTH.size))
    if length > max_bytes:
        raise EOFError
    return json.loads(_receive(connection, length))


def _receive(connection: socket.socket, count: int) -> bytes:
    payload = bytearray()
    while len(payload) < count:
        part = connection.recv(min(count - len(payload), 1 << 20))
        if not part:
            raise EOFError
        payload += part
    return bytes(payload)


def main(module: str, descriptor: int) -> None:
    """Answer requests until the connection ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; this process ends with its connection
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = socket.socket(fileno=descriptor)
    answers = importlib.import_module(module).Answers()
    before = _address_space()
    try:
        send_message(connection, "ready")
        while True:
            request = receive_message(connection, sys.maxsize)
            limits = request.pop("limits")
            ceiling = before + 2 * limits["memory_bytes"] + SPARE_BYTES  # the array, and a chunk of its size
            _limit_memory(ceiling)
            # The signal's default action ends this process even if a library never returns.
            signal.setitimer(signal.ITIMER_REAL, limits["timeout_s"])
            reply, array = _answered(answers, request)
            send_message(connection, reply)
            if array is not None:
                connection.sendall(array.reshape(-1).view(np.uint8).data)
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (EOFError, ConnectionError):
        return


def _limit_memory(ceiling: int) -> None:
    """Limit the address space, within the hard limit that a cluster may have set (`ulimit -v`)."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = ceiling if hard == resource.RLIM_INFINITY else min(ceiling, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _answered(answers: Callable[[dict[str, Any]], Answer], request: dict[str, Any]) -> Answer:
    try:
        content, array = answers(request)
    except MemoryError:
        return {"error": "it takes more memory than its size allows"}, None
    except Exception as error:  # noqa: BLE001  whatever a foreign library raises becomes the parent's named error
        return {"error": f"{type(error).__name__}: {error}"}, None
    if array is None:
        return {"content": content, "array": None}, None
    array = np.require(array, requirements="C")
    return {"content": content, "array": {"shape": array.shape, "dtype": array.dtype.str}}, array


def _address_space() -> int:
    """Bytes of address space that this process has mapped."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * mmap.PAGESIZE


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
