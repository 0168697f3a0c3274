"""Scalars of TensorBoard: a folder a run, a row for each of its steps.

The last step of each run counts, or the one that is named with `--step`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ablations.errors import UserError
from analysis.tables.raw import Hint, Raw, flat, rows_of

EVENTS = "*tfevents*"


def is_tensorboard(folder: Path) -> bool:
    """Whether there are event files in a folder or below."""
    return next(folder.rglob(EVENTS), None) is not None


def read_tensorboard(folder: Path) -> Raw:
    """A row for the last step of each scalar of each run, and every step of it.

    Raises `UserError` where TensorBoard is not installed, or no run has a scalar.
    """
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util import tensor_util
    except ImportError:
        raise UserError(f"{folder}: reading it needs TensorBoard: pip install 'mm1[tensorboard]'"
                        ) from None  # fmt: skip
    runs = sorted({file.parent for file in folder.rglob(EVENTS)})
    # Hyperparameters that `SummaryWriter.add_hparams` writes stand in a folder below the run's.
    records: list[dict[str, Any]] = []
    settings: dict[str, dict[str, Any]] = {}
    for place in runs:
        events = EventAccumulator(str(place), size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        name = str(place.relative_to(folder))
        tags = events.Tags()
        settings[name] = _hparams(events)
        series: dict[str, list[tuple[float, int, float]]] = {}
        for tag in tags["scalars"]:
            series[tag] = [(e.wall_time, e.step, e.value) for e in events.Scalars(tag)]
        for tag in tags["tensors"]:
            if tag.startswith("_hparams_"):
                continue
            points = []
            for event in events.Tensors(tag):
                array = tensor_util.make_ndarray(event.tensor_proto)
                if array.shape == () and array.dtype.kind in "fiu":
                    points.append((event.wall_time, event.step, float(array)))
            if points:
                series[tag] = points
        first = min((point[0] for own in series.values() for point in own), default=None)
        for tag, points in series.items():
            records += [
                {
                    "run": name,
                    "started": first,
                    "metric": tag,
                    "step": step,
                    "value": value,
                }
                for _, step, value in points
            ]
    if not records:
        raise UserError(f"{folder}: its event files hold no scalars")
    for record in records:
        place = record["run"]
        own = settings.get(place) or next(
            (s for name, s in settings.items() if s and Path(name).parent == Path(place)), {}
        )
        record |= {f"hparams.{key}": value for key, value in flat(own).items()}
        record |= _parts(place)
    hints: dict[str, Hint] = {
        "run": "run",
        "started": "time",
        "arm": "arm",
        "seed": "seed",
    }
    origin = f"{folder} (TensorBoard, {len(runs)} runs)"
    return Raw(folder.resolve().name, origin, rows_of(records), hints=hints)


def _hparams(events: Any) -> dict[str, Any]:
    """What the hparams plugin was given."""
    try:
        content = events.summary_metadata.get("_hparams_/session_start_info")
    except AttributeError:
        return {}
    if content is None:
        return {}
    import tensorboard.plugins.hparams.plugin_data_pb2 as messages

    kind_of: Any = messages  # its classes are made when it is imported
    data = kind_of.HParamsPluginData.FromString(content.plugin_data.content)
    found = {}
    for key, value in data.session_start_info.hparams.items():
        kind = value.WhichOneof("kind")
        found[key] = getattr(value, kind) if kind else None
    return found


def _parts(run: str) -> dict[str, Any]:
    """What the folders of a run say: `ours/seed_3` is an arm and a seed."""
    *above, last = Path(run).parts
    if found := re.fullmatch(r"seed[ _=-]?(\d+)", last, re.IGNORECASE):
        return {"arm": "/".join(above), "seed": found[1]} if above else {"seed": found[1]}
    return {}
