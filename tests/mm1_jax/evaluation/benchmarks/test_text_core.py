"""The text tasks as the EleutherAI harness asks and scores them."""

from __future__ import annotations

import json
import math

import pytest
from official_folders import TEXT_FOLDERS, arc_original, triviaqa, write_lines

from ablations.errors import UserError
from mm1_jax.data.tokenizer import train
from mm1_jax.evaluation import asking
from mm1_jax.evaluation.official import likelihood_tasks
from mm1_jax.evaluation.official.catalogue import official_task

PAIRS = {
    "arc_easy": [
        ("Question: Which gas do plants take in?\nAnswer:", " oxygen"),
        ("Question: Which gas do plants take in?\nAnswer:", " carbon dioxide"),
    ],
    "arc_challenge": [
        ("Question: Which gas do plants take in?\nAnswer:", " oxygen"),
        ("Question: Which gas do plants take in?\nAnswer:", " carbon dioxide"),
    ],
    "piqa": [
        ("Question: dry hands\nAnswer:", " use a towel"),
        ("Question: dry hands\nAnswer:", " use a lake"),
    ],
    "hellaswag": [
        (
            "Food and Entertaining: How to boil eggs. Get a pan. Then you",
            " fill it with water. Not too much.",
        ),
        ("Food and Entertaining: How to boil eggs. Get a pan. Then you", " sing."),
        ("Food and Entertaining: How to boil eggs. Get a pan. Then you", " fly."),
        ("Food and Entertaining: How to boil eggs. Get a pan. Then you", " sleep."),
    ],
    "winogrande": [
        (
            "Sarah was a better surgeon than Maria so Sarah",
            " always got the easier cases.",
        ),
        (
            "Sarah was a better surgeon than Maria so Maria",
            " always got the easier cases.",
        ),
    ],
    "sciq": [
        ("The heart pumps blood.\nQuestion: What pumps blood?\nAnswer:", " the skin"),
        ("The heart pumps blood.\nQuestion: What pumps blood?\nAnswer:", " the ear"),
        ("The heart pumps blood.\nQuestion: What pumps blood?\nAnswer:", " the lung"),
        ("The heart pumps blood.\nQuestion: What pumps blood?\nAnswer:", " the heart"),
    ],
    "lambada": [("he gave the ring back to", " Mary")],
    "webqs": [("Question: what do jamaicans speak?\nAnswer:", " Jamaican")],
}


def constant(pairs):
    """A model to which every continuation is as likely as every other."""
    return [(-1.0, False)] * len(pairs)


@pytest.mark.parametrize("name", PAIRS)
def test_the_first_question_is_asked_as_in_the_harness(name, tmp_path):
    TEXT_FOLDERS[name](tmp_path)
    asked = official_task(name).read(tmp_path)
    assert likelihood_tasks.pairs(asked[0]) == PAIRS[name]


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("arc_easy", [1, 0]),
        ("piqa", [0, 1]),
        ("hellaswag", [0]),
        ("winogrande", [1]),
        ("sciq", [3]),
    ],
)
def test_the_likeliest_choice_is_the_answer_and_ties_go_to_the_first(name, right, tmp_path):
    TEXT_FOLDERS[name](tmp_path)
    task = official_task(name)
    asked = task.read(tmp_path)
    assert [question.facts["right"] for question in asked] == right
    first_choices = task.score(asked, likelihood_tasks.answers(asked, constant))
    assert first_choices.items == [100.0 * (index == 0) for index in right]

    def knowing(pairs):
        wanted = [
            likelihood_tasks.pairs(question)[index]
            for question, index in zip(asked, right, strict=True)
        ]
        return [(-1.0 if pair in wanted else -500.0, False) for pair in pairs]

    known = task.score(asked, likelihood_tasks.answers(asked, knowing))
    assert known.metrics == {"accuracy": 100, "accuracy_norm": 100, "accuracy_bytes": 100}


def test_normalisations_divide_by_characters_and_bytes_of_the_choice(tmp_path):
    TEXT_FOLDERS["piqa"](tmp_path)
    task = official_task("piqa")
    asked = task.read(tmp_path)[1:]  # "use soup", "use scissors"; the second is right
    scored = task.score(asked, [json.dumps([[-10.0, False], [-12.0, False]])])
    assert scored.metrics == {"accuracy": 0, "accuracy_norm": 100, "accuracy_bytes": 100}
    assert scored.also["accuracy_norm"] == [100.0]


def test_demonstrations_stand_before_the_context_with_their_answers(tmp_path):
    for name in ("piqa", "winogrande"):
        TEXT_FOLDERS[name](tmp_path / name)
    first, second = official_task("piqa").read(tmp_path / "piqa")
    shown = "Question: cut paper\nAnswer: use scissors\n\nQuestion: dry hands\nAnswer:"
    assert likelihood_tasks.pairs(first, [second])[0] == (shown, " use a towel")
    (blank,) = official_task("winogrande").read(tmp_path / "winogrande")
    text = "Sarah was a better surgeon than Maria so Maria always got the easier cases."
    assert likelihood_tasks.right_text(blank) == text
    assert likelihood_tasks.pairs(blank, [blank])[0][0].startswith(text + "\n\nSarah was")


def test_lambada_counts_greedy_last_words_and_perplexity_per_word(tmp_path):
    TEXT_FOLDERS["lambada"](tmp_path)
    task = official_task("lambada")
    asked = task.read(tmp_path)

    def model(pairs):
        assert [continuation for _, continuation in pairs] == [" Mary", " cake"]
        return [(-1.0, True), (-3.0, False)]

    scored = task.score(asked, likelihood_tasks.answers(asked, model))
    assert scored.metrics == {"accuracy": 50, "perplexity": pytest.approx(math.exp(2))}


def test_webqs_wants_any_answer_to_be_greedy(tmp_path):
    TEXT_FOLDERS["webqs"](tmp_path)
    task = official_task("webqs")
    asked = task.read(tmp_path)
    assert asked[0].choices == ("Jamaican",)  # the others begin with it
    assert task.score(asked, ["[[-9.0, true]]"]).metrics == {"exact_match": 100}
    assert task.score(asked, ["[[-0.1, false]]"]).metrics == {"exact_match": 0}


def test_triviaqa_takes_any_alias_up_to_the_first_stop(tmp_path):
    samples = triviaqa(tmp_path)
    task = official_task("triviaqa")
    asked = task.read(tmp_path)
    assert asked[0].prompt == "Question: Which city is the capital of France??\nAnswer:"
    given = task.predictions(samples)
    scored = task.score(asked, [given[question.item_id] for question in asked])
    assert scored.items == [100.0, 0.0]
    assert task.answer(" Paris, the capital.\nQuestion:") == "Paris"


def test_arc_reads_the_authors_own_files_too(tmp_path):
    file = arc_original(tmp_path)
    task = official_task("arc_easy")
    assert task.read(file) == task.read(tmp_path)
    assert task.read(file.parent) == task.read(file)


def test_samples_of_the_harness_can_be_scored(tmp_path):
    TEXT_FOLDERS["arc_easy"](tmp_path)
    task = official_task("arc_easy")
    values = [[["-3.0", "False"], ["-2.0", "True"]], [[-1.0, True], [-1.0, False], [-2.5, False]]]
    rows = [{"doc_id": n, "filtered_resps": own} for n, own in enumerate(values)]
    given = task.predictions(write_lines(tmp_path / "samples_arc_easy.jsonl", rows))
    asked = task.read(tmp_path)
    scored = task.score(asked, [given[question.item_id] for question in asked])
    assert scored.metrics["accuracy"] == 100
    with pytest.raises(UserError, match="item 0: 2 choices, 3 log-likelihoods"):
        task.score(asked, [given["1"], given["0"]])
    other = write_lines(tmp_path / "other.jsonl", [{"doc_id": 0}])
    with pytest.raises(UserError, match="expected doc_id, filtered_resps"):
        task.predictions(other)


@pytest.mark.parametrize("name", TEXT_FOLDERS)
def test_another_folder_is_refused_with_what_was_expected_and_found(name, tmp_path):
    (tmp_path / "holiday.txt").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=rf"{name}: expected .* found holiday\.txt"):
        official_task(name).read(tmp_path)
    other = write_lines(tmp_path / "other.jsonl", [{"colour": "red"}])
    with pytest.raises(UserError, match=f"not {name}: expected .* found colour"):
        official_task(name).read(other)


@pytest.mark.parametrize("name", sorted(set(TEXT_FOLDERS) - {"lambada"}))
def test_a_folder_of_the_training_split_is_read_as_such(name, tmp_path):
    TEXT_FOLDERS[name](tmp_path)
    before = official_task(name).read(tmp_path)
    (file,) = tmp_path.rglob("*.parquet")
    file = file.rename(file.with_name("train-00000-of-00001.parquet"))
    assert official_task(name).read(tmp_path) == before
    assert official_task(name).read(file.parent) == before


def test_labels_of_a_hidden_test_split_are_refused(tmp_path):
    row = {"goal": "dry hands", "sol1": "a", "sol2": "b", "label": -1}
    with pytest.raises(UserError, match="row 1: label is -1, not one of 0, 1"):
        official_task("piqa").read(write_lines(tmp_path / "test.jsonl", [row]))


@pytest.fixture(scope="module")
def tokenizer():
    return train(["Answer: a cat Answer: a dog sat at a mat"] * 20, 276)


def encoded(tokenizer, context, continuation):
    (pair,) = asking.encode_pairs(tokenizer, [(context, continuation)])
    return pair


def test_a_pair_is_encoded_together_and_cut_at_the_contexts_end(tokenizer):
    before, after = encoded(tokenizer, "Answer:", " a cat")
    assert before == tokenizer.encode("Answer:")
    assert before + after == tokenizer.encode("Answer: a cat")
    # Spaces at the end go to the continuation: words with the space before them are one token.
    assert encoded(tokenizer, "Answer: ", "a cat") == (before, after)
    assert encoded(tokenizer, "Answer:\n ", "a")[0] == before
    assert encoded(tokenizer, "", "cat") == ([], tokenizer.encode("cat"))


def test_a_token_that_spans_both_parts_goes_by_the_contexts_length(tokenizer):
    whole = tokenizer.encode("Answer")
    context = tokenizer.encode("Ans")
    assert len(whole) < len(context) + len(tokenizer.encode("wer"))  # a token spans both
    assert encoded(tokenizer, "Ans", "wer") == (context, whole[len(context) :])
