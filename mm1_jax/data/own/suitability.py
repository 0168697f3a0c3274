"""Whether prepared data can be what a config says of it; what is wrong, told before it is read."""

from __future__ import annotations

import json
from typing import Any

from ablations.errors import UserError
from mm1_jax.config.data import DataConfig, SourceConfig
from mm1_jax.data.own.manifest import Manifest, read_manifest

DECIDES_NO_RESULT = "refuses data, or lets it be what it is"


def check_kind(name: str, source: SourceConfig, manifest: Manifest) -> None:
    """UserError where a folder is of another kind than the config says, or cannot be of its own."""
    if manifest.kind != source.kind:
        raise UserError(
            f"data.sources.{name}.kind: {source.kind} is not what {source.folder} was prepared "
            f"as; valid: {manifest.kind}"
        )
    if manifest.kind == "text" and manifest.images:
        raise UserError(
            f"data.sources.{name}: {source.folder} is of kind text and has {manifest.images} "
            f"images; prepare it again, nearest: kind interleaved or captions"
        )


# What to change where an image was dropped for a reason, below `cleaning`.
_SETTINGS = {
    "aspect": "filters.max_aspect",
    "too_small": "filters.min_side_pixels",
    "too_large": "filters.max_side_pixels",
    "file_too_large": "filters.max_file_bytes",
    "url_word": "filters.url_words",
    "repeated": "filters.max_occurrences",
    "exact_copy": "exact_copies",
    "near_copy": "near_copies",
}


def _settings_told(manifest: Manifest) -> str:
    """`cleaning.filters.min_side_pixels: 100 drops too_small`, for each reason that dropped one."""
    told = []
    for reason, setting in _SETTINGS.items():
        if reason in manifest.dropped_images:
            value: Any = manifest.settings.get("cleaning")
            for key in setting.split("."):
                value = value.get(key) if isinstance(value, dict) else None
            told.append(f"cleaning.{setting}: {json.dumps(value)} drops {reason}")
    return "; ".join(told)


def check_filled(place: str, manifest: Manifest) -> None:
    """UserError, with the reasons counted, where nothing is left to train on.

    That is no document; no image in captions; or no image in interleaved documents that had some.
    """
    lost = {
        "documents dropped": manifest.dropped,
        "images dropped": manifest.dropped_images,
        "bad records": manifest.quarantined,
        "bad images": manifest.quarantined_images,
    }
    had_images = bool(manifest.dropped_images or manifest.quarantined_images)
    pictures = manifest.kind == "captions" or (manifest.kind == "interleaved" and had_images)
    if manifest.documents and (manifest.images or not pictures):
        return
    what = "image" if manifest.documents else "document"
    told = "; ".join(
        f"{name}: " + ", ".join(f"{count} {reason}" for reason, count in counts.items())
        for name, counts in lost.items()
        if counts
    )
    raise UserError(
        f"{place}: no {what} of kind {manifest.kind} is left of {manifest.read} records"
        f" ({told or 'none was dropped'})"
        + (f"; {settings}, null turns it off" if (settings := _settings_told(manifest)) else "")
    )


def check_sources(config: DataConfig, vocabulary: str | None, template: str | None = None) -> None:
    """UserError where own sources cannot be what a config says, told from their manifests alone.

    `vocabulary` and `template` are where in the recipe the number of token ids and the words of
    conversations stand; null: no texts, no conversations are read.
    """
    for name, source in config.own.items():
        manifest = read_manifest(source.folder)
        check_kind(name, source, manifest)
        check_filled(f"data.sources.{name}: {source.folder}", manifest)
        tokens = manifest.tokenizer.vocabulary
        if vocabulary is not None and tokens != config.vocabulary:
            raise UserError(
                f"{vocabulary} {config.vocabulary}: data.sources.{name} was tokenised with "
                f"{tokens} tokens; nearest: {tokens}, with the tokenizer in {source.folder}"
            )
        if template is not None:
            check_template(name, source.folder, manifest, config.template, template)


def check_template(name: str, folder: str, manifest: Manifest, template: str, key: str) -> None:
    """UserError where conversations were prepared in other words than a run's `template`.

    The run's are those that a model is asked in; `key` says where they are written.
    """
    theirs = manifest.settings.get("template")
    if manifest.kind == "conversations" and theirs != template:
        raise UserError(
            f"data.sources.{name}: the conversations in {folder} were prepared with template "
            f"{theirs} and {key} is {template}; write {key}: {theirs}, or prepare them again with "
            f"`template: {template}`"
        )
