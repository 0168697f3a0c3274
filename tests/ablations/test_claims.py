"""What each form of claim means, and how mistakes are told."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ablations.claims import Vocabulary, meaning
from ablations.conditions import Above, All, AnyOf, mapped, quantities
from ablations.errors import UserError
from mm1_jax.evaluation.task_records import MEASURED, check_form, check_task_metric

KIND = "connector.kind"
NAMES = Vocabulary(
    factors={
        "size": ["32", "16", "64"],
        KIND: ["average_pooling", "c_abstractor"],
        "optimizer.peak_lr": ["0.001", "0.003"],
    },
    arms={
        name: {
            "size": "32",
            KIND: "average_pooling",
            "optimizer.peak_lr": "0.001",
            **levels,
        }
        for name, levels in {
            "base": {},
            "size=16": {"size": "16"},
            "size=64": {"size": "64"},
            f"{KIND}=c_abstractor": {KIND: "c_abstractor"},
            "optimizer.peak_lr=0.003": {"optimizer.peak_lr": "0.003"},
        }.items()
    },
    primary_metric=("easy_vqa", "accuracy"),
    tasks=MEASURED,
    check=check_task_metric,
    check_form=check_form,
)
# Scores that tell the arms apart.
SCORES = {
    "base": 70.0,
    "size=16": 60.0,
    "size=64": 75.0,
    f"{KIND}=c_abstractor": 71.0,
    "optimizer.peak_lr=0.003": 68.0,
}


def value(contrast):
    """A contrast of the scores above; other cells of the table are offset."""

    def score(key):
        offset = 100 * key.shots + (-30 if key.condition == "shuffled" else 0)
        return {"accuracy": SCORES[key.arm], "blind_accuracy": 66.0}.get(key.metric, 5.0) + offset

    return round(sum(w * score(key) for key, w in contrast.weights.items()), 9)


def read(text, min_effect=0.0):
    """The condition with each contrast's value in place of the contrast."""
    return mapped(meaning(text, min_effect, NAMES), value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("score(size=64) > score(base)", Above(5.0, 0.0)),
        ("score(size=64) > score(base) by 2", Above(5.0, 2.0)),
        ("score(size=16) < score(base)", Above(-10.0, 0.0, True)),
        ("score(size=16) < score(base) by 2", Above(-10.0, -2.0, True)),
        ("score(size=16) >= score(base) within 3", Above(-10.0, -3.0)),
        ("score(size=64) <= score(base) within 3", Above(5.0, 3.0, True)),
        (
            "score(size=16) == score(base) within 3",
            All((Above(-10.0, -3.0), Above(-10.0, 3.0, True))),
        ),
        ("score(base) > 67.5", Above(70.0, 67.5)),
        ("67.5 < score(base)", Above(70.0, 67.5)),
        ("score(base) < 67.5 by 1", Above(70.0, 66.5, True)),
        ("score(base) > score(base, condition=shuffled)", Above(30.0, 0.0)),
        ("score(base, shots=4) > score(base) by 50", Above(400.0, 50.0)),
        ("score(base) > blind(easy_vqa)", Above(4.0, 0.0)),
        ("blind(easy_vqa) < score(size=16)", Above(6.0, 0.0, True)),
        # Blind is blind: it is asked the same items whatever images the model was shown.
        ("score(base, condition=shuffled) < blind(easy_vqa)", Above(-26.0, 0.0, True)),
        ("score(base, task=emoji_caption) > 3", Above(5.0, 3.0)),
        ("score(base, task=held_out_text, metric=bits_per_byte) < 3", Above(5.0, 3.0, True)),
        ("effect(size, 16 -> 64) > 0", Above(15.0, 0.0)),
        ("effect(size, 64->16) < 0 by 1", Above(-15.0, -1.0, True)),
        ("effect(size, 16 -> 32, at: {connector.kind: average_pooling}) > 0", Above(10.0, 0.0)),
        (
            f"effect(size, 16 -> 32) > abs(effect({KIND}, average_pooling -> c_abstractor)) by 2",
            All((Above(9.0, 2.0), Above(11.0, 2.0))),
        ),
        (
            f"abs(effect({KIND}, average_pooling -> c_abstractor)) < effect(size, 16 -> 32)",
            All((Above(-9.0, 0.0, True), Above(-11.0, 0.0, True))),
        ),
        ("abs(effect(size, 16 -> 32)) > 3", AnyOf((Above(10.0, 3.0), Above(-10.0, 3.0)))),
        (
            "abs(effect(size, 16 -> 32)) < 3",
            All((Above(10.0, 3.0, True), Above(-10.0, 3.0, True))),
        ),
        ("3 < abs(effect(size, 16 -> 32))", AnyOf((Above(10.0, 3.0), Above(-10.0, 3.0)))),
        (
            "abs(effect(size, 16 -> 32)) > abs(effect(size, 32 -> 64))",
            AnyOf(
                (
                    All((Above(5.0, 0.0), Above(15.0, 0.0))),
                    All((Above(-15.0, 0.0), Above(-5.0, 0.0))),
                )
            ),
        ),
        ("peak(size)", AnyOf((All((Above(10.0, 0.0), Above(-5.0, 0.0))),))),
        ("best(size) == 64", All((Above(5.0, 0.0), Above(15.0, 0.0)))),
        (
            "score(size=64) > score(base) > score(size=16)",
            All((Above(5.0, 0.0), Above(10.0, 0.0))),
        ),
        (
            "score(base) > 60 and effect(size, 16 -> 64) > 1",
            All((Above(70.0, 60.0), Above(15.0, 1.0))),
        ),
    ],
)
def test_every_form_of_claim(text, expected):
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("score(size=16)<score(base, condition=shuffled)",
         ["score(size=16) − score(base, condition=shuffled)"]),
        ("67 < score(base)", ["score(base)"]),
        ("score(base) > blind(easy_vqa) by 5", ["score(base) − blind(easy_vqa)"]),
        (
            "effect(size, 16->32, at: {connector.kind: average_pooling}) > "
            "abs(effect(size, 32 -> 64))",
            [
                "effect(size, 16 -> 32, at: {connector.kind: average_pooling}) "
                f"{sign} effect(size, 32 -> 64)" for sign in "−+"
            ],
        ),
        (
            "abs(effect(size, 32 -> 64)) < effect(size, 16 -> 32)",
            ["effect(size, 32 -> 64) − effect(size, 16 -> 32)",
             "−effect(size, 32 -> 64) − effect(size, 16 -> 32)"],
        ),
        ("slope(size, shots=4) > 0", ["slope(size, shots=4)"]),
        (
            "best(size) == 64",
            ["score(size=64) − score(size=32)", "score(size=64) − score(size=16)"],
        ),
        ("peak(size)", ["score(size=32) − score(size=16)", "score(size=32) − score(size=64)"]),
        (
            "score(size=64) > score(base) > 50",
            ["score(size=64) − score(base)", "score(base)"],
        ),
    ],
)  # fmt: skip
def test_each_part_is_named_left_minus_right_in_the_order_of_the_claim(text, names):
    found = []

    def visit(condition):
        if isinstance(condition, Above):
            found.append(condition.name)
        else:
            for part in condition.parts:
                visit(part)

    visit(meaning(text, 0.0, NAMES))
    assert found == names


def test_better_is_lower_where_the_metric_is():
    reads = "task=held_out_text"
    (first, second) = meaning(f"best(size, {reads}) == 64", 2.0, NAMES).parts
    assert (first.reverse, second.reverse) == (True, True)
    assert (first.boundary, second.boundary) == (-2.0, -2.0)
    (inner,) = meaning(f"peak(size, {reads})", 0.0, NAMES).parts
    assert all(part.reverse for part in inner.parts)


def test_of_a_metric_that_nobody_knows_there_is_no_best():
    mine = dataclasses.replace(NAMES, check=lambda task, metric: None)
    with pytest.raises(UserError, match="nobody has said which way speed is better"):
        meaning("best(size, metric=speed) == 64", 0.0, mine)
    assert meaning("score(size=64, metric=speed) > score(base, metric=speed)", 0.0, mine)


def test_slope_is_least_squares_over_numeric_levels():
    (found,) = quantities(read("slope(size) > 0"))
    assert found == pytest.approx(np.polyfit([16, 32, 64], [60, 70, 75], 1)[0])


def test_minimum_effect_is_the_margin_of_directional_claims():
    assert read("effect(size, 16 -> 64) > 0", 2.0) == Above(15.0, 2.0)
    assert read("best(size) == 64", 2.0) == All((Above(5.0, 2.0), Above(15.0, 2.0)))


def test_an_arm_may_be_named_with_its_base_levels_and_numbers_in_any_form():
    same = meaning("score(base) > 1", 0, NAMES)
    assert meaning("score(size=32, connector.kind=average_pooling) > 1", 0, NAMES) == same
    assert meaning("score(size=16, optimizer.peak_lr=1e-3) > 1", 0, NAMES) == meaning(
        "score(size=16) > 1", 0, NAMES
    )
    effect = "effect(optimizer.peak_lr, 1e-3 -> 3e-3) > 0"
    assert read(effect) == Above(-2.0, 0.0)


def test_an_effect_in_a_factorial_is_the_mean_over_the_other_factors():
    names = Vocabulary(
        factors={"a": ["1", "2"], "b": ["1", "2"]},
        arms={
            "base": {"a": "1", "b": "1"},
            "a=2": {"a": "2", "b": "1"},
            "b=2": {"a": "1", "b": "2"},
            "a=2,b=2": {"a": "2", "b": "2"},
        },
        primary_metric=("easy_vqa", "accuracy"),
        tasks=MEASURED,
    )

    def weights(text):
        (contrast,) = quantities(meaning(text, 0, names))
        return {key.arm: weight for key, weight in contrast.weights.items()}

    assert weights("effect(a, 1 -> 2) > 0") == {
        "a=2": 0.5,
        "a=2,b=2": 0.5,
        "base": -0.5,
        "b=2": -0.5,
    }
    assert weights("effect(a, 1 -> 2, at: {b: 2}) > 0") == {"a=2,b=2": 1, "b=2": -1}
    interaction = "effect(a, 1 -> 2, at: {b: 2}) > effect(a, 1 -> 2, at: {b: 1})"
    assert weights(interaction) == {"a=2,b=2": 1, "b=2": -1, "a=2": -1, "base": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected score"),
        ("score(base > 3", "expected ',' or ')', got '>' at column 12"),
        ("score(base) 3", "expected a comparison (> < >= <= ==), got '3' at column 13"),
        ("score(base) >", "but the claim ends after 'score(base) >'"),
        ("score(base) > 3 or 4", "expected `and` or the end of the claim, got 'or'"),
        ("score(base) > 'x", "close the quotes"),
        ("scor(base) > 3", "there is no scor(…); did you mean 'score'?"),
        ("score(bse) > 3", "no arm 'bse'; did you mean 'base'?"),
        ("score(sizes=16) > 3", "no factor or option 'sizes'; did you mean 'size'?"),
        ("score(base, conditon=shuffled) > 3", "option 'conditon'; did you mean 'condition'?"),
        ("score(base, images=shuffled) > 3", "no factor or option 'images'"),
        ("slope(size, images=no_image) > 3", "there is no option 'images'; valid: condition"),
        ("score(size=17) > 3", "size has no level '17'; valid: 16, 32, 64"),
        ("score(size=16, connector.kind=c_abstractor) > 3", "no arm 'size=16,connector.kind="),
        ("score(task=easy_vqa) > 3", "score(…) names no arm"),
        ("score(base, condition=shufled) > 3", "no such condition; did you mean 'shuffled'?"),
        ("score(base, shots=few) > 3", "shots=few is not a number"),
        ("score(base, shots=1, shots=2) > 3", "option shots is given twice"),
        ("score(base, task=easy) > 3", "no task 'easy'; did you mean 'easy_vqa'?"),
        ("score(base, metric=acuracy) > 3", "no metric 'acuracy'; did you mean 'accuracy'?"),
        ("score(base, task=held_out_text, condition=shuffled) > 3", "no images to shuffle"),
        ("blind(held_out_text) > 3", "held_out_text has no metric 'blind_perplexity'"),
        ("effect(size) > 3", "expected two levels, effect(size, a -> b)"),
        ("effect(sise, 16 -> 32) > 3", "no factor 'sise' in the design; did you mean 'size'?"),
        ("effect(size, 16 -> 33) > 3", "size has no level '33'"),
        ("effect(size, 16 -> 32, at: {size: 16}) > 0", "fixes other factors than size"),
        (
            "effect(size, 16 -> 32, at: {connector.kind: c_abstractor}) > 0",
            "no arms of this design differ only in size (16, 32), connector.kind=c_abstractor",
        ),
        ("abs(score(base)) > 3", "expected effect(…) inside abs( )"),
        ("slope(connector.kind) > 0", "'average_pooling' is none"),
        ("peak(optimizer.peak_lr)", "needs at least 3 levels, not 2"),
        ("best(size) == 8", "size has no level '8'"),
        ("best(size, tsk=easy_vqa) == 64", "there is no option 'tsk'; did you mean 'task'?"),
        ("score(base) == score(size=16)", "`==` needs a margin"),
        ("score(base) >= 3", "`>=` needs a margin"),
        ("score(base) > 3 within 2", "say `>= … within`"),
        ("score(base) > 3 by -2", "must be at least 0"),
        ("score(base) > 3 by 1e999", "expected a number after `by`"),
        ("score(base) == 3 within 0", "must be above 0"),
        ("score(base) > 3 > 2 by 1", "a chain of comparisons takes no `by`"),
        ("abs(effect(size, 16 -> 32)) == 3 within 1", "compares signed effects"),
        ("score(base) > score(size=32)", "no score is left"),
        (
            "score(base, task=held_out_text) < score(base)",
            "score(base, task=held_out_text) is in perplexity and score(base) in %",
        ),
        (
            "effect(size, 16 -> 32) > effect(size, 16 -> 32, task=emoji_caption)",
            "in % and effect(size, 16 -> 32, task=emoji_caption) in cider",
        ),
        ("slope(size) > effect(size, 16 -> 32)", "in % per size and effect(size, 16 -> 32) in %"),
        ("3 > 2", "no score is left"),
    ],
)
def test_a_mistake_is_told_with_what_would_be_valid(text, message):
    with pytest.raises(UserError) as error:
        meaning(text, 0.0, NAMES)
    assert message in str(error.value)


def test_a_margin_is_given_once():
    with pytest.raises(UserError, match="margin once"):
        meaning("score(base) > 3 by 1", 2.0, NAMES)


def test_a_slope_over_very_large_levels_is_a_slope() -> None:
    tokens = {"10000000000000": 1e13, "20000000000000": 2e13, "40000000000000": 4e13}
    names = Vocabulary(
        factors={"data.tokens": list(tokens)},
        arms={("base" if x == 1e13 else f"data.tokens={n}"): {"data.tokens": n}
              for n, x in tokens.items()},
        primary_metric=("easy_vqa", "accuracy"),
        tasks=MEASURED,
    )  # fmt: skip
    above = meaning("slope(data.tokens) > 0", 0.0, names)
    assert isinstance(above, Above)
    weights = {key.arm: weight for key, weight in above.quantity.weights.items()}
    expected = np.polynomial.polynomial.polyfit([1.0, 2.0, 4.0], np.eye(3), 1)[1] / 1e13
    assert list(weights.values()) == pytest.approx(list(expected))


def test_in_a_factorial_a_level_of_best_is_named_as_a_mean_of_arms() -> None:
    names = Vocabulary(
        factors={"a": ["1", "2"], "b": ["x", "y"]},
        arms={
            "base": {"a": "1", "b": "x"},
            "a=2": {"a": "2", "b": "x"},
            "b=y": {"a": "1", "b": "y"},
            "a=2,b=y": {"a": "2", "b": "y"},
        },
        primary_metric=("easy_vqa", "accuracy"),
        tasks=MEASURED,
    )
    best = meaning("best(a) == 2", 0.0, names)
    assert isinstance(best, All)
    assert [part.name for part in best.parts] == [
        "mean of 2 arms of score(a=2) − mean of 2 arms of score(a=1)"
    ]


def test_names_that_are_several_words_keep_their_quotes() -> None:
    names = Vocabulary(
        factors={"a": ["1", "2, task=x"]},
        arms={"base": {"a": "1"}, "a=2, task=x": {"a": "2, task=x"}},
        primary_metric=("easy_vqa", "accuracy"),
        tasks=MEASURED,
    )
    above = meaning('score(a="2, task=x") > 3', 0.0, names)
    assert isinstance(above, Above)
    assert above.name == 'score(a="2, task=x")'
