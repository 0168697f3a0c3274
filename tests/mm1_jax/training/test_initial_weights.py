"""Parts of the multimodal model that start from a checkpoint."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import nnx
from public_folders import make_llava

from ablations.errors import UserError
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.multimodal import MultimodalModel
from mm1_jax.training.checkpoints import load_subtree, save_part
from mm1_jax.training.initial_weights import take_weights
from mm1_jax.weights.weights_folder import content_of
from mm1_jax.weights.weights_stage import read_weights


def weights(model):
    return nnx.to_pure_dict(nnx.state(model))


def equal(a, b):
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.fixture
def folder(tiny, tmp_path):
    """A checkpoint of the tiny model with the first weights of seed 3."""
    save_part(tmp_path, tiny(), initialise(MultimodalModel(tiny()), 3))
    return tmp_path


@pytest.mark.parametrize("part", ["encoder", "language_model"])
def test_only_the_part_that_was_trained_before_is_replaced(tiny, folder, part):
    fresh = initialise(MultimodalModel(tiny()), 0)
    taken = weights(take_weights(fresh, tiny(), part, folder))
    there = weights(initialise(MultimodalModel(tiny()), 3))
    for name, values in weights(fresh).items():
        assert equal(taken[name], there[name] if name == part else values)
    assert not equal(taken[part], weights(fresh)[part])


def test_a_checkpoint_of_another_config_shows_the_difference(tiny, folder):
    config = tiny(encoder={"layers": 1})
    with pytest.raises(UserError, match=r"encoder\.layers is 2 there and 1 in the recipe"):
        take_weights(initialise(MultimodalModel(config), 0), config, "encoder", folder)


def test_another_vocabulary_is_told_by_the_parameter_that_does_not_fit(tiny, folder):
    config = tiny(data={"vocabulary": 310})
    expected = r"language_model/embedding is \[300, 16\] in .* and \[310, 16\] in the recipe"
    with pytest.raises(UserError, match=expected):
        take_weights(initialise(MultimodalModel(config), 0), config, "language_model", folder)


@pytest.mark.parametrize("part", ["encoder", "language_model"])
def test_a_part_is_read_out_of_a_public_whole_model(part, tmp_path, recording_context):
    folder, context = make_llava(tmp_path / "llava"), recording_context()
    (row,) = read_weights(part, folder, content=content_of(folder), vocabulary=330, context=context)
    stated, tree = load_subtree(context.output, part)
    assert row.value == sum(leaf.size for leaf in jax.tree.leaves(tree)) > 0
    assert getattr(stated, part).layers == 2


@pytest.mark.parametrize("part", ["encoder", "language_model"])
def test_a_part_is_read_out_of_a_whole_model(tiny, folder, part, recording_context):
    context = recording_context()
    (row,) = read_weights(part, folder, content=content_of(folder), vocabulary=300, context=context)
    there = weights(initialise(MultimodalModel(tiny()), 3))[part]
    assert row.value == sum(leaf.size for leaf in jax.tree.leaves(there))
    config, found = load_subtree(context.output, part)
    assert equal(found, there)
    assert getattr(config, part) == getattr(tiny(), part)
    assert config.vocabulary == 300


def test_a_folder_that_changed_after_planning_is_refused(folder, recording_context):
    content = content_of(folder)
    (folder / "config.json").write_text(
        (folder / "config.json").read_text(encoding="utf-8") + " ", encoding="utf-8"
    )
    with pytest.raises(UserError, match="has changed since the study was planned"):
        read_weights(
            "encoder", folder, content=content, vocabulary=300, context=recording_context()
        )
