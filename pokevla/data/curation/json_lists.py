"""The rows of a JSON list of any size, at their places in the file.

Only the borders of rows are searched here; `json` parses each row. An incremental parser such as ijson takes the whole
list as one text: it gives no offsets, and ends at the first byte that is not UTF-8, at `NaN`, which Python writes, and
at `1e400`. Here such a row is one bad row, the others stay, and several processes can start anywhere in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pokevla.errors import DataError
from pokevla.files.texts import open_regular

BLOCK_BYTES = 4 << 20
MAX_STRAY = 1 << 16
"""Bytes between two rows that are looked at."""
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(\\?)("?)|[\[\]{}]', re.DOTALL)
"""A bracket, or a string. The groups of a string: a backslash that ends the block, and its closing quote."""
_FLAT = rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")'
_NESTED = _FLAT
for _ in range(5):
    _NESTED = rb"(?:" + _FLAT + rb"|[\[{]" + _NESTED + rb"*+[\]}])"
_BALANCED = re.compile(rb"[\[{]" + _NESTED + rb"*+[\]}]", re.DOTALL)
"""A bracket and all up to the one that closes it, at most six levels deep. Both kinds of brackets count as one."""
_REST = re.compile(rb'(?:[^"\\]++|\\.)*+(\\?)("?)', re.DOTALL)
_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_ARCHIVES = {
    b"PK\x03\x04": "a zip",
    b"\x1f\x8b": "a gzip",
    b"BZh": "a bzip2",
    b"\xfd7zXZ": "an xz",
    b"7z\xbc\xaf": "a 7z",
}
_TAR_AT, _TAR = 257, b"ustar"
_HEAD = _TAR_AT + len(_TAR)


@dataclass(frozen=True)
class Span:
    """Bytes `begin` to `end` of a file: a row, or whatever stands where a row should be."""

    begin: int
    end: int


@dataclass(frozen=True)
class Damage:
    """Where a file stops being a list of rows."""

    offset: int
    """Byte at which what is cut off, or wrong, begins."""
    what: str


class RowScanner:
    """Iterates over the rows of a JSON list, or of JSON objects one after the other (JSON lines).

    After the last row, `damage` says where the file did not go on as it should. Holds one block in memory.
    """

    def __init__(self, file: BinaryIO, block_bytes: int = BLOCK_BYTES, *, in_list: bool = False) -> None:
        """`file` can seek. `in_list`: it holds only what is between the brackets of a list."""
        self._file, self._block_bytes = file, block_bytes
        self.damage: Damage | None = None
        head = file.read(_HEAD)
        self._base = 1 if not in_list and head.removeprefix(_BOM).lstrip(_SPACE)[:1] == b"[" else 0
        """How many brackets are open between rows."""
        self._start = len(_BOM) if head.startswith(_BOM) else 0
        self._in_string = self._escaped = False
        self._within = self._base == 0
        """Whether the next bracket that opens is that of a row, or lies in one: not that of the list itself."""

    def __iter__(self) -> Iterator[Span]:
        """The rows in order. Raises OSError if the file cannot be read."""
        depth, begin, after, size = 0, self._start, self._start, 0  # begin: of the row; after: the bracket before it
        for block, offset in self._blocks():
            size = offset + len(block)
            for place, opens in self._brackets(block, offset):
                if opens:
                    if depth == self._base:
                        yield from self._stray(after, place)
                        begin = place
                    depth += 1
                    after = place + 1 if depth == self._base else after
                    self._within = True
                    continue
                depth -= 1
                if depth < self._base:  # the end of the list, or a bracket too many
                    yield from self._stray(after, place)
                    self.damage = self._after_end(place, depth)
                    return
                if depth == self._base:
                    yield Span(begin, place + 1)
                    after = place + 1
        if depth > self._base:
            self.damage = Damage(begin, "the file ends within the row that begins there")
        else:
            yield from self._stray(after, size)
            if self._base:
                self.damage = Damage(size, "the file ends before its list does")

    def _blocks(self) -> Iterator[tuple[bytes, int]]:
        offset = 0
        while block := self._at(offset, self._block_bytes):
            yield block, offset
            offset += len(block)

    def _at(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)

    def _brackets(self, block: bytes, offset: int) -> Iterator[tuple[int, bool]]:
        """(place in the file, whether it opens) of each bracket of a block that is not in a string."""
        position = 0
        if self._in_string:
            position = 1 if self._escaped else 0
            rest = _REST.match(block, position)
            if rest is None or not rest[2]:
                self._escaped = rest is not None and bool(rest[1])
                return
            position, self._in_string = rest.end(), False
        while match := _TOKEN.search(block, position):
            place, position = match.start(), match.end()
            token = block[place]
            if token == 0x22:
                if not match[2]:
                    self._in_string, self._escaped = True, bool(match[1])
                continue
            within = self._within  # before the bracket counts
            yield offset + place, token in b"[{"
            # One match for all that follows in a row of usual depth, instead of one for each of its strings.
            if token in b"[{" and within and (whole := _BALANCED.match(block, place)):
                position = whole.end()
                yield offset + position - 1, False

    def _after_end(self, place: int, depth: int) -> Damage | None:
        """What follows the closing bracket at `place`."""
        if self._base == 0 or depth < 0:
            return Damage(place, "there is a closing bracket too many")
        offset = place + 1
        while block := self._at(offset, self._block_bytes):
            rest = block.lstrip(_SPACE)
            if rest:
                return Damage(offset + len(block) - len(rest), "something follows the end of the list")
            offset += len(block)
        return None

    def _stray(self, begin: int, end: int) -> Iterator[Span]:
        """What stands between two rows besides space and one comma."""
        between = self._at(begin, min(end - begin, MAX_STRAY))
        if between.strip(_SPACE) not in (b"", b","):
            blank = _SPACE + b","
            cut = end - begin - len(between)
            yield Span(end - cut - len(between.lstrip(blank)), begin + len(between.rstrip(blank)) if not cut else end)


def refuse_other_content(path: Path) -> None:
    """Raise DataError for an archive, for what is not JSON, and for a file that cannot be read."""
    head = file_head(path)
    refuse_archive(path, head)
    if head.removeprefix(_BOM).lstrip(_SPACE)[:1] not in (b"[", b"{"):
        raise DataError(
            f"{path} is not a JSON list: it begins with {head[:8]!r}.", "Give the file that the source publishes."
        )


def file_head(path: Path) -> bytes:
    """The first bytes of a file, enough to tell what it is. Raises DataError if it cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(_HEAD)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).", "Check the path.") from error


def refuse_archive(path: Path, head: bytes) -> None:
    """Raise DataError for a zip, gzip, tar or other archive."""
    kind = next((name for magic, name in _ARCHIVES.items() if head.startswith(magic)), None)
    if kind is None and head[_TAR_AT:].startswith(_TAR):
        kind = "a tar"
    if kind is not None:
        raise DataError(f"{path} is {kind} archive.", "Unpack it, and give the folder that comes out.")
