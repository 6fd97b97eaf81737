"""A path to a run that Slurm, submitit and PYTHONPATH take literally.

In the path of a log, Slurm and submitit replace `%j` and the like, and Slurm drops backslashes; PYTHONPATH is split at
colons. A run whose path has one of these characters gets a link without them. The link lies in the nearest folder above
the run whose own path is plain: a node that sees the run sees that folder too.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from pokevla.errors import ClusterError

_TAKEN_APART = re.compile("[%:\\\\\ud800-\udfff]")  # lone surrogates stand for bytes that are not UTF-8
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def plain_path(folder: Path) -> Path:
    """The path of an absolute folder if it can be used as it is, otherwise that of its link, which may not exist yet.

    Raises:
        ClusterError: the path holds a line break or another control character, which would end a line of the script.
    """
    if _CONTROL.search(str(folder)):
        raise ClusterError(
            f"The path {str(folder)!r} holds a control character, such as a line break.", "Choose another `output`."
        )
    if not _TAKEN_APART.search(str(folder)):
        return folder
    above = next(parent for parent in folder.parents if not _TAKEN_APART.search(str(parent)))
    return above / f".pokevla-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"


def make_plain_path(folder: Path) -> Path:
    """`plain_path`, with its link in place.

    Raises:
        ClusterError: as `plain_path`, or the link cannot be made.
    """
    plain = plain_path(folder)
    if plain == folder or plain.resolve() == folder.resolve():
        return plain
    try:
        plain.symlink_to(folder, target_is_directory=True)
    except OSError as error:
        raise ClusterError(
            f"Slurm takes the path {folder} apart, and a link to it cannot be made: {error}.",
            "Choose an `output` without `%`, `:` and backslash.",
        ) from error
    return plain
