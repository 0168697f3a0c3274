"""Public multimodal models in Hugging Face folders: LLaVA-1.5 and what is built like it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from flax import nnx

from ablations.errors import UserError
from mm1_jax.config.connector import MlpConfig
from mm1_jax.config.data import DataConfig
from mm1_jax.config.encoder import VisionTransformerConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.images.preprocessing import MEAN_AND_STD, usual_preprocessing
from mm1_jax.model.connectors import build_connector
from mm1_jax.model.decoder import Decoder
from mm1_jax.model.encoders import VisionTransformer
from mm1_jax.weights.decoder_weights import DecoderFile, decoder_names, recognise_decoder
from mm1_jax.weights.encoder_weights import FAMILIES, EncoderFile, recognise_encoder
from mm1_jax.weights.json_object import is_there, read_object, read_utf8, stating
from mm1_jax.weights.safetensors_folder import SafetensorsFolder
from mm1_jax.weights.weight_names import Names, Tree, names_held
from mm1_jax.weights.weights_folder import CONFIG_FILE, LLAVA

PROJECTOR = Names({"readout_in": "linear_1", "readout_out": "linear_2"})
_TOKENIZER_CONFIG = "tokenizer_config.json"
# Files that may hold a chat template, the key of those that are JSON.
_CHAT_TEMPLATES = {
    "chat_template.jinja": None,
    "chat_template.json": "chat_template",
    _TOKENIZER_CONFIG: "chat_template",
}


@dataclass(frozen=True)
class Layout:
    """What stands before the names of each part's tensors, and the name of the head's."""

    encoder: str = "vision_tower."
    connector: str = "multi_modal_projector."
    body: str = "language_model.model."
    head: str = "language_model.lm_head"


# As transformers writes files, and as its newer modules are called.
_LAYOUTS = (
    Layout(),
    Layout(
        "model.vision_tower.", "model.multi_modal_projector.", "model.language_model.", "lm_head"
    ),
)


@dataclass(frozen=True)
class Held:
    """A part of a whole model, and how files call it."""

    names: Names
    module: nnx.Module
    prefix: str


def held_parts(config: TrainConfig, encoder_family: str, layout: Layout) -> dict[str, Held]:
    """Part → how files of this layout hold it. `config` is that of a `MultimodalFile`."""
    encoder, decoder = config.encoder, config.language_model
    assert isinstance(encoder, VisionTransformerConfig)
    assert decoder.kind == "dense"
    projector = build_connector(config.connector, encoder, decoder.width)
    names = decoder_names(decoder, layout.body, layout.head)
    return {
        "encoder": Held(FAMILIES[encoder_family].names, VisionTransformer(encoder), layout.encoder),
        "connector": Held(PROJECTOR, projector, layout.connector),
        "language_model": Held(names, Decoder(decoder, config.data.vocabulary), ""),
    }


@dataclass(frozen=True)
class MultimodalFile:
    """A multimodal model in a folder, recognised."""

    folder: SafetensorsFolder
    encoder: EncoderFile
    decoder: DecoderFile
    layout: Layout
    config: TrainConfig
    family: str = LLAVA

    @property
    def parts(self) -> dict[str, Held]:
        """Part → how the folder holds it."""
        return held_parts(self.config, self.encoder.family, self.layout)

    def weights(self) -> Tree:
        """Part → its parameters, float32; `UserError` for a tensor that is missing or odd."""
        return {
            name: part.names.read(self.folder, part.module, part.prefix)
            for name, part in self.parts.items()
        }

    def held(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of every tensor that the model is made of."""
        held: dict[str, tuple[int, ...]] = {}
        for part in self.parts.values():
            held |= names_held(part.names, part.module, part.prefix)
        return held


def written(
    tree: Tree, parts: Mapping[str, Held], dtypes: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Tensors of all parts by name, each of its dtype in `dtypes`."""
    tensors: dict[str, np.ndarray] = {}
    for name, part in parts.items():
        tensors |= part.names.write(tree[name], part.module, dtypes, part.prefix)
    return tensors


def recognise_multimodal(folder: SafetensorsFolder) -> MultimodalFile:
    """The whole model of a folder. `UserError` if it is of no known family, or a variant."""
    with stating(folder.path / CONFIG_FILE):
        return _recognised(folder)


def _recognised(folder: SafetensorsFolder) -> MultimodalFile:
    stated = folder.config
    if stated.get("model_type") != LLAVA:
        raise UserError(
            f"{folder.path} holds no multimodal model that is known: model_type "
            f"{stated.get('model_type')!r}; valid: {LLAVA}"
        )
    for key, only in (("projector_hidden_act", "gelu"), ("multimodal_projector_bias", True)):
        if stated.get(key, only) != only:
            raise UserError(f"{folder.path}: {key} {stated[key]!r} is not known; valid: {only!r}")
    layout = next((one for one in _LAYOUTS if _begins(folder, one.connector)), None)
    layout = layout or next((one for one in _LAYOUTS if _begins(folder, one.body)), _LAYOUTS[0])
    vision = {"model_type": "clip_vision_model", **(stated.get("vision_config") or {})}
    text = {"model_type": "llama", **(stated.get("text_config") or {})}
    # What an older config writes beside its parts' configs counts for both.
    text["tie_word_embeddings"] = bool(
        text.get("tie_word_embeddings") or stated.get("tie_word_embeddings")
    )
    decoder = recognise_decoder(_with(folder, text), layout.body, layout.head)
    encoder = recognise_encoder(_with(folder, vision), layout.encoder)
    encoder = dataclasses.replace(encoder, config=_as_used(folder, encoder.config))
    return MultimodalFile(
        folder,
        encoder,
        decoder,
        dataclasses.replace(layout, encoder=encoder.prefix),
        TrainConfig(
            encoder=encoder.config,
            connector=MlpConfig(),
            language_model=decoder.config,
            data=DataConfig(
                vocabulary=decoder.vocabulary,
                fit=_fit(encoder),
                template=_template(folder.path, decoder.family),
            ),
        ),
    )


def image_token(stated: Mapping[str, Any]) -> int:
    """The token that marks an image, as the config of a folder states it."""
    return stated.get("image_token_index", stated.get("image_token_id", 32_000))


def _begins(folder: SafetensorsFolder, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in folder.shapes)


def _with(folder: SafetensorsFolder, config: Mapping[str, Any]) -> SafetensorsFolder:
    return dataclasses.replace(folder, config=dict(config))


def _as_used(
    folder: SafetensorsFolder, encoder: VisionTransformerConfig
) -> VisionTransformerConfig:
    """The encoder with the layer that the projector reads, which no norm follows."""
    layer = folder.config.get("vision_feature_layer", -2)
    if type(layer) is not int:
        raise UserError(f"{folder.path}: vision_feature_layer {layer} is not known; valid: one")
    if not -encoder.layers - 1 <= layer <= encoder.layers:
        raise UserError(
            f"{folder.path}: vision_feature_layer {layer}: the encoder has {encoder.layers} layers"
        )
    strategy = folder.config.get("vision_feature_select_strategy", "default")
    extra = {"default": 1, "full": 0}.get(strategy)  # tokens before the patches
    if extra != encoder.extra_tokens:
        only = {0: "'full'", 1: "'default'"}.get(encoder.extra_tokens, "none")
        raise UserError(
            f"{folder.path}: vision_feature_select_strategy {strategy!r} is not known for an "
            f"encoder with {encoder.extra_tokens} tokens beside the patches; valid: {only}"
        )
    return encoder.model_copy(update={"output_layer": layer, "output_norm": False})


def _fit(encoder: EncoderFile) -> Literal["squash", "crop", "pad"]:
    """How an image becomes the encoder's square."""
    found, config = encoder.preprocessing(), encoder.config
    fits: tuple[Literal["squash", "crop", "pad"], ...] = ("squash", "crop", "pad")
    mean, std = MEAN_AND_STD[config.pixels]
    if not (np.allclose(found.mean, mean) and np.allclose(found.std, std)):
        raise UserError(
            f"{encoder.folder.path}: image_mean {list(found.mean)}, image_std "
            f"{list(found.std)} are not the {encoder.family} encoder's; valid: {list(mean)}, "
            f"{list(std)}"
        )
    found = dataclasses.replace(found, mean=mean, std=std)
    for fit in fits:
        if found == usual_preprocessing(fit, config.image_size, config.pixels):
            return fit
    raise UserError(
        f"{encoder.folder.path}: images of {found.resize} to {found.height} × "
        f"{found.width} (shortest edge {found.shortest_edge}, resample {found.resample}) is not "
        f"known for an encoder of {config.image_size}; valid: squash, crop or pad to "
        f"{config.image_size}, bicubic (3)"
    )


def _template(folder: Path, family: str) -> Literal["vicuna", "chatml"]:
    """Which of our templates the model was tuned with: told by its own, or else by its family."""
    own = _chat_template(folder)
    if own is None:
        return "chatml" if family.startswith("qwen") else "vicuna"
    if "<|im_start|>" in own:
        return "chatml"
    # LLaVA-1.5's own makes `USER: ` and `ASSISTANT: ` of the roles' names.
    if "ASSISTANT:" in own:
        return "vicuna"
    raise UserError(
        f"the chat template in {folder} is not known: neither vicuna's (USER: … ASSISTANT:) nor "
        "chatml's (<|im_start|>)"
    )


def _chat_template(folder: Path) -> str | None:
    for name, key in _CHAT_TEMPLATES.items():
        if is_there(folder / name):
            if key is None:
                return read_utf8(folder / name)
            found = read_object(folder / name).get(key)
            if isinstance(found, list):  # several by name, as some tokenizers have them
                with stating(folder / name):
                    found = {one["name"]: one["template"] for one in found}["default"]
            if found is not None and not isinstance(found, str):
                raise UserError(f"{key}: expected a text, found {found!r}", file=str(folder / name))
            if found is not None:
                return found
    return None
