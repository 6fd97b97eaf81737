from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pokevla.errors import DataError, EnvironmentSetupError
from pokevla.files.foreign.process import ForeignReader

MIB = 1 << 20


@pytest.fixture
def reader() -> Iterator[ForeignReader]:
    with ForeignReader("tests.unit.files.foreign.answers", "libtest", timeout_s=2.0) as reader:
        yield reader


def ask(reader: ForeignReader, do: str, **arguments: Any) -> Any:
    content, array = reader.ask({"do": do, **arguments}, "x.bin: key", "Repair it.", memory_bytes=MIB)
    return content if array is None else array


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        ("crash", "libtest crashed: SIGSEGV"),
        ("exit", "libtest crashed: exit code 7"),
        ("raise", "ValueError: what a library says"),
        ("objects", "has the type |O"),
    ],
)
def test_what_a_library_does_to_its_process_is_an_error_with_file_and_key(
    reader: ForeignReader, do: str, reason: str
) -> None:
    with pytest.raises(DataError) as caught:
        ask(reader, do)
    assert caught.value.message.startswith("x.bin: key ")
    assert reason in caught.value.message
    assert ask(reader, "count") > 0  # the next file is read by a new process if need be


def test_a_hang_ends_at_its_time_limit(reader: ForeignReader) -> None:
    ask(reader, "count")
    began = time.monotonic()
    with pytest.raises(DataError, match=r"x\.bin: key .*libtest did not return within 2 s"):
        ask(reader, "hang")
    assert time.monotonic() - began < 30.0
    assert ask(reader, "count") == 1


def test_a_child_may_take_the_memory_of_its_request_and_not_much_more(reader: ForeignReader) -> None:
    assert len(ask(reader, "grow", bytes=MIB)) == MIB
    with pytest.raises(DataError, match="larger than 1048576 bytes"):
        ask(reader, "grow", bytes=2 * MIB)
    with pytest.raises(DataError, match="more memory than its size allows"):
        ask(reader, "grow", bytes=4 << 30)


@pytest.mark.parametrize("values", [np.arange(6.0).reshape(2, 3), np.int64(3), np.zeros((0, 4), np.uint8)])
def test_arrays_arrive_as_they_are(reader: ForeignReader, values: np.ndarray) -> None:
    array = ask(reader, "echo", values=values.tolist(), dtype=values.dtype.str)
    assert array.dtype == values.dtype
    np.testing.assert_array_equal(array.reshape(values.shape), values)


def test_one_process_serves_all_requests_and_ends_with_its_reader(reader: ForeignReader) -> None:
    assert [ask(reader, "count") for _ in range(3)] == [1, 2, 3]
    process = reader._process
    assert process is not None
    reader.close()
    assert process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_a_library_that_cannot_be_imported_is_named() -> None:
    with (
        ForeignReader("tests.unit.files.foreign.no_such_module", "libnone") as reader,
        pytest.raises(EnvironmentSetupError, match="libnone does not start"),
    ):
        ask(reader, "count")


def test_a_hard_limit_of_the_machine_is_kept() -> None:
    """A cluster may limit the address space (`ulimit -v`); the child cannot raise its hard limit."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (32 << 30, 32 << 30))\n"
        "from pokevla.files.foreign.process import ForeignReader\n"
        "with ForeignReader('tests.unit.files.foreign.answers', 'libtest') as reader:\n"
        "    print(reader.ask({'do': 'count'}, 'x', 'y', memory_bytes=1 << 20)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().isdecimal()
