"""Points and boxes in replies, as the official scorers read them. The table was made by running those scorers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.data.records import format_boxes, format_points, quantise
from pokevla.evaluation.vlm_benchmarks.parsing.points import (
    PointParser,
    refspatial_gemini,
    refspatial_molmo,
    refspatial_pixels,
    refspatial_tuples,
    where2place_tuples,
)
from pokevla.evaluation.vlm_benchmarks.parsing.regions import Reading, Region, point_region, region_score

WIDTH, HEIGHT = 640, 480
CENTRE = point_region(320, 144)


def areas(reading: Reading) -> list[int]:
    return [region.area for region in reading.regions]


def both(reply: str) -> tuple[Reading, Reading]:
    return where2place_tuples(reply, WIDTH, HEIGHT), refspatial_tuples(reply, WIDTH, HEIGHT)


@pytest.mark.parametrize("reply", ["[(0.5, 0.3)]", "(0.5,0.3)", "The spot is ((0.5, 0.3), (0.5, 0.3))", "(0.5,   0.3)"])
def test_relative_points_are_read(reply: str) -> None:
    for reading in both(reply):
        assert set(reading.regions) == {CENTRE}
        assert (reading.failure, reading.in_pixels) == (None, False)


@pytest.mark.parametrize(
    "reply",
    [
        "( 0.5, 0.3)", "(0.5, 0.3 )", "(0.5 , 0.3)", "(.5, .3)", "[0.5, 0.3]", "(5e-1, 0.2)", "(x=0.5, y=0.3)",
        "(50%, 30%)", "<point>0.5, 0.3</point>", "", "near the cup", "(0.5, 0.3, 0.2)", "(0.5)", "(1,2,3,4,5)",
    ],
)  # fmt: skip
def test_what_the_scorers_do_not_read(reply: str) -> None:
    for reading in both(reply):
        assert reading == Reading()
        assert reading.failure == "nothing read"


@pytest.mark.parametrize(("reply", "x", "y"), [("(0, 1)", 0, 1), ("(1, 1)", 1, 1), ("(500, 300)", 500, 300)])
def test_whole_numbers_are_pixels(reply: str, x: int, y: int) -> None:
    for reading in both(reply):
        assert reading.regions == (point_region(x, y),)
        assert reading.in_pixels


@pytest.mark.parametrize("reply", ["(1, 0.3)", "(1.0, 0.5)"])
def test_one_is_outside(reply: str) -> None:
    for reading in both(reply):
        assert reading.regions[0].x0 == 640
        assert region_score(reading.regions, np.ones((HEIGHT, WIDTH))) == 0.0


def test_the_last_pixel_is_inside() -> None:
    for reading in both("(0.999, 0.999)"):
        assert reading.regions == (point_region(639, 479),)


def test_boxes_as_each_scorer_reads_them() -> None:
    table = {  # reply: (pixels of Where2Place, pixels of RefSpatial); a text is why it skips
        "(0.1, 0.2, 0.11, 0.21)": (24, 24),
        "(0, 0.2, 0.05, 0.21)": ("TypeError", 128),
        "(0.5, 0.2, 0.4, 0.3)": (0, "ValueError"),
        "(0.1, 0.2, 1, 0.21)": (2304, 2304),
        "(-0.2, 0.1, 0.1, 0.12)": (0, 1728),
    }
    for reply, expected in table.items():
        for reading, pixels in zip(both(reply), expected, strict=True):
            if isinstance(pixels, str):
                assert (reading.skipped, reading.failure) == (pixels, f"skipped: {pixels}"), reply
            else:
                assert (sum(areas(reading)), reading.skipped) == (pixels, None), reply
                assert (reading.failure is None) == (pixels > 0), reply


def test_a_box_outside_counts_with_its_outside_part() -> None:
    reading = refspatial_tuples("(-0.2, 0.1, 0.1, 0.12)", WIDTH, HEIGHT)
    assert region_score(reading.regions, np.ones((HEIGHT, WIDTH))) == pytest.approx(64 / 192)


def test_where2place_assumes_its_own_size_and_refspatial_that_of_the_mask() -> None:
    reply = "(0.5, 0.5)"
    assert where2place_tuples(reply, 100, 100).regions == (point_region(320, 240),)
    assert refspatial_tuples(reply, 100, 60).regions == (point_region(50, 30),)


def test_negative_numbers_round_towards_the_image() -> None:
    assert where2place_tuples("(-0.001, 0.5)", WIDTH, HEIGHT).regions == (point_region(0, 240),)


@pytest.mark.parametrize("reply", [f"({'9' * 5000}, 1)", f"({'9' * 400}.0, 0.5)"])
def test_numbers_that_python_refuses_are_skipped(reply: str) -> None:
    for reading in both(reply):
        assert reading.skipped in ("ValueError", "OverflowError")


def test_a_box_of_any_size_takes_no_memory() -> None:
    reading = refspatial_tuples("(0, 0, 1000000, 1000000)", WIDTH, HEIGHT)
    assert region_score(reading.regions, np.ones((HEIGHT, WIDTH))) == pytest.approx(1e-12)


def test_other_families_of_refspatial() -> None:
    assert refspatial_pixels("(12, 30) and (0, 0, 2, 3)", 64, 48).regions == (point_region(12, 30), Region(0, 0, 2, 3))
    assert refspatial_pixels("(0.5, 0.3)", 64, 48).skipped == "TypeError"
    assert refspatial_pixels("(5, 5, 2, 2)", 64, 48).skipped == "ValueError"
    xml = '<points x1="50.0" y1="25" x2="10" y2="10" alt="cup">cup</points>'
    assert refspatial_molmo(xml, 640, 480).regions == (point_region(320, 120), point_region(64, 48))
    assert refspatial_molmo('<point x="50" y="25">cup</point>', 640, 480) == Reading()
    fenced = '```json\n[{"point": [250, 500], "label": "cup"}, {"label": "none"}, {"point": [1]}]\n```'
    assert refspatial_gemini(fenced, 640, 480).regions == (point_region(320, 120),)
    assert refspatial_gemini('[{"point": [250, 500]}]', 640, 480) == Reading()
    assert refspatial_gemini("```json\n[{]\n```", 640, 480) == Reading()
    assert refspatial_gemini("```json\n[5]\n```", 640, 480).skipped == "TypeError"
    assert refspatial_gemini('```json\n[{"point": [NaN, 5]}]\n```', 640, 480).skipped == "ValueError"
    assert refspatial_gemini("```json\n" + "[" * 100_000 + "\n```", 640, 480).skipped == "RecursionError"


PARSERS: list[PointParser] = [
    where2place_tuples, refspatial_tuples, refspatial_pixels, refspatial_molmo, refspatial_gemini,
]  # fmt: skip


@given(st.text(alphabet='()[]{},.-+0123456789 exy"=`\njsonpit:', max_size=80) | st.text(max_size=40))
def test_any_reply_has_a_score(reply: str) -> None:
    mask = np.ones((HEIGHT, WIDTH))
    for parse in PARSERS:
        reading = parse(reply, WIDTH, HEIGHT)
        assert 0.0 <= region_score(reading.regions, mask) <= 1.0
        assert reading.failure is not None or any(areas(reading))


coordinate = st.floats(0, 1, allow_nan=False).map(quantise)


@given(st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=8))
def test_our_points_are_read_where_they_are(points: list[tuple[float, float]]) -> None:
    expected = tuple(point_region(int(x * WIDTH), int(y * HEIGHT)) for x, y in points)
    for reading in both(format_points(points)):
        assert (reading.regions, reading.in_pixels, reading.skipped) == (expected, False, None)


@given(st.tuples(coordinate, coordinate, coordinate, coordinate))
def test_our_boxes_are_read_as_boxes(corners: tuple[float, float, float, float]) -> None:
    x0, x1 = sorted((corners[0], corners[2]))
    y0, y1 = sorted((corners[1], corners[3]))
    expected = Region(int(x0 * WIDTH), int(y0 * HEIGHT), int(x1 * WIDTH), int(y1 * HEIGHT))
    for reading in both(format_boxes([(x0, y0, x1, y1)])):
        assert reading.skipped is None
        assert areas(reading) == [expected.area]


boxes = st.tuples(*[st.integers(-5, 12)] * 4).map(lambda box: Region(*box))


@given(st.lists(boxes, max_size=4), st.integers(0, 2**32))
def test_the_score_is_the_mean_over_all_pixels(regions: list[Region], seed: int) -> None:
    mask = np.random.default_rng(seed).integers(0, 256, (6, 8)) / 255.0
    pixels = [(x, y) for r in regions for y in range(r.y0, r.y1) for x in range(r.x0, r.x1)]
    inside = [Fraction(float(mask[y, x])) for x, y in pixels if 0 <= x < 8 and 0 <= y < 6]
    expected = float(sum(inside) / len(pixels)) if pixels else 0.0
    assert region_score(regions, mask) == pytest.approx(expected)
