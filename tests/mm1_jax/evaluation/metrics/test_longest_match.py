from __future__ import annotations

import pytest

from mm1_jax.evaluation.metrics.longest_match import LongestMatch


def longest(text: str, *patterns: str) -> tuple[int, int] | None:
    return LongestMatch(patterns, {"digit": str.isdigit}).longest(text, 0)


def test_the_longest_match_wins_whichever_pattern_comes_first():
    assert longest("abcd", "a|ab", "abc") == (3, 1)
    assert longest("abcd", "(a|ab)(c|bcd)") == (4, 0)


def test_among_equals_the_first_pattern_wins():
    assert longest("ab", "[a-z]+", "ab") == (2, 0)
    assert longest("ab", "ab", "[a-z]+") == (2, 0)


def test_letters_match_in_either_case_but_in_classes():
    assert longest("AB", "ab") == (2, 0)
    assert longest("AB", "[a]b") is None


@pytest.mark.parametrize(
    ("pattern", "text", "end"),
    [
        ("a{2}", "aaaa", 2),
        ("a{1,3}", "aaaa", 3),
        ("(ab){0,2}c", "ababc", 5),
        ("(ab)*c?", "abab", 4),
        ("[^0-9]+", "ab1", 2),
        (r"[[:digit:]\-]+", "1-2a", 3),
        (r"\.\u0041\[", ".A[", 3),
        (r"[^][^]", "a\n", 2),
    ],
)
def test_patterns_are_written_as_for_re(pattern, text, end):
    assert longest(text, pattern) == (end, 0)


def test_a_match_may_start_anywhere_and_must_not_be_empty():
    lexer = LongestMatch(["b*"], {})
    assert lexer.longest("abb", 1) == (3, 0)
    assert lexer.longest("abb", 0) is None


@pytest.mark.parametrize("pattern", ["(a", "a)"])
def test_a_malformed_pattern_is_an_error(pattern):
    with pytest.raises(ValueError, match="a"):
        longest("a", pattern)
