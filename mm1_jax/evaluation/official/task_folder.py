"""Folders of official tasks: where annotations and images lie in them, without reading any.

    FOLDER/test/     the annotations that are asked, in the published format; else FOLDER itself
    FOLDER/train/    those that demonstrations are drawn from, if there are any
    FOLDER/images/   the images of both, in folders of their own or not; else FOLDER itself

The published files may lie otherwise: `annotations`, `train` and `images` name other places. What
the annotations hold enters the identity of an evaluation, their path does not; nor do the images,
which are recorded when they are read (`image_record`). No JAX here: planning reads this module.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ablations.content_hash import content_hash
from ablations.errors import UserError, nearest
from mm1_jax.config.official import OfficialSettings
from mm1_jax.evaluation.official.published_files import read_with

_ANNOTATIONS = (".json", ".jsonl", ".parquet", ".tsv", ".csv", ".txt")
_SHOWN = 4  # kinds of files in an error message


@dataclass(frozen=True)
class OfficialFolder:
    """Places of an official task; all exist."""

    annotations: Path
    train: Path | None
    images: tuple[Path, ...]  # an image file lies in the first of these that has it

    def image_file(self, name: str) -> Path | None:
        """Where an image lies, by its name: in `images`, or in a folder directly in its first."""
        places = itertools.chain(self.images, self._inner)
        return next((place / name for place in places if (place / name).is_file()), None)

    @functools.cached_property
    def _inner(self) -> list[Path]:
        """Folders in the folder of the images, such as val2014."""
        return [place for place in sorted(self.images[0].iterdir()) if place.is_dir()]

    def tables(self, *, training: bool) -> Path:
        """Where tables lie that have images in their cells."""
        place = self.train if training and self.train is not None else self.annotations
        return place if place.is_dir() else place.parent

    @property
    def content(self) -> str:
        """Hash of the annotations, asked and shown. `UserError` where there is no such file."""
        asked = _content(self.annotations)
        return asked if self.train is None else f"{asked}-{_content(self.train)}"


def open_official(task: str, settings: OfficialSettings) -> OfficialFolder:
    """Find the parts of an official task. `UserError` names what is missing and what is there."""
    folder = Path(settings.folder).absolute()
    if not folder.is_dir():
        raise UserError(f"{task}: no folder {settings.folder}")

    def place(key: str, usual: str) -> Path | None:
        named = getattr(settings, key)
        found = folder / (named or usual)
        if found.exists():
            return found
        if named is not None:
            here = sorted(entry.name for entry in folder.iterdir())
            raise UserError(f"{task}: {key}: no {named!r} in {folder}{nearest(named, here)}")
        return None

    annotations, train = place("annotations", "test") or folder, place("train", "train")
    images = place("images", "images") or folder
    beside = [at if at.is_dir() else at.parent for at in (annotations, train) if at is not None]
    return OfficialFolder(annotations, train, tuple(dict.fromkeys([images, *beside])))


def _content(place: Path) -> str:
    if place.is_file():
        return content_hash(place.parent, read_with(place))
    files = sorted(_annotation_files(place))
    if not files:
        known = ", ".join(_ANNOTATIONS)
        raise UserError(
            f"{place} holds no annotations: expected files that end in {known}; "
            f"found {_kinds_of_files(place)}"
        )
    return content_hash(place, files)


def _kinds_of_files(folder: Path) -> str:
    """Such as `2 .tar, 1 .md`, the most frequent first."""
    names = itertools.chain.from_iterable(names for _, _, names in os.walk(folder))
    counts = Counter(Path(name).suffix.lower() or "without ending" for name in names)
    kinds = [f"{count} {ending}" for ending, count in counts.most_common()]
    more = ["…"] if len(kinds) > _SHOWN else []
    return ", ".join(kinds[:_SHOWN] + more) or "no files"


def _annotation_files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.lower().endswith(_ANNOTATIONS):
                yield Path(parent) / name
