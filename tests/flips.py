"""Every damage of one byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pokevla.errors import PokeVLAError


def flipped(content: bytes) -> Iterator[bytes]:
    """`content` with one bit of one byte changed, for every byte; the bit differs from byte to byte."""
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        yield bytes(changed)


def assert_no_flip_is_used_silently(path: Path, read: Callable[[], Any], names: Path | None = None) -> None:
    """With every flip of `path`, `read` raises a named error that names `names` (default: `path`), or gives what it
    gave before."""
    good, before = path.read_bytes(), read()
    for changed in flipped(good):
        path.write_bytes(changed)
        outcome = _outcome(read)
        if isinstance(outcome, PokeVLAError):
            assert str(names or path) in str(outcome), changed
        else:
            assert outcome == before, changed
    path.write_bytes(good)


def _outcome(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except PokeVLAError as error:
        return error
