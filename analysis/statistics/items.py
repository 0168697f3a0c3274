"""Two checkpoints on the same items: which of them flip, and McNemar's exact test.

Says something of these two checkpoints and nothing of their recipes: with other seeds other items
flip, and more items only make a test of this kind surer of what one seed did (Miller 2024, Adding
Error Bars to Evals; Bouthillier et al. 2021, Accounting for Variance in Machine Learning
Benchmarks). Everything here is labelled `SCOPE`.

Examples are tables as a store keeps them (`StudyResults.examples`): a row an item, with the columns
`item_id` and `score`, and `image_id`, `image_file` and `weight` where it has them.
"""

from __future__ import annotations

import numpy as np
import pandas

from ablations.errors import UserError

SCOPE = "these checkpoints only"
IDENTICAL = 1e-9  # scores that are closer than this part of the largest are the same


def paired_items(
    first: pandas.DataFrame,
    second: pandas.DataFrame,
    *,
    right_from: float | None = None,
    lower_is_better: bool = False,
) -> pandas.DataFrame:
    """Each item that both were scored on, in the order of `first`.

    With `right_from` an item counts as right (1) from that score on and as wrong (0) below it;
    without it its scores are compared as they are.

    Columns:
        item_id
        image         what several questions share: the image's number or file, else the item's id
        first_score, second_score    in the task's own unit, or 0 and 1
        weight        of the item in its task's metric
        change        1 where the second is better, -1 where the first is, 0 where they are alike
    """
    a, b = _scored(first, "the first"), _scored(second, "the second")
    both = a.merge(b[["item_id", "score"]], on="item_id", suffixes=("_first", "_second"))
    scores = {name: both[f"score_{name}"].to_numpy(dtype=float) for name in ("first", "second")}
    if right_from is not None:
        sign = -1 if lower_is_better else 1
        scores = {name: (sign * x >= sign * right_from) * 1.0 for name, x in scores.items()}
        lower_is_better = False
    gain = scores["second"] - scores["first"]
    size = max((float(np.abs(x).max(initial=0.0)) for x in scores.values()), default=0.0)
    change = np.sign(np.where(np.abs(gain) <= IDENTICAL * size, 0.0, gain)).astype(int)
    return pandas.DataFrame(
        {
            "item_id": both["item_id"],
            "image": both["image"],
            "first_score": scores["first"],
            "second_score": scores["second"],
            "weight": both["weight"],
            "change": -change if lower_is_better else change,
        }
    )


def flips(
    first: pandas.DataFrame,
    second: pandas.DataFrame,
    *,
    right_from: float | None = None,
    lower_is_better: bool = False,
) -> pandas.DataFrame:
    """The items on which one of two checkpoints is better; columns as in `paired_items`."""
    pairs = paired_items(first, second, right_from=right_from, lower_is_better=lower_is_better)
    return pairs[pairs["change"] != 0].reset_index(drop=True)


def mcnemar(
    first: pandas.DataFrame,
    second: pandas.DataFrame,
    *,
    right_from: float | None = None,
    lower_is_better: bool = False,
) -> pandas.DataFrame:
    """McNemar's exact test of "each flip was as likely to go the other way", in one row.

    Questions on one image are no independent witnesses: flips are counted by image, each for the
    checkpoint that is better on it (the sum of its questions). With one question an image this is
    McNemar's test of items, with scores between right and wrong the exact sign test.

    Columns:
        items             that both were scored on
        unmatched         rows that the other was not asked or that have no score, left out
        first_better, second_better, alike                   items
        images            units of the test
        images_first_better, images_second_better            the flips that the test counts
        p_value           exact, two-sided, uncorrected
        scope             `SCOPE`: no statement about another seed of the same arms
    """
    pairs = paired_items(first, second, right_from=right_from, lower_is_better=lower_is_better)
    change = pairs["change"].to_numpy()
    gain = (pairs["second_score"] - pairs["first_score"]).to_numpy()
    by_image = _by_image(pairs, np.where(change == 0, 0.0, np.abs(gain) * change))
    up, down = int((by_image > 0).sum()), int((by_image < 0).sum())
    row = {
        "items": len(pairs),
        "unmatched": len(first) + len(second) - 2 * len(pairs),
        "first_better": int((change < 0).sum()),
        "second_better": int((change > 0).sum()),
        "alike": int((change == 0).sum()),
        "images": len(by_image),
        "images_first_better": down,
        "images_second_better": up,
        "p_value": exact_p(down, up),
        "scope": SCOPE,
    }
    return pandas.DataFrame([row])


def exact_p(one_way: int, other_way: int) -> float:
    """Two-sided exact p value of so many flips each way, where both ways are equally likely."""
    from scipy.special import bdtr  # 0.3 s

    n = one_way + other_way
    return min(1.0, 2.0 * float(bdtr(min(one_way, other_way), n, 0.5))) if n else 1.0


def _by_image(pairs: pandas.DataFrame, gain: np.ndarray) -> np.ndarray:
    """The weighted sum of each image's gains; 0 where they cancel but for rounding."""
    weighted = gain * pairs["weight"].to_numpy(dtype=float)
    images, _ = pandas.factorize(pairs["image"])
    total = np.bincount(images, weighted)
    size = np.bincount(images, np.abs(weighted))
    return np.where(np.abs(total) <= IDENTICAL * size, 0.0, total)


def _scored(examples: pandas.DataFrame, which: str) -> pandas.DataFrame:
    """item_id, image, weight and score of the items that have a score."""
    for name in ("item_id", "score"):
        if name not in examples:
            raise UserError(f"the examples of {which} have no column {name!r}")
    if examples["item_id"].duplicated().any():
        twice = examples.loc[examples["item_id"].duplicated(), "item_id"].iloc[0]
        raise UserError(f"the examples of {which} have the item {str(twice)!r} twice")
    scored = examples[np.isfinite(examples["score"].astype(float))]
    weight = scored.get("weight", 1.0)
    return pandas.DataFrame(
        {
            "item_id": scored["item_id"],
            "image": images_of(scored),
            "weight": weight,
            "score": scored["score"].astype(float),
        }
    )


def images_of(examples: pandas.DataFrame) -> pandas.Series:
    """What items share: `image 7` or `image file`, of an item without an image its own id."""
    image = "item " + examples["item_id"].astype(str)
    if "image_file" in examples:
        there = examples["image_file"].fillna("").astype(str)
        image = image.where(there == "", "image " + there)
    if "image_id" in examples:
        there = examples["image_id"].fillna(-1)
        image = image.where(there < 0, "image " + there.astype(int).astype(str))
    return image
