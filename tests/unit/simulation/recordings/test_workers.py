"""Results come in order, and few of them wait in memory."""

from __future__ import annotations

from collections import deque

import pytest

from pokevla.errors import SimulationError
from pokevla.simulation.recordings import workers


class ScriptedPipe:
    """The end of a worker that answers when it is asked, and dies at the job `dies_at`."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.jobs: deque[int] = deque()
        self.dies_at = dies_at

    def send(self, number: int) -> None:
        self.jobs.append(number)

    def recv(self) -> tuple[int, str]:
        number = self.jobs.popleft()
        if number == self.dies_at:
            raise EOFError
        return number, f"result {number}"


@pytest.fixture
def slow_and_fast(monkeypatch: pytest.MonkeyPatch) -> tuple[ScriptedPipe, ScriptedPipe]:
    """Two workers; the slow one answers only when the fast one has nothing to do."""
    slow, fast = ScriptedPipe(), ScriptedPipe()
    monkeypatch.setattr(workers, "wait", lambda pipes, timeout_s: [fast if fast.jobs else slow])
    return slow, fast


def test_results_come_in_the_order_of_the_jobs(slow_and_fast: tuple[ScriptedPipe, ScriptedPipe]) -> None:
    results = workers._dispatch(list(slow_and_fast), 20, 60.0)  # type: ignore[arg-type]

    assert list(results) == [f"result {number}" for number in range(20)]


def test_a_fast_worker_waits_for_a_slow_one_instead_of_filling_the_memory(
    slow_and_fast: tuple[ScriptedPipe, ScriptedPipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, fast = slow_and_fast
    answered: list[int] = []
    monkeypatch.setattr(fast, "recv", lambda: (answered.append(fast.jobs[0]), ScriptedPipe.recv(fast))[1])
    results = workers._dispatch([slow, fast], 100, 60.0)  # type: ignore[list-item]

    assert next(results) == "result 0"  # the slow worker's

    assert answered == [1, 2, 3]


def test_a_worker_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = ScriptedPipe(dies_at=2)
    monkeypatch.setattr(workers, "wait", lambda pipes, timeout_s: pipes)
    results = workers._dispatch([pipe], 5, 60.0)  # type: ignore[list-item]

    assert [next(results), next(results)] == ["result 0", "result 1"]
    with pytest.raises(SimulationError, match="died without a message"):
        next(results)


def test_workers_that_hang_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "wait", lambda pipes, timeout_s: [])
    results = workers._dispatch([ScriptedPipe()], 5, 60.0)  # type: ignore[list-item]

    with pytest.raises(SimulationError, match="No simulator process has answered for 60 s, while job 0 is due"):
        next(results)
