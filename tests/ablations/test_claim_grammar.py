"""How claims are read, and written again."""

from __future__ import annotations

import pytest

from ablations.claim_grammar import parse, written


def test_quoted_names_may_hold_spaces_and_signs():
    (statement,) = parse('score("size"="a = b") > 3')
    assert statement.left.arm == (("size", "a = b"),)


@pytest.mark.parametrize(
    "term",
    [
        "score(base)",
        "score(size=16, connector.kind=mlp, task=easy_vqa, shots=4)",
        "blind(easy_vqa)",
        "effect(size, 16 -> 32)",
        "effect(size, 16 -> 32, at: {kind: mlp, b: 2}, metric=cider)",
        "slope(training.steps, condition=shuffled)",
        'score("a b"="c, d")',
    ],
)
def test_what_is_written_is_read_again(term):
    (comparison,) = parse(f"{term} > 1")
    assert written(comparison.left) == term
    assert parse(f"{written(comparison.left)} > 1") == (comparison,)


def test_a_chain_is_its_pairs():
    first, second, last = parse("score(a) > score(b) > 3 and slope(x) < 0")
    assert first.right == second.left
    assert (second.operator, second.right.value) == (">", 3.0)
    assert last.operator == "<"
