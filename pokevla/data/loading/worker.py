"""The process that makes the batches of a rank: opens the data, then makes the batches that it is asked for."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import torch

from pokevla.data.loading.memory import Allocate
from pokevla.data.loading.meter import Effort
from pokevla.data.loading.slots import SlotWriter
from pokevla.data.loading.watch import Watch, WatchedMaker
from pokevla.errors import PokeVLAError
from pokevla.processes import end_with_parent
from pokevla.shards.reading import NO_READ

MakeBatch = Callable[[np.ndarray, Allocate], Any]
"""(positions (B,) int64, allocator) -> batch."""


@dataclass(frozen=True)
class Opening:
    """First message to the process: how the data is opened."""

    open: Callable[..., MakeBatch]
    """A function of a module."""
    arguments: tuple[Any, ...]
    threads: int


class Order(NamedTuple):
    """A batch to make."""

    number: int  # of the batch, from 0
    positions: np.ndarray
    slot: int  # that is free


class Made(NamedTuple):
    """A batch in its slot, or why there is none."""

    number: int
    slot: int
    packed: Any
    size: int  # bytes of the slot
    error: BaseException | None
    effort: Effort


def serve(channel: Connection, slots: list[int]) -> None:
    """Make batches until the other side closes the channel. Never returns: it ends the process.

    The process ends with the one that forked it. Signals to stop are for that one, which needs batches until its step
    is done, so they are ignored here.
    """
    end_with_parent()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    code = 1
    try:
        torch.set_num_threads(1)
        with suppress(OSError):  # a container may forbid it
            # When it is woken on the core of its rank, the rank goes on: batches are made ahead.
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        largest = [0]
        _serve(channel, [SlotWriter(slot, largest) for slot in slots])
        code = 0
    except (EOFError, BrokenPipeError, ConnectionResetError):
        code = 0  # the rank has ended
    except BaseException:
        logging.getLogger(__name__).exception("the data loader fails")
    finally:
        os._exit(code)  # not the exit handlers of the rank


def _serve(channel: Connection, writers: list[SlotWriter]) -> None:
    opening: Opening = channel.recv()
    sending = threading.Lock()
    opened: list[MakeBatch] = []
    making: dict[int, Order] = {}  # by thread
    given_up: set[int] = set()  # numbers of batches whose reads never end
    failed: BaseException | None = None
    try:
        opened.append(opening.open(*opening.arguments))
    except Exception as error:  # noqa: BLE001 (raised in the rank)
        failed = _portable(error)

    watch = opened[0].watch if opened and isinstance(opened[0], WatchedMaker) else None

    def make(order: Order) -> None:
        writer = writers[order.slot]
        making[threading.get_ident()] = order
        try:
            if failed is not None:
                raise failed
            begun, begun_cpu = time.perf_counter(), time.thread_time()
            writer.begin()
            packed, size = writer.pack(opened[0](order.positions, writer.allocate))
            slowest = NO_READ if watch is None else watch.log.take_slowest()
            effort = Effort(time.perf_counter() - begun, time.thread_time() - begun_cpu, writer.used, slowest)
            made = Made(order.number, order.slot, packed, size, None, effort)
        except Exception as error:  # noqa: BLE001 (raised in the rank)
            made = Made(order.number, order.slot, None, 0, _portable(error), Effort(0.0, 0.0, 0))
        finally:
            del making[threading.get_ident()]
        send(made)

    def send(made: Made, *, is_last: bool = False) -> None:
        with sending:
            if made.number not in given_up:
                channel.send(made)
            if is_last:  # whatever the thread that hangs may still make
                given_up.add(made.number)

    def supervise(watch: Watch) -> None:
        while True:
            time.sleep(watch.interval_s)
            for thread, error in watch.overdue().items():
                order = making.get(thread)
                if order is not None:
                    send(Made(order.number, order.slot, None, 0, error, Effort(0.0, 0.0, 0)), is_last=True)

    if watch is not None:
        threading.Thread(target=supervise, args=(watch,), name="pokevla-watch", daemon=True).start()
    pool = ThreadPoolExecutor(opening.threads, thread_name_prefix="pokevla-data")
    while True:  # until the channel closes; batches in the making are dropped
        pool.submit(make, channel.recv())


def _portable(error: Exception) -> BaseException:
    """The error as the rank will raise it: a named one as it is, any other with its traceback as text."""
    if isinstance(error, PokeVLAError | OSError):
        return error
    return RuntimeError(f"in the data loader:\n{''.join(traceback.format_exception(error))}")
