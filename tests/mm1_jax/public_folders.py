"""Small folders of random weights, as the public families have them, made without PyTorch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from mm1_jax.model.decoder import Decoder
from mm1_jax.model.encoders import VisionTransformer
from mm1_jax.weights.decoder_weights import recognise_decoder
from mm1_jax.weights.encoder_weights import recognise_encoder
from mm1_jax.weights.multimodal_weights import recognise_multimodal
from mm1_jax.weights.safetensors_folder import open_folder, write_folder
from mm1_jax.weights.weight_names import names_held

_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 7,
}
ENCODERS = {
    "clip": {"model_type": "clip_vision_model", **_SIZES, "intermediate_size": 48},
    "siglip": {
        "model_type": "siglip_vision_model",
        **_SIZES,
        "intermediate_size": 40,
        "image_size": 30,  # two pixels are left over
        "vision_use_head": False,
    },
    "dinov2": {"model_type": "dinov2", **_SIZES, "mlp_ratio": 2, "layerscale_value": 1.0},
    "dinov2_swiglu": {"model_type": "dinov2", **_SIZES, "mlp_ratio": 2, "use_swiglu_ffn": True},
    "dinov2_registers": {
        "model_type": "dinov2_with_registers",
        **_SIZES,
        "mlp_ratio": 2,
        "num_register_tokens": 3,
    },
    "aimv2": {
        "model_type": "aimv2_vision_model",
        **_SIZES,
        "intermediate_size": 40,
        "rms_norm_eps": 1e-5,
        "use_head": False,
    },
    "aimv2_trunk": {
        "model_type": "aimv2",
        **_SIZES,
        "intermediate_size": 40,
        "rms_norm_eps": 1e-5,
    },
    "aim": {"embed_dim": 32, "num_blocks": 2, "num_heads": 4, "img_size": 28, "patch_size": 7},
}
_LLAMA = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
LANGUAGE_MODELS = {
    "llama": {"model_type": "llama", **_LLAMA},
    "llama_scaled_and_tied": {
        "model_type": "llama",
        **_LLAMA,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "mistral": {"model_type": "mistral", **_LLAMA, "sliding_window": None},
    "qwen2": {"model_type": "qwen2", **_LLAMA},
    "qwen3": {"model_type": "qwen3", **_LLAMA, "head_dim": 16},
}
VOCABULARY = 330  # some more than the tokenizer has
IMAGE = 320  # the token that marks an image


def _llava(text: str, vision: str, **more: object) -> dict[str, Any]:
    return {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "text_config": {
            **LANGUAGE_MODELS[text],
            "vocab_size": VOCABULARY,
            "hidden_size": 24,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        "vision_config": {**ENCODERS[vision], "image_size": 28},
        "image_token_index": IMAGE,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "projector_hidden_act": "gelu",
        **more,
    }


_FULL = {"vision_feature_select_strategy": "full", "vision_feature_layer": -1}
LLAVAS = {
    "llava": _llava("llama", "clip"),
    "llava_qwen2": _llava("qwen2", "clip", vision_feature_layer=1, tie_word_embeddings=True),
    "llava_mistral_siglip": _llava("mistral", "siglip", **_FULL),
}
# Layout → what stands before the tensors of the encoder, and of the projector.
LLAVA_LAYOUTS = {
    "hub": ("vision_tower.vision_model.", "multi_modal_projector."),
    "newer": ("model.vision_tower.vision_model.", "model.multi_modal_projector."),
    "written": ("vision_tower.", "multi_modal_projector."),  # by transformers 5
}
# A tensor by which the layout is told; everything else follows from the config.
_TELLING = {"aim", "aimv2_trunk"}


def make_folder(path: Path, name: str, dtype: type = np.float32, **changes: object) -> Path:
    """A folder of the named family with all tensors that we hold and one that we do not.

    `changes` are other values of its config.
    """
    config = (ENCODERS.get(name) or LANGUAGE_MODELS[name]) | changes
    told = {"trunk.blocks.0.attn.qkv.weight": np.zeros(1, np.float32)} if name in _TELLING else {}
    write_folder(path, config, told or {"logit_scale": np.zeros(1, np.float32)})
    if name in ENCODERS:
        encoder = recognise_encoder(open_folder(path))
        shapes = names_held(encoder.names, VisionTransformer(encoder.config))
    else:
        decoder = recognise_decoder(open_folder(path))
        shapes = names_held(decoder.names, Decoder(decoder.config, decoder.vocabulary))
    tensors = {tensor: values(tensor, shape).astype(dtype) for tensor, shape in shapes.items()}
    if name in ENCODERS and name not in _TELLING:
        tensors["logit_scale"] = np.float32([2.5])
    write_folder(path, config, tensors)
    return path


def make_llava(
    path: Path, name: str = "llava", layout: str = "hub", dtype: type = np.float32
) -> Path:
    """A folder of a LLaVA with a tokenizer, which has two tensors that we do not hold."""
    config = LLAVAS[name]
    encoder, projector = LLAVA_LAYOUTS[layout]
    patches, nothing = f"{encoder}embeddings.patch_embedding.weight", np.zeros(1, np.float32)
    write_folder(path, config, {patches: nothing, f"{projector}linear_1.bias": nothing})
    shapes = recognise_multimodal(open_folder(path)).held()
    tensors = {tensor: values(tensor, shape).astype(dtype) for tensor, shape in shapes.items()}
    width = config["vision_config"]["hidden_size"]
    for ending in ("weight", "bias"):
        unused = f"{encoder}post_layernorm.{ending}"
        tensors[unused] = values(unused, (width,)).astype(dtype)
    write_folder(path, config, tensors)
    llama_tokenizer().save(str(path / "tokenizer.json"))
    return path


def llama_tokenizer(space: str = "prepend") -> tokenizers.Tokenizer:
    """A tokenizer as Llama's are, with `<image>` as LLaVA adds it and ChatML's, of 323 tokens.

    `space`: before every text by a normaliser (prepend), by Metaspace before all (always) or before
    a text's very beginning alone (first), or byte-level without any (none).
    """
    made = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    if space == "prepend":
        steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        made.normalizer = normalizers.Sequence(steps)
    elif space == "none":
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace("▁", space, split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(vocab_size=IMAGE, special_tokens=specials, show_progress=False)
    text = "USER: what colour is it? ASSISTANT: red green blue Short answer: Question the user's"
    made.train_from_iterator([text] * 3, trainer)
    added = ("<image>", "<|im_start|>", "<|im_end|>")
    made.add_special_tokens([tokenizers.AddedToken(one, normalized=False) for one in added])
    assert made.token_to_id("<image>") == IMAGE
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", made.token_to_id("<s>"))]
    )
    return made


def write_preprocessor(path: Path, **stated: object) -> None:
    """`preprocessor_config.json`, as CLIP's is for 28 pixels but for what is `stated`."""
    clip = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    clip |= {"do_center_crop": True, "resample": 3, "image_processor_type": "CLIPImageProcessor"}
    (path / "preprocessor_config.json").write_text(json.dumps({**clip, **stated}), encoding="utf-8")


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """What a tensor of this name holds: Gaussian, norms around 1."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    drawn = 0.2 * np.random.default_rng(seed).standard_normal(shape)
    around_one = len(shape) == 1 and ("norm" in name or "lambda1" in name) and "bias" not in name
    return (drawn + (1.0 if around_one else 0.0)).astype(np.float32)


def pixels(size: int) -> np.ndarray:
    """Normalised pixels of one image, float32 [1, size, size, 3]."""
    return np.random.default_rng(size).standard_normal((1, size, size, 3)).astype(np.float32)
