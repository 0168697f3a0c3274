"""LLaVA's files: the same numbers as transformers' code, the same files back, what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from public_folders import (
    IMAGE,
    LLAVA_LAYOUTS,
    LLAVAS,
    VOCABULARY,
    make_llava,
    write_preprocessor,
)

from ablations.errors import UserError
from mm1_jax.data.batches.packing import lay_out
from mm1_jax.data.templates import Exchange, converse, template_of
from mm1_jax.evaluation.asking import encoded, packed
from mm1_jax.evaluation.imported_model import imported_model, imported_words
from mm1_jax.evaluation.tasks.prompts import as_text
from mm1_jax.images.sub_images import views_of
from mm1_jax.model.generation import generate_with_scores
from mm1_jax.training.initial_weights import take_model
from mm1_jax.weights.multimodal_weights import recognise_multimodal
from mm1_jax.weights.part_weights import encoder_weights, language_model_weights
from mm1_jax.weights.public_weights import export_folder, import_folder, inspect
from mm1_jax.weights.safetensors_folder import open_folder, write_folder

GOLDEN = Path(__file__).parent / "golden" / "public_multimodal.npz"
NEW = 8
TURNS = {
    1: [Exchange((0, "what colour is it?"), None)],
    2: [Exchange((0, "what colour is it?"), " red"), Exchange((1, "and the other?"), None)],
}
CASES = [("llava", 2), ("llava_qwen2", 1), ("llava_mistral_siglip", 1)]
STEP = 16  # of the places whose scores are stored


def pictures(count):
    draws = np.random.default_rng(3)
    shapes = [(28, 28, 3), (40, 31, 3)][:count]
    return [Image.fromarray(draws.integers(0, 256, shape).astype(np.uint8)) for shape in shapes]


def prompt_of(name, images):
    template = "chatml" if "qwen" in name else "vicuna"
    return converse(TURNS[images], template_of(template))[0]


def our_scores(folder, images):
    """Token ids with one for each patch, scores at every place, and what to go on from."""
    config, model = imported_model(folder)
    spoken = imported_words(folder, config)
    prompt = prompt_of(folder_name(folder), images)
    (row,) = encoded([prompt], spoken.words, begin=spoken.begin, as_one=True)
    batch = lay_out(packed([row], len(row.tokens), images), config.view_tokens)
    shown = [views_of(config).of(picture) for picture in pictures(images)]
    batch["images"] = np.concatenate(shown)[None]
    del batch["sources"]

    @nnx.jit
    def scores(model, batch):
        places = (batch["positions"], batch["segments"], model.form)
        return model.language_model.logits(model.language_model(model.embed(batch), *places)[0])

    lengths = (batch["segments"] > 0).sum(axis=1)
    assert lengths[0] == batch["tokens"].shape[1] + 16 * images
    ids = np.full(lengths[0], IMAGE)
    is_text = batch["gather"][0] < len(row.tokens)
    ids[is_text] = row.tokens
    found = scores(model, {name: jnp.asarray(array) for name, array in batch.items()})
    return ids, np.asarray(found)[0], (model, batch, lengths)


def our_text(model, batch, lengths):
    """The greedy continuation, through the cache: tokens and log-probabilities."""
    new, logprobs = generate_with_scores(model, batch, lengths, NEW, ends=())
    return np.asarray(new)[0], np.asarray(logprobs)[0]


def close(found, expected):
    """The parity that is asked for: 1e-4 of the largest number."""
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(("name", "images"), CASES)
def test_scores_and_greedy_text_are_as_stored_from_the_reference(name, images, tmp_path):
    golden = np.load(GOLDEN)
    ids, scores, prompt = our_scores(make_llava(tmp_path, name), images)
    key = f"{name}_{images}"
    np.testing.assert_array_equal(ids, golden[f"{key}_ids"])
    close(scores[::STEP], golden[f"{key}_scores"])
    if name != "llava":
        return  # compiling takes seconds; the slow test has the text of all
    tokens, logprobs = our_text(*prompt)
    np.testing.assert_array_equal(tokens, golden[f"{key}_tokens"])
    np.testing.assert_allclose(logprobs, golden[f"{key}_logprobs"], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("images", TURNS)
@pytest.mark.parametrize("name", LLAVAS)
def test_scores_and_greedy_text_equal_transformers(name, images, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = make_llava(tmp_path, name)
    inputs = reference_inputs(transformers, folder, images)
    model = transformers.LlavaForConditionalGeneration.from_pretrained(folder).eval()
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        expected = model(**inputs).logits[0].numpy()
        out = model.generate(
            **inputs,
            max_new_tokens=NEW,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        )
    tokens = out.sequences[0, inputs["input_ids"].shape[1] :].numpy()
    logprobs = [
        torch.log_softmax(scores[0], -1)[token].item()
        for scores, token in zip(out.scores, tokens, strict=True)
    ]
    ids, scores, prompt = our_scores(folder, images)
    new, own = our_text(*prompt)
    np.testing.assert_array_equal(ids, inputs["input_ids"][0])
    print(f"{name}, {images}: {np.abs(scores - expected).max() / np.abs(expected).max():.2e}")
    close(scores, expected)
    np.testing.assert_array_equal(new, tokens)
    np.testing.assert_allclose(own, logprobs, atol=1e-4)
    key = f"{name}_{images}"
    arrays = {"ids": ids, "scores": expected[::STEP], "tokens": tokens, "logprobs": logprobs}
    if os.environ.get("UPDATE_GOLDEN") and (name, images) in CASES:
        old = dict(np.load(GOLDEN)) if GOLDEN.is_file() else {}
        stored = {f"{key}_{what}": array for what, array in arrays.items()}
        np.savez_compressed(GOLDEN, **{**old, **stored})


def reference_inputs(transformers, folder, images):
    """What transformers' own processor makes of the same conversation and pictures."""
    words = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    config = LLAVAS[folder_name(folder)]
    kind = config["vision_config"]["model_type"]
    if kind.startswith("siglip"):
        size = {"height": 28, "width": 28}
        shown = transformers.SiglipImageProcessorPil(size=size, resample=3)
    else:
        sizes = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
        shown = transformers.CLIPImageProcessorPil(**sizes)
    strategy = config["vision_feature_select_strategy"]
    processor = transformers.LlavaProcessor(
        shown,
        words,
        patch_size=7,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=int(strategy == "default"),
    )
    said = as_text(prompt_of(folder_name(folder), images)).replace("<|end|>", "</s>")
    return processor(text=said, images=pictures(images), return_tensors="pt")


def folder_name(folder):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return next(
        name for name, known in LLAVAS.items() if known["text_config"]["model_type"] in str(config)
    )


def same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


@pytest.mark.parametrize("layout", sorted(set(LLAVA_LAYOUTS) - {"hub"}))
def test_every_layout_of_names_is_the_same_model(layout, tmp_path):
    hub = open_folder(make_llava(tmp_path / "hub"))
    other = open_folder(make_llava(tmp_path / "other", layout=layout))
    assert set(other.shapes) != set(hub.shapes)
    tensors = {name: hub.read(hub_name(name)) for name in other.shapes}
    write_folder(tmp_path / "other", other.config, tensors)
    first, second = (recognise_multimodal(open_folder(tmp_path / x)) for x in ("hub", "other"))
    assert first.config == second.config
    same(first.weights(), second.weights())


def hub_name(name):
    """A tensor's name in another layout → in the hub's."""
    if name == "lm_head.weight":
        return f"language_model.{name}"
    if name.startswith("model."):
        name = name.removeprefix("model.").replace("language_model.", "language_model.model.", 1)
    if name.startswith("vision_tower.") and "vision_model." not in name:
        name = name.replace("vision_tower.", "vision_tower.vision_model.", 1)
    return name


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("layout", LLAVA_LAYOUTS)
def test_import_and_export_give_every_tensor_held_byte_for_byte(layout, dtype, tmp_path):
    first = open_folder(make_llava(tmp_path / "in", "llava", layout, dtype))
    write_preprocessor(tmp_path / "in")
    found = import_folder(first.path, tmp_path / "ours")
    encoder = LLAVA_LAYOUTS[layout][0]
    assert found.part == "multimodal"
    assert found.not_held == [f"{encoder}post_layernorm.{x}" for x in ("bias", "weight")]
    export_folder(tmp_path / "ours", tmp_path / "out")
    again = open_folder(tmp_path / "out")
    assert again.config == first.config
    assert sorted(again.shapes) == found.held
    for tensor in again.shapes:
        assert again.dtypes[tensor] == first.dtypes[tensor]
        assert again.read(tensor).tobytes() == first.read(tensor).tobytes()
    for name in ("tokenizer.json", "preprocessor_config.json"):
        assert (again.path / name).read_bytes() == (first.path / name).read_bytes()


def test_an_imported_checkpoint_is_the_model_in_the_files_also_for_instruction_tuning(tmp_path):
    folder = make_llava(tmp_path / "in")
    import_folder(folder, tmp_path / "ours")
    config, model = imported_model(folder)
    again, checkpoint = imported_model(tmp_path / "ours")
    assert again == config
    for other in (checkpoint, take_model(config, tmp_path / "ours")):
        same(nnx.to_pure_dict(nnx.state(model)), nnx.to_pure_dict(nnx.state(other)))


def test_a_part_of_a_whole_model_is_read_and_written_as_one_of_its_own(tmp_path):
    folder = make_llava(tmp_path / "in")
    import_folder(folder, tmp_path / "ours")
    for part, read in (("encoder", encoder_weights), ("language_model", language_model_weights)):
        export_folder(tmp_path / "ours", tmp_path / part, part)
        same(read(tmp_path / part).tree, read(folder).tree)
    whole, alone = encoder_weights(folder), encoder_weights(tmp_path / "encoder")
    assert (whole.config.output_layer, alone.config.output_layer) == (-2, -1)
    assert encoder_weights(tmp_path / "ours").preprocessing == whole.preprocessing


def test_images_are_brought_to_a_square_as_the_folder_says(tmp_path):
    folder = make_llava(tmp_path)

    def fit():
        return recognise_multimodal(open_folder(folder)).config.data.fit

    assert fit() == "crop"
    write_preprocessor(folder)
    assert fit() == "crop"
    write_preprocessor(folder, do_pad=True)
    assert fit() == "pad"
    write_preprocessor(folder, do_center_crop=False, size={"height": 28, "width": 28})
    assert fit() == "squash"


def test_inspect_names_the_parts(tmp_path):
    found = inspect(make_llava(tmp_path, "llava_mistral_siglip"))
    assert (found.part, found.family, found.vocabulary) == ("multimodal", "llava", VOCABULARY)
    assert found.config["connector"]["kind"] == "mlp"
    assert found.config["encoder"]["output_norm"] is False
    assert (found.config["fit"], found.config["template"]) == ("squash", "vicuna")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"projector_hidden_act": "relu"}, "projector_hidden_act 'relu' is not known; valid: 'ge"),
        ({"multimodal_projector_bias": False}, "multimodal_projector_bias False is not known"),
        (
            {"vision_feature_select_strategy": "full"},
            "strategy 'full' is not known for an encoder with 1 tokens .*; valid: 'default'",
        ),
        ({"vision_feature_layer": [-2, -5]}, r"vision_feature_layer \[-2, -5\] is not known"),
        ({"vision_feature_layer": -5}, "vision_feature_layer -5: the encoder has 2 layers"),
        ({"model_type": "llava_next"}, "model_type 'llava_next'; valid: llava"),
        ({"text_config": {"model_type": "gemma"}}, "no language model that is known: .*'gemma'"),
        ({"vision_config": {"model_type": "pixtral"}}, "no image encoder that is known: .*pixtral"),
    ],
)
def test_a_variant_that_is_not_known_is_refused(changes, message, tmp_path):
    folder = open_folder(make_llava(tmp_path))
    config = dict(folder.config)
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    write_folder(tmp_path, config, {name: folder.read(name) for name in folder.shapes})
    with pytest.raises(UserError, match=message):
        inspect(tmp_path)


def test_siglip_without_a_class_token_has_none_to_drop(tmp_path):
    folder = open_folder(make_llava(tmp_path, "llava_mistral_siglip"))
    config = {**folder.config, "vision_feature_select_strategy": "default"}
    write_folder(tmp_path, config, {name: folder.read(name) for name in folder.shapes})
    with pytest.raises(UserError, match=r"'default' is not known .* 0 tokens .*; valid: 'full'"):
        inspect(tmp_path)


@pytest.mark.parametrize(
    "lost", ["multi_modal_projector.linear_2.bias", "language_model.lm_head.w"]
)
def test_a_missing_tensor_is_named(lost, tmp_path):
    folder = open_folder(make_llava(tmp_path))
    kept = {name: folder.read(name) for name in folder.shapes if not name.startswith(lost)}
    assert len(kept) == len(folder.shapes) - 1
    write_folder(tmp_path, folder.config, kept)
    with pytest.raises(UserError, match=f"lacks the tensor {lost}"):
        import_folder(tmp_path, tmp_path / "ours")


def test_a_preprocessing_that_is_not_known_is_refused(tmp_path):
    folder = make_llava(tmp_path)
    write_preprocessor(folder, image_mean=[0.5, 0.5, 0.5])
    with pytest.raises(UserError, match=r"image_mean \[0.5, 0.5, 0.5\].* not the clip encoder's"):
        inspect(folder)
    write_preprocessor(folder, size={"shortest_edge": 32})
    with pytest.raises(UserError, match=r"shortest to 28 × 28 \(shortest edge 32.*valid: squash"):
        inspect(folder)
    write_preprocessor(folder, do_normalize=False)
    with pytest.raises(UserError, match="do_normalize false is not known; valid: true"):
        inspect(folder)
    write_preprocessor(folder, rescale_factor=1)
    with pytest.raises(UserError, match="rescale_factor 1; valid: 1 / 255"):
        inspect(folder)


def test_sizes_that_a_file_does_not_write_are_those_of_its_class(tmp_path):
    write_folder(tmp_path, {"model_type": "llava"}, {"x": np.zeros(1, np.float32)})
    config = recognise_multimodal(open_folder(tmp_path)).config
    assert (config.language_model.width, config.language_model.mlp_width) == (4096, 11_008)
    assert (config.encoder.width, config.encoder.layers) == (768, 12)
