from __future__ import annotations

from mm1_jax.data.sources import wikipedia


def test_titles_decide_the_split_and_both_have_their_share():
    leads = wikipedia.read_all()
    test = [lead for lead in leads if lead.split == "test"]
    assert len(leads) == 10033
    assert 0.02 < len(test) / len(leads) < 0.04
    assert {lead.text for lead in test}.isdisjoint(
        lead.text for lead in leads if lead.split == "train"
    )
    assert wikipedia.split_of("Abacus") == wikipedia.split_of("Abacus")
