"""Small folders of random weights, as the public families have them, made without PyTorch."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from mm1_jax.decoder import Decoder
from mm1_jax.decoder_weights import recognise_decoder
from mm1_jax.encoder_weights import recognise_encoder
from mm1_jax.encoders import VisionTransformer
from mm1_jax.safetensors_folder import open_folder, write_folder
from mm1_jax.weight_names import names_held

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


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """What a tensor of this name holds: Gaussian, norms around 1."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    drawn = 0.2 * np.random.default_rng(seed).standard_normal(shape)
    around_one = len(shape) == 1 and ("norm" in name or "lambda1" in name) and "bias" not in name
    return (drawn + (1.0 if around_one else 0.0)).astype(np.float32)


def pixels(size: int) -> np.ndarray:
    """Normalised pixels of one image, float32 [1, size, size, 3]."""
    return np.random.default_rng(size).standard_normal((1, size, size, 3)).astype(np.float32)
