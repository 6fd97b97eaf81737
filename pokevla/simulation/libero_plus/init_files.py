"""Reads the one-row initial states of Objects Layout tasks, files of `torch.save`, without unpickling them.

Each holds one float64 vector. `pickletools` lists the instructions of the pickle; the reader accepts exactly those by
which numpy writes such a vector, and takes its bytes. Nothing is executed, and torch is not needed in the simulator's
processes.
"""

from __future__ import annotations

import pickletools
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.errors import SimulationError
from pokevla.files.texts import open_regular

MAX_BYTES = 1 << 20
"""Of a file. The official ones have 2 to 3 kB."""
_BOOKKEEPING = {"PROTO", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"}
_COUNTS = {"BININT", "BININT1", "BININT2"}
_VALUES = object()  # the text that holds the bytes, one character each
_LENGTH = object()
_VECTOR: tuple[Any, ...] = (
    "numpy.core.multiarray _reconstruct", "numpy ndarray", 0, "TUPLE1",
    "_codecs encode", "b", "latin1", "TUPLE2", "REDUCE", "TUPLE3", "REDUCE",
    "MARK", 1, _LENGTH, "TUPLE1", "numpy dtype", "f8", "NEWFALSE", "NEWTRUE", "TUPLE3", "REDUCE",
    "MARK", 3, "<", "NONE", "NONE", "NONE", -1, -1, 0, "TUPLE", "BUILD", "NEWFALSE",
    _VALUES, "TUPLE2", "REDUCE", "TUPLE", "BUILD", "STOP",
)  # fmt: skip
"""Instructions without those for the pickle's memory; for those with a text or number, that."""


def read_initial_state(path: Path) -> np.ndarray:
    """The flat state, (num_state_values,) float64: time, qpos, qvel. SimulationError if the file is anything else."""
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError("it is too large")
        return _vector(_pickle_of(content))
    except (OSError, ValueError, LookupError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise SimulationError(
            f"{path} holds no initial state ({error}).", "Take LIBERO-Plus from github.com/sylvestf/LIBERO-plus anew."
        ) from error


def _pickle_of(content: bytes) -> bytes:
    with zipfile.ZipFile(BytesIO(content)) as archive:
        names = [info for info in archive.infolist() if info.filename.rpartition("/")[2] == "data.pkl"]
        if len(names) != 1 or names[0].file_size > MAX_BYTES:
            raise ValueError("it is no file of torch.save")
        return archive.read(names[0])


def _vector(pickled: bytes) -> np.ndarray:
    found = [
        (opcode.name if argument is None else argument, opcode.name)
        for opcode, argument, _ in pickletools.genops(pickled)
        if opcode.name not in _BOOKKEEPING
    ]
    if len(found) != len(_VECTOR):
        raise ValueError("it is no float64 vector")
    length, values = -1, b""
    for expected, (value, opcode) in zip(_VECTOR, found, strict=True):
        if expected is _LENGTH and opcode in _COUNTS:
            length = int(value)
        elif expected is _VALUES and opcode == "BINUNICODE":
            values = str(value).encode("latin1")
        elif value != expected:
            raise ValueError("it is no float64 vector")
    if len(values) != 8 * length:
        raise ValueError(f"it has {len(values)} bytes for {length} numbers")
    return np.frombuffer(values, dtype="<f8").astype(np.float64)
