"""What a command says on its way, where there is no terminal to draw a bar on."""

from __future__ import annotations

import pytest

from pokevla.cli.progress import progress


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_log_gets_a_line_at_each_tenth_of_the_way_and_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("episodes") as listen:
        for done in range(1, 46):
            listen(done, 45)

    printed = lines(capsys)
    assert printed[0] == "episodes: 1 of 45"
    assert printed[-1] == "episodes: 45 of 45"
    assert len(printed) <= 13


def test_failures_are_told_where_attempts_can_fail(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("episodes") as listen:
        listen(0, 2, 1)
        listen(2, 2, 1)

    assert lines(capsys) == ["episodes: 0 of 2, 1 failed", "episodes: 2 of 2, 1 failed"]


def test_without_a_total_lines_come_more_and_more_seldom(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("pictures") as listen:
        for done in range(1, 1001):
            listen(done)

    assert lines(capsys) == [f"pictures: {2**n}" for n in range(10)]
