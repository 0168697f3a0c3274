"""Byte-level BPE (Sennrich et al., 2016; Radford et al., 2019), trained on the training split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from mm1_jax.errors import UserError

PAD, END = 0, 1
SPECIAL_TOKENS = ("<|pad|>", "<|end|>")


class Tokenizer:
    """Text ↔ token ids. Text never encodes to a special token, whatever it spells."""

    def __init__(self, backend: tokenizers.Tokenizer):
        # By default the library turns the characters "<|end|>" in a text into the token END.
        backend.encode_special_tokens = True
        self._backend = backend

    @property
    def vocabulary(self) -> int:
        """Number of token ids, special ones included."""
        return self._backend.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without any special token."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of every text."""
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; special tokens have none, broken UTF-8 becomes U+FFFD."""
        return self._backend.decode([int(i) for i in ids if i not in (PAD, END)])

    def bytes_of_tokens(self) -> np.ndarray:
        """How many bytes of text each token stands for, 0 for special ones: int64 [vocabulary]."""
        # A byte-level token is spelled with one character per byte.
        spelled = (self._backend.id_to_token(i) or "" for i in range(self.vocabulary))
        return np.array([0 if word in SPECIAL_TOKENS else len(word) for word in spelled])

    def save(self, path: Path) -> None:
        """Write the library's JSON."""
        self._backend.save(str(path))

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read what `save` wrote."""
        return cls(tokenizers.Tokenizer.from_file(str(path)))


def train(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Learn merges on `texts` until there are exactly `vocabulary` tokens.

    Ids: `<|pad|>` 0, `<|end|>` 1, the 256 bytes, then merges. No begin token: it would be one more
    position per document, and captions and questions start with an image anyway. UserError if
    the texts do not hold that many merges.
    """
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = Tokenizer(backend)
    if tokenizer.vocabulary != vocabulary:
        raise UserError(
            f"data.vocabulary {vocabulary} cannot be reached: the training texts give at most "
            f"{tokenizer.vocabulary} tokens"
        )
    return tokenizer
