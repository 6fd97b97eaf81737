"""Workers keep their task, take the longest first, and share what is left."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pokevla.evaluation.running.assignment import WorkQueue
from pokevla.evaluation.trials import Trial


def trial(task: int, state: int, *, steps: int = 10, suite: str = "a", policy: str = "p") -> Trial:
    return Trial(policy, suite, task, state, state, 7, None, steps, 10)


def test_a_worker_keeps_its_task_and_takes_the_longest_first() -> None:
    queue = WorkQueue([trial(0, 0), trial(0, 1), trial(1, 0, steps=50), trial(2, 0, steps=30)])
    assert queue.next(0) == trial(1, 0, steps=50)
    assert queue.next(1) == trial(2, 0, steps=30)
    assert [queue.next(0), queue.next(0)] == [trial(0, 0), trial(0, 1)]
    assert queue.next(1) is None


def test_an_idle_worker_helps_where_most_is_left() -> None:
    queue = WorkQueue([trial(0, state) for state in range(3)] + [trial(1, state) for state in range(5)])
    assert queue.next(0).task_index == 1
    assert queue.next(1).task_index == 0
    assert queue.next(2).task_index == 1
    assert queue.next(3).task_index == 1


def test_a_trial_that_is_tried_again_comes_before_the_others_of_its_task() -> None:
    queue = WorkQueue([trial(0, 0), trial(0, 1)])
    first = queue.next(0)
    queue.put_back(first)
    queue.forget(0)
    assert [queue.next(0), queue.next(0), queue.next(0)] == [trial(0, 0), trial(0, 1), None]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 99), st.sampled_from(["a", "b"])), max_size=40),
    st.data(),
)
def test_every_trial_is_run_once_whoever_asks(tasks, data) -> None:
    trials = [trial(task, number, steps=steps, suite=suite) for number, (task, steps, suite) in enumerate(tasks)]
    queue = WorkQueue(trials)
    given_out = []
    while len(queue):
        given_out.append(queue.next(data.draw(st.integers(0, 3))))
    assert sorted(given_out, key=lambda each: each.number) == trials
    assert queue.next(0) is None
