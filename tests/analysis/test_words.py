from __future__ import annotations

import math

import pytest

from analysis import words


@pytest.mark.parametrize(
    ("uncertainties", "places"),
    [([1.5], 1), ([0.86], 1), ([0.14], 2), ([0.4, 0.4, 9.0], 1), ([0.021], 3), ([40.0], 1),
     ([1e-9], 4), ([], 1), ([math.nan, 0.0], 1)],
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
