"""The fuzzing harness finds what it should, and every parser survives a minute of it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NoReturn

import pytest

from pokevla.errors import DataError
from tests.fuzz import worker
from tests.fuzz.run import fuzz, report
from tests.fuzz.search import Search
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS


def _forget_an_end(_folder: Path, content: bytes) -> None:
    if content and content[-1:] != b"x":
        raise IndexError("no end")


def _named(_folder: Path, content: bytes) -> NoReturn:
    raise DataError(f"{len(content)} bytes are too many.")


def _abort(_folder: Path, _content: bytes) -> None:
    os.abort()


def _loop(_folder: Path, _content: bytes) -> None:
    while True:
        try:
            time.process_time()
        except Exception:  # noqa: BLE001  what a careless parser does
            continue


def _sleep(_folder: Path, _content: bytes) -> None:
    time.sleep(60)


def _fill_memory(_folder: Path, _content: bytes) -> None:
    bytearray(4 << 30)


@pytest.mark.parametrize(
    ("parse", "what"),
    [
        (_abort, "crash: SIGABRT"),
        (_loop, "TooSlow at"),
        (_sleep, "hang"),
        (_fill_memory, "MemoryError at"),
        (_forget_an_end, "IndexError at"),
    ],
)
def test_what_a_parser_must_not_do_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parse, what: str
) -> None:
    monkeypatch.setattr(worker, "CPU_S", 0.3)
    monkeypatch.setattr(worker, "HANG_S", 3.0)
    process = worker.Worker(parse, tmp_path)
    outcome = process.run(b"(")
    process.close()
    assert (outcome.kind, what in outcome.what) == ("finding", True), outcome


def test_values_and_named_errors_are_none(tmp_path: Path) -> None:
    for parse, kind in ((_named, "named"), (_forget_an_end, "value")):
        process = worker.Worker(parse, tmp_path)
        assert process.run(b"").kind == kind
        process.close()


def test_a_finding_is_counted_once_and_saved_in_a_small_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = Target("ends", lambda _folder: [b"x" * 30], _forget_an_end)
    search = Search(target, tmp_path / "work", seed=3)
    search.check_seeds()
    search.run(lambda: search.tally.count > 1000)
    search.close()

    (finding,) = search.tally.findings
    assert finding.content[-1:] != b"x"
    assert len(finding.content) <= 31
    assert report({"ends": search.tally}, tmp_path / "out") == 1
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".bin", ".txt"]
    assert "IndexError at test_fuzz.py:_forget_an_end" in capsys.readouterr().out


def test_every_parser_survives_a_minute_of_mutated_inputs(tmp_path: Path) -> None:
    """At most 600 inputs a parser: the same ones on every machine, so that only a change of ours can find something."""
    tallies = fuzz(list(TARGETS), 60, seed=1, max_inputs=600)
    assert report(tallies, tmp_path) == 0
    assert all(tally.count for tally in tallies.values())
