"""What a folder of prepared own data says of itself; its hash is the data's fingerprint.

<folder>/
    manifest.json            counts, settings, and the checksum of `shards.jsonl`; written last
    shards.jsonl             one line a shard: its counts, and size and checksum of its files
    tokenizer.json           the one that made the token ids
    shards/00000-000.tar     WebDataset layout: `<key>.json` (the parts), `<key>.0.jpg`, …
    index/00000-000.parquet  a row a document: text tokens, where its images are, in text and in tar
    tokens/00000-000.bin     the token ids of its documents one after the other, little-endian
    quarantine/00000.jsonl   records of an input file that are not used: where and why
    provenance.json          what it was made from, and how fast; no part of the fingerprint
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field, ValidationError

from ablations.errors import MissingFileError, UserError
from ablations.schema import Config
from mm1_jax.config.data import DataConfig, Kind
from mm1_jax.data.files.folder import Folder
from mm1_jax.data.sources.fingerprint import data_fingerprint

MANIFEST, SHARDS, PROVENANCE = "manifest.json", "shards.jsonl", "provenance.json"
VERSION = 1
TokenType = Literal["uint16", "uint32"]


class FileFacts(Config):
    """Size and checksum of one file."""

    bytes: int
    sha256: str


class Shard(Config):
    """One shard's counts and files."""

    name: str = Field(description="number of the input file, and of the shard within it")
    documents: int
    text_tokens: int
    images: int
    read: int = Field(description="documents of the input file up to its last one")
    files: dict[str, FileFacts]


class TokenizerFacts(Config):
    """Which tokenizer made the token ids."""

    file: str
    sha256: str
    vocabulary: int


class Manifest(Config):
    """All that is in a folder; no path, host or time."""

    version: Literal[1] = VERSION
    kind: Kind
    settings: dict[str, Any] = Field(description="of the preparation, but places and processes")
    tokenizer: TokenizerFacts
    token_type: TokenType
    shards: int
    documents: int
    text_tokens: int
    images: int
    read: int = Field(description="records of the input")
    dropped: dict[str, int] = Field(description="reason → documents that cleaning dropped")
    dropped_images: dict[str, int] = Field(description="reason → images; copies, small ones …")
    quarantined: dict[str, int] = Field(description="reason → records that are no documents")
    quarantined_images: dict[str, int] = Field(description="reason → images that are none")
    left_out: dict[str, int] = Field(
        {},
        description="reason → what the format itself leaves out: members of a tar that are part "
        "of no sample, images of MMC4 that match no sentence",
    )
    shards_sha256: str

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that everything in the folder decides."""
        said = self.model_dump(mode="json")
        if not self.left_out:  # as before it was counted
            del said["left_out"]
        return sha256(json.dumps(said, sort_keys=True).encode())[:32]


def sha256(content: bytes) -> str:
    """Checksum in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


@lru_cache(maxsize=64)
def _fetched(url: str) -> bytes:
    return Folder(url).read(MANIFEST)


def read_manifest(folder: str) -> Manifest:
    """The manifest of a folder or URL. UserError if there is none or it is of another version.

    That of a URL is fetched once per process: a plan asks for it at every stage.
    """
    files = Folder(folder)
    try:
        content = files.read(MANIFEST) if files.is_local else _fetched(folder)
    except MissingFileError:
        raise UserError(
            f"no prepared data at {folder} (no {MANIFEST}); "
            "`mm1 data prepare SPEC.yaml --out FOLDER` makes it"
        ) from None
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{files.place(MANIFEST)} is no manifest of version {VERSION}: {key}: {first['msg']}"
        ) from None


def read_shards(folder: Folder, manifest: Manifest) -> list[Shard]:
    """The shards' facts. UserError if they are not those that the manifest was written with."""
    content = folder.read(SHARDS)
    if sha256(content) != manifest.shards_sha256:
        raise UserError(f"{folder.place(SHARDS)} differs from the manifest; prepare again")
    return [Shard.model_validate_json(line) for line in content.splitlines()]


def data_identity(config: DataConfig) -> str:
    """Fingerprint of all that a config reads: of the packages, and of own manifests if there are.

    UserError if a data package is not installed, or an own source has no manifest.
    """
    packaged = data_fingerprint(config)
    if not config.own:
        return packaged
    own = {name: read_manifest(source.folder).fingerprint for name, source in config.own.items()}
    content = json.dumps({"packages": packaged, "own": own}, sort_keys=True)
    return sha256(content.encode())[:32]


def token_type(vocabulary: int) -> TokenType:
    """The smallest of the types that hold every token id."""
    return "uint16" if vocabulary <= 2**16 else "uint32"


def tar_name(shard: str) -> str:
    """Name of a shard's tar below its folder."""
    return f"shards/{shard}.tar"


def index_name(shard: str) -> str:
    """Name of a shard's index below its folder."""
    return f"index/{shard}.parquet"


def tokens_name(shard: str) -> str:
    """Name of the file of a shard's token ids below its folder."""
    return f"tokens/{shard}.bin"
