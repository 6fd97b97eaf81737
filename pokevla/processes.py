"""Processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Have the kernel send a signal to this process when its parent dies, even by SIGKILL. Elsewhere than on Linux it
    does nothing.

    The parent is the thread that started this process. One that has died before the call is not noticed: compare
    `os.getppid()` afterwards where that matters. Of no use in workers of a fork server, which outlives the program.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal_number)
