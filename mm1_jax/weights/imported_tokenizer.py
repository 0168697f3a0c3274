"""The tokenizer beside weights of Hugging Face's, or beside a checkpoint imported from such."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablations.errors import UserError
from mm1_jax.data.tokenizer import JsonTokenizer, Marker, check_vocabulary, load
from mm1_jax.weights.json_object import is_there, read_object, stating
from mm1_jax.weights.public_config import check_switch
from mm1_jax.weights.weights_folder import CONFIG_FILE, SOURCE_FILE

TOKENIZER_FILE = "tokenizer.json"


def imported_tokenizer(folder: Path, vocabulary: int) -> JsonTokenizer:
    """The folder's tokenizer. UserError if there is none, or one of another model."""
    if not (folder / TOKENIZER_FILE).is_file():
        raise UserError(f"{folder} has no {TOKENIZER_FILE}, and a text cannot be asked without it")
    words = load(folder / TOKENIZER_FILE)
    assert isinstance(words, JsonTokenizer)
    check_vocabulary(words, vocabulary, f"in {folder}")
    return words


def begin_of(folder: Path, words: JsonTokenizer) -> tuple[int, ...]:
    """The token ids that stand before a text, as the folder's files state them."""
    file = folder / "tokenizer_config.json"
    stated = read_object(file) if is_there(file) else {}
    with stating(file):
        check_switch(stated, "add_bos_token")
    if stated.get("add_bos_token") is False:
        return ()
    named = stated.get("bos_token")
    named = named.get("content") if isinstance(named, dict) else named
    if words.begin or not stated.get("add_bos_token") or named is None:
        return words.begin
    if not isinstance(named, str):
        raise UserError(f"bos_token: expected a text, found {named!r}", file=str(file))
    return (words.marker(Marker(named)),)


def ends_of(folder: Path) -> tuple[int, ...]:
    """The token ids that end a text, as the folder's files state them."""
    ends: Any = None
    for name in (CONFIG_FILE, SOURCE_FILE, "generation_config.json"):
        if is_there(folder / name):
            found = read_object(folder / name)
            with stating(folder / name):
                found = found["config"] if name == SOURCE_FILE else found
                inner = found.get("text_config") or {}  # of a whole model
                for one in (inner, found):
                    ends = ends if one.get("eos_token_id") is None else one["eos_token_id"]
                ends = [ends] if isinstance(ends, int) else ends
                if ends is not None and not _are_ids(ends):
                    raise ValueError(f"eos_token_id {ends!r}")
    return () if ends is None else tuple(ends)


def _are_ids(ends: object) -> bool:
    return isinstance(ends, list) and all(type(one) is int and 0 <= one < 2**31 for one in ends)
