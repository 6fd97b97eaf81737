"""Calls on files that may never return: file systems can hang, and a thread that waits for one cannot be stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pokevla.errors import DataError

Result = TypeVar("Result")


def answer_within(seconds: float, path: Path, call: Callable[[], Result]) -> Result:
    """The result of `call()`, which opens `path`, or what it raises. It runs in a thread of its own, which is abandoned
    when it does not end.

    Raises:
        DataError: the call has not ended after `seconds`. Names the path.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - it is raised again, in the thread that called
            errors.append(error)

    thread = threading.Thread(target=run, name=f"open {path}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise DataError(
            f"Opening {path} has taken {seconds:.0f} s and has not ended: its file system does not answer.",
            "Check the file system, and resume. data.storage.timeout_s sets how long a read may take.",
        )
    if errors:
        raise errors[0]
    return results[0]
