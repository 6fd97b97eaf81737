"""A signal only sets a flag, whenever it arrives."""

from __future__ import annotations

import os
import signal
import threading

from pokevla.training.health.signals import REASONS, reason_of, requeued, stop_signals


def test_each_signal_has_its_reason() -> None:
    for number, reason in REASONS.items():
        with stop_signals() as stop:
            assert reason_of(stop.code) is None
            os.kill(os.getpid(), number)
            assert reason_of(stop.code) == reason


def test_sigterm_overrides_the_warning_of_the_time_limit_in_either_order() -> None:
    for order in [(signal.SIGUSR2, signal.SIGTERM), (signal.SIGTERM, signal.SIGUSR2)]:
        with stop_signals() as stop:
            for number in order:
                os.kill(os.getpid(), number)
            assert reason_of(stop.code) == "terminated"


def test_former_handlers_are_back_afterwards() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _frame: heard.append(number))
    try:
        with stop_signals():
            os.kill(os.getpid(), signal.SIGUSR2)
        assert heard == []
        os.kill(os.getpid(), signal.SIGUSR2)
        assert heard == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_signal_held_back_before_the_handler_stood_is_not_lost() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, REASONS)
    try:
        # To this thread: another one might receive a signal sent to the process and, not blocking it, end the tests.
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        with stop_signals() as stop:
            assert reason_of(stop.code) == "terminated"
        assert set(REASONS) <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_the_error_says_how_to_go_on(tmp_path) -> None:
    error = requeued("timeout", 12, tmp_path)
    assert (error.exit_code, error.reason) == (75, "timeout")
    assert str(error) == f"saved at step 12; continue with: pokevla resume {tmp_path}"
