"""What `config.json` of public weights states: sizes are whole numbers, switches true or false.

JSON lets "2" stand for 2, true for 1 and "false" for true, and numbers of heads that are read so
change what a model computes without changing the shape of any tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_WHOLE = {
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "image_size", "patch_size"),
    *("num_patches", "num_register_tokens", "embed_dim", "num_blocks", "num_heads", "img_size"),
    *("original_max_position_embeddings", "image_token_index", "image_token_id"),
}
_MAY_BE_NULL = {"num_key_value_heads", "head_dim"}
_SWITCHES = {
    *("tie_word_embeddings", "attention_bias", "mlp_bias", "qkv_bias", "use_bias"),
    *("use_swiglu_ffn", "is_native", "multimodal_projector_bias"),
}
_NUMBERS = {
    *("rms_norm_eps", "layer_norm_eps", "rope_theta", "mlp_ratio", "layerscale_value"),
    *("factor", "low_freq_factor", "high_freq_factor"),
}
# Objects within that say the same of a part.
_WITHIN = ("config", "text_config", "vision_config", "rope_parameters", "rope_scaling")


def check_kinds(config: Mapping[str, Any]) -> None:
    """ValueError if a size, a switch or a number is of another JSON type (see `stating`)."""
    for key, value in config.items():
        if key in _WITHIN and isinstance(value, Mapping):
            check_kinds(value)
        elif (key in _MAY_BE_NULL or key not in _WHOLE) and value is None:
            continue
        elif key in _WHOLE and (type(value) is not int or value < 0):
            raise ValueError(f"{key}: expected a whole number, found {value!r}")
        elif key in _SWITCHES:
            check_switch(config, key)
        elif key in _NUMBERS and not is_number(value):
            raise ValueError(f"{key}: expected a number, found {value!r}")


def check_switch(config: Mapping[str, Any], key: str) -> None:
    """ValueError unless it is true, false, null or not there."""
    if not isinstance(config.get(key), bool | None):
        raise ValueError(f"{key}: expected true or false, found {config[key]!r}")


def is_number(value: object) -> bool:
    """Whether it is a number that is finite; true and false are none."""
    return type(value) in (int, float) and math.isfinite(value)  # ty: ignore[invalid-argument-type]
