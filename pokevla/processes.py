"""Processes that start and end without needless work, and that end with the one that started them."""

from __future__ import annotations

import atexit
import ctypes
import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Have the kernel send a signal to this process when its parent dies, even by SIGKILL. Elsewhere than on Linux it
    does nothing.

    The parent is the thread that started this process. One that has died before the call is not noticed: compare
    `os.getppid()` afterwards where that matters. Of no use in workers of a fork server, which outlives the program.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal_number)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause Python's cycle collector while modules are imported, which are never garbage.

    What exists afterwards is exempt from collection: torch, DeepSpeed and transformers are over a million objects, and
    every full collection during training, and the one when the process ends, would visit them. A rank saves 3 of 12 s
    of CPU.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def end_without_collection() -> None:
    """Have this process end without a search for cycles, which takes 2 s of CPU once torch and transformers are
    imported.

    Exit handlers run. Destructors of what is still alive do not, which Python does not promise anyway: what must be
    closed is closed by its `with` block.
    """
    atexit.register(gc.freeze)
