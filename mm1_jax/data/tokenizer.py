"""Tokenizers: our byte-level BPE, any `tokenizer.json`, and SentencePiece models.

Byte-level BPE (Sennrich et al., 2016; Radford et al., 2019) is trained on the training split. Of
all of them holds: a text never encodes to a special token, whatever it spells; only a `Marker`
does, and no text is one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from ablations.errors import UserError
from mm1_jax.weights.json_object import is_there, is_unicode, read_object

PAD, END = 0, 1  # of our own
SPECIAL_TOKENS = ("<|pad|>", "<|end|>")


@dataclass(frozen=True)
class Marker:
    """A special token that a template writes, by its name; no text is ever one.

    Not a str, so that no text of a user can equal it.
    """

    name: str


# Written by templates: the token that ends a text, whatever its name in a vocabulary.
END_OF_TEXT = Marker("<|end|>")

# A name that a vocabulary may have for the end of a text, where nothing states it.
_USUAL_ENDS = ("<|end|>", "</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>", "<|im_end|>")
# What a text may spell and a vocabulary has as one token: `<image>`, `[INST]`, `<|im_start|>`.
_LIKE_A_MARKER = re.compile(r"<[^<>\s]+>|\[[A-Z_/]+\]")


class Tokenizer(Protocol):
    """Text ↔ token ids. Text never encodes to a special token, whatever it spells."""

    @property
    def vocabulary(self) -> int:
        """Number of token ids, special ones included."""
        ...

    @property
    def end(self) -> int:
        """The token that ends a text."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without any special token."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of every text."""
        ...

    def encode_between(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts that stand after something else, as a part of one longer text.

        What puts a space before a text's beginning alone puts none before these.
        """
        ...

    def marker(self, marker: Marker) -> int:
        """The id of a special token. UserError if the vocabulary has no such token."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; special tokens have none, broken UTF-8 becomes U+FFFD."""
        ...

    def word(self, token: int) -> str:
        """How the vocabulary spells a token."""
        ...

    def bytes_of_tokens(self) -> np.ndarray:
        """How many bytes of text each token stands for, 0 for special ones: int64 [vocabulary]."""
        ...

    def save(self, folder: Path) -> None:
        """Write what `load` reads from a folder."""
        ...


class JsonTokenizer:
    """A tokenizer of the library `tokenizers`, as in `tokenizer.json`; see `Tokenizer`.

    Some put a space before every text, as SentencePiece's do: see there.
    """

    def __init__(self, backend: tokenizers.Tokenizer, end: str):
        # By default the library turns the characters "<|end|>" in a text into the token END.
        backend.encode_special_tokens = True
        self._backend = backend
        self._puts_space = any(one["type"] == "Prepend" for one in _steps(backend.normalizer))
        self._between = _without_first_space(backend)
        self._end = end
        added = backend.get_added_tokens_decoder()
        self._special = frozenset(i for i, token in added.items() if token.special)

    @property
    def vocabulary(self) -> int:
        """As of `Tokenizer`."""
        return self._backend.get_vocab_size()

    @property
    def end(self) -> int:
        """As of `Tokenizer`."""
        return _known(self._backend.token_to_id(self._end), Marker(self._end))

    def encode(self, text: str) -> list[int]:
        """As of `Tokenizer`."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """As of `Tokenizer`."""
        if self._puts_space:
            texts = [text.removeprefix(" ") for text in texts]
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_between(self, texts: Sequence[str]) -> list[list[int]]:
        """As of `Tokenizer`."""
        encodings = self._between.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    @property
    def begin(self) -> tuple[int, ...]:
        """The special tokens that `tokenizer.json` puts before a text."""
        alone = self._backend.encode("a", add_special_tokens=False).ids
        whole = self._backend.encode("a").ids
        places = range(len(whole) - len(alone) + 1)
        return tuple(whole[: next(i for i in places if whole[i : i + len(alone)] == alone)])

    def marker(self, marker: Marker) -> int:
        """As of `Tokenizer`."""
        token = self.end if marker == END_OF_TEXT else self._backend.token_to_id(marker.name)
        return _known(token, marker)

    def decode(self, ids: Iterable[int]) -> str:
        """As of `Tokenizer`."""
        return self._backend.decode([int(i) for i in ids if i not in self._special])

    def word(self, token: int) -> str:
        """As of `Tokenizer`."""
        return self._backend.id_to_token(token) or ""

    def bytes_of_tokens(self) -> np.ndarray:
        """As of `Tokenizer`."""
        # A byte-level token is spelled with one character per byte.
        byte_level = '"ByteLevel"' in str(self._backend.to_str())
        spelled = enumerate(map(self.word, range(self.vocabulary)))
        return np.array(
            [
                0 if i in self._special else len(word) if byte_level else _bytes_of_piece(word)
                for i, word in spelled
            ]
        )

    def save(self, folder: Path) -> None:
        """As of `Tokenizer`."""
        self._backend.save(str(folder / "tokenizer.json"))
        if self._end != SPECIAL_TOKENS[END]:
            stated = json.dumps({"eos_token": self._end})
            (folder / "tokenizer_config.json").write_text(stated, encoding="utf-8")


class SentencePieceTokenizer:
    """A SentencePiece model (Kudo & Richardson, 2018); see `Tokenizer`.

    Most models put a space before every text. A text that begins with one has it already, so that
    prompt and response encoded apart give the tokens of encoding them together.
    """

    def __init__(self, model: bytes):
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2

        proto: Any = sentencepiece_model_pb2  # its classes are made when it is imported
        pieces, kinds = proto.ModelProto.FromString(model), proto.ModelProto.SentencePiece
        for piece in pieces.pieces:
            # A text that spells a user-defined symbol would get it; one of control stays text.
            if piece.type == kinds.USER_DEFINED and _LIKE_A_MARKER.fullmatch(piece.piece):
                piece.type = kinds.CONTROL
        self._puts_space = pieces.normalizer_spec.add_dummy_prefix
        self._model = model
        self._words = [piece.piece for piece in pieces.pieces]
        self._special = frozenset(
            i for i, p in enumerate(pieces.pieces) if p.type in (kinds.CONTROL, kinds.UNKNOWN)
        )
        self._backend = sentencepiece.SentencePieceProcessor(model_proto=pieces.SerializeToString())

    @property
    def vocabulary(self) -> int:
        """As of `Tokenizer`."""
        return self._backend.get_piece_size()

    @property
    def end(self) -> int:
        """As of `Tokenizer`."""
        return self._backend.eos_id()

    def encode(self, text: str) -> list[int]:
        """As of `Tokenizer`."""
        return self._backend.encode(text.removeprefix(" ") if self._puts_space else text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """As of `Tokenizer`."""
        return [self.encode(text) for text in texts]

    def encode_between(self, texts: Sequence[str]) -> list[list[int]]:
        """As of `Tokenizer`; it puts its space before every text."""
        return self.encode_batch(texts)

    def marker(self, marker: Marker) -> int:
        """As of `Tokenizer`."""
        token = self.end if marker == END_OF_TEXT else self._backend.piece_to_id(marker.name)
        return _known(None if token == self._backend.unk_id() else token, marker)

    def decode(self, ids: Iterable[int]) -> str:
        """As of `Tokenizer`."""
        return self._backend.decode([int(i) for i in ids if i not in self._special])

    def word(self, token: int) -> str:
        """As of `Tokenizer`."""
        return self._words[token]

    def bytes_of_tokens(self) -> np.ndarray:
        """As of `Tokenizer`."""
        return np.array(
            [0 if i in self._special else _bytes_of_piece(w) for i, w in enumerate(self._words)]
        )

    def save(self, folder: Path) -> None:
        """As of `Tokenizer`."""
        (folder / "tokenizer.model").write_bytes(self._model)


_FILES = ("tokenizer.json", "tokenizer.model")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def _bytes_of_piece(word: str) -> int:
    return 1 if _BYTE.fullmatch(word) else len(word.replace("▁", " ").encode())


def _without_first_space(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The same without the space that some put before a text's very beginning, and only there."""
    if not any(one.get("prepend_scheme") == "first" for one in _steps(backend.pre_tokenizer)):
        return backend
    content = json.loads(backend.to_str())
    step = content["pre_tokenizer"]
    for one in (step, *step.get("pretokenizers", ())):
        if one.get("prepend_scheme") == "first":
            one["prepend_scheme"] = "never"
    between = tokenizers.Tokenizer.from_str(json.dumps(content))
    between.encode_special_tokens = True
    return between


def _steps(component: Any) -> list[dict[str, Any]]:
    """What a normaliser or pre-tokenizer is made of, as `tokenizer.json` has it."""
    if component is None:
        return []
    step = json.loads(component.__getstate__())
    return [step, *step.get("normalizers", ()), *step.get("pretokenizers", ())]


def _known(token: int | None, marker: Marker) -> int:
    if token is None:
        raise UserError(
            f"the tokenizer has no special token {marker.name!r}, which the template writes; "
            "name it in data.special_tokens, or take the template plain"
        )
    return token


def tokenizer_file(path: Path) -> Path:
    """The file in a folder that `load` would read, or else the path itself."""
    if not path.is_dir():
        return path
    return next((path / n for n in _FILES if (path / n).is_file()), path / _FILES[0])


def load(path: Path) -> Tokenizer:
    """The tokenizer of a folder, or of a file `tokenizer.json` or `*.model` (SentencePiece).

    The token that ends a text is the one that `tokenizer_config.json` beside it states, or else a
    usual one. UserError if there is no such file, it is of another kind, or no token ends a text.
    """
    path = tokenizer_file(path)
    if not path.is_file():
        raise UserError(f"no tokenizer {str(path)!r}")
    try:
        if path.suffix == ".model":
            if not (model := path.read_bytes()):
                raise ValueError("it is empty")  # the library takes that for a model without words
            return SentencePieceTokenizer(model)
        content = json.loads(path.read_text(encoding="utf-8"))
        for token in content.get("added_tokens", ()):
            # Else a text could spell it: only special tokens can be told to stay text.
            token["special"] |= _LIKE_A_MARKER.fullmatch(token["content"]) is not None
        backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the libraries raise bare exceptions
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"{path} is no tokenizer that can be read: {reason}") from None
    stated = path.with_name("tokenizer_config.json")
    said = read_object(stated).get("eos_token") if is_there(stated) else None
    said = said.get("content") if isinstance(said, dict) else said
    if said is not None and not (isinstance(said, str) and is_unicode(said)):
        raise UserError(f"eos_token: expected a text, found {said!r}", file=str(stated))
    named = [said] if said else _USUAL_ENDS
    end = next((name for name in named if backend.token_to_id(name) is not None), None)
    if end is None:
        raise UserError(f"{path} has no token that ends a text; expected {' or '.join(named)}")
    return JsonTokenizer(backend, end)


def check_vocabulary(tokenizer: Tokenizer, vocabulary: int, where: object) -> None:
    """Raise `UserError` where a tokenizer is not that of a model with so many tokens.

    Models may have up to `SPARE` ids that no token uses: their tables are rounded up.
    """
    if not 0 <= vocabulary - tokenizer.vocabulary <= SPARE:
        raise UserError(
            f"the tokenizer {where} has {tokenizer.vocabulary} tokens and the model "
            f"{vocabulary}: it is of another model"
        )


SPARE = 512


def check_same(tokenizer: Tokenizer, folder: Path) -> None:
    """Raise `UserError` where a checkpoint's folder holds another tokenizer than this one."""
    if not any((folder / name).is_file() for name in _FILES):
        return  # an imported model without a tokenizer
    theirs = load(folder)
    if theirs.vocabulary != tokenizer.vocabulary:
        raise UserError(
            f"the data's tokenizer has {tokenizer.vocabulary} tokens and that of the checkpoint "
            f"{folder} {theirs.vocabulary}"
        )
    odd = next((i for i in range(theirs.vocabulary) if theirs.word(i) != tokenizer.word(i)), None)
    if odd is not None:
        raise UserError(
            f"the data's tokenizer is not that of the checkpoint {folder}: token {odd} is "
            f"{tokenizer.word(odd)!r} here and {theirs.word(odd)!r} there"
        )


def train(texts: Iterable[str], vocabulary: int, special_tokens: Sequence[str] = ()) -> Tokenizer:
    """Learn merges on `texts` until there are exactly `vocabulary` tokens.

    Ids: `<|pad|>` 0, `<|end|>` 1, further special tokens, the 256 bytes, then merges. No begin
    token: it would be one more position per document, and captions and questions start with an
    image anyway. UserError if the texts do not hold that many merges.
    """
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(dict.fromkeys([*SPECIAL_TOKENS, *special_tokens])),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = JsonTokenizer(backend, SPECIAL_TOKENS[END])
    if tokenizer.vocabulary != vocabulary:
        raise UserError(
            f"data.vocabulary {vocabulary} cannot be reached: the training texts give at most "
            f"{tokenizer.vocabulary} tokens"
        )
    return tokenizer
