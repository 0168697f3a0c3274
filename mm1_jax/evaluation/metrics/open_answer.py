"""MMMU's open questions: a number or phrase anywhere in the answer's conclusions."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),  # 1,000
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),  # 1e3
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
_CONCLUDING = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_SENTENCE = re.compile(r"\.\s(?=[A-Z])|\n")


def _compared(text: str) -> list[str | float]:
    """A number rounded to two decimals, or lower-case text; one letter only beside a space."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        pass
    text = text.lower()
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def _conclusions(text: str) -> list[str]:
    """What follows the last "is ", "so ", "answer " … of each line; "=" too in the last line."""
    text = text.strip().strip(".").lower()
    lines = _SENTENCE.split(text)
    found = []
    for number, line in enumerate(lines, start=1):
        signs = (*_CONCLUDING, "=") if number == len(lines) else _CONCLUDING
        tails = [line.rsplit(sign, 1)[-1].strip() for sign in signs if sign in line]
        # As in the original, an empty tail gives way to the next one that is found.
        shortest = ""
        for tail in tails:
            if not shortest or len(tail) < len(shortest):
                shortest = tail
        if shortest and shortest not in (":", ",", ".", "!", "?", ";", "'"):
            found.append(shortest)
    return found or [text]


def open_match(text: str, answers: Sequence[str]) -> bool:
    """Whether an answer names one of `answers`: an equal number, or the phrase within a conclusion.

    Source: MMMU's `eval_utils.py` (`parse_open_response`, `eval_open`).
    """
    conclusions = _conclusions(text)
    numbers = [n for part in conclusions for pattern in _NUMBERS for n in pattern.findall(part)]
    found = {value for part in [*conclusions, *numbers] for value in _compared(part)}
    right = [value for answer in answers for value in _compared(answer)]
    phrases = [value for value in right if isinstance(value, str)]
    return any(
        any(phrase in value for phrase in phrases) if isinstance(value, str) else value in right
        for value in found
    )
