from __future__ import annotations

from collections import Counter

import pytest
from pydantic import ValidationError

from mm1_jax.config.data import DataConfig, MixtureConfig
from mm1_jax.config.embedded_sources import SOURCES
from mm1_jax.data.batches.mixture import mixture_of

SIZES = {"easy_vqa": 100, "emoji_captions": 300, "text": 900, "mine": 700}
OWN = {"mine": {"folder": "/nowhere", "kind": "captions"}}


def order(length: int = 400, sizes=SIZES, tokens=None, epochs=None, **data):
    asked = DataConfig.model_validate({"sources": OWN, **data})
    mixture = mixture_of(asked, 4, sizes, tokens or dict.fromkeys(sizes, 1.0), epochs or {})
    return mixture, [mixture.place(n) for n in range(min(length, mixture.length))]


def counted(places) -> Counter[str]:
    return Counter(source for source, _ in places)


def test_every_kind_of_embedded_source_is_known():
    assert set(SOURCES) == set(MixtureConfig.model_fields)


def test_after_any_number_of_sequences_each_source_has_had_its_share():
    mixture, places = order(mixture={"easy_vqa": 5, "text": 3, "mine": 2})
    seen: Counter[str] = Counter()
    for number, (source, index) in enumerate(places):
        assert index == seen[source]  # a source's own sequences come in their order
        assert dict(seen) == {s: n for s, n in mixture.counts(number).items() if n}
        seen[source] += 1
        for name, share in {"easy_vqa": 0.5, "text": 0.3, "mine": 0.2}.items():
            assert abs(seen[name] - (number + 1) * share) <= 1


def test_weights_may_be_shares_of_tokens():
    tokens = {"text": 100.0, "easy_vqa": 25.0, "emoji_captions": 1.0, "mine": 50.0}
    _, places = order(
        1400, tokens=tokens, mixture={"text": 2, "mine": 1}, mixture_unit="text_tokens"
    )
    seen = counted(places)
    assert abs(seen["text"] * 100 - 2 * seen["mine"] * 50) <= 200


def test_kinds_have_their_shares_and_divide_them_within():
    mixture = {"emoji_captions": 3, "mine": 1, "text": 1}
    kinds = {"captions": 80, "text": 20}
    _, places = order(mixture=mixture, kinds=kinds)
    assert counted(places) == {"emoji_captions": 240, "mine": 80, "text": 80}
    _, places = order(mixture=mixture, kinds=kinds, within_kinds="text_tokens")
    assert counted(places) == {"emoji_captions": 96, "mine": 224, "text": 80}  # 300 and 700 tokens


def test_weights_change_at_a_step_and_sources_go_on_where_they_were():
    changes = [{"from_step": 11, "mixture": {"mine": 1}}]
    _, places = order(80, mixture={"text": 1, "mine": 1}, mixture_changes=changes)
    assert counted(places[:40]) == {"text": 20, "mine": 20}
    assert places[40:] == [("mine", 20 + n) for n in range(40)]


def test_a_source_that_stops_ends_the_training():
    exhausted = {"mine": "stop"}
    mixture, places = order(
        mixture={"text": 3, "mine": 1}, exhausted=exhausted, epochs={"mine": 10}
    )
    assert counted(places)["mine"] == 10
    assert places[-1] == ("mine", 9)
    assert mixture.length == len(places) < 45


def test_without_a_source_that_is_used_up_the_others_keep_their_ratio():
    mixture = {"text": 2, "easy_vqa": 1, "mine": 1}
    _, places = order(mixture=mixture, exhausted={"mine": "reweight"}, epochs={"mine": 10})
    assert counted(places)["mine"] == 10
    last = 1 + max(n for n, (source, _) in enumerate(places) if source == "mine")
    after = counted(places[last : last + 300])
    assert after == {"text": 200, "easy_vqa": 100}


def test_when_all_are_used_up_the_training_ends():
    exhausted = {"mine": "reweight", "text": "reweight"}
    epochs = {"mine": 10, "text": 30}
    mixture, places = order(mixture={"text": 1, "mine": 1}, exhausted=exhausted, epochs=epochs)
    assert mixture.length == 40
    assert counted(places) == epochs


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"mixture": {"mien": 1}}, "mixture.mien: no such source; did you mean 'mine'"),
        ({"exhausted": {"mien": "stop"}}, "exhausted.mien: no such source"),
        ({"sources": {"text": OWN["mine"]}}, "sources.text: every installation has"),
        ({"mixture": {"text": 1}, "kinds": {"captions": 1}}, "kinds.captions has a share and no"),
        (
            {"mixture_changes": [{"from_step": 9, "mixture": {"x": 1}}]},
            "mixture_changes.0.mixture.x: no such source",
        ),
        (
            {"mixture_changes": [{"from_step": 9}, {"from_step": 3}]},
            "from_step must rise",
        ),
        ({"within_kinds": "text_tokens"}, "within_kinds goes with kinds"),
    ],
)
def test_an_impossible_mixture_is_refused(data, message):
    with pytest.raises(ValidationError, match=message):
        DataConfig.model_validate({"sources": OWN, **data})
