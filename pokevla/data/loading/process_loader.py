"""The loader of a rank in a process of its own, so that it does not hold the interpreter lock of the training.

The process is forked early, while the rank has neither CUDA nor process groups, and waits. When the rank knows its
model and position, it says how the data is opened and asks for batches, one order for each free slot; the batches come
back in shared memory (`slots.py`).
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from typing import Any, Self

import numpy as np

from pokevla.data.loading.meter import LoadMeter
from pokevla.data.loading.slots import SlotReader, new_slot, pin_for_cuda
from pokevla.data.loading.worker import Made, MakeBatch, Opening, Order, serve
from pokevla.errors import TrainingError

SPARE_SLOTS = 16
"""Batches that the user of a loader may hold beside those that are ready."""
_END_S = 10.0
"""How long the process has to end before it is killed."""


class DataProcess:
    """A process that is ready to make batches. Use it as a context manager: it ends with the block."""

    def __init__(self, prefetch: int) -> None:
        """Fork. Call it before anything is initialised that does not survive a fork, such as CUDA."""
        self.slots = [new_slot() for _ in range(prefetch + SPARE_SLOTS)]
        self.channel, other = Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self.channel.close()
            serve(other, self.slots)
        other.close()
        self._ended = False

    def death(self) -> TrainingError:
        """How the process ended, after its channel was found closed."""
        _, status = os.waitpid(self.pid, 0)
        self._ended = True
        code = os.waitstatus_to_exitcode(status)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        remedy = "Its log lines say why. If memory ran out, set data.prefetch_batches or data.reader_threads lower."
        return TrainingError(f"The data loader (process {self.pid}) {how}.", remedy)

    def close(self) -> None:
        """End the process and free the slots."""
        self.channel.close()
        if not self._ended and not self._ends_within(_END_S):
            os.kill(self.pid, signal.SIGKILL)
            self._ends_within(_END_S)  # a read that a file system never answers outlives even this
        self._ended = True
        while self.slots:
            os.close(self.slots.pop())

    def _ends_within(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(ChildProcessError):
                if os.waitpid(self.pid, os.WNOHANG)[0] == 0:
                    time.sleep(0.005)
                    continue
            return True
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ProcessLoader:
    """Infinite stream of micro-batches for one rank, made by a `DataProcess`. Like `pokevla.data.loader.TrainLoader`.

    A batch lies in shared memory. It stays as it is for as long as one of its tensors exists; a user may hold
    `SPARE_SLOTS` batches.
    """

    def __init__(
        self,
        process: DataProcess,
        open_data: Callable[..., MakeBatch],
        arguments: tuple[Any, ...],
        *,
        rank: int,
        world_size: int,
        micro: int,
        start_position: int = 0,
        threads: int = 2,
        prefetch: int = 4,
        pin_memory: bool = False,
    ) -> None:
        """`open_data` is a function of a module; the process calls it with `arguments`. The loader owns `process`."""
        self._process, self._channel = process, process.channel
        self._stride, self._micro, self._rank = world_size * micro, micro, rank
        self._prefetch = prefetch
        self._next = start_position
        pin = pin_for_cuda if pin_memory else None
        self._readers = [SlotReader(slot, pin) for slot in process.slots]
        self._free: deque[int] = deque(reversed(range(len(process.slots))))  # the last freed is used first: it is warm
        self._ordered, self._taken = 0, 0  # batches so far
        self._ready: dict[int, Made] = {}
        self.position = start_position
        """Number of samples consumed by all ranks, including this rank's last batch."""
        self.meter = LoadMeter()
        """What the loader does, for the lines of metrics."""
        self._tell(Opening(open_data, arguments, threads))
        self._order()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        self._order()
        while self._channel.poll():
            self._receive()
        ahead = self._ahead()
        while self._taken not in self._ready:
            self._receive()
        made = self._ready.pop(self._taken)
        self._taken += 1
        if made.error is not None:
            self._free.append(made.slot)
            raise made.error
        slot = made.slot
        batch = self._readers[slot].unpack(made.packed, made.size, lambda: self._free.append(slot))
        self.position += self._stride
        self.meter.add(ahead, made.effort, getattr(batch, "skipped", ()))
        return batch

    def _receive(self) -> None:
        try:
            made: Made = self._channel.recv()
        except (EOFError, OSError) as error:
            raise self._process.death() from error
        self._ready[made.number] = made

    def _ahead(self) -> int:
        """Batches that are ready, from the next one on."""
        return next(count for count in range(len(self._ready) + 1) if self._taken + count not in self._ready)

    def close(self) -> None:
        """End the process and drop pending batches. Batches that are held stay valid."""
        self._process.close()
        self._readers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _order(self) -> None:
        """Keep `prefetch` batches on the way."""
        while self._ordered - self._taken < self._prefetch and self._free:
            first = self._next + self._rank * self._micro
            positions = np.arange(first, first + self._micro, dtype=np.int64)
            self._tell(Order(self._ordered, positions, self._free.pop()))
            self._ordered += 1
            self._next += self._stride
        if self._ordered == self._taken:
            raise RuntimeError(f"{len(self._readers)} batches of the loader are held: no slot is left for another")

    def _tell(self, message: Opening | Order) -> None:
        try:
            self._channel.send(message)
        except OSError as error:
            raise self._process.death() from error
