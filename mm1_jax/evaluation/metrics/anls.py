"""Average normalised Levenshtein similarity (Biten et al., 2019), the metric of DocVQA."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

_THRESHOLD = 0.5


def _collapsed(text: str) -> str:
    return " ".join(text.lower().split())


def anls(prediction: str, answers: Sequence[str]) -> float:
    """1 - edit distance / length to the nearest answer, 0 if below a half; 0 to 1.

    Case and runs of white space do not matter, but the length, that of the longer text in upper
    case, counts all of its white space, as in Qwen-VL's and lmms-eval's code.
    """
    found = _collapsed(prediction)
    distances = []
    for answer in answers:
        length = max(len(answer.upper()), len(prediction.upper()))
        edits = Levenshtein.distance(_collapsed(answer), found)
        distances.append(edits / length if length else 0.0)
    similarity = 1 - min(distances)
    return similarity if similarity >= _THRESHOLD else 0.0
