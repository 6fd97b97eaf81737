"""A phase has the long time limit at start-up and while saving, and the short one in a step."""

from __future__ import annotations

from pokevla.training.health.pulse import COLLECTIVE_MARGIN_S, Pulse


def test_limits_are_long_until_the_first_step_and_in_patient_phases() -> None:
    pulse = Pulse(start_timeout_s=100.0, step_timeout_s=10.0)
    with pulse.phase("forward"):
        assert (pulse.name, pulse.limit_s) == ("forward", 100.0)
    pulse.step_done(1)
    with pulse.phase("forward"):
        assert pulse.limit_s == 10.0
    with pulse.phase("save", patient=True):
        assert pulse.limit_s == 100.0
        with pulse.phase("write"):
            assert pulse.limit_s == 100.0
    assert (pulse.limit_s, pulse.step) == (10.0, 1)


def test_collectives_wait_a_little_longer_than_a_phase_may_last() -> None:
    reports: list[float] = []
    pulse = Pulse(start_timeout_s=100.0, step_timeout_s=10.0)
    pulse.govern(reports.append)
    pulse.step_done(1)
    pulse.step_done(2)
    with pulse.phase("save", patient=True):
        pass
    assert reports == [limit + COLLECTIVE_MARGIN_S for limit in (100.0, 10.0, 100.0, 10.0)]


def test_every_change_is_progress_and_an_error_leaves_the_phase() -> None:
    pulse = Pulse(100.0, 10.0)
    before = pulse.progress
    try:
        with pulse.phase("data"):
            raise KeyError
    except KeyError:
        pass
    assert pulse.progress == before + 2
    assert pulse.name == "start"
