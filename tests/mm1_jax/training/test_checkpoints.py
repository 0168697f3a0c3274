from __future__ import annotations

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ablations.errors import UserError
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.multimodal import MultimodalModel, load_model
from mm1_jax.training.checkpoints import Progress, load_subtree, save_part


def leaves(model):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model))]


def test_a_saved_model_comes_back_bit_equal_with_its_config(tiny, tmp_path):
    config = tiny(connector={"kind": "c_abstractor", "width": 8})
    model = initialise(MultimodalModel(config), 3)
    save_part(tmp_path, config, model)
    found_config, found = load_model(tmp_path)
    assert found_config == config
    for a, b in zip(leaves(found), leaves(model), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["run [1] a*b?", "a\\b", "{x,y} #%20 ü"])
def test_a_folder_may_have_any_name(tiny, tmp_path, name):
    folder, model = tmp_path / name, initialise(MultimodalModel(tiny()), 3)
    save_part(folder, tiny(), model)
    np.testing.assert_array_equal(leaves(load_model(folder)[1])[0], leaves(model)[0])
    assert jax.tree.leaves(load_subtree(folder, "connector")[1])
    progress = Progress(folder / "progress")
    progress.save(1, {"x": [jnp.arange(3.0)]}, {"at": 1})
    progress.close()
    progress = Progress(folder / "progress")
    state, notes = progress.load_newest({"x": [jnp.zeros(3)]})
    progress.close()
    assert (state["x"][0].tolist(), notes) == ([0.0, 1.0, 2.0], {"at": 1})


def test_a_stage_folder_can_be_moved(tiny, tmp_path):
    model = initialise(MultimodalModel(tiny()), 3)
    (tmp_path / "a").mkdir()
    save_part(tmp_path / "a", tiny(), model)
    shutil.move(tmp_path / "a", tmp_path / "b")
    np.testing.assert_array_equal(leaves(load_model(tmp_path / "b")[1])[0], leaves(model)[0])


def test_a_folder_without_a_model_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="holds no trained model"):
        load_model(tmp_path)


def test_one_part_of_a_checkpoint_comes_back_alone(tiny, tmp_path):
    model = initialise(MultimodalModel(tiny()), 3)
    save_part(tmp_path, tiny(), model)
    config, weights = load_subtree(tmp_path, "encoder")
    assert config == tiny()
    wanted = nnx.to_pure_dict(nnx.state(model))["encoder"]
    assert jax.tree.structure(weights) == jax.tree.structure(wanted)
    for found, value in zip(jax.tree.leaves(weights), jax.tree.leaves(wanted), strict=True):
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, value)


def test_a_part_that_a_checkpoint_lacks_is_told_with_those_it_has(tiny, tmp_path):
    save_part(tmp_path, tiny(), initialise(MultimodalModel(tiny()), 3))
    with pytest.raises(
        UserError, match="has no text_tower; it holds connector, encoder, language_model"
    ):
        load_subtree(tmp_path, "text_tower")


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    class Part(nnx.Module):
        def __init__(self):
            self.language_model = nnx.Param(np.ones(3, np.float32))

    save_part(tmp_path, LanguageModelStageConfig(), Part())
    with pytest.raises(UserError, match="of kind language_model, not multimodal"):
        load_model(tmp_path)


def test_progress_keeps_the_newest_state_and_its_notes(tmp_path):
    progress = Progress(tmp_path / "progress")
    assert progress.latest_step() is None
    for step in (2, 4):
        progress.save(step, {"weights": [np.full(3, step, np.float32)]}, [{"step": step}])
    progress.close()
    again = Progress(tmp_path / "progress")
    assert again.latest_step() == 4
    state, notes = again.load(4, {"weights": [jnp.zeros(3, jnp.float32)]})
    np.testing.assert_array_equal(state["weights"][0], [4, 4, 4])
    assert notes == [{"step": 4}]
    assert sorted(p.name for p in (tmp_path / "progress").iterdir()) == ["4"]


def test_a_torn_checkpoint_is_never_loaded(tmp_path, monkeypatch):
    """A process killed while it writes step 4 leaves everything but the commit."""
    import orbax.checkpoint as ocp

    like = {"weights": [jnp.zeros(3, jnp.float32)]}
    progress = Progress(tmp_path / "progress")
    progress.save(2, {"weights": [np.full(3, 2, np.float32)]}, [])
    assert progress.latest_step() == 2  # all of it is written
    with monkeypatch.context() as killed:
        killed.setattr(
            ocp.path.atomicity, "on_commit_callback", lambda *a, **k: (_ for _ in ()).throw(OSError)
        )
        progress.save(4, {"weights": [np.full(3, 4, np.float32)]}, [])
        with pytest.raises(OSError):  # noqa: PT011 - any error will do
            progress.latest_step()  # waits for the writing
    again = Progress(tmp_path / "progress")
    assert again.latest_step() == 2
    np.testing.assert_array_equal(again.load(2, like)[0]["weights"][0], [2, 2, 2])


def test_the_last_ones_and_the_one_with_the_lowest_loss_are_kept(tmp_path):
    progress = Progress(tmp_path / "progress", keep_last=2, keep_best=True)
    for step, loss in [(1, 3.0), (2, 1.0), (3, 2.0), (4, 2.5), (5, 1.5)]:
        progress.save(step, {"weights": [jnp.full(3, step, jnp.float32)]}, [], loss)
    assert (progress.latest_step(), progress.best_step()) == (5, 2)
    progress.close()
    assert sorted(p.name for p in (tmp_path / "progress").iterdir()) == ["2", "4", "5"]
