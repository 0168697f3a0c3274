"""Public image encoders in Hugging Face folders: CLIP, SigLIP (1, 2), DINOv2, AIM (v1, v2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ablations.errors import UserError, nearest
from mm1_jax.config.encoder import VisionTransformerConfig
from mm1_jax.images.preprocessing import Preprocessing, stated_preprocessing, usual_preprocessing
from mm1_jax.model.encoders import VisionTransformer
from mm1_jax.weights.json_object import stating
from mm1_jax.weights.safetensors_folder import SafetensorsFolder
from mm1_jax.weights.weight_names import Names, Tree
from mm1_jax.weights.weights_folder import CONFIG_FILE

_CLIP_LIKE = {
    "patch_embedding": "embeddings.patch_embedding",
    "positions": "embeddings.position_embedding.weight",
    "blocks/attention_norm": "encoder.layers.#.layer_norm1",
    "blocks/qkv": "encoder.layers.#.self_attn.{q,k,v}_proj",
    "blocks/attention_out": "encoder.layers.#.self_attn.out_proj",
    "blocks/mlp_norm": "encoder.layers.#.layer_norm2",
    "blocks/mlp_in": "encoder.layers.#.mlp.fc1",
    "blocks/mlp_out": "encoder.layers.#.mlp.fc2",
}
CLIP = Names(
    {
        **_CLIP_LIKE,
        "class_token": "embeddings.class_embedding",
        "embedding_norm": "pre_layrnorm",  # so spelled in the files
    }
)
SIGLIP = Names({**_CLIP_LIKE, "norm": "post_layernorm"})
# SigLIP 2 with images of any aspect: patches are flattened before they are embedded.
SIGLIP2 = Names(SIGLIP.table, patches="linear")
_DINOV2 = {
    "patch_embedding": "embeddings.patch_embeddings.projection",
    "class_token": "embeddings.cls_token[1,1]",
    "registers": "embeddings.register_tokens[1]",
    "positions": "embeddings.position_embeddings[1]",
    "blocks/attention_norm": "encoder.layer.#.norm1",
    "blocks/qkv": "encoder.layer.#.attention.attention.{query,key,value}",
    "blocks/attention_out": "encoder.layer.#.attention.output.dense",
    "blocks/attention_layer_scale/scale": "encoder.layer.#.layer_scale1.lambda1",
    "blocks/mlp_norm": "encoder.layer.#.norm2",
    "blocks/mlp_layer_scale/scale": "encoder.layer.#.layer_scale2.lambda1",
    "norm": "layernorm",
}
DINOV2 = Names(
    {
        **_DINOV2,
        "blocks/mlp_in": "encoder.layer.#.mlp.fc1",
        "blocks/mlp_out": "encoder.layer.#.mlp.fc2",
    }
)
DINOV2_SWIGLU = Names(
    {
        **_DINOV2,
        "blocks/mlp_in": "encoder.layer.#.mlp.weights_in",
        "blocks/mlp_out": "encoder.layer.#.mlp.weights_out",
    }
)
AIMV2 = Names(
    {
        "patch_embedding": "embeddings.patch_embed",
        "embedding_norm": "embeddings.rms_norm",
        "positions": "embeddings.position_embedding.weight",
        "blocks/attention_norm": "encoder.layers.#.rms_norm1",
        "blocks/qkv": "encoder.layers.#.attention.{q,k,v}_proj",
        "blocks/attention_out": "encoder.layers.#.attention.out_proj",
        "blocks/mlp_norm": "encoder.layers.#.rms_norm2",
        "blocks/mlp_in": "encoder.layers.#.ffn.{gate,up}_proj",
        "blocks/mlp_out": "encoder.layers.#.ffn.down_proj",
        "norm": "rms_norm",
    }
)
_AIM = {
    "patch_embedding": "preprocessor.patchifier.proj",
    "embedding_norm": "preprocessor.patchifier.norm",
    "blocks/attention_norm": "trunk.blocks.#.norm_1",
    "blocks/qkv": "trunk.blocks.#.attn.qkv",
    "blocks/attention_out": "trunk.blocks.#.attn.proj",
    "blocks/mlp_norm": "trunk.blocks.#.norm_2",
    "blocks/mlp_in": "trunk.blocks.#.mlp.fc1",
    "blocks/mlp_out": "trunk.blocks.#.mlp.fc2",
    "norm": "trunk.post_trunk_norm",
}
AIM = Names(_AIM)
# The layout of Apple's own AIMv2 files: fc1 is the gate, fc3 what it gates.
AIMV2_TRUNK = Names(
    {
        **_AIM,
        "positions": "preprocessor.pos_embed[1]",
        "blocks/mlp_in": "trunk.blocks.#.mlp.{fc1,fc3}",
    }
)

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}


def _sizes(
    config: Mapping[str, Any],
    *,
    width: int,
    layers: int,
    heads: int,
    hidden: int,
    image_size: int,
    patch_size: int,
) -> dict[str, Any]:
    """Sizes; the arguments are what a file means that does not write one."""
    width = config.get("hidden_size", width)
    image_size = config.get("image_size", image_size)
    patch_size = config.get("patch_size", patch_size)
    return {
        "width": width,
        "layers": config.get("num_hidden_layers", layers),
        "heads": config.get("num_attention_heads", heads),
        "mlp_ratio": config.get("intermediate_size", hidden) / width,
        "image_size": image_size,
        "patch_size": patch_size,
        "remainder": "drop" if image_size % patch_size else "error",
    }


def _activation(config: Mapping[str, Any], usual: str) -> Activation:
    name = config.get("hidden_act", usual)
    if name not in _ACTIVATIONS:
        raise UserError(f"hidden_act {name!r} is not known{nearest(name, _ACTIVATIONS)}")
    return _ACTIVATIONS[name]


_BASE = {"width": 768, "layers": 12, "heads": 12, "hidden": 3072, "image_size": 224}


def _clip(config: Mapping[str, Any]) -> VisionTransformerConfig:
    return VisionTransformerConfig(
        **_sizes(config, **_BASE, patch_size=32),
        activation=_activation(config, "quick_gelu"),
        norm_eps=config.get("layer_norm_eps", 1e-5),
        patch_bias=False,
        class_token=True,
        embedding_norm="tokens",
        output_norm=False,
        pixels="clip",
    )


def _siglip(config: Mapping[str, Any]) -> VisionTransformerConfig:
    return VisionTransformerConfig(
        **_sizes(config, **_BASE, patch_size=16),
        activation=_activation(config, "gelu_pytorch_tanh"),
        norm_eps=config.get("layer_norm_eps", 1e-6),
    )


def _siglip2(config: Mapping[str, Any]) -> VisionTransformerConfig:
    side = round(config.get("num_patches", 256) ** 0.5)
    return _siglip({**config, "image_size": side * config.get("patch_size", 16)})


def _dinov2(config: Mapping[str, Any]) -> VisionTransformerConfig:
    width = config.get("hidden_size", 768)
    hidden = int(width * config.get("mlp_ratio", 4))
    swiglu = config.get("use_swiglu_ffn", False)
    if swiglu:
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
    if not config.get("qkv_bias", True):
        raise UserError("qkv_bias false is not known for dinov2; valid: true")
    with_registers = config["model_type"] == "dinov2_with_registers"
    return VisionTransformerConfig(
        **_sizes(
            {**config, "intermediate_size": hidden}, **{**_BASE, "hidden": hidden}, patch_size=14
        ),
        activation="swiglu" if swiglu else _activation(config, "gelu"),
        norm_eps=config.get("layer_norm_eps", 1e-6),
        class_token=True,
        registers=config.get("num_register_tokens", 4) if with_registers else 0,
        antialias=with_registers,
        layer_scale=config.get("layerscale_value", 1.0),
        pixels="imagenet",
    )


def _aimv2(config: Mapping[str, Any]) -> VisionTransformerConfig:
    sizes = {"width": 1024, "layers": 24, "heads": 8, "hidden": 2816, "image_size": 224}
    for key in ("qkv_bias", "mlp_bias", "use_bias"):
        if config.get(key, False):
            raise UserError(f"{key} true is not known for aimv2; valid: false")
    return VisionTransformerConfig(
        **_sizes(config, **sizes, patch_size=14),
        activation="swiglu",
        norm="rms_norm",
        norm_eps=config.get("rms_norm_eps", 1e-5),
        bias=False,
        positions="sincos" if config.get("is_native", False) else "learned",
        embedding_norm="patches",
        pixels="clip",
    )


def _aim(config: Mapping[str, Any]) -> VisionTransformerConfig:
    return VisionTransformerConfig(
        width=config["embed_dim"],
        layers=config["num_blocks"],
        heads=config["num_heads"],
        image_size=config.get("img_size", 224),
        patch_size=config.get("patch_size", 14),
        activation="gelu",
        bias=False,
        positions="sincos",
        embedding_norm="patches",
        pixels="imagenet",
    )


@dataclass(frozen=True)
class Family:
    """A kind of public encoder: its names, what its config means, how it gets its images."""

    names: Names
    config: Callable[[Mapping[str, Any]], VisionTransformerConfig]
    images: Literal["squash", "crop", "crop_875"]


FAMILIES = {
    "clip": Family(CLIP, _clip, "crop"),
    "siglip": Family(SIGLIP, _siglip, "squash"),
    "siglip2": Family(SIGLIP2, _siglip2, "squash"),
    "dinov2": Family(DINOV2, _dinov2, "crop_875"),
    "dinov2_swiglu": Family(DINOV2_SWIGLU, _dinov2, "crop_875"),
    "aimv2": Family(AIMV2, _aimv2, "crop"),
    "aimv2_trunk": Family(AIMV2_TRUNK, _aimv2, "crop"),
    "aim": Family(AIM, _aim, "crop_875"),
}
_OF_MODEL_TYPE = {
    "clip": "clip",
    "clip_vision_model": "clip",
    "siglip": "siglip",
    "siglip_vision_model": "siglip",
    "siglip2": "siglip2",
    "siglip2_vision_model": "siglip2",
    "dinov2": "dinov2",
    "dinov2_with_registers": "dinov2",
    "aimv2": "aimv2",
    "aimv2_vision_model": "aimv2",
}


@dataclass(frozen=True)
class EncoderFile:
    """An encoder in a folder, recognised."""

    folder: SafetensorsFolder
    family: str
    prefix: str  # before each tensor's name
    config: VisionTransformerConfig

    @property
    def names(self) -> Names:
        """How the folder calls our parameters."""
        return FAMILIES[self.family].names

    def weights(self) -> Tree:
        """All parameters, float32; `UserError` for a tensor that is missing or odd."""
        return self.names.read(self.folder, VisionTransformer(self.config), self.prefix)

    def preprocessing(self) -> Preprocessing:
        """How images are brought to the encoder, as the folder says or the family has it."""
        usual = usual_preprocessing(
            FAMILIES[self.family].images, self.config.image_size, self.config.pixels
        )
        found = stated_preprocessing(self.folder.path, usual)
        size = self.config.image_size
        # Others bring their positions to another grid.
        if self.family in ("clip", "siglip") and (found.height, found.width) != (size, size):
            raise UserError(
                f"{self.folder.path}: images of {found.height} × {found.width}, but the encoder is "
                f"one of {size} × {size}"
            )
        return found


def recognise_encoder(folder: SafetensorsFolder, within: str = "") -> EncoderFile:
    """The encoder of a folder. `UserError` if it is of no known family.

    `within` stands before all its tensors where it is a part of a larger model.
    """
    with stating(folder.path / CONFIG_FILE):
        return _recognised(folder, within)


def _recognised(folder: SafetensorsFolder, within: str) -> EncoderFile:
    config = folder.config.get("config", folder.config)  # as AIM's own files nest it
    kind = config.get("model_type")
    if "trunk.blocks.0.attn.qkv.weight" in folder.shapes:
        family = "aim" if "embed_dim" in config else "aimv2_trunk"
    elif kind in _OF_MODEL_TYPE:
        family = _OF_MODEL_TYPE[kind]
        config = {**config.get("vision_config", config), "model_type": kind}
        if family == "dinov2" and config.get("use_swiglu_ffn", False):
            family = "dinov2_swiglu"
    else:
        raise UserError(
            f"{folder.path} holds no image encoder that is known: model_type {kind!r}"
            f"{nearest(str(kind), _OF_MODEL_TYPE)}"
        )
    first = next(iter(FAMILIES[family].names.table.values()))
    prefixes = (within, f"{within}vision_model.")
    prefix = next((p for p in prefixes if f"{p}{first}.weight" in folder.shapes), prefixes[0])
    return EncoderFile(folder, family, prefix, FAMILIES[family].config(config))


def family_for(config: VisionTransformerConfig) -> str:
    """A family whose files can hold an encoder that was trained here. `UserError` if none can."""
    for family in ("siglip", "clip", "dinov2", "dinov2_swiglu", "aimv2"):
        if FAMILIES[family].config(stated_encoder(config, family)) == config.model_copy(
            update={"output_layer": -1}
        ):
            return family
    raise UserError("no public format has all that this encoder has: CLIP, SigLIP, DINOv2, AIMv2")


def stated_encoder(config: VisionTransformerConfig, family: str) -> dict[str, Any]:
    """`config.json` of a family's files for this encoder, as far as the family can say it."""
    activation = {ours: theirs for theirs, ours in _ACTIVATIONS.items() if theirs != "gelu_new"}
    stated = {
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "hidden_act": activation.get(config.activation, "silu"),
        "layer_norm_eps": config.norm_eps,
    }
    if family in ("clip", "siglip"):
        known = "quick_gelu" if family == "clip" else "gelu_pytorch_tanh"
        stated["hidden_act"] = activation.get(config.activation, known)
        return {"model_type": f"{family}_vision_model", **stated}
    if family == "aimv2":
        del stated["layer_norm_eps"]
        return {"model_type": "aimv2_vision_model", **stated, "rms_norm_eps": config.norm_eps}
    swiglu = family == "dinov2_swiglu"
    return {
        "model_type": "dinov2_with_registers" if config.registers else "dinov2",
        **stated,
        "hidden_act": activation.get(config.activation, "gelu"),
        "mlp_ratio": 4 if swiglu else config.mlp_width // config.width,
        "use_swiglu_ffn": swiglu,
        "layerscale_value": config.layer_scale or 1.0,
        "num_register_tokens": config.registers,
    }
