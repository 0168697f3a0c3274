"""McNemar's exact test against scipy and statsmodels, and its size."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
import scipy.stats
from statsmodels.stats.contingency_tables import mcnemar as oracle

from ablations.errors import UserError
from analysis.statistics.items import SCOPE, exact_p, flips, mcnemar, paired_items


def examples(scores, images=None):
    frame = {"item_id": [f"item/{n}" for n in range(len(scores))], "score": scores}
    return pandas.DataFrame(frame if images is None else {**frame, "image_id": images})


def table(both, first, second, neither):
    """Two examples tables with so many items right in both, in one, in neither."""
    a = [100.0] * both + [100.0] * first + [0.0] * second + [0.0] * neither
    b = [100.0] * both + [0.0] * first + [100.0] * second + [0.0] * neither
    return examples(a), examples(b)


@pytest.mark.parametrize("cells", [(50, 12, 3, 35), (10, 0, 7, 3), (5, 4, 4, 1), (3, 0, 0, 2)])
def test_it_is_the_exact_test_of_statsmodels(cells) -> None:
    both, first, second, neither = cells
    (row,) = mcnemar(*table(*cells)).to_dict("records")
    known = oracle([[both, first], [second, neither]], exact=True).pvalue
    assert row["p_value"] == pytest.approx(1.0 if np.isnan(known) else known)
    assert (row["first_better"], row["second_better"]) == (first, second)
    assert (row["items"], row["alike"], row["images"]) == (sum(cells), both + neither, sum(cells))
    assert row["scope"] == SCOPE == "these checkpoints only"


def test_a_hundred_thousand_flips_are_counted_exactly() -> None:
    known = scipy.stats.binomtest(49_500, 100_000, 0.5).pvalue
    assert exact_p(49_500, 50_500) == pytest.approx(known, rel=1e-6)


def test_questions_on_one_image_are_one_witness() -> None:
    first = examples([0.0] * 40, images=[n // 10 for n in range(40)])
    second = examples([100.0] * 40, images=[n // 10 for n in range(40)])
    (row,) = mcnemar(first, second).to_dict("records")
    assert (row["items"], row["second_better"], row["images"]) == (40, 40, 4)
    assert row["p_value"] == pytest.approx(2 * 0.5**4)  # not 2 · 0.5⁴⁰


def test_an_image_whose_questions_cancel_is_no_flip() -> None:
    first, second = examples([0.1, 0.2, 0.7], [1, 1, 1]), examples([0.2, 0.7, 0.1], [1, 1, 1])
    (row,) = mcnemar(first, second).to_dict("records")
    assert (row["images_first_better"], row["images_second_better"], row["p_value"]) == (0, 0, 1.0)


def test_swapping_the_two_swaps_the_counts_and_keeps_the_p_value() -> None:
    draw = np.random.default_rng(1)
    first, second = (
        examples(draw.integers(0, 2, 60) * 1.0, draw.integers(0, 20, 60)) for _ in "ab"
    )
    second["image_id"] = first["image_id"]
    (one,), (other,) = (mcnemar(*x).to_dict("records") for x in ((first, second), (second, first)))
    assert one["p_value"] == other["p_value"]
    assert one["first_better"] == other["second_better"]
    (lower,) = mcnemar(second, first, lower_is_better=True).to_dict("records")
    assert lower["second_better"] == one["second_better"]
    shuffled = first.sample(frac=1, random_state=3)
    assert mcnemar(shuffled, second)["p_value"].item() == one["p_value"]


def test_items_are_matched_by_their_name_and_the_rest_is_told() -> None:
    first, second = table(1, 2, 3, 4)
    second = second[::-1].iloc[2:]  # other order, without the last two
    second.iloc[0, second.columns.get_loc("score")] = np.nan
    (row,) = mcnemar(first, second).to_dict("records")
    assert (row["items"], row["unmatched"]) == (7, 4)


def test_graded_scores_are_compared_as_they_are_or_from_a_score_on() -> None:
    first, second = examples([0.0, 0.3, 1.0]), examples([0.3, 0.6, 1.0])
    assert list(paired_items(first, second)["change"]) == [1, 1, 0]
    right = paired_items(first, second, right_from=0.5)
    assert list(right["change"]) == [0, 1, 0]
    assert list(right["second_score"]) == [0, 1, 1]
    assert list(flips(first, second)["item_id"]) == ["item/0", "item/1"]


def test_scores_that_rounding_alone_makes_differ_are_alike() -> None:
    first, second = examples([0.1 + 0.2, 1.0]), examples([0.3, 1.0])
    assert flips(first, second).empty


def test_what_is_no_table_of_items_is_told() -> None:
    first, second = table(1, 1, 1, 1)
    with pytest.raises(UserError, match=r"second .* no column 'score'"):
        mcnemar(first, second.drop(columns="score"))
    with pytest.raises(UserError, match=r"first have the item 'item/0' twice"):
        mcnemar(pandas.concat([first, first]), second)


def test_false_alarms_of_equal_checkpoints_stay_below_the_level() -> None:
    draw = np.random.default_rng(0)
    flipped = draw.binomial(200, 0.2, 20_000)
    up = draw.binomial(flipped, 0.5)
    p = np.array([exact_p(int(a), int(n - a)) for a, n in zip(up, flipped, strict=True)])
    for level in (0.1, 0.05, 0.01):
        assert (p <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / len(p))


def test_it_calls_two_seeds_of_one_recipe_different_which_is_why_it_is_labelled() -> None:
    """Seeds that differ by 2 points: of 5,000 items the test finds what is no property of the arm.

    Its rate is 2Φ(-1.96/√(1 + r²)), r = SD of the seeds · √items / SD of the items, whatever the
    number of seeds; for r = 2 · √5000 / 45 about a half.
    """
    draw, found = np.random.default_rng(0), 0
    for _ in range(300):
        gain = draw.normal(0, 0.02)  # of this seed of an arm against that of its twin
        up = draw.binomial(5000, (0.2025 + gain) / 2)
        down = draw.binomial(5000, (0.2025 - gain) / 2)
        found += exact_p(int(up), int(down)) <= 0.05
    r = 0.02 * np.sqrt(5000) / 0.45
    expected = 2 * scipy.stats.norm.cdf(-1.96 / np.sqrt(1 + r * r))
    assert found / 300 == pytest.approx(expected, abs=0.09)
    assert found / 300 > 0.4
