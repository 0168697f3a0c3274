"""Public weights: the same numbers as the reference's code, and the same files back."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from public_folders import ENCODERS, LANGUAGE_MODELS, make_folder, make_llava, pixels

from ablations.errors import UserError
from mm1_jax.data import tokenizer
from mm1_jax.model.decoder import Decoder
from mm1_jax.model.encoders import VisionTransformer
from mm1_jax.model.generation import generate_text, ids_as_rows
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.layers import UNROLLED
from mm1_jax.model.multimodal import MultimodalModel
from mm1_jax.training.checkpoints import save_part
from mm1_jax.weights.decoder_weights import recognise_decoder
from mm1_jax.weights.encoder_weights import recognise_encoder
from mm1_jax.weights.imported_tokenizer import ends_of
from mm1_jax.weights.part_weights import encoder_weights, filled
from mm1_jax.weights.public_weights import export_folder, import_folder, inspect
from mm1_jax.weights.safetensors_folder import open_folder, write_folder

GOLDEN = Path(__file__).parent / "golden"
IDS = [3, 17, 39, 5, 8]
NEW = 8
OF_TRANSFORMERS = sorted(set(ENCODERS) - {"aim", "aimv2_trunk"})


def close(found, expected):
    """The parity that is asked for: 1e-4 of the largest number."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def our_states(folder):
    """Every layer's output and the encoder's, of one fixed image."""
    file = recognise_encoder(open_folder(folder))
    encoder = filled(VisionTransformer(file.config), file.weights())
    states = nnx.jit(lambda encoder, x: encoder.states(x, UNROLLED))(
        encoder, jnp.asarray(pixels(file.config.image_size))
    )
    return [*states, encoder.output(states[-1])]


def our_language_model(folder):
    """Scores of a prompt, and how greedy generation goes on."""
    file = recognise_decoder(open_folder(folder))
    decoder = filled(Decoder(file.config, file.vocabulary), file.weights())
    tokens, lengths = ids_as_rows([IDS])
    places = jnp.arange(len(IDS))[None]

    @nnx.jit
    def scores(decoder):
        x = decoder.embed(jnp.asarray(tokens), jnp.dtype("float32"))
        states, *_ = decoder(x, places, jnp.ones_like(places), UNROLLED)
        return decoder.logits(states)

    new, logprobs = generate_text(decoder, tokens, lengths, NEW, form=UNROLLED, ends=())
    return scores(decoder), np.asarray(new)[0], np.asarray(logprobs)[0]


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_every_layer_of_an_encoder_is_as_stored_from_the_reference(name, tmp_path):
    golden = np.load(GOLDEN / "public_encoders.npz")
    for number, state in enumerate(our_states(make_folder(tmp_path, name))):
        close(state, golden[f"{name}_{number}"])


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_scores_and_greedy_text_are_as_stored_from_the_reference(name, tmp_path):
    golden = np.load(GOLDEN / "public_language_models.npz")
    scores, tokens, logprobs = our_language_model(make_folder(tmp_path, name))
    close(scores, golden[f"{name}_scores"])
    np.testing.assert_array_equal(tokens, golden[f"{name}_tokens"])
    np.testing.assert_allclose(logprobs, golden[f"{name}_logprobs"], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_every_layer_of_an_encoder_equals_transformers(name, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    kinds = {
        "clip": transformers.CLIPVisionModel,
        "siglip": transformers.SiglipVisionModel,
        "dinov2": transformers.Dinov2Model,
        "dinov2_swiglu": transformers.Dinov2Model,
        "dinov2_registers": transformers.Dinov2WithRegistersModel,
        "aimv2": transformers.Aimv2VisionModel,
    }
    folder = make_folder(tmp_path, name)
    model = kinds[name].from_pretrained(folder).eval()
    image = pixels(ENCODERS[name]["image_size"]).transpose(0, 3, 1, 2)
    with torch.no_grad():
        out = model(pixel_values=torch.tensor(image), output_hidden_states=True)
    ours = our_states(folder)
    # The last of its hidden states may already be normed; the model's output tells it exactly.
    expected = [*map(np.asarray, out.hidden_states[:-1]), np.asarray(out.last_hidden_state)]
    for state, reference in zip([*ours[:-2], ours[-1]], expected, strict=True):
        close(state, reference)
    _store("public_encoders", {f"{name}_{i}": np.asarray(x) for i, x in enumerate(ours)})


@pytest.mark.slow
@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_scores_and_greedy_text_equal_transformers(name, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = make_folder(tmp_path, name)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(torch.tensor([IDS])).logits.numpy()
        out = model.generate(
            torch.tensor([IDS]),
            max_new_tokens=NEW,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        )
    tokens = out.sequences[0, len(IDS) :].numpy()
    logprobs = [
        torch.log_softmax(scores[0], -1)[token].item()
        for scores, token in zip(out.scores, tokens, strict=True)
    ]
    ours = our_language_model(folder)
    close(ours[0], expected)
    np.testing.assert_array_equal(ours[1], tokens)
    np.testing.assert_allclose(ours[2], logprobs, atol=1e-4)
    _store(
        "public_language_models",
        {f"{name}_scores": expected, f"{name}_tokens": tokens, f"{name}_logprobs": logprobs},
    )


def _store(name, arrays):
    if os.environ.get("UPDATE_GOLDEN"):
        path = GOLDEN / f"{name}.npz"
        path.parent.mkdir(exist_ok=True)
        old = dict(np.load(path)) if path.is_file() else {}
        np.savez_compressed(path, **{**old, **arrays})


@pytest.mark.parametrize("name", ["aim", "aimv2_trunk"])
def test_aim_in_its_authors_layout_equals_plain_numpy(name, tmp_path):
    folder = make_folder(tmp_path, name)
    for state, expected in zip(our_states(folder), plain_aim(folder), strict=True):
        close(state[0], expected)


def plain_aim(folder):
    """AIM v1 (LayerNorm, sin-cos, GELU) and v2 (RMSNorm, learned, SwiGLU), one image, a loop."""
    opened = open_folder(folder)
    t = {tensor: opened.read(tensor).astype(np.float64) for tensor in opened.shapes}
    v2 = "preprocessor.pos_embed" in t
    x = pixels(28)[0].astype(np.float64)

    def norm(x, name):
        if v2:
            return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * t[f"{name}.weight"]
        centred = x - x.mean(-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return unit * t[f"{name}.weight"] + t[f"{name}.bias"]

    kernel, bias = (t[f"preprocessor.patchifier.proj.{part}"] for part in ("weight", "bias"))
    tokens = []
    for row in range(4):
        for column in range(4):
            patch = x[7 * row : 7 * row + 7, 7 * column : 7 * column + 7]
            tokens.append(np.einsum("yxc,ocyx->o", patch, kernel) + bias)
    x = norm(np.stack(tokens), "preprocessor.patchifier.norm")
    if v2:
        x = x + t["preprocessor.pos_embed"][0]
    else:
        for place in range(16):
            half = []
            for at in (place % 4, place // 4):
                angles = [at / 10_000 ** (i / 8) for i in range(8)]
                half += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            x[place] += half
    states = [x]
    for layer in range(2):
        name = f"trunk.blocks.{layer}"
        q, k, v = np.split(norm(x, f"{name}.norm_1") @ t[f"{name}.attn.qkv.weight"].T, 3, axis=1)
        heads = []
        for head in range(4):
            own = slice(8 * head, 8 * head + 8)
            scores = np.exp(q[:, own] @ k[:, own].T / math.sqrt(8))
            heads.append(scores / scores.sum(1, keepdims=True) @ v[:, own])
        x = x + np.concatenate(heads, 1) @ t[f"{name}.attn.proj.weight"].T
        y = norm(x, f"{name}.norm_2")
        hidden = y @ t[f"{name}.mlp.fc1.weight"].T
        if v2:
            hidden = hidden / (1 + np.exp(-hidden)) * (y @ t[f"{name}.mlp.fc3.weight"].T)
        else:
            hidden = hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2
        x = x + hidden @ t[f"{name}.mlp.fc2.weight"].T
        states.append(x)
    return [*states, norm(x, "trunk.post_trunk_norm")]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", [*ENCODERS, "llama_scaled_and_tied", "qwen2", "qwen3"])
def test_import_and_export_give_every_tensor_held_byte_for_byte(name, dtype, tmp_path):
    first = open_folder(make_folder(tmp_path / "in", name, dtype))
    found = import_folder(first.path, tmp_path / "ours")
    export_folder(tmp_path / "ours", tmp_path / "out")
    again = open_folder(tmp_path / "out")
    assert again.config == first.config
    assert sorted(again.shapes) == found.held
    assert sorted({*found.held, *found.not_held}) == sorted(first.shapes)
    for tensor in again.shapes:
        assert again.dtypes[tensor] == first.dtypes[tensor]
        assert again.read(tensor).tobytes() == first.read(tensor).tobytes()


def test_a_text_tower_and_a_tensor_without_a_place_are_listed(tmp_path):
    found = inspect(make_folder(tmp_path, "clip"))
    assert (found.part, found.family, found.not_held) == ("encoder", "clip", ["logit_scale"])


def test_a_prefix_before_the_vision_tower_is_found_and_given_back(tmp_path):
    bare = open_folder(make_folder(tmp_path / "bare", "clip"))
    tensors = {
        name if name == "logit_scale" else f"vision_model.{name}": bare.read(name)
        for name in bare.shapes
    }
    config = {"model_type": "clip", "vision_config": bare.config}
    write_folder(tmp_path / "whole", config, tensors)
    import_folder(tmp_path / "whole", tmp_path / "ours")
    export_folder(tmp_path / "ours", tmp_path / "out")
    out = open_folder(tmp_path / "out")
    assert "vision_model.pre_layrnorm.weight" in out.shapes
    assert out.config == config
    close(our_states(tmp_path / "whole")[-1], our_states(tmp_path / "bare")[-1])


def test_several_files_are_read_by_their_index(tmp_path):
    whole = open_folder(make_folder(tmp_path / "whole", "llama"))
    parts = tmp_path / "parts"
    names = sorted(whole.shapes)
    where = {}
    for number, some in enumerate((names[::2], names[1::2])):
        write_folder(parts, whole.config, {name: whole.read(name) for name in some})
        file = f"model-{number}.safetensors"
        (parts / "model.safetensors").rename(parts / file)
        where |= dict.fromkeys(some, file)
    (parts / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": where}), encoding="utf-8"
    )
    np.testing.assert_array_equal(our_language_model(parts)[0], our_language_model(whole.path)[0])
    (parts / "model-1.safetensors").unlink()
    with pytest.raises(UserError, match=r"lacks model-1\.safetensors, which .*index"):
        open_folder(parts)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, {"model_type": "siglip_vision_model"}),
        ({"activation": "quick_gelu", "class_token": True}, None),
        (
            {
                "class_token": True,
                "patch_bias": False,
                "embedding_norm": "tokens",
                "output_norm": False,
                "pixels": "clip",
                "norm_eps": 1e-5,
                "activation": "quick_gelu",
            },
            {"model_type": "clip_vision_model"},
        ),
    ],
)
def test_an_encoder_trained_here_is_written_in_a_family_that_has_all_it_has(
    config, expected, tiny, tmp_path
):
    whole = tiny(encoder=config)
    model = initialise(MultimodalModel(whole), 0)
    save_part(tmp_path, whole, model)
    if expected is None:
        with pytest.raises(UserError, match="no public format has all that this encoder has"):
            export_folder(tmp_path, tmp_path / "out", "encoder")
        return
    export_folder(tmp_path, tmp_path / "out", "encoder")
    assert open_folder(tmp_path / "out").config.items() >= expected.items()
    image = pixels(16)
    there = encoder_weights(tmp_path / "out")
    encoder = filled(VisionTransformer(there.config), there.tree)
    np.testing.assert_array_equal(
        encoder.features(jnp.asarray(image), UNROLLED),
        model.encoder.features(jnp.asarray(image), UNROLLED),
    )


def test_a_language_model_trained_here_is_written_with_its_scaled_embeddings(tiny, tmp_path):
    whole = tiny()
    model = initialise(MultimodalModel(whole), 0)
    save_part(tmp_path, whole, model)
    export_folder(tmp_path, tmp_path / "out", "language_model")
    file = recognise_decoder(open_folder(tmp_path / "out"))
    again = filled(Decoder(file.config, file.vocabulary), file.weights())
    tokens, lengths = ids_as_rows([IDS, IDS[:3]])
    ours, theirs = (
        generate_text(decoder, tokens, lengths, NEW, form=UNROLLED, ends=())
        for decoder in (model.language_model, again)
    )
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-5)


def test_a_missing_tensor_is_named_with_its_shape(tmp_path):
    folder = open_folder(make_folder(tmp_path, "clip"))
    lost = "encoder.layers.1.mlp.fc2.weight"
    write_folder(tmp_path, folder.config, {n: folder.read(n) for n in folder.shapes if n != lost})
    with pytest.raises(
        UserError, match=r"lacks the tensor encoder\.layers\.1\.mlp\.fc2\.weight \[32, 48\]"
    ):
        encoder_weights(tmp_path)


def test_weights_of_another_shape_than_the_config_says_are_refused(tmp_path):
    folder = open_folder(make_folder(tmp_path, "qwen2"))
    config = {**folder.config, "num_key_value_heads": 4}
    write_folder(tmp_path, config, {name: folder.read(name) for name in folder.shapes})
    with pytest.raises(UserError, match=r"k_proj\.bias is \[16\] .* asks for \[32\]"):
        recognise_decoder(open_folder(tmp_path)).weights()


def test_another_architecture_is_refused_with_those_that_are_known(tmp_path):
    write_folder(tmp_path, {"model_type": "clap"}, {"x": np.zeros(2, np.float32)})
    with pytest.raises(UserError, match=r"model_type 'clap'; did you mean 'clip'"):
        inspect(tmp_path)


def test_a_file_that_is_cut_short_is_refused(tmp_path):
    file = make_folder(tmp_path, "siglip") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors is cut short or damaged"):
        inspect(tmp_path)


def test_whole_numbers_are_no_weights(tmp_path):
    folder = open_folder(make_folder(tmp_path, "siglip"))
    tensors = {name: folder.read(name) for name in folder.shapes}
    tensors["post_layernorm.bias"] = np.zeros(32, np.int64)
    write_folder(tmp_path, folder.config, tensors)
    with pytest.raises(UserError, match=r"post_layernorm\.bias .* is I64; valid: F32, F16, BF16"):
        encoder_weights(tmp_path)


def test_a_language_model_is_written_with_its_tokenizer(tiny, tmp_path):
    whole = tiny()
    save_part(tmp_path / "ours", whole, initialise(MultimodalModel(whole), 0))
    texts = [f"a text of {number} words and {number**3} letters" for number in range(300)]
    words = tokenizer.train(texts, whole.data.vocabulary)
    words.save(tmp_path / "ours")
    export_folder(tmp_path / "ours", tmp_path / "out", "language_model")
    written = tokenizer.load(tmp_path / "out")
    assert written.encode("a text") == words.encode("a text")
    assert ends_of(tmp_path / "out") == (1,)
    said = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert said["eos_token"] == "<|end|>"
    export_folder(tmp_path / "ours", tmp_path / "tower", "encoder")
    assert not (tmp_path / "tower" / "tokenizer.json").exists()


def test_a_part_of_an_imported_whole_keeps_what_lay_beside_it(tmp_path):
    folder = make_llava(tmp_path / "llava")
    for name in ("special_tokens_map.json", "chat_template.jinja", "generation_config.json"):
        said = '{"eos_token_id": 2, "roles": "USER: ASSISTANT:"}'
        (folder / name).write_text(said, encoding="utf-8")
    (folder / "preprocessor_config.json").write_text("{}", encoding="utf-8")
    import_folder(folder, tmp_path / "ours")
    export_folder(tmp_path / "ours", tmp_path / "out", "language_model")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
    }
    export_folder(tmp_path / "ours", tmp_path / "tower", "encoder")
    assert (tmp_path / "tower" / "preprocessor_config.json").is_file()
