"""Public language models in Hugging Face folders: Llama and what is built like it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablations.errors import UserError, nearest
from mm1_jax.config.language_model import DenseConfig, RopeScaling
from mm1_jax.model.decoder import Decoder
from mm1_jax.weights.json_object import stating
from mm1_jax.weights.safetensors_folder import SafetensorsFolder
from mm1_jax.weights.weight_names import Names, Tree
from mm1_jax.weights.weights_folder import CONFIG_FILE

LLAMA = {
    "embedding": "embed_tokens.weight",
    "blocks/attention_norm": "layers.#.input_layernorm",
    "blocks/qkv": "layers.#.self_attn.{q,k,v}_proj",
    "blocks/query_norm": "layers.#.self_attn.q_norm",
    "blocks/key_norm": "layers.#.self_attn.k_norm",
    "blocks/attention_out": "layers.#.self_attn.o_proj",
    "blocks/mlp_norm": "layers.#.post_attention_layernorm",
    "blocks/gate_up": "layers.#.mlp.{gate,up}_proj",
    "blocks/down": "layers.#.mlp.down_proj",
    "norm": "norm",
}
BODY, HEAD = "model.", "lm_head"  # before all tensors but the head's, and the head's name
_USUAL = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
_QWEN = {**_USUAL, "vocab_size": 151_936, "intermediate_size": 22_016}
# Family → what a file means that does not write a size; SmolLM's files say llama.
FAMILIES: dict[str, dict[str, int]] = {
    "llama": _USUAL,
    "mistral": {**_USUAL, "intermediate_size": 14_336, "num_key_value_heads": 8},
    "qwen2": {**_QWEN, "num_key_value_heads": 32},
    "qwen3": {**_QWEN, "num_key_value_heads": 32, "head_dim": 128},
}


@dataclass(frozen=True)
class DecoderFile:
    """A language model in a folder, recognised."""

    folder: SafetensorsFolder
    family: str
    config: DenseConfig
    vocabulary: int
    body: str = BODY
    head: str = HEAD

    @property
    def names(self) -> Names:
        """How the folder calls our parameters."""
        return decoder_names(self.config, self.body, self.head)

    def weights(self) -> Tree:
        """All parameters, float32; `UserError` for a tensor that is missing or odd."""
        return self.names.read(self.folder, Decoder(self.config, self.vocabulary))


def decoder_names(config: DenseConfig, body: str = BODY, head: str = HEAD) -> Names:
    """The names in Llama-like files."""
    queries, keys = config.heads * config.head, config.kv_heads * config.head
    table = {ours: body + theirs for ours, theirs in LLAMA.items()} | {"head": f"{head}.weight"}
    return Names(table, rows={"blocks/qkv": (queries, keys, keys)})


def recognise_decoder(folder: SafetensorsFolder, body: str = BODY, head: str = HEAD) -> DecoderFile:
    """The language model of a folder. `UserError` if it is of no known family, or a variant."""
    with stating(folder.path / CONFIG_FILE):
        return _recognised(folder, body, head)


def _recognised(folder: SafetensorsFolder, body: str, head: str) -> DecoderFile:
    family = folder.config.get("model_type")
    if family not in FAMILIES:
        raise UserError(
            f"{folder.path} holds no language model that is known: model_type {family!r}"
            f"{nearest(str(family), FAMILIES)}"
        )
    config = {**FAMILIES[family], **folder.config}
    for key, only in (("attention_bias", False), ("mlp_bias", False), ("hidden_act", "silu")):
        if config.get(key, only) != only:
            raise UserError(f"{folder.path}: {key} {config[key]!r} is not known; valid: {only!r}")
    heads, keys = config["num_attention_heads"], config.get("num_key_value_heads")
    theta, scaling = _rope(config)
    return DecoderFile(
        folder,
        family,
        DenseConfig(
            width=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=heads if keys is None else keys,
            head_width=config.get("head_dim"),
            mlp_width=config["intermediate_size"],
            rope_theta=theta,
            rope_scaling=scaling,
            norm_eps=config.get("rms_norm_eps", 1e-6),
            tied_embeddings=config.get("tie_word_embeddings", False),
            scaled_embeddings=False,
            qkv_bias=family == "qwen2",
            qk_norm=family == "qwen3",
        ),
        config["vocab_size"],
        body,
        head,
    )


def _rope(config: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """Base and scaling of the rotary positions, in the words of newer or of older files."""
    stated = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = stated.get("rope_theta", config.get("rope_theta", 10_000.0))
    kind = stated.get("rope_type", stated.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind == "linear":
        return theta, RopeScaling(kind="linear", factor=stated["factor"])
    if kind == "llama3":
        return theta, RopeScaling(
            kind="llama3",
            factor=stated["factor"],
            low_freq_factor=stated["low_freq_factor"],
            high_freq_factor=stated["high_freq_factor"],
            original_length=stated["original_max_position_embeddings"],
        )
    raise UserError(
        f"rope_type {kind!r} is not known{nearest(kind, ('default', 'linear', 'llama3'))}"
    )


def stated_decoder(config: DenseConfig, vocabulary: int) -> dict[str, Any]:
    """`config.json` of Llama-like files for a model that was trained here."""
    if config.qk_norm and config.qkv_bias:
        raise UserError("no public format has both qk_norm and qkv_bias")
    family = "qwen3" if config.qk_norm else "qwen2" if config.qkv_bias else "llama"
    if family == "qwen2" and config.head * config.heads != config.width:
        raise UserError(f"head_width {config.head}: Qwen2's is width / heads")
    architecture = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[family]
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_scaling is not None:
        scaling = config.rope_scaling
        rope |= {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            rope |= {
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_length,
            }
    return {
        "architectures": [f"{architecture}ForCausalLM"],
        "model_type": family,
        "vocab_size": vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": rope,
        "tie_word_embeddings": config.tied_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
    }
