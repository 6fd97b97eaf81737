"""A library for `ForeignReader` that does on request what libraries for foreign formats do to their host."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np

from pokevla.files.foreign.child import Answer


class Answers:
    """Counts, crashes, hangs, and takes memory."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, request: dict[str, Any]) -> Answer:
        self.count += 1
        match request["do"]:
            case "count":
                return self.count, None
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "exit":
                os._exit(7)
            case "hang":
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
                time.sleep(600)
            case "grow":
                return None, np.ones(request["bytes"], np.uint8)
            case "objects":
                return None, np.array([{}], dtype=object)
            case "echo":
                return None, np.asarray(request["values"], dtype=request["dtype"])
        raise ValueError("what a library says")
