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


def kinship(suite: str, task: int) -> tuple[str, ...]:
    """Tasks 0 to 9 have one scene, 10 to 19 another, and so on; even ones of a scene have one model."""
    return (str(task // 10), "even") if task % 2 == 0 else (str(task // 10),)


def test_a_worker_goes_on_with_the_task_that_shares_most_with_its_last() -> None:
    queue = WorkQueue([trial(2, 0), trial(3, 0, steps=40), trial(14, 0, steps=30), trial(4, 0), trial(0, 0)], kinship)
    order = [queue.next(0).task_index for _ in range(5)]
    assert order[0] == 3  # the longest
    assert set(order[1:4]) == {0, 2, 4}  # its scene, although another task is longer
    assert order[4] == 14


def test_workers_begin_with_tasks_that_have_little_in_common() -> None:
    queue = WorkQueue([trial(task, 0) for task in (0, 2, 4, 10, 12, 14)], kinship)
    taken: dict[int, list[int]] = {0: [], 1: []}
    for _ in range(3):
        for slot in (0, 1):
            taken[slot].append(queue.next(slot).task_index // 10)
    assert taken == {0: [0, 0, 0], 1: [1, 1, 1]}


def test_tasks_of_other_suites_share_nothing_and_a_new_process_has_no_last_task() -> None:
    queue = WorkQueue([trial(0, 0, suite="b"), trial(0, 0, steps=50), trial(2, 0), trial(1, 0, steps=30)], kinship)
    assert queue.next(0) == trial(0, 0, steps=50)
    queue.forget(0)
    assert queue.next(0) == trial(1, 0, steps=30)
    assert [queue.next(0), queue.next(0)] == [trial(2, 0), trial(0, 0, suite="b")]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 99), st.sampled_from(["a", "b"])), max_size=40),
    st.data(),
)
def test_every_trial_is_run_once_whoever_asks(tasks, data) -> None:
    trials = [trial(task, number, steps=steps, suite=suite) for number, (task, steps, suite) in enumerate(tasks)]
    queue = WorkQueue(trials, data.draw(st.sampled_from([kinship, lambda _suite, _task: ()])))
    given_out = []
    while len(queue):
        given_out.append(queue.next(data.draw(st.integers(0, 3))))
    assert sorted(given_out, key=lambda each: each.number) == trials
    assert queue.next(0) is None
