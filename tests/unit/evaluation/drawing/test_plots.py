"""Curves are where their values are."""

from __future__ import annotations

import numpy as np

from pokevla.evaluation.drawing.plots import ON_PAPER, Axes, Curve, draw_plot

RED = (255, 0, 0)


def red_columns(curve: Curve) -> list[int]:
    plot = np.asarray(draw_plot((100, 40), [curve], Axes(0.0, 100.0, 0.0, 1.0), ON_PAPER)).astype(int)
    return sorted(set(np.argwhere((plot[..., 0] > 200) & (plot[..., 1] < 120))[:, 1].tolist()))


def test_a_value_that_is_not_known_interrupts_a_curve() -> None:
    whole = red_columns(Curve([0, 40, 60, 99], [0.5] * 4, RED))
    broken = red_columns(Curve([0, 40, 50, 60, 99], [0.5, 0.5, None, 0.5, 0.5], RED))
    assert set(range(1, 99)) <= set(whole)
    assert not set(broken) & set(range(44, 57))
    assert {20, 80} <= set(broken)


def test_one_point_alone_is_seen() -> None:
    assert 50 in red_columns(Curve([50], [0.5], RED))
