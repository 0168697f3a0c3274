from __future__ import annotations

from pathlib import Path

import own_data
import pytest

from mm1_jax.data import preparation


@pytest.fixture(scope="session")
def raw_captions(tmp_path_factory) -> Path:
    return own_data.write_captions(tmp_path_factory.mktemp("raw") / "captions")


@pytest.fixture(scope="session")
def own_captions(tmp_path_factory, raw_captions, data_root) -> Path:
    """80 captioned pictures in 8 shards, prepared."""
    folder = tmp_path_factory.mktemp("prepared") / "captions"
    with pytest.MonkeyPatch.context() as patch:
        # Shards are counted in megabytes; ten pictures are a few kilobytes.
        patch.setattr(preparation, "MEGABYTE", 18_000)
        preparation.prepare_own(own_data.spec("captions", raw_captions), str(folder), data_root)
    return folder
