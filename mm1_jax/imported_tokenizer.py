"""The tokenizer beside weights of Hugging Face's, or beside a checkpoint imported from such."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mm1_jax.data.tokenizer import Tokenizer, check_vocabulary, load
from mm1_jax.errors import UserError
from mm1_jax.weights_folder import CONFIG_FILE, SOURCE_FILE

TOKENIZER_FILE = "tokenizer.json"


def imported_tokenizer(folder: Path, vocabulary: int) -> Tokenizer:
    """The folder's tokenizer. UserError if there is none, or one of another model."""
    if not (folder / TOKENIZER_FILE).is_file():
        raise UserError(f"{folder} has no {TOKENIZER_FILE}, and a text cannot be asked without it")
    words = load(folder)
    check_vocabulary(words, vocabulary, f"in {folder}")
    return words


def ends_of(folder: Path) -> tuple[int, ...]:
    """The token ids that end a text, as the folder's files state them."""
    stated: dict[str, Any] = {}
    for name in (CONFIG_FILE, SOURCE_FILE, "generation_config.json"):
        if (folder / name).is_file():
            found = json.loads((folder / name).read_text())
            stated |= found["config"] if name == SOURCE_FILE else found
    ends: Any = stated.get("eos_token_id")
    return () if ends is None else (ends,) if isinstance(ends, int) else tuple(ends)
