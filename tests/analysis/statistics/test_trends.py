"""Slopes, curvature and order: the worked example, scipy, coverage."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
import scipy.stats

from ablations.contrasts import Design
from ablations.workload import Metric, Task
from analysis.score_table import score_table
from analysis.statistics.trends import over_shots, trends

LEVELS = ("0", "25", "50", "75", "100")
SEEDS = np.array(
    [
        (58.0, 59.1, 60.2, 60.9, 61.3),
        (57.2, 58.9, 59.4, 60.1, 61.5),
        (58.4, 58.8, 60.0, 61.2, 61.1),
    ]
)


def tabled(table_of, values=SEEDS, levels=LEVELS):
    return table_of({"share": levels}, {(x,): values[:, i] for i, x in enumerate(levels)})


def test_the_worked_trend(table_of) -> None:
    (row,) = trends(tabled(table_of)).to_dict("records")
    assert row["slope"] == pytest.approx(0.034667, abs=1e-6)
    assert row["p_uncorrected"] / 2 == pytest.approx(0.002321, abs=1e-6)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((0.024469, 0.044865), abs=1e-6)
    assert row["curvature_p_uncorrected"] == pytest.approx(0.119229, abs=1e-6)
    assert row["page_l"] == 164
    assert row["page_p_rising"] == pytest.approx(7.523148e-06, rel=1e-4)
    assert row["page_p_falling"] > 0.99
    assert (row["lowest"], row["highest"], row["levels"], row["per"]) == (0, 100, 5, "1")


def test_the_order_in_which_levels_are_written_changes_nothing(table_of) -> None:
    order = [2, 0, 4, 1, 3]
    shuffled = tabled(table_of, SEEDS[:, order], tuple(LEVELS[i] for i in order))
    columns = ["slope", "curvature", "page_l", "p_uncorrected"]
    mine, other = (trends(t)[columns].iloc[0].tolist() for t in (shuffled, tabled(table_of)))
    assert mine == pytest.approx(other)


def test_a_parabola_is_found_exactly(table_of) -> None:
    x = np.array([1.0, 2, 4, 8])
    noise = np.array([[0.0], [0.1], [0.2]])
    values = 3 + 2 * x - 0.5 * x**2 + noise
    (row,) = trends(tabled(table_of, values, ("1", "2", "4", "8"))).to_dict("records")
    assert row["curvature"] == pytest.approx(-0.5)
    (doubling,) = trends(
        tabled(table_of, 5 + 3 * np.log2(x) + noise, ("1", "2", "4", "8")), scale="log2"
    ).to_dict("records")
    assert doubling["slope"] == pytest.approx(3.0)
    assert doubling["per"] == "doubling"


def test_a_factor_whose_levels_are_no_numbers_has_no_trend(table_of) -> None:
    assert trends(table_of({"kind": ("a", "b")}, {("a",): (1, 2), ("b",): (2, 3)})).empty
    two = trends(table_of({"n": ("1", "2")}, {("1",): (1, 2.0), ("2",): (2, 3.5)}))
    assert two["slope"].tolist() == [1.25]
    assert two[["curvature", "page_l"]].isna().all().all()


@pytest.mark.slow
def test_slopes_and_curvatures_cover_and_hold_their_level(table_of, drawn, forms, within) -> None:
    means = {(x,): 50 + 0.3 * float(x) for x in ("0", "1", "2", "4")}
    table = table_of({"x": ("0", "1", "2", "4")}, drawn(means, 4, 500, number=3))
    rows = [trends(table, form).iloc[0] for form in forms(table)]
    assert within(np.mean([r["ci_low"] <= 0.3 <= r["ci_high"] for r in rows]), 0.95, 500)
    bent = [r["curvature_low"] <= 0 <= r["curvature_high"] for r in rows]
    assert within(np.mean(bent), 0.95, 500)
    flat = dict.fromkeys(means, 50.0)
    table = table_of({"x": ("0", "1", "2", "4")}, drawn(flat, 4, 500, number=4))
    p = np.array([trends(table, form).iloc[0]["page_p_rising"] for form in forms(table)])
    assert (p <= 0.05).mean() <= 0.05 + 3 * (0.0475 / 500) ** 0.5


def test_scores_over_shots_and_what_they_gain() -> None:
    frame = pandas.DataFrame(
        [
            (arm, seed, "t", "acc", shots, 10.0 * seed + shots * gain + own)
            for arm, gain in (("base", 1.0), ("x=1", 0.1))
            for seed, own in ((1, 0.3), (2, -0.2), (3, 0.1))
            for shots, own in ((0, 0.0), (8, own))
        ],
        columns=["arm", "seed", "task", "metric", "shots", "value"],
    )
    design = Design({"x": ("0", "1")}, {"base": {"x": "0"}, "x=1": {"x": "1"}})
    task = Task(metrics=(Metric(name="acc", goal="maximise", worst=0),), most_shots=8)
    found = over_shots(score_table(frame, design, ("t", "acc", 0), {"t": task}))
    assert found[["arm", "shots"]].values.tolist() == [
        *(["base", 0], ["base", 8]),
        *(["x=1", 0], ["x=1", 8]),
    ]
    known = scipy.stats.ttest_1samp([8.3, 7.8, 8.1], 0)
    row = found.iloc[1]
    assert row["gain"] == pytest.approx(8.0666667)
    assert row["gain_p_uncorrected"] == pytest.approx(known.pvalue)
    assert (row["gain_low"], row["gain_high"]) == pytest.approx(known.confidence_interval(0.95))
    assert np.isnan(found.iloc[0]["gain"])
