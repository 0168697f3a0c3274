from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Prepared data of the default `DataConfig`; any mixture and packing reads it.

    Kept in a fixed folder: preparing is idempotent, and other code has another fingerprint.
    """
    from mm1_jax.config import DataConfig
    from mm1_jax.data.prepare import prepare

    root = Path(tempfile.gettempdir()) / f"mm1-test-data-{os.getuid()}"
    prepare(DataConfig(), root)
    return root


@pytest.fixture(scope="session")
def in_context_data(data_root):
    """(Config, root) of prepared data for all tasks that are learnt in context."""
    from mm1_jax.config import DataConfig
    from mm1_jax.data.prepare import prepare

    config = DataConfig(
        text_tokens=96,
        images=9,
        styles=("twemoji", "openmoji"),
        languages=("de", "en"),
        binding_ways=(2,),
        glossary_languages=("de", "en", "es", "fr"),
    )
    prepare(config, data_root)
    return config, data_root


@pytest.fixture(scope="session")
def raw_captions(tmp_path_factory) -> Path:
    """80 captioned pictures in two tars."""
    import own_data

    return own_data.write_captions(tmp_path_factory.mktemp("raw") / "captions")


@pytest.fixture(scope="session")
def own_captions(tmp_path_factory, raw_captions, data_root) -> Path:
    """The same, prepared, in 8 shards."""
    import own_data

    from mm1_jax.data import preparation

    folder = tmp_path_factory.mktemp("prepared") / "captions"
    with pytest.MonkeyPatch.context() as patch:
        # Shards are counted in megabytes; ten pictures are a few kilobytes.
        patch.setattr(preparation, "MEGABYTE", 18_000)
        preparation.prepare_own(own_data.spec("captions", raw_captions), str(folder), data_root)
    return folder


@pytest.fixture(scope="session")
def own_texts(tmp_path_factory, data_root) -> Path:
    """60 prepared texts, in 6 shards."""
    import own_data

    from mm1_jax.data import preparation

    folder = tmp_path_factory.mktemp("texts")
    raw = own_data.write_texts(folder / "raw")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "MEGABYTE", 1_200)
        preparation.prepare_own(own_data.spec("text", raw), str(folder / "out"), data_root)
    return folder / "out"
