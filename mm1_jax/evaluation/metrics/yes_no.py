"""Questions that are answered with yes or no: POPE and MME."""

from __future__ import annotations

from collections.abc import Sequence


def pope_reading(text: str) -> str:
    """POPE's official reading: "no" if the first sentence has the word No, no or not, else "yes".

    So what says neither counts as yes: see `strict_reading`. Source: POPE's `evaluate.py`, LLaVA's
    `eval_pope.py`.
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def strict_reading(text: str) -> str | None:
    """ "yes" or "no" if that is the whole answer but for case and ends, else None (lmms-eval)."""
    plain = text.lower().strip()
    return plain if plain in ("yes", "no") else None


def mme_reading(text: str) -> str | None:
    """MME's reading: yes or no within the first four characters, periods ignored; else None.

    "The answer is yes" is None, "nope" is "no". Source: lmms-eval's `mme/utils.py`.
    """
    plain = text.lower().strip().replace(".", "")
    if len(plain) == 1:
        return {"y": "yes", "n": "no"}.get(plain)
    return "yes" if "yes" in plain[:4] else "no" if "no" in plain[:4] else None


def yes_no_metrics(
    readings: Sequence[str | None], labels: Sequence[str], prefix: str = ""
) -> dict[str, float]:
    """f1, precision and recall of "yes", accuracy and share of "yes" answers, in per cent.

    None counts as wrong, but neither as yes nor as no. A ratio over nothing is 0.
    """
    pairs = list(zip(readings, labels, strict=True))
    hits, said = pairs.count(("yes", "yes")), sum(reading == "yes" for reading in readings)
    asked = hits + pairs.count(("no", "yes"))
    precision = hits / said if said else 0.0
    recall = hits / asked if asked else 0.0
    values = {
        "accuracy": sum(reading == label for reading, label in pairs) / len(pairs),
        "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
        "precision": precision,
        "recall": recall,
        "yes_ratio": said / len(pairs),
    }
    return {prefix + name: 100 * value for name, value in values.items()}
