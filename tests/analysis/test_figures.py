from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ET

import pytest

from analysis.figures import (
    BEHIND,
    DASHES,
    LONGEST,
    MOST_POINTS,
    PALETTE,
    Band,
    ForestRow,
    band,
    curves,
    forest,
    line_style,
    log_ticks,
    spread,
    ticks,
)

SVG = "{http://www.w3.org/2000/svg}"


def circles(svg: str) -> list[ET.Element]:
    return list(ET.fromstring(svg).iter(f"{SVG}circle"))


def test_a_forest_places_effects_in_order_around_zero() -> None:
    rows = [
        ForestRow("factor (base: 1)"),
        ForestRow("2", -15.0, -17.0, -13.0, "−15.0"),
        ForestRow("3", 0.5, -1.0, 2.0, "+0.5"),
    ]
    svg = forest(rows, "change of accuracy")
    left, right = circles(svg)
    zero = next(
        float(line.get("x1", ""))
        for line in ET.fromstring(svg).iter(f"{SVG}line")
        if line.get("stroke") == "#222222"
    )
    assert float(left.get("cx", "")) < zero < float(right.get("cx", ""))
    assert left.get("fill") != "#ffffff"  # its interval leaves zero out
    assert right.get("fill") == "#ffffff"
    texts = {text.text for text in ET.fromstring(svg).iter(f"{SVG}text")}
    assert texts >= {"factor (base: 1)", "2", "3", "−15.0", "change of accuracy"}


def test_an_interval_far_wider_than_all_effects_ends_in_arrows() -> None:
    rows = [ForestRow("2", 1.0, -200.0, 202.0), ForestRow("3", 2.0, 1.5, 2.5)]
    svg = forest(rows, "x")
    assert svg.count("<polygon") == 2
    assert len(circles(svg)) == 2
    assert "<polygon" not in forest([ForestRow("2", 1.0, -1.0, 3.0)], "x")


def test_a_forest_without_numbers_is_still_a_picture() -> None:
    for rows in ([], [ForestRow("f"), ForestRow("2", note="–")], [ForestRow("2", 0.0, 0.0, 0.0)]):
        ET.fromstring(forest(rows, "x"))


def test_text_is_escaped() -> None:
    svg = forest([ForestRow("<b> & co", 1.0, 0.5, 1.5)], "a < b")
    assert "&lt;b&gt; &amp; co" in svg
    ET.fromstring(svg)


def test_the_noise_floor_is_shaded() -> None:
    assert "<rect" in forest([ForestRow("2", 1.0, 0.5, 1.5)], "x", noise=0.7)
    assert "<rect" not in forest([ForestRow("2", 1.0, 0.5, 1.5)], "x")


def points(svg: str, tag: str) -> list[list[tuple[float, float]]]:
    found = [line.get("points", "").split() for line in ET.fromstring(svg).iter(f"{SVG}{tag}")]
    return [[tuple(map(float, point.split(","))) for point in one] for one in found]  # ty: ignore


def test_curves_draw_the_mean_of_shared_steps_and_a_band_of_one_sd() -> None:
    lines = {"base": {1: [(1, 4.0), (2, 2.0)], 2: [(1, 2.0), (2, 1.0), (3, 0.5)]}}
    assert band(lines["base"]) == Band(
        (1, 2), (3.0, 1.5), (3 - 2**0.5, 1.5 - 0.5**0.5), (3 + 2**0.5, 1.5 + 0.5**0.5)
    )
    svg = curves(lines, "step", "loss", log=False)
    ((first, last),) = points(svg, "polyline")
    ((*above, below_last, below_first),) = points(svg, "polygon")
    for mean, high, low in ((first, above[0], below_first), (last, above[1], below_last)):
        assert mean[0] == high[0] == low[0]
        assert high[1] < mean[1] < low[1]  # downwards
        assert mean[1] - high[1] == pytest.approx(low[1] - mean[1], abs=0.11)
    assert not points(curves({"a": {1: [(1, 4.0), (2, 2.0)]}}, "step", "loss"), "polygon")


def test_a_curve_whose_seeds_end_apart_is_not_continued_by_those_that_go_on() -> None:
    assert band({1: [(1, 1.0), (2, math.nan)], 2: [(1, 3.0), (2, 3.0)]}).steps == (1,)
    assert band({1: [], 2: [(1, 3.0)]}).steps == ()


def test_a_long_curve_is_thinned_evenly_and_keeps_its_ends() -> None:
    thinned = band({1: [(step, 1.0) for step in range(10_000)]})
    assert len(thinned.steps) == MOST_POINTS
    assert (thinned.steps[0], thinned.steps[-1]) == (0, 9_999)


@pytest.mark.parametrize(("others", "lines", "areas"), [(10, 11, 0), (200, 1, 1)])
def test_of_many_curves_those_without_a_name_are_grey(others: int, lines: int, areas: int) -> None:
    behind = [{1: [(0, 5.0), (10, 1.0 + number)]} for number in range(others)]
    svg = curves({"base": {1: [(0, 5.0), (10, 2.0)]}}, "step", "loss", behind=behind)
    assert len(points(svg, "polyline")) == lines
    assert len(points(svg, "polygon")) == areas
    assert svg.count(BEHIND) == lines - 1 + areas
    assert len(svg) < 10_000


def test_curves_say_when_they_are_logarithmic() -> None:
    lines = {"base": {1: [(1, 4.0), (2, 2.0)], 2: [(1, 2.0), (2, 1.0), (3, 0.5)]}}
    svg = curves(lines, "step", "loss")
    assert "logarithmic" in svg
    assert "logarithmic" not in curves({"a": {1: [(1, -1.0), (2, 2.0)]}}, "step", "loss")


def test_curves_are_on_a_plain_axis_where_asked() -> None:
    lines = {"base": {1: [(0.0, 10.0), (4.0, 30.0), (8.0, 50.0)]}}
    plain, logarithmic = (curves(lines, "examples", "score", log=log) for log in (False, True))
    assert "logarithmic" not in plain
    assert "logarithmic" in logarithmic
    (points,) = set(re.findall(r'points="([^"]*)"', plain))
    first, middle, last = (float(point.split(",")[1]) for point in points.split())
    assert first - middle == pytest.approx(middle - last, abs=0.2)


def test_curves_leave_out_what_is_not_a_number_and_say_when_there_is_nothing() -> None:
    svg = curves({"a": {1: [(1, 2.0), (2, math.nan), (3, 1.0)]}}, "step", "loss")
    assert "nan" not in svg
    assert "no curve" in curves({}, "step", "loss")
    ET.fromstring(curves({"a": {1: [(5, 2.0)]}}, "step", "loss"))


def test_no_two_lines_look_the_same() -> None:
    styles = [line_style(number) for number in range(len(PALETTE) * len(DASHES))]
    assert len(set(styles)) == len(styles)


@pytest.mark.parametrize(("low", "high"), [(-17.2, 3.1), (0, 500), (0.001, 0.0042), (-3e5, 7e5)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 8
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)
    assert all(re.fullmatch(r"-?(0|\d+(\.\d{1,4})?)(e[+-]\d+)?", f"{tick:.6g}") for tick in found)


@pytest.mark.parametrize(("low", "high"), [(0.4, 6.0), (0.52, 0.61), (1.0, 1000.0)])
def test_log_ticks_are_inside(low: float, high: float) -> None:
    found = log_ticks(low, high)
    assert 3 <= len(found) <= 10
    assert all(low <= tick <= high for tick in found)


def test_a_single_number_is_its_own_log_tick() -> None:
    assert log_ticks(3.5, 3.5) == [3.5]


def test_labels_are_moved_apart_but_not_out() -> None:
    placed = spread([100, 101, 102, 50], 17, 0, 110)
    assert sorted(placed)[-1] <= 110
    assert placed[3] == 50
    gaps = sorted(placed)
    assert all(b - a >= 17 for a, b in itertools.pairwise(gaps))


def test_long_names_of_curves_stay_unlike_and_whole_ones_are_a_title() -> None:
    names = [f"encoder.image_size=336,encoder.patch_size=14,connector.kind={k}" for k in "abc"]
    drawn = curves({name: {1: [(0, 1.0), (10, 2.0)]} for name in names}, "step", "loss")
    shown = re.findall(r"</title>([^<]*)</text>", drawn)
    assert len(set(shown)) == 3
    assert max(map(len, shown)) <= LONGEST
    assert all(f"<title>{name}</title>" in drawn for name in names)
