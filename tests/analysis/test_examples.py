"""One question, every arm and seed side by side: what is found, counted and compared."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest

from ablations.errors import UserError
from ablations.workload import Asked
from analysis.examples import StudyExamples, askings, pairs_of, picture_of, study_examples
from analysis.results import StudyResults, load_results
from analysis.statistics.items import mcnemar
from mm1.origin import ORIGIN
from sweeps.store import Store

BASE, SMALL = "base", "encoder.image_size=16"
VQA = Asked("easy_vqa")


@pytest.fixture(scope="module")
def results(full_store: Store) -> StudyResults:
    return load_results("demo", full_store, origin=ORIGIN)


@pytest.fixture(scope="module")
def found(results: StudyResults) -> StudyExamples:
    return study_examples(results, VQA)


def tables(results: StudyResults, found: StudyExamples) -> dict[tuple[str, int], pandas.DataFrame]:
    made = {
        (arm, seed): results.examples(arm, seed, found.asked.task)
        for arm in found.arms
        for seed in found.seeds
    }
    return {key: table for key, table in made.items() if table is not None}


def test_the_primary_task_comes_first(results: StudyResults) -> None:
    assert askings(results) == [
        VQA,
        Asked("easy_vqa", 0, "shuffled"),
        Asked("emoji_caption"),
        Asked("held_out_text"),
    ]


def test_every_answer_is_there_once(results: StudyResults, found: StudyExamples) -> None:
    expected = {
        (arm, results.plan.arm(arm).label, seed, row.item_id, row.prediction, row.score)
        for (arm, seed), table in tables(results, found).items()
        for row in table.itertuples()
    }
    given = [
        (one.arm, one.label, one.seed, found.ids[number], one.prediction, one.score)
        for number in range(len(found))
        for one in found.given(number)
    ]
    assert len(given) == len(expected) == 4 * 3 * 36
    assert set(given) == expected


def test_unlike_answers_are_counted(found: StudyExamples) -> None:
    for number in range(len(found)):
        given = found.given(number)
        counts = Counter((one.prediction, one.score) for one in given)
        alike = found.alike(number)
        assert {(one.prediction, one.score): one.times for one in alike} == counts
        assert [one.times for one in alike] == sorted(counts.values(), reverse=True)
        for one in alike:
            arms = {g.arm for g in given if (g.prediction, g.score) == one[:2]}
            assert one.arms == len(arms)
            assert set(one.labels) <= {found.labels[found.number(arm)] for arm in arms}


def test_counts_are_those_of_the_tables(results: StudyResults, found: StudyExamples) -> None:
    together = pandas.concat(
        [table.assign(arm=arm, seed=seed) for (arm, seed), table in tables(results, found).items()]
    )
    for number, item in enumerate(found.ids):
        own = together[together["item_id"] == item]
        arms = own.groupby("arm")["score"].mean()
        line = found.summary.iloc[number]
        assert line["answers"] == len(own)
        assert line["mean"] == pytest.approx(own["score"].mean())
        assert (line["lowest"], line["highest"]) == pytest.approx((arms.min(), arms.max()))
        assert line["spread"] == pytest.approx(arms.std(ddof=0))


def test_text_is_found_as_it_stands_whatever_its_case(found: StudyExamples) -> None:
    def ids(**asked: str) -> set[str]:
        return {found.ids[n] for n in found.pick(**asked)}  # ty: ignore[invalid-argument-type]

    shapes = {f"easy_vqa/{n}" for n in range(36) if n % 6 in (0, 1, 3, 5)}
    assert ids(text="SHAPE", where="question") == shapes
    assert ids(text="teal", where="reference") == {f"easy_vqa/{n}" for n in range(3, 36, 6)}
    assert ids(text="<b>TRI", where="answer")  # a tag is text
    assert ids(text=".*") == set()  # and no pattern
    assert ids(text="easy_vqa/17") == {"easy_vqa/17"}


def test_what_is_shown_and_in_which_order(found: StudyExamples) -> None:
    assert found.is_exact
    summary = found.summary
    assert set(found.pick(show="right")) == set(np.flatnonzero(summary["mean"] == 100))
    assert set(found.pick(show="wrong")) == set(np.flatnonzero(summary["mean"] == 0))
    assert set(found.pick(show="disagree")) == set(np.flatnonzero(summary["spread"] > 0))
    spread = summary["spread"].to_numpy()[found.pick(order="disagreement")]
    assert list(spread) == sorted(spread, reverse=True)
    hard = summary["mean"].to_numpy()[found.pick(order="hardest")]
    assert list(hard) == sorted(hard)
    assert [found.ids[n] for n in found.pick(order="id")] == sorted(found.ids)
    assert sorted(found.pick()) == list(range(36))


def test_flips_are_those_of_the_pairs(results: StudyResults, found: StudyExamples) -> None:
    own = tables(results, found)
    better = {
        item
        for seed in found.seeds
        for item, a, b in zip(
            own[BASE, seed]["item_id"],
            own[BASE, seed]["score"],
            own[SMALL, seed]["score"],
            strict=True,
        )
        if b > a
    }
    assert {found.ids[n] for n in found.pick(show="b-better", a=BASE, b=SMALL)} == better
    assert {found.ids[n] for n in found.pick(show="a-better", a=SMALL, b=BASE)} == better


def test_mcnemar_is_that_of_the_tables(results: StudyResults, found: StudyExamples) -> None:
    own = tables(results, found)
    for other in found.arms[1:]:
        made = found.mcnemar(BASE, other)
        assert list(made["seed"]) == [1, 2, 3]
        for line in made.to_dict("records"):
            seed = line.pop("seed")
            (expected,) = mcnemar(own[BASE, seed], own[other, seed]).to_dict("records")
            assert line == expected


def test_one_seed_alone(results: StudyResults, found: StudyExamples) -> None:
    alone = found.only(2)
    assert len(alone) == 36
    table = results.examples(BASE, 2, "easy_vqa")
    assert table is not None
    scores = dict(zip(table["item_id"], table["score"], strict=True))
    for number, item in enumerate(alone.ids):
        (given,) = alone.given(number, [BASE])
        assert (given.seed, given.score) == (2, scores[item])
    with pytest.raises(UserError, match="no seed 9"):
        found.only(9)


def test_an_arm_that_is_not_there_is_named(found: StudyExamples) -> None:
    with pytest.raises(UserError, match=r"no arm 'encoder.image_size=61'.*size=16"):
        found.pick(show="flips", a=BASE, b="encoder.image_size=61")


def test_the_image_of_an_item(results: StudyResults, found: StudyExamples) -> None:
    picture = found.picture(0)
    assert picture is not None
    assert (picture_of(results, picture, found.ids[0]) or b"").startswith(b"\x89PNG")
    assert study_examples(results, Asked("held_out_text")).picture(0) is None


def test_scores_between_right_and_wrong(results: StudyResults) -> None:
    captions = study_examples(results, Asked("emoji_caption"))
    assert not captions.is_exact  # 3.25 is no full score
    text = dataclasses.replace(captions, lower_is_better=True)
    up, down = captions.changes(BASE, SMALL)["change"], text.changes(BASE, SMALL)["change"]
    assert list(up) == [-one for one in down]
    assert any(up)
    hard = text.summary["mean"].to_numpy()[text.pick(order="hardest")]
    assert list(hard) == sorted(hard, reverse=True)


def test_what_is_missing_is_told(tmp_path: Path, make_plan: Callable, fill: Callable) -> None:
    store, plan = Store(tmp_path), make_plan()
    store.register(plan)
    fill(store, plan, skip=[(SMALL, 3)])
    place = next(tmp_path.glob(f"stages/*/{plan.answers(plan.trials[0])[VQA]}/*/output/ex*"))
    place.write_bytes(b"nothing")
    found = study_examples(load_results("demo", Store(tmp_path)), VQA)
    assert found.missing == ((SMALL, 3),)
    assert [line.partition(": ")[0] for line in found.damaged] == ["base seed 1"]
    assert len(found.given(0)) == 4 * 3 - 2
    assert not math.isnan(found.summary["mean"].iloc[0])


def test_nothing_stored_is_nothing_shown(tmp_path: Path, make_plan: Callable) -> None:
    store = Store(tmp_path)
    store.register(make_plan())
    found = study_examples(load_results("demo", store), VQA)
    assert len(found) == 0
    assert len(found.missing) == 12
    assert list(found.pick(text="a", show="disagree")) == []


def test_a_claim_leads_to_the_arms_that_it_compares(results: StudyResults) -> None:
    pair = pairs_of(results).get("type-better")
    assert pair is not None
    assert pair[:] == (VQA, "connector.kind=c_abstractor", BASE)
    pair = pairs_of(results).get("sees")
    assert pair is not None
    assert pair[:] == (VQA, BASE, "")
    pair = pairs_of(results).get("resolution-over-type")
    assert pair is not None
    assert {pair.a, pair.b} == {BASE, SMALL}
