"""The files of a tokenizer beside published weights."""

from __future__ import annotations

from pathlib import Path

from pokevla.errors import CheckpointError
from pokevla.files.texts import read_bytes
from pokevla.files.writing import atomic_file

TOKENIZER = "tokenizer"
"""Folder of the tokenizer in a model of ours."""
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer that `load_tokenizer` can read."""
    return (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file()


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer in the folder `source`, if there is one, into the folder `target`. No other file is copied.

    Raises:
        CheckpointError: a file cannot be read or written, or has more than 64 MiB.
    """
    if not has_tokenizer(source):
        return
    target.mkdir(exist_ok=True)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            content = read_bytes(source / name, kind=CheckpointError)
            with atomic_file(target / name, kind=CheckpointError) as file:
                file.write(content)
