"""Writing a shard: a tar in WebDataset format, and the entries of its index.

The caller opens and syncs the file: a dataset is renamed as a whole, a cache shard by shard.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from pokevla.errors import DataError
from pokevla.files.labels import lies_within, printable
from pokevla.shards.index import CHECKSUMS, Checksum, IndexEntry, Member


@dataclass(frozen=True)
class TarHeader:
    """Fields of every member's tar header. Time and owner are fixed, so that the bytes depend on the content only."""

    mode: int
    owner: str


# webdataset's own writer (TarWriter, version 1.0.2) writes this header, and the published datasets have it.
WEBDATASET_HEADER = TarHeader(0o444, "bigdata")
PLAIN_HEADER = TarHeader(0o644, "")


class ShardWriter:
    """Appends samples to an open file. Call `close` at the end; a file to be discarded needs no `close`."""

    def __init__(self, file: IO[bytes], header: TarHeader, checksum: Checksum = "xxh64") -> None:
        """`file` is open for writing and empty. It stays open after `close`. `checksum`: of every member."""
        self.entries: list[IndexEntry] = []
        """One entry per sample, for `dump_index`."""
        self._header, self._checksum = header, CHECKSUMS[checksum]
        # The extended format differs only for names over 100 bytes or not in ASCII, which the old one refuses.
        self._tar = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)

    @property
    def next_start(self) -> int:
        """Offset in bytes at which the next member's content will begin, after its tar header of 512 bytes."""
        return self._tar.offset + tarfile.BLOCKSIZE

    def write(self, key: str, members: Mapping[str, bytes]) -> None:
        """Append one sample: `members` by extension, in sorted order. The index points at each member's content."""
        self.entries.append(
            IndexEntry(key, tuple(self._add(key, extension, members[extension], 0) for extension in sorted(members)))
        )

    def write_record(self, key: str, extension: str, record: bytes, payload_at: int) -> None:
        """Append a sample of one member that begins with `payload_at` bytes of header and padding.

        The index points at the payload after them. A caller that aligns the payload builds `record` for `next_start`.

        Raises:
            DataError: a key that does not fit a tar header of 512 bytes, so that `next_start` would be wrong.
        """
        self.entries.append(IndexEntry(key, (self._add(key, extension, record, payload_at, plain_name=True),)))

    def close(self) -> None:
        """Write the end of the archive."""
        self._tar.close()

    def _add(self, key: str, extension: str, content: bytes, skip: int, plain_name: bool = False) -> Member:
        if not key or not lies_within(key) or printable(key) != key or "\t" in key or "\n" in key:
            raise DataError(
                f"The key {key!r} cannot name a tar member: empty, outside its folder, or with control characters.",
                "Rename the file or folder that it comes from.",
            )
        info = tarfile.TarInfo(f"{key}.{extension}")
        info.size, info.mode = len(content), self._header.mode
        info.uname = info.gname = self._header.owner
        if plain_name and len(info.tobuf(tarfile.PAX_FORMAT)) != tarfile.BLOCKSIZE:
            raise DataError(f"The key {key} is too long or not ASCII, so it cannot name a tar member.", "Shorten it.")
        self._tar.addfile(info, io.BytesIO(content))
        padded = -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        digest = self._checksum()
        digest.update(memoryview(content)[skip:])
        return Member(extension, self._tar.offset - padded + skip, len(content) - skip, digest.intdigest())
