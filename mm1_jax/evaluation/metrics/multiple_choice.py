"""Which option an answer in words means: the readings of MMMU, MMBench, ScienceQA, MathVista."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence

from rapidfuzz.distance import Levenshtein

_MARKS = ",.!?;:'"
# What may stand around a letter that is one word, in MMBench's order.
_AROUND = (
    *(("", after) for after in (".", ",", ":", ")", ").")),
    *(("(", after) for after in (")", ").")),
    *((":", after) for after in ("", ",", ".", ")", ").")),
)


def letters(options: Sequence[str]) -> dict[str, str]:
    """A, B, C … → option; an empty one is not there, and the others keep their letters."""
    named = zip(string.ascii_uppercase, options, strict=False)
    return {letter: option for letter, option in named if option.strip()}


def mmmu_reading(text: str, options: Mapping[str, str]) -> str | None:
    """The letter that an answer to MMMU means, None if it names none (there: a random one).

    "(B)" is looked for first, then "B ", then "B.", then, in answers of more than five words, the
    options' texts. Of several the one named last counts. Source: MMMU's `eval_utils.py`.
    """
    for mark in _MARKS:
        text = text.strip(mark)
    text = f" {text} "
    for before, after in (("(", ")"), ("", " "), ("", ".")):
        found = [letter for letter in options if before + letter + after in text]
        if found:
            named = (f"({x})" if before else f" {x} " for x in found)
            places = [text.rfind(name) for name in named]
            return found[places.index(max(places))]
    if len(text.split()) <= 5:
        return None
    lower = text.lower()
    places = {letter: lower.rfind(option.lower()) for letter, option in options.items()}
    last = max(places.values(), default=-1)
    return None if last < 0 else next(x for x, place in places.items() if place == last)


def mmbench_reading(text: str, options: Mapping[str, str]) -> str | None:
    """The letter that an answer to MMBench means, None if it names none or several.

    A letter as a word of its own, then one with a mark ("B.", "(B)", ":B"), then the text of
    exactly one option. A lone "A" in more than three words may be an article: it is not taken.
    The official evaluation asks an LLM about what is left; here that is wrong. Source: VLMEvalKit,
    lmms-eval's `mmbench_evals.py`.
    """
    words = text.split()
    known = string.ascii_uppercase[:5]
    bare = [letter for letter in known if letter in words]
    if len(bare) == 1 and not ("A" in words and len(words) > 3):
        return bare[0]
    for before, after in _AROUND:
        marked = [letter for letter in known if before + letter + after in words]
        if len(marked) == 1:
            return marked[0]
    lower = text.lower()
    named = [letter for letter, option in options.items() if option.lower() in lower]
    return named[0] if len(named) == 1 else None


def scienceqa_reading(text: str) -> str | None:
    """The letter if that is the whole answer, or if the answer begins with one and a period.

    Source: LLaVA's protocol as in lmms-eval's `scienceqa/utils.py`.
    """
    text = text.strip()
    if len(text) == 1:
        return text.upper()
    if len(text) >= 2 and text[0].isupper() and text[1] == ".":
        return text[0]
    return None


def mathvista_option(text: str, options: Sequence[str]) -> str:
    """The option of the letter in "(B)" or "B", else the nearest by edit distance (MathVista)."""
    text = text.strip()
    bracketed = re.findall(r"\(([a-zA-Z])\)", text)
    named = letters(options).get(bracketed[0].upper() if bracketed else text)
    if named is not None:
        return named
    if bracketed:
        text = bracketed[0].upper()
    there = list(letters(options).values())
    distances = [Levenshtein.distance(text, option) for option in there]
    return there[distances.index(min(distances))]
