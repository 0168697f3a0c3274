"""Relaxed accuracy (Methani et al., 2020), the metric of ChartQA."""

from __future__ import annotations

_TOLERANCE = 0.05


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


def relaxed_match(prediction: str, answer: str) -> bool:
    """A number within 5 % of the answer's; otherwise, and for an answer of 0, equal but for case.

    "12%" is 0.12. As in Pix2Struct's, Qwen-VL's and lmms-eval's code.
    """
    found, right = _number(prediction), _number(answer)
    if found is not None and right:
        return abs(found - right) / abs(right) <= _TOLERANCE
    return prediction.lower() == answer.lower()
