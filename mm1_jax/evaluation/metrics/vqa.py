"""VQA accuracy (Antol et al., 2015): ten people's answers, normalised, leave-one-out agreement."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's
won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
# A word that lacks exactly one of its apostrophes gets it back.
_APOSTROPHES = {
    word[:at] + word[at + 1 :]: word
    for word in _CONTRACTED.split()
    for at, character in enumerate(word)
    if character == "'"
}
_APOSTROPHES["somebody'd"] = "somebodyd"  # the original's table has it the wrong way round
_NUMBERS = "zero one two three four five six seven eight nine ten"
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS.split())}
_ARTICLES = ("a", "an", "the")
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS = 32  # the original passes a regex flag, 32, where the number of replacements belongs


def one_line(text: str) -> str:
    """Newlines and tabs as spaces, ends stripped: all that happens to an undisputed answer."""
    return text.replace("\n", " ").replace("\t", " ").strip()


@functools.lru_cache(maxsize=2**16)  # people give the same answers again and again
def normalised(text: str) -> str:
    """An answer as the official evaluation compares it where people disagree.

    Punctuation is deleted if the text has it beside a space, or has a comma within a number, else
    it becomes a space; periods go unless a digit follows; lower case; number words become digits,
    articles go, contractions get their apostrophe. Source: VQA's `vqaEval.py`.
    """
    text = one_line(text)
    number = _COMMA_IN_NUMBER.search(text)
    punctuated = text
    for mark in _PUNCTUATION:
        deleted = number or f"{mark} " in text or f" {mark}" in text
        punctuated = punctuated.replace(mark, "" if deleted else " ")
    without_periods = _PERIOD.sub("", punctuated, count=_PERIODS)
    words = [_DIGITS.get(word, word) for word in without_periods.lower().split()]
    return " ".join(_APOSTROPHES.get(word, word) for word in words if word not in _ARTICLES)


def normalised_as_textvqa(text: str) -> str:
    """The same after lower case, without commas and question marks, with `'s` apart.

    What Pythia, LLaVA and lmms-eval do for TextVQA, VizWiz and OK-VQA (`EvalAIAnswerProcessor`).
    """
    lower = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return normalised(lower.strip())


def agreement(prediction: str, answers: Sequence[str]) -> float:
    """Mean over the answers of min(1, equal ones among the others / 3), 0 to 1."""
    equal = sum(answer == prediction for answer in answers)
    others_of_equal, others = min(1.0, (equal - 1) / 3), min(1.0, equal / 3)
    return (equal * others_of_equal + (len(answers) - equal) * others) / len(answers)


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """The official accuracy of one answer, 0 to 1.

    As in VQA's `vqaEval.py`, strings are compared as they are if all people gave the same answer:
    "Yes." scores 0 against ten "yes". `answers` are the people's, usually ten.
    """
    raw = [one_line(answer) for answer in answers]
    if len(set(raw)) == 1:
        return agreement(one_line(prediction), raw)
    return agreement(normalised(prediction), [normalised(answer) for answer in raw])


def textvqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """The accuracy of TextVQA, VizWiz and OK-VQA as LLaVA and lmms-eval compute it, 0 to 1.

    Always normalised, also where all people agree.
    """
    compared = [normalised_as_textvqa(answer) for answer in answers]
    return agreement(normalised_as_textvqa(prediction), compared)


VqaAccuracy = Callable[[str, Sequence[str]], float]
