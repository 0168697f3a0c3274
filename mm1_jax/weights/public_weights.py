"""Hugging Face files ↔ checkpoints of ours, with what the files had that we do not hold.

`source.json` in a checkpoint that was imported keeps the file's config and each tensor's dtype, so
that what is written back is the file again, byte for byte in all that is held.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ablations.errors import UserError
from mm1_jax.config.encoder import VisionTransformerConfig
from mm1_jax.config.encoder_pretraining import EncoderStageConfig
from mm1_jax.config.language_model import DenseConfig
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data.tokenizer import JsonTokenizer, load, tokenizer_file
from mm1_jax.images.preprocessing import PREPROCESSOR_FILES
from mm1_jax.model.decoder import Decoder
from mm1_jax.model.encoders import VisionTransformer
from mm1_jax.training.checkpoints import load_config, load_subtree, save_tree, shapes_of
from mm1_jax.training.initial_weights import PARTS, parameter_count
from mm1_jax.weights.decoder_weights import (
    DecoderFile,
    decoder_names,
    recognise_decoder,
    stated_decoder,
)
from mm1_jax.weights.encoder_weights import (
    FAMILIES,
    EncoderFile,
    family_for,
    recognise_encoder,
    stated_encoder,
)
from mm1_jax.weights.json_object import is_there, read_object, stating
from mm1_jax.weights.multimodal_weights import (
    Layout,
    MultimodalFile,
    held_parts,
    recognise_multimodal,
    written,
)
from mm1_jax.weights.safetensors_folder import DTYPES, SafetensorsFolder, open_folder, write_folder
from mm1_jax.weights.weight_names import Tree, names_held
from mm1_jax.weights.weights_folder import LLAVA, SOURCE_FILE, is_multimodal

# Goes with the weights unread.
_WORDS_BESIDE = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "generation_config.json",
)
_BESIDE = {
    "encoder": tuple(PREPROCESSOR_FILES),
    "language_model": _WORDS_BESIDE,
    "multimodal": (*_WORDS_BESIDE, *PREPROCESSOR_FILES),
}
File = EncoderFile | DecoderFile | MultimodalFile


@dataclass(frozen=True)
class Inspected:
    """What a folder of public weights is to us."""

    part: str
    family: str
    config: dict[str, Any]
    vocabulary: int | None
    parameters: int
    held: list[str]
    not_held: list[str]
    dtypes: dict[str, int]  # dtype → tensors


def inspect(path: Path) -> Inspected:
    """Which of our parts a folder holds, and which of its tensors we have no place for."""
    folder = open_folder(path)
    file = _recognise(folder)
    held = _held(file)
    counts: dict[str, int] = {}
    for dtype in folder.dtypes.values():
        counts[dtype] = counts.get(dtype, 0) + 1
    return Inspected(
        part=_kind(file),
        family=file.family,
        config=_told(file),
        vocabulary=_vocabulary(file),
        parameters=sum(int(np.prod(shape)) for shape in held.values()),
        held=sorted(held),
        not_held=sorted(set(folder.shapes) - set(held)),
        dtypes=counts,
    )


def parts_of(checkpoint: Path) -> dict[str, int]:
    """Parameters of each part of a checkpoint of ours; reads no values."""
    return {part: parameter_count(tree) for part, tree in shapes_of(checkpoint).items()}


def import_folder(path: Path, out: Path) -> Inspected:
    """Write the part, or the whole model, that a folder holds as a checkpoint of ours."""
    folder = open_folder(path)
    file = _recognise(folder)
    out.mkdir(parents=True, exist_ok=True)
    source: dict[str, Any] = {"family": file.family}
    if isinstance(file, EncoderFile):
        save_tree(out, EncoderStageConfig(encoder=file.config), {"encoder": file.weights()})
        source |= {"prefix": file.prefix}
    elif isinstance(file, MultimodalFile):
        save_tree(out, file.config, file.weights())
        source |= {"encoder_family": file.encoder.family, "layout": asdict(file.layout)}
    else:
        config = LanguageModelStageConfig(language_model=file.config, vocabulary=file.vocabulary)
        save_tree(out, config, {"language_model": file.weights()})
    source |= {
        "config": folder.config,
        "dtypes": {name: folder.dtypes[name] for name in _held(file)},
    }
    (out / SOURCE_FILE).write_text(json.dumps(source, indent=1), encoding="utf-8")
    _copy_beside(path, out, "multimodal")
    return inspect(path)


def export_folder(
    checkpoint: Path, out: Path, part: str | None = None, dtype: str | None = None
) -> dict[str, np.ndarray]:
    """Write a part of a checkpoint of ours as Hugging Face files; the tensors written, by name.

    With the names, dtypes and config that it was imported with; a part that was trained here, or
    was imported as a part of a whole model, gets those of a family that has all that it has.
    Without a `part` a whole model that was imported is written as such. `dtype` (F32, F16, BF16) is
    for all tensors then.
    """
    stated = load_config(checkpoint)
    source = checkpoint / SOURCE_FILE
    known = _read_source(source) if is_there(source) else {}
    if known.get("family") == LLAVA:
        if part is None:
            assert isinstance(stated, TrainConfig)
            tensors = _export_whole(checkpoint, stated, known, dtype)
            write_folder(out, known["config"], tensors)
            _copy_beside(checkpoint, out, "multimodal")
            return tensors
        known = {}
    parts = [name for name in ("encoder", "language_model") if hasattr(stated, name)]
    if part is None and len(parts) > 1:
        raise UserError(
            f"{checkpoint} holds several parts; choose one with --part: encoder, language_model"
        )
    part = part or parts[0]
    _, tree = load_subtree(checkpoint, part)
    config = getattr(stated, part)
    if isinstance(config, VisionTransformerConfig):
        tensors, said = _export_encoder(config, tree, known, dtype)
    elif isinstance(config, DenseConfig):
        vocabulary = getattr(stated, "vocabulary", None) or stated.data.vocabulary
        tensors, said = _export_decoder(config, vocabulary, tree, known, dtype)
    else:
        raise UserError(f"no public format holds a {part} of kind {config.kind}; valid: vit, dense")
    if part == "language_model" and not source.is_file() and tokenizer_file(checkpoint).is_file():
        said = said | _ours_beside(checkpoint, out)
    else:
        _copy_beside(checkpoint, out, part)
    write_folder(out, said, tensors)
    return tensors


def _read_source(path: Path) -> dict[str, Any]:
    """What `import_folder` wrote. `UserError` if that is not there any more."""
    known = read_object(path)
    with stating(path):
        if not isinstance(known["config"], dict) or not isinstance(known["family"], str):
            raise ValueError("config and family")
        for name, dtype in known["dtypes"].items():
            if not isinstance(dtype, str) or dtype not in DTYPES:
                raise ValueError(f"{name} is {dtype!r}; valid: {', '.join(DTYPES)}")
    return known


def _copy_beside(source: Path, target: Path, part: str) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in _BESIDE[part]:
        if (source / name).is_file():
            shutil.copy(source / name, target)


def _ours_beside(checkpoint: Path, out: Path) -> dict[str, Any]:
    """Write the tokenizer of a model that was trained here; what `config.json` says of it."""
    words = load(checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    words.save(out)
    if isinstance(words, JsonTokenizer):
        # Else transformers would take the family's own class, which puts a begin token first.
        said = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": words.word(words.end)}
        text = json.dumps(said, indent=2) + "\n"
        (out / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return {"eos_token_id": words.end}


def _export_whole(
    checkpoint: Path, config: TrainConfig, known: Mapping[str, Any], dtype: str | None
) -> dict[str, np.ndarray]:
    parts = held_parts(config, known["encoder_family"], Layout(**known["layout"]))
    tree = {part: load_subtree(checkpoint, part)[1] for part in PARTS}
    dtypes = known["dtypes"] if dtype is None else dict.fromkeys(known["dtypes"], dtype)
    return written(tree, parts, dtypes)


def _export_encoder(
    config: VisionTransformerConfig, tree: Tree, known: Mapping[str, Any], dtype: str | None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    family = known.get("family") or family_for(config)
    said = known.get("config") or stated_encoder(config, family)
    module, names = VisionTransformer(config), FAMILIES[family].names
    prefix = known.get("prefix", "")
    dtypes = known.get("dtypes", {})
    if dtype is not None:
        dtypes = dict.fromkeys(names_held(names, module, prefix), dtype)
    return names.write(tree, module, dtypes, prefix), said


def _export_decoder(
    config: DenseConfig,
    vocabulary: int,
    tree: Tree,
    known: Mapping[str, Any],
    dtype: str | None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    if config.scaled_embeddings:
        # No public format scales embeddings at the input: the table is written scaled, the head
        # as it is.
        head = tree.get("head", tree["embedding"])
        tree = {
            **tree,
            "embedding": np.asarray(tree["embedding"]) * config.width**0.5,
            "head": head,
        }
        config = config.model_copy(update={"scaled_embeddings": False, "tied_embeddings": False})
    said = known.get("config") or stated_decoder(config, vocabulary)
    module, names = Decoder(config, vocabulary), decoder_names(config)
    dtypes = known.get("dtypes", {})
    if dtype is not None:
        dtypes = dict.fromkeys(names_held(names, module), dtype)
    return names.write(tree, module, dtypes), said


def _recognise(folder: SafetensorsFolder) -> File:
    if is_multimodal(folder.path):
        return recognise_multimodal(folder)
    try:
        return recognise_decoder(folder)
    except UserError as not_a_decoder:
        if folder.config.get("vocab_size") is not None:
            raise
        try:
            return recognise_encoder(folder)
        except UserError as neither:
            raise neither from not_a_decoder


def _kind(file: File) -> str:
    if isinstance(file, MultimodalFile):
        return "multimodal"
    return "encoder" if isinstance(file, EncoderFile) else "language_model"


def _told(file: File) -> dict[str, Any]:
    if not isinstance(file, MultimodalFile):
        return file.config.model_dump(mode="json")
    config = file.config.model_dump(mode="json", include=set(PARTS))
    return config | {"fit": file.config.data.fit, "template": file.config.data.template}


def _vocabulary(file: File) -> int | None:
    if isinstance(file, MultimodalFile):
        return file.decoder.vocabulary
    return None if isinstance(file, EncoderFile) else file.vocabulary


def _held(file: File) -> dict[str, tuple[int, ...]]:
    if isinstance(file, MultimodalFile):
        return file.held()
    if isinstance(file, EncoderFile):
        return names_held(file.names, VisionTransformer(file.config), file.prefix)
    return names_held(file.names, Decoder(file.config, file.vocabulary))
