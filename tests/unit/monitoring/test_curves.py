"""Curves as they are drawn."""

from __future__ import annotations

import pytest

from monitoring.curves import BOTTOM, LEFT, RIGHT, TOP, Line, draw_lines


def test_points_are_placed_on_the_axes_from_left_to_right_and_upwards() -> None:
    plot = draw_lines([Line("a", [(0, 0.0), (50, 1.0), (100, 2.0)], 0)], "", logarithmic=False)
    points = plot.curves[0].points
    assert (points[0][0], points[50][0], points[100][0]) == (LEFT, (LEFT + RIGHT) / 2, RIGHT)
    assert TOP < points[100][1] < points[50][1] < points[0][1] < BOTTOM
    assert [label for _, label in plot.x_ticks] == ["0", "20", "40", "60", "80", "100"]
    assert plot.curves[0].last == "2"


def test_a_logarithmic_axis_leaves_out_what_has_no_place_on_it() -> None:
    plot = draw_lines([Line("a", [(1, 0.0), (2, 0.01), (3, 10.0)], 0), Line("b", [(1, -1.0)], 1)], "", logarithmic=True)
    assert [list(curve.points) for curve in plot.curves] == [[2, 3]]
    assert [label for _, label in plot.y_ticks] == ["0.01", "0.1", "1", "10"]


@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_single_value_and_no_value_can_be_drawn(logarithmic: bool) -> None:
    plot = draw_lines([Line("a", [(7, 3.0)], 0)], "", logarithmic)
    assert plot.curves[0].marked
    assert plot.y_ticks
    assert draw_lines([], "", logarithmic).curves == []


def test_the_pointer_finds_all_curves_of_a_step() -> None:
    lines = [Line("a", [(1, 0.5), (2, 0.25)], 0), Line("b", [(2, 0.75)], 1)]
    first, second = draw_lines(lines, "", logarithmic=False).hover
    assert (first["step"], [value["label"] for value in first["values"]]) == (1, ["a"])
    assert [(value["label"], value["text"]) for value in second["values"]] == [("a", "0.25"), ("b", "0.75")]
