"""Our scores beside those that the official code gave for the same hard examples.

`golden/official_scores.json.xz` holds generated inputs (easy-VQA's questions and answers and
others, with punctuation, articles, numbers and contractions put in and taken out at random) and
what the code of GT-Vision-Lab/VQA, lmms-eval, LLaVA and the EleutherAI harness said of them.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import numpy as np
import pytest

from mm1_jax.evaluation.benchmarks import mathvista, mme
from mm1_jax.evaluation.benchmarks.hellaswag import without_markup
from mm1_jax.evaluation.benchmarks.webqs import shortest_answers
from mm1_jax.evaluation.metrics.anls import anls
from mm1_jax.evaluation.metrics.exact_match import exact_match_without_punctuation
from mm1_jax.evaluation.metrics.likelihood import chosen
from mm1_jax.evaluation.metrics.multiple_choice import (
    letters,
    mmbench_reading,
    mmmu_reading,
    scienceqa_reading,
)
from mm1_jax.evaluation.metrics.open_answer import open_match
from mm1_jax.evaluation.metrics.relaxed import relaxed_match
from mm1_jax.evaluation.metrics.vqa import textvqa_accuracy, vqa_accuracy
from mm1_jax.evaluation.metrics.yes_no import pope_reading, strict_reading, yes_no_metrics
from mm1_jax.evaluation.official.task import Question


@pytest.fixture(scope="module")
def golden():
    file = Path(__file__).parent / "golden" / "official_scores.json.xz"
    return json.loads(lzma.decompress(file.read_bytes()))


def same(ours, official):
    np.testing.assert_allclose(ours, official, atol=1e-6, rtol=0)


def test_vqa_accuracy_is_the_official_one(golden):
    given = golden["vqa"]
    ours = [100 * vqa_accuracy(text, answers) for text, answers in given["items"]]
    same(ours, given["official"])
    same(np.mean(ours), given["accuracy"]["overall"])
    assert len(set(given["official"])) >= 5  # 0, 30, 60, 90 and 100


def test_textvqa_accuracy_is_the_one_of_lmms_eval_and_differs_from_vqas(golden):
    given = golden["vqa"]
    same([100 * textvqa_accuracy(*item) for item in given["items"]], given["textvqa"])
    assert given["textvqa"] != given["official"]


def test_gqa_match_is_the_one_of_lmms_eval(golden):
    given = golden["gqa"]
    ours = [exact_match_without_punctuation(text.strip(), right) for text, right in given["items"]]
    same(ours, given["official"])


def test_pope_reads_and_counts_as_the_official_code(golden):
    texts, labels = zip(*golden["pope"]["items"], strict=True)
    readings = [pope_reading(text) for text in texts]
    assert readings == golden["pope"]["readings"]
    ours = yes_no_metrics(readings, labels)
    official = golden["pope"]["official"]
    for name, original in (
        ("accuracy", "Accuracy"),
        ("precision", "Precision"),
        ("recall", "Recall"),
        ("f1", "F1 score"),
        ("yes_ratio", "Yes ratio"),
    ):
        same(ours[name], 100 * official[original])


def test_strict_pope_is_the_one_of_lmms_eval(golden):
    texts, labels = zip(*golden["pope"]["items"], strict=True)
    ours = yes_no_metrics([strict_reading(text) for text in texts], labels)
    official = golden["pope"]["strict"]
    for name, original in (("f1", "f1_score"), ("accuracy", "accuracy"), ("recall", "recall")):
        same(ours[name], 100 * official[original])


def test_mme_sums_are_those_of_lmms_eval(golden):
    asked = [
        Question(
            f"{category}/{image}: {text}",
            (),
            "",
            (label.lower(),),
            facts={"category": category, "image": f"{category}/{image}"},
        )
        for category, image, text, label, _ in golden["mme"]["items"]
    ]
    metrics = mme.score(asked, [row[-1] for row in golden["mme"]["items"]]).metrics
    same(metrics["perception"], golden["mme"]["perception"])
    same(metrics["cognition"], golden["mme"]["cognition"])


def test_anls_is_the_one_of_lmms_eval(golden):
    given = golden["anls"]
    same([anls(text, answers) for text, answers in given["items"]], given["official"])


def test_relaxed_accuracy_is_the_one_of_lmms_eval(golden):
    given = golden["chartqa"]
    same([relaxed_match(text, right) for text, right in given["items"]], given["official"])


def test_mmmu_letters_are_those_of_the_official_parser_without_its_random_ones(golden):
    given = golden["mmmu"]
    ours = [mmmu_reading(text, letters(options)) for text, options in given["items"]]
    assert ours == given["official"]
    assert 0 < ours.count(None) < len(ours)


def test_mmmu_open_answers_are_judged_as_officially(golden):
    given = golden["mmmu_open"]
    same([open_match(text, right) for text, right in given["items"]], given["official"])


def test_mmbench_letters_are_those_before_an_llm_is_asked(golden):
    given = golden["mmbench"]
    ours = [mmbench_reading(text, letters(options)) for text, options in given["items"]]
    assert ours == given["official"]


def test_scienceqa_letters_count_as_in_lmms_eval(golden):
    given = golden["scienceqa"]
    ours = [scienceqa_reading(text) == "ABCDE"[right] for text, _, right in given["items"]]
    same(ours, given["official"])


def test_mathvista_answers_take_their_form_as_officially(golden):
    ours = []
    for text, options, question_type, answer_type, precision, right in golden["mathvista"]["items"]:
        facts = {"question_type": question_type, "answer_type": answer_type}
        facts |= {"precision": int(precision or 0)}
        asked = Question("1", (), "", (right,), tuple(options or ()), facts)
        found = mathvista.in_form(text, asked)
        ours.append(found is not None and found.strip() == right)
    same(ours, golden["mathvista"]["official"])


def test_choices_by_likelihood_are_those_of_the_harness(golden):
    ours = [
        [index == right for index in chosen([tuple(value) for value in found], choices)]
        for choices, found, right in golden["likelihood"]["items"]
    ]
    same(ours, golden["likelihood"]["official"])
    by_column = np.array(ours)
    assert (by_column[:, 0] != by_column[:, 1]).any()  # the normalisations matter
    assert (by_column[:, 1] != by_column[:, 2]).any()


def test_hellaswag_texts_are_those_of_the_harness(golden):
    ours = [without_markup(text) for text in golden["hellaswag"]["items"]]
    assert ours == golden["hellaswag"]["official"]


def test_webqs_choices_are_those_of_the_harness(golden):
    ours = [shortest_answers(answers) for answers in golden["webqs"]["items"]]
    assert ours == golden["webqs"]["official"]
