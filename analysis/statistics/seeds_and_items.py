"""Seed noise and item noise apart: would other seeds, or other questions, have said the same?

A difference of two arms on item i with seed s is Δ + u_s + v_i + w_si: u is what training anew
changes, v that one recipe suits some items, w the rest. More items never take u out, more seeds
never v (Miller 2024, Adding Error Bars to Evals; crossed random effects: Cornfield and Tukey 1956,
Owen 2007).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas

from ablations.errors import UserError
from analysis.effects import LEVEL
from analysis.statistics.items import paired_items

ADDITIVE_TO = 4  # seeds: below five the additive variance, which is the safer of the two
COLUMNS = (
    *("effect", "seeds", "items", "sd_seed", "sd_item", "sd_rest"),
    *("se_seeds", "df_seeds", "seeds_low", "seeds_high"),
    *("se_both", "df_both", "both_low", "both_high", "ci_level", "unmatched"),
)


def seed_and_item_noise(
    pairs: Mapping[int, tuple[pandas.DataFrame, pandas.DataFrame]], by_image: bool = True
) -> pandas.DataFrame:
    """The parts of the noise of a difference, in one row: second arm minus first.

    `pairs` is seed → examples of the first arm and of the second with that seed. Items are those
    that all of them have; with `by_image` questions on one image are averaged first, since they are
    no independent draws. Scores are taken as they are, unweighted.

    Columns:
        effect            mean over seeds and items, in the unit of the examples' scores
        seeds, items      of the table; an item is an image where several questions share one
        sd_seed           SD of u: of the true difference over training runs
        sd_item           SD of v: over items
        sd_rest           SD of w
        se_seeds, df_seeds, seeds_low, seeds_high     items taken as they are: what a benchmark says
        se_both, df_both, both_low, both_high         for other items of the kind as well
        ci_level          of both intervals
        unmatched         items that not all have, left out

    Raises:
        UserError: fewer than two seeds or two items.
    """
    columns, everything = [], set()
    for seed, (first, second) in pairs.items():
        found = paired_items(first, second)
        everything |= {*first["item_id"], *second["item_id"]}
        gain = found["second_score"] - found["first_score"]
        columns.append(
            pandas.Series(gain.to_numpy(), index=[found["item_id"], found["image"]], name=seed)
        )
    if len(columns) < 2:
        raise UserError(
            f"seed and item noise needs two seeds, there are examples of {len(columns)}"
        )
    whole = pandas.concat(columns, axis=1, join="inner")
    matched = len(whole)
    if by_image:
        whole = whole.groupby(level=1, sort=False).mean()
    if len(whole) < 2:
        raise UserError(f"seed and item noise needs two items that all seeds have: {len(whole)}")
    row = two_way(whole.to_numpy(dtype=float).T)
    return pandas.DataFrame(
        [{**row, "unmatched": len(everything) - matched}], columns=list(COLUMNS)
    )


def two_way(differences: np.ndarray) -> dict[str, float]:
    """The row of `seed_and_item_noise` for `[seed, item]`, without `unmatched`.

    With both random se² is (MS_seed + MS_item)/(nm) up to four seeds, and from five on
    (MS_seed + max(0, MS_item - MS_rest))/(nm); degrees of freedom by Satterthwaite.
    """
    from scipy.special import stdtrit

    n, m = differences.shape
    mean = float(differences.mean())
    by_seed, by_item = differences.mean(axis=1), differences.mean(axis=0)
    rest = differences - by_seed[:, None] - by_item + mean
    ms_seed = m * float(((by_seed - mean) ** 2).sum()) / (n - 1)
    ms_item = n * float(((by_item - mean) ** 2).sum()) / (m - 1)
    ms_rest = float((rest**2).sum()) / ((n - 1) * (m - 1))
    of_items = ms_item if n <= ADDITIVE_TO else max(0.0, ms_item - ms_rest)
    both = ms_seed + of_items
    df = both**2 / (ms_seed**2 / (n - 1) + of_items**2 / (m - 1)) if both > 0 else math.nan
    errors = {
        "seeds": (math.sqrt(ms_seed / (n * m)), n - 1.0),
        "both": (math.sqrt(both / (n * m)), df),
    }
    row = {
        "effect": mean,
        "seeds": n,
        "items": m,
        "sd_seed": math.sqrt(max(0.0, ms_seed - ms_rest) / m),
        "sd_item": math.sqrt(max(0.0, ms_item - ms_rest) / n),
        "sd_rest": math.sqrt(ms_rest),
        "ci_level": LEVEL,
    }
    for name, (error, freedom) in errors.items():
        half = float(stdtrit(freedom, 0.5 + LEVEL / 2)) * error if error > 0 else math.nan
        row |= {f"se_{name}": error, f"df_{name}": freedom}
        row |= {f"{name}_low": mean - half, f"{name}_high": mean + half}
    return row
