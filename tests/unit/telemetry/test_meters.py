"""Samples per second, waiting for data, memory."""

import pytest

from pokevla.telemetry.meters import Arithmetic, StepMeter, process_memory_gib


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rates_and_shares_are_those_of_the_interval() -> None:
    clock = Clock()
    meter = StepMeter(clock)
    for _ in range(2):
        with meter.waiting():
            clock.now += 1.0
        clock.now += 3.0
        meter.add(samples=16)

    values = meter.take()

    assert values["samples_per_s"] == pytest.approx(4.0)
    assert values["data_wait_share"] == pytest.approx(0.25)
    assert values["step_s"] == pytest.approx(4.0)


def test_next_interval_starts_from_zero() -> None:
    clock = Clock()
    meter = StepMeter(clock)
    clock.now += 5.0
    meter.add(samples=10)
    meter.take()
    clock.now += 1.0
    meter.add(samples=10)

    assert meter.take()["samples_per_s"] == pytest.approx(10.0)


def test_interval_without_time_or_steps_is_zero() -> None:
    values = StepMeter(Clock()).take()

    assert (values["samples_per_s"], values["data_wait_share"], values["step_s"]) == (0.0, 0.0, 0.0)


def test_waiting_counts_even_if_the_data_fails() -> None:
    clock = Clock()
    meter = StepMeter(clock)

    def read() -> None:
        with meter.waiting():
            clock.now += 2.0
            raise StopIteration

    with pytest.raises(StopIteration):
        read()
    clock.now += 2.0

    assert meter.take()["data_wait_share"] == pytest.approx(0.5)


def test_memory_is_that_of_the_process() -> None:
    assert 0.01 < process_memory_gib() < 100


def test_flops_are_those_of_one_rank_and_utilisation_is_their_share_of_its_peak() -> None:
    clock = Clock()
    meter = StepMeter(clock, Arithmetic(flops_per_sample=3e12, world_size=2, peak_tflops=24.0))
    clock.now += 4.0
    meter.add(samples=16)

    values = meter.take()

    assert values["tflops_per_rank"] == pytest.approx(16 / 4.0 * 3 / 2)
    assert values["mfu"] == pytest.approx(0.25)


def test_without_a_known_peak_there_is_no_utilisation() -> None:
    clock = Clock()
    meter = StepMeter(clock, Arithmetic(flops_per_sample=1e12, world_size=1, peak_tflops=None))
    clock.now += 1.0
    meter.add(samples=2)

    values = meter.take()

    assert values["tflops_per_rank"] == pytest.approx(2.0)
    assert "mfu" not in values


def test_an_interval_without_steps_has_no_arithmetic() -> None:
    meter = StepMeter(Clock(), Arithmetic(flops_per_sample=1e12, world_size=1, peak_tflops=1.0))

    assert not {"tflops_per_rank", "mfu"} & meter.take().keys()
