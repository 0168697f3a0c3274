from __future__ import annotations

import numpy as np
import pytest
from flax import nnx

from mm1_jax.model.initialisation import initialise, stable_hash
from mm1_jax.model.multimodal import MultimodalModel


def weights(config, seed=0, salt=0) -> dict[str, np.ndarray]:
    state = nnx.state(initialise(MultimodalModel(config), seed, salt))
    return {
        "/".join(map(str, path)): np.asarray(variable.get_value())
        for path, variable in nnx.to_flat_state(state)
    }


@pytest.mark.parametrize(
    "connector",
    [
        {"kind": "attention_pooling", "heads": 2},
        {"kind": "c_abstractor", "width": 16},
        {"kind": "average_pooling", "tokens": 16},
        {"kind": "linear", "tokens": None},
        {"kind": "mlp", "tokens": 16},
        {"kind": "pixel_unshuffle"},
        {"kind": "perceiver_resampler"},
    ],
    ids=lambda connector: connector["kind"],
)
def test_parameters_shared_by_path_and_shape_start_bit_equal_under_another_connector(
    tiny, connector
):
    base, other = weights(tiny()), weights(tiny(connector=connector))
    shared = [n for n in base if n in other and base[n].shape == other[n].shape]
    assert {n for n in base if not n.startswith("connector")} <= set(shared)
    for name in shared:
        np.testing.assert_array_equal(base[name], other[name], err_msg=name)


def test_a_deeper_model_shares_the_layers_of_a_shallower_one(tiny):
    shallow = weights(tiny())
    deep = weights(tiny(language_model={"layers": 3}))
    name = "language_model/blocks/qkv/kernel"
    np.testing.assert_array_equal(deep[name][:2], shallow[name])
    assert not np.array_equal(deep[name][2], deep[name][1])


def test_first_weights_depend_on_seed_and_salt_and_on_nothing_else(tiny):
    name = "language_model/embedding"
    first = weights(tiny(), seed=1)[name]
    np.testing.assert_array_equal(first, weights(tiny(), seed=1)[name])
    assert not np.array_equal(first, weights(tiny(), seed=2)[name])
    assert not np.array_equal(first, weights(tiny(), seed=1, salt=1)[name])


def test_kernels_have_the_standard_deviation_they_ask_for_and_no_two_are_alike(tiny):
    drawn = weights(tiny(encoder={"width": 64, "layers": 2}))
    kernel = drawn["encoder/blocks/qkv/kernel"]
    assert kernel.std() == pytest.approx(64**-0.5, rel=0.03)
    assert abs(kernel.mean()) < 0.003
    assert (drawn["encoder/norm/scale"] == 1).all()
    assert (drawn["encoder/norm/bias"] == 0).all()
    kernels = [array.reshape(-1)[:16] for name, array in drawn.items() if name.endswith("kernel")]
    assert len({array.tobytes() for array in kernels}) == len(kernels)


def test_the_hash_of_a_name_is_the_same_in_every_process():
    assert stable_hash("language_model/embedding") == 371138343
