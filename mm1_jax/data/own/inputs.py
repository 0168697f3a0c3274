"""What a folder of own data was prepared from: every input by its place, size, time
and a sample of its bytes.

Where a server tells a checksum, that stands for the time. It is what a second `mm1 data prepare`
with the same --out compares: data of other files is never given as the answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pydantic import Field

from ablations.schema import Config
from ablations.shown_text import shown_url
from mm1_jax.data.files import urls

_THREADS = 16


class InputFile(Config):
    """One file as it was when it was listed."""

    file: str = Field(description="path or URL, without a web address's query")
    bytes: int | None = Field(description="null where a server does not say")
    mark: str = Field(
        description="its time and a sample, or what a server calls its content; may be empty"
    )


class Inputs(Config):
    """All that a preparation reads besides its settings."""

    files: tuple[InputFile, ...]
    image_folder: str | None = Field(description="as an absolute path or URL")
    evaluation_images: tuple[InputFile, ...]
    tokenizer: str | None = Field(description="hash of the user's own; null: the embedded one")

    def key(self, file: InputFile) -> str:
        """What the survey of one file is kept under: equal only for what gives an equal survey."""
        said = f"{file.model_dump_json()} {self.image_folder}"
        return hashlib.sha256(said.encode()).hexdigest()[:24]


def listed(names: Sequence[str]) -> tuple[InputFile, ...]:
    """The files in the order given. UserError if one is not there."""
    with ThreadPoolExecutor(_THREADS) as threads:
        return tuple(threads.map(_seen, names))


def _seen(name: str) -> InputFile:
    size, mark = urls.identity(name)
    return InputFile(file=shown_url(urls.without_query(name)), bytes=size, mark=mark)


def difference(ours: Inputs, theirs: Inputs) -> str | None:
    """What is not as it was, `theirs` being what was prepared; None if all is."""
    for what, now, then in (
        ("", ours.files, theirs.files),
        ("evaluation image ", ours.evaluation_images, theirs.evaluation_images),
    ):
        found = _changes(now, then)
        if found:
            more = f", and {len(found) - 1} more" if len(found) > 1 else ""
            return f"{what}{found[0]}{more}"
    if ours.image_folder != theirs.image_folder:
        return f"image_folder was {theirs.image_folder} and is {ours.image_folder}"
    if ours.tokenizer != theirs.tokenizer:
        return "the tokenizer is another one"
    return None


def _changes(now: Sequence[InputFile], then: Sequence[InputFile]) -> list[str]:
    before = {file.file: file for file in then}
    after = {file.file for file in now}
    found = [f"{file.file} was not there" for file in now if file.file not in before]
    found += [f"{name} is not named any more" for name in before if name not in after]
    for file in now:
        old = before.get(file.file, file)
        if file.bytes != old.bytes:
            found.append(f"{file.file} has {file.bytes} bytes, not {old.bytes}")
        elif file.mark != old.mark:
            found.append(f"{file.file} was written anew since")
    return found
