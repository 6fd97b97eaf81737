"""Files in memory, written once and read once, in blocks that are used again: fresh memory costs more than the copy."""

from __future__ import annotations

from collections.abc import Iterator

BLOCK_BYTES = 16 << 20


class Snapshot:
    """A few files, one after another. It holds as much memory as the largest content it ever had."""

    def __init__(self, block_bytes: int = BLOCK_BYTES) -> None:
        self._block_bytes = block_bytes
        self._blocks: list[memoryview] = []
        self._size = 0
        self._places: dict[str, tuple[int, int]] = {}  # name -> start and end
        self._open: tuple[str, int] | None = None

    @property
    def names(self) -> list[str]:
        """The finished files, in order."""
        return list(self._places)

    def clear(self) -> None:
        """Forget all files and keep the memory."""
        self._size, self._places, self._open = 0, {}, None

    def begin(self, name: str) -> None:
        """What is written from now on belongs to this file."""
        self._open = (name, self._size)

    def end(self) -> None:
        """The file that was begun is whole."""
        if self._open is None:
            raise ValueError("no file was begun")
        name, start = self._open
        self._places[name], self._open = (start, self._size), None

    def write(self, data: bytes | memoryview) -> int:
        """Append to the file that was begun. MemoryError when there is no more memory."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            number, offset = divmod(self._size, self._block_bytes)
            if number == len(self._blocks):
                self._blocks.append(memoryview(bytearray(self._block_bytes)))
            part = min(len(view) - done, self._block_bytes - offset)
            self._blocks[number][offset : offset + part] = view[done : done + part]
            done += part
            self._size += part
        return done

    def flush(self) -> None:
        """Nothing to do; `torch.save` asks for it."""

    def read(self, name: str, chunk_bytes: int = 1 << 22) -> Iterator[memoryview]:
        """The bytes of a finished file, in chunks of at most `chunk_bytes`. KeyError when there is no such file."""
        at, end = self._places[name]
        while at < end:
            number, offset = divmod(at, self._block_bytes)
            part = min(end - at, self._block_bytes - offset, chunk_bytes)
            yield self._blocks[number][offset : offset + part]
            at += part
