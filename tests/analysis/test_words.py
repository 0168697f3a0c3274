from __future__ import annotations

import math
import random

import pytest

from analysis import words


@pytest.mark.parametrize(
    ("uncertainties", "places"),
    [([1.5], 1), ([0.86], 1), ([0.14], 2), ([0.4, 0.4, 9.0], 1), ([0.021], 3), ([40.0], 1),
     ([1e-9], 10), ([], 1), ([math.nan, 0.0], 1)],
)  # fmt: skip
def test_decimals_follow_the_uncertainty(uncertainties: list[float], places: int) -> None:
    assert words.decimals(uncertainties) == places


def test_numbers_have_a_real_minus_sign_and_a_dash_for_nothing() -> None:
    assert words.signed(-4.04, 1) == "−4.0"
    assert words.signed(12.34, 1) == "+12.3"
    assert words.interval(-1.2, 3.44, 1) == "−1.2 to +3.4"
    assert words.number(None, 1) == words.signed(math.nan, 1) == words.interval(None, 1.0, 1) == "–"
    assert words.mean_sd(81.26, 0.44, 1) == "81.3 ± 0.4"
    assert words.mean_sd(81.26, math.nan, 1) == "81.3"


def test_counts_and_figures_have_no_exponent_where_a_unit_says_it() -> None:
    told = [words.count(one) for one in (950.0, 1234, 999_600, 2.5e21, 0.0, None, math.nan)]
    assert told == ["950", "1.23 k", "1 M", "2.5 Z", "0", "–", "–"]
    figures = [words.figure(one) for one in (0.0003, 16, 1152, 9_999.0, 12_000, None)]
    assert figures == ["0.0003", "16", "1152", "9999", "12 k", "–"]


def test_a_p_value_is_never_printed_as_zero() -> None:
    assert words.p_value(1e-12) == "< 0.0001"
    assert words.p_value(0.0344) == "0.034"
    assert words.p_value(0.364) == "0.36"
    assert words.p_value(1.0) == "1.00"


def test_large_numbers_and_times_are_short() -> None:
    assert [words.count(x) for x in (950, 1234, 3.4e6, 2.2e12)] == [
        "950",
        "1.23 k",
        "3.4 M",
        "2.2 T",
    ]
    assert [words.duration(x) for x in (6e-05, 2.34, 42, 185, 7800)] == [
        "0 s", "2.3 s", "42 s", "3 min 05 s", "2 h 10 min",
    ]  # fmt: skip


def test_levels_are_percents() -> None:
    assert words.percent(0.9) == "90 %"
    assert words.percent(1 - 0.1 / 6) == "98.33 %"


def test_what_rounds_to_zero_has_no_sign() -> None:
    assert (words.signed(-0.0004, 3), words.number(-0.0, 1)) == ("0.000", "0.0")
    assert (words.signed(0.0004, 3), words.boundary(-0.0)) == ("0.000", "0")


def test_what_is_not_known_to_be_uncertain_keeps_three_digits() -> None:
    assert words.decimals([math.nan], [0.0312]) == 4
    assert words.decimals([], [72.34, 71.0]) == 1
    assert words.decimals([], [None, 0.0, math.nan]) == 1


@pytest.mark.parametrize(
    ("mean", "low", "high", "edge", "places"),
    [
        (62.0, 60.004, 64.1, 60.0, 3),  # left out, and seen to be
        (0.012, 0.0115, 0.0125, 0.0, 2),
        (1.0, 0.2599, 3.0, 0.26, 2),  # left in: 0.3 would seem to be above 0.26
        (1.0, 0.24, 3.0, 0.23, 2),  # left out: 0.2 would seem to be below 0.23
        (1.0, -0.04, 3.0, 0.0, 1),
        (0.0312, None, None, 0.0, 2),
        (0.0, None, None, 0.0, 1),
        (math.nan, math.nan, math.nan, 0.0, 1),
    ],
)
def test_rounding_moves_no_interval_over_its_boundary(
    mean: float, low: float | None, high: float | None, edge: float, places: int
) -> None:
    assert words.telling_decimals(1, mean, low, high, edge) == places


def test_numbers_that_were_written_are_shown_as_written() -> None:
    assert words.boundary(1234567.5) == "1234567.5"
    assert words.boundary(0.1 + 0.2) == "0.3"
    assert words.percent(1 - 0.1 / 40_000) == "99.99975 %"


def test_a_p_value_close_to_alpha_is_seen_on_its_side() -> None:
    assert words.p_value(0.05004, 0.05) == "0.05004"
    assert words.p_value(0.05, 0.05) == "0.05"
    assert words.p_value(0.04996, 0.05) == "0.05"


def test_numbers_beyond_the_digits_of_a_float_are_short() -> None:
    assert words.number(-1.25e200, 1) == "−1.25e+200"
    assert words.signed(1.25e200, 1) == "+1.25e+200"


def test_no_rounding_of_any_interval_tells_another_side() -> None:
    draw = random.Random(1)
    for _ in range(3000):
        size = 10 ** draw.uniform(-9, 9)
        edge = round(draw.gauss(0, size), draw.randint(0, 6))
        low = edge + draw.gauss(0, size) * 10 ** draw.uniform(-5, 0)
        high = low + size * 10 ** draw.uniform(-6, 1)
        mean = (low + high) / 2
        places = words.decimals([high - low], [mean])
        places = words.telling_decimals(places, mean, low, high, edge)
        shown = [float(words.number(x, places).replace("−", "-")) for x in (low, mean, high)]
        assert shown == sorted(shown)
        assert (shown[0] <= edge <= shown[2]) == (low <= edge <= high), (low, high, edge)
