"""Identity of prepared data, known before anything is prepared.

Package versions, the settings that preparation reads, and the preparer's own code. Mixture and
packing are read later and are no part of it.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from ablations.errors import UserError
from ablations.source_code import canonical_source
from mm1_jax.config.data import DataConfig
from mm1_jax.data.sources import packages

# The modules of `mm1_jax.data` that preparation imports, whatever it prepares; a test compares.
# To these come the modules of the sources that are prepared.
PREPARER = (
    "documents",
    "draws",
    "sources/easy_vqa",
    "sources/emoji",
    "sources/package_contents",
    "sources/package_preparation",
    "sources/packages",
    "sources/wikipedia",
    "templates",
    "tokenizer",
)


def preparation_settings(config: DataConfig) -> dict[str, Any]:
    """The fields that preparation reads."""
    return {
        "background": list(config.background),
        "vocabulary": config.vocabulary,
        "special_tokens": list(config.special_tokens),
        "template": config.template,
        "tokenizer": None if config.tokenizer is None else tokenizer_hash(config.tokenizer),
        "embedded": config.embedded.decides(),
    }


def preparer(config: DataConfig) -> tuple[str, ...]:
    """The modules of `mm1_jax.data` that decide what is written for this config."""
    sources = {f"sources/{record.module}" for record in config.embedded.prepared.values()}
    return tuple(sorted(sources.union(PREPARER)))


def tokenizer_hash(tokenizer: str) -> str:
    """Hash of a tokenizer's files; where they lie does not count. UserError if there are none."""
    path = Path(tokenizer)
    names = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
    files = [path / name for name in names] if path.is_dir() else [path, path.with_name(names[-1])]
    contents = [file.read_bytes() for file in files if file.is_file()]
    if not contents:
        raise UserError(f"data.tokenizer: no tokenizer {str(path)!r}")
    return hashlib.sha256(b"".join(contents)).hexdigest()


def data_fingerprint(config: DataConfig) -> str:
    """32 hexadecimal digits. UserError if a data package is not installed."""
    read = {"packages": packages.versions(config), "settings": preparation_settings(config)}
    return _fingerprint(json.dumps(read, sort_keys=True), preparer(config))


@lru_cache  # the arms of a study read much the same, and code is read once in a process
def _fingerprint(read: str, modules: tuple[str, ...]) -> str:
    folder = Path(__file__).parent.parent
    code = {
        name: canonical_source((folder / f"{name}.py").read_text(encoding="utf-8"))
        for name in modules
    }
    content = json.dumps({**json.loads(read), "code": code}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]
