from __future__ import annotations

import itertools

import pytest

from mm1_jax.data.sources import binding, emoji
from mm1_jax.data.sources.binding import SHOWN


@pytest.fixture(scope="module")
def drawn() -> list[emoji.Emoji]:
    return [item for item in emoji.read_all(first_row=0) if item.split == "train"]


def test_an_episode_binds_new_names_and_asks_for_one_that_was_shown(drawn):
    episodes = binding.episodes(drawn, 60, (2, 3), "test")
    assert {len(episode.names) for episode in episodes} == {2, 3}
    concepts = {item.image: item.concept for item in drawn}
    for episode in episodes:
        ways = len(episode.names)
        assert len(set(episode.names)) == len({concepts[i] for i in episode.images}) == ways
        assert len(episode.order) == SHOWN
        *shown, asked = episode.order
        assert asked in shown[:ways]
        assert set(shown[:ways]) == set(range(ways))
    # What was shown last says nothing about what comes next.
    repeats = [a == b for e in episodes for a, b in itertools.pairwise(e.order[len(e.names) :])]
    assert 0.3 < sum(repeats) / len(repeats) < 0.6
    # No class is asked for more often, first or last.
    assert 0.2 < sum(e.order[-1] == e.order[0] for e in episodes) / len(episodes) < 0.7


def test_episodes_do_not_depend_on_how_many_there_are(drawn):
    few, many = (binding.episodes(drawn, n, (2,), "train") for n in (5, 20))
    assert many[:5] == few
    assert binding.episodes(drawn, 5, (2,), "test") != few


def test_a_binding_document_announces_its_names_and_bears_no_loss_there(drawn):
    (episode,) = binding.episodes(drawn, 1, (2,), "train")
    (document,) = binding.binding_documents([episode])
    assert document.answers == (False, *(True for _ in episode.order))
    assert document.parts[0] == f"a {episode.names[0]} or a {episode.names[1]}\n\n"
    bound = dict(zip(episode.images, episode.names, strict=True))
    for image, text in zip(document.parts[1::2], document.parts[2::2], strict=True):
        assert text == f" {bound[image]}\n\n"
