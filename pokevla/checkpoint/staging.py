"""Files in memory, written once and read once. The memory is reused, because allocating it costs more than the copy."""

from __future__ import annotations

from collections.abc import Iterator

BLOCK_BYTES = 16 << 20


class StagingBuffer:
    """Several files, one after another. It keeps as much memory as its largest content so far."""

    def __init__(self, block_bytes: int = BLOCK_BYTES) -> None:
        self._block_bytes = block_bytes
        self._blocks: list[memoryview] = []
        self._size = 0
        self._spans: dict[str, tuple[int, int]] = {}  # name -> start and end
        self._open: tuple[str, int] | None = None

    @property
    def names(self) -> list[str]:
        """Names of the finished files, in order."""
        return list(self._spans)

    def clear(self) -> None:
        """Remove all files and keep the memory."""
        self._size, self._spans, self._open = 0, {}, None

    def begin(self, name: str) -> None:
        """Start a file; `write` appends to it until `end`."""
        self._open = (name, self._size)

    def end(self) -> None:
        """Finish the current file."""
        if self._open is None:
            raise ValueError("no file has been started")
        name, start = self._open
        self._spans[name], self._open = (start, self._size), None

    def write(self, data: bytes | memoryview) -> int:
        """Append to the current file. MemoryError if memory runs out."""
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
        """Do nothing; `torch.save` requires this method."""

    def read(self, name: str, chunk_bytes: int = 1 << 22) -> Iterator[memoryview]:
        """The bytes of a finished file, in chunks of at most `chunk_bytes`. KeyError if there is no such file."""
        at, end = self._spans[name]
        while at < end:
            number, offset = divmod(at, self._block_bytes)
            part = min(end - at, self._block_bytes - offset, chunk_bytes)
            yield self._blocks[number][offset : offset + part]
            at += part
