"""The files of an exported model, and whether they are as they were written.

`config.json` has its own checksum, and those of the weights and the statistics under `files`. Exports from before there
were checksums are read without them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pokevla.errors import CheckpointError
from pokevla.files.checksums import file_damage, stored_files, without_checksum
from pokevla.files.texts import read_json_object
from pokevla.recipe.checking.recorded import Recorded, read_recorded
from pokevla.runs.directory import EXPORT_CONFIG, TRAINED_ON

FILES = "files"
"""Key of `config.json` with size and checksum of the other files."""
EXPORT_AGAIN = "Export it again."


def read_export_config(folder: Path) -> dict[str, Any]:
    """Content of an export's `config.json`.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = folder / EXPORT_CONFIG
    content = read_json_object(path, kind=CheckpointError, remedy=EXPORT_AGAIN)
    return without_checksum(content, path, required=FILES in content, kind=CheckpointError, remedy=EXPORT_AGAIN)


def refuse_damaged_export(folder: Path) -> None:
    """Compare every file of an export with what its `config.json` says. Without that file nothing is known, and nothing
    is compared: a folder of weights.

    Raises:
        CheckpointError: names the first file that differs.
    """
    path = folder / EXPORT_CONFIG
    if not path.is_file():
        return
    listed = read_export_config(folder).get(FILES, ())
    for file in stored_files(listed, path, kind=CheckpointError, remedy=EXPORT_AGAIN):
        damage = file_damage(folder, file)
        if damage is not None:
            raise CheckpointError(damage, EXPORT_AGAIN)


def read_trained_on(run_dir: Path) -> Recorded:
    """What the datasets of a run say about their images and instructions; unknown values for a run of an earlier
    version.

    Raises:
        DataError: the file is damaged.
    """
    path = run_dir / TRAINED_ON
    if not path.is_file():
        return Recorded()
    return read_recorded(without_checksum(read_json_object(path), path), path)
