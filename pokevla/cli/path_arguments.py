"""Paths on the command line: `~` and variables are expanded as in recipes, also where the shell leaves them alone.

A shell expands neither `--out=~/x` nor anything in quotes.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from pokevla.files.paths import expanded


def expand_path_arguments(command: Any) -> Any:
    """Make a click command, or every command of a group, expand the paths among its arguments. Returns it.

    The command raises UsageError for a variable that is not set (`pokevla.files.paths.expand_path`).
    """
    for child in getattr(command, "commands", {}).values():
        expand_path_arguments(child)
    callback = command.callback
    if callback is not None:

        @functools.wraps(callback)
        def call(*arguments: Any, **options: Any) -> Any:
            return callback(*arguments, **{name: _expanded(value) for name, value in options.items()})

        command.callback = call
    return command


def _expanded(value: Any) -> Any:
    if isinstance(value, Path):
        return expanded(value)
    if isinstance(value, list | tuple):
        return type(value)(map(_expanded, value))
    return value
