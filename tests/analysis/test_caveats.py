"""No form of output drops a caveat: each standing is read in text, Markdown, LaTeX, JSON, HTML."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from analysis.compare import comparison, render
from analysis.dashboard import verdicts
from analysis.report import report

BETTER = "effect(encoder.image_size, 16 -> 32) > 0"


def exploratory(lab: Any) -> None:
    lab.run(claims={})
    lab.run()


def partly_known(lab: Any) -> None:
    lab.run(design={"one_at_a_time": {"connector.tokens": [4, 9]}}, study="types", claims={})
    lab.run()


def repeated(lab: Any) -> None:
    lab.run(seeds=[5, 6, 7])
    lab.run()


def own_family(lab: Any) -> None:
    lab.run(claims={"better": BETTER, "good": "score(base) > 60"})
    lab.run()


WAYS = {
    "exploratory": exploratory,
    "partly known": partly_known,
    "repeated": repeated,
    "own family": own_family,
}


@pytest.mark.parametrize("word", WAYS)
def test_a_caveat_stands_beside_the_verdict_in_every_form(lab: Any, word: str) -> None:
    WAYS[word](lab)
    results = lab.results()
    (claim,) = [one for one in comparison(results).claims if one.name == "better"]
    (told,) = [caveat.told for caveat in claim.caveats if caveat.word == word]
    for form in ("text", "markdown", "latex"):
        text = re.sub(r"\s+", " ", render(results, form))
        assert word in text
        assert told[:25] in text, form
    assert [word, told] in json.loads(render(results, "json"))["claims"][0]["caveats"]
    page = str(verdicts(comparison(results)))
    assert f"{word}: {told[:25]}" in page.replace("\\'", "'")
    assert told[:25] in report(results).replace("&#x27;", "'").replace("&#39;", "'")


def test_two_arms_that_learnt_nothing_are_not_simply_equal(lab: Any) -> None:
    plan = lab.register(claims={"same": "score(encoder.image_size=16) == score(base) within 99"})
    lab.finish(plan, blind=80.0)
    told = lab.told(claim="same")
    assert "base does not beat its control on easy_vqa (blind_accuracy: lead −" in told
    assert "control not beaten" in render(lab.results(), "latex")


def test_arms_that_beat_their_control_have_no_such_caveat(lab: Any) -> None:
    plan = lab.register(claims={"same": "score(encoder.image_size=16) == score(base) within 99"})
    lab.finish(plan, blind=20.0)
    assert "control" not in lab.told(claim="same")


def test_what_was_corrected_for_is_said_once(lab: Any) -> None:
    lab.run()
    for form in ("text", "markdown", "latex"):
        text = re.sub(r"\s+", " ", render(lab.results(), form))
        assert text.count("they are not simultaneous") == 1
        assert "interval, unadjusted" in text
