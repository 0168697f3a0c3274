"""Asking a small model, in one go and interrupted; over eight devices: `test_evaluation_mesh`."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from asked_model import PAIRS, PROMPTS, WORDS, Drawn, asked, evaluated, measured
from flax import nnx

from ablations.stage import StageStopped
from mm1_jax.evaluation.asking import (
    ANSWERED_FILE,
    continued,
    encode_pairs,
    encoded,
    groups,
    packed,
    rounded,
)
from mm1_jax.evaluation.evaluated_model import EvaluatedModel
from mm1_jax.model.multimodal import MultimodalModel


@pytest.fixture(scope="module")
def model() -> EvaluatedModel:
    return evaluated()


def test_grouped_answers_are_those_of_asking_one_by_one(model, recording_context):
    together = asked(model, recording_context("together"))
    alone = asked(model, recording_context("alone"), PROMPTS[6:7], 1)
    assert alone == together[6:7]
    assert len(set(together)) > 3


def test_like_lengths_are_asked_together_and_the_longest_first(model):
    rows = encoded([("it? " * n,) for n in (1, 40, 2, 41)], WORDS)
    assert [group.places for group in groups(rows, 2)] == [[1, 3], [0, 2]]


def test_other_sizes_are_compiled_only_after_some_batches_of_the_same(model):
    rows = encoded([(*range(n < 12), "it? " * (40 if n < 2 else 1)) for n in range(24)], WORDS)
    sizes = [(group.tokens, group.images) for group in groups(rows, 2)]
    longest = rounded(len(rows[0].tokens))
    assert sizes == [(longest, 1)] * 4 + [(16, 1)] * 8
    few = packed([rows[2]], 16, 1)
    assert (few[0].tokens.shape, few[0].image_ids.tolist()) == ((16,), [0])


@pytest.mark.parametrize(
    ("tokens", "length"), [(0, 16), (1, 16), (16, 16), (17, 32), (129, 160), (300, 320), (513, 640)]
)
def test_static_lengths_are_few_and_waste_little(tokens, length):
    assert rounded(tokens) == length


def test_an_interrupted_asking_goes_on_after_the_last_finished_batch(model, recording_context):
    whole = asked(model, recording_context("whole"))
    first = recording_context("stopped", stop_at_question=1)
    with pytest.raises(StageStopped, match="after 4 of 8 items"):
        asked(model, first)
    file = first.scratch / ANSWERED_FILE
    assert len(file.read_text(encoding="utf-8").splitlines()) == 1
    with file.open("a", encoding="utf-8") as opened:
        opened.write('{"3": "cut sho')  # by a kill
    again = recording_context("stopped")
    assert asked(model, again) == whole
    assert again.reports == [(8, {"items": 8, "of": 8})]
    assert all(map(json.loads, file.read_text(encoding="utf-8").splitlines()))


def test_a_likelihood_is_the_sum_over_the_continuations_tokens(model, recording_context):
    found = measured(model, recording_context())
    for i in (4, 6):
        (nats, greedy), (prompt, continuation) = found[i], PAIRS[i]
        row = continued([(prompt, continuation)], model)[0]
        words = WORDS.encode(str(prompt[-1]).rstrip() + " " + continuation)
        assert row.tokens[-row.asked :] == words[-row.asked :]
        batch = model.batch(packed([row], rounded(len(row.tokens)), 1), Drawn())
        scores = np.asarray(jax.nn.log_softmax(scores_of(model.model, batch)[0]))
        asked_for = range(len(row.tokens) - row.asked, len(row.tokens))
        expected = sum(scores[at, row.tokens[at]] for at in asked_for)
        assert nats == pytest.approx(expected, abs=1e-4)
        assert greedy == all(scores[at].argmax() == row.tokens[at] for at in asked_for)


@nnx.jit
def scores_of(model: MultimodalModel, batch) -> jax.Array:
    return model(batch)


@pytest.mark.parametrize("pair", [("what is it?", " is"), ("what is ", "it"), ("", " what")])
def test_pairs_of_text_are_cut_as_the_harness_cuts_them(model, pair):
    (row,) = continued([((pair[0],), pair[1])], model)
    ((before, after),) = encode_pairs(WORDS, [pair])
    before = before or list(model.ends[:1])
    assert (row.tokens, row.asked) == (before + after, len(after))


def test_spaces_at_the_end_of_a_prompt_are_asked_with_the_continuation(model):
    (row,) = continued([(("what is ",), "it")], model)
    assert WORDS.decode(row.tokens[-row.asked :]) == " it"
    (alone,) = continued([((), "it")], model)
    assert alone.tokens[0] == model.ends[0]
    assert alone.asked == len(alone.tokens) - 1
