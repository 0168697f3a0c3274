"""What analysis asks of whoever knows what is trained: study files, and the images of examples."""

from __future__ import annotations

from pathlib import Path

from ablations.errors import MissingFileError
from ablations.stages import Stage
from analysis.results import Origin
from mm1.studies import load_study


def picture(stage: Stage, data_root: Path, image_id: int) -> bytes:
    """An image of the prepared data that a training stage of ours read, as PNG.

    Raises:
        MissingFileError: the data is not on this machine; its message is the folder.
    """
    from mm1_jax.config.data import DataConfig
    from mm1_jax.data.batches.images import image_png
    from mm1_jax.data.sources.fingerprint import data_fingerprint

    fingerprint, data = stage.data_fingerprint, stage.config.get("data", {})
    if data.get("sources"):  # the stage's covers own data too; the items shown are not of it
        fingerprint = data_fingerprint(DataConfig.model_validate(data))
    folder = data_root / fingerprint
    if not (folder / "images.parquet").is_file():
        raise MissingFileError(str(folder))
    return image_png(folder, image_id)


ORIGIN = Origin(load_study, picture)
