"""Runs of Weights & Biases on a disk: the folders that its client leaves, offline or synced.

A run that was synced has its config and summary as files. An offline one has its log alone,
`run-ID.wandb`: records of protocol buffers in LevelDB's log format. Of these a few fields are read
(by their numbers in `wandb_internal.proto`, which its readers of every version share), so that the
client need not be installed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablations.errors import UserError
from analysis.tables.raw import Hint, Raw, flat, rows_of

_BLOCK, _HEADER, _MAGIC = 32_768, 7, b":W&B"
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
# Fields of `Record`, and of what it holds.
_HISTORY, _SUMMARY, _CONFIG, _METRIC, _RUN, _EXIT = 2, 3, 5, 12, 17, 18
_ITEM_KEY, _ITEM_NESTED, _ITEM_JSON = 1, 2, 16


@dataclass
class _Run:
    """What is known of a run."""

    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    best: dict[str, str] = field(default_factory=dict)  # metric → how its summary was picked
    name: str = ""
    id: str = ""
    group: str = ""
    started: str = ""
    state: str = "running"


def is_wandb(folder: Path) -> bool:
    """Whether a folder is, or holds, what the client leaves."""
    return bool(_run_folders(folder))


def _run_folders(folder: Path) -> list[Path]:
    """The runs of a folder: `wandb/`, what it is in, or a run itself; none is listed twice."""
    for place in (folder, folder / "wandb"):
        found = [
            one
            for one in place.glob("*run-*-*")
            if one.is_dir() and not one.is_symlink() and (_log(one) or (one / "files").is_dir())
        ]
        if found:
            return sorted(found)
    return [folder] if _log(folder) else []


def _log(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("run-*.wandb"))), None)


def read_wandb(folder: Path) -> Raw:
    """A row a run: its name, state and beginning, its config and its summary."""
    records, picked = [], {}
    for place in _run_folders(folder):
        run = _read(place)
        picked |= run.best
        record = {
            "Name": run.name or run.id,
            "ID": run.id,
            "State": run.state,
            "Created": run.started or None,
        }
        record |= {"Group": run.group} if run.group else {}
        config = {k: v for k, v in run.config.items() if not k.startswith("_wandb")}
        summary = {k: v for k, v in run.summary.items() if k == "_step" or not k.startswith("_")}
        record |= {f"config.{name}": value for name, value in flat(config).items()}
        record |= {f"summary.{name}": value for name, value in flat(summary).items()}
        records.append(record)
    hints: dict[str, Hint] = {"Name": "run", "ID": "ignored", "State": "state", "Created": "time"}
    notes = [
        f"{name}: the summary is the {how} over the steps of a run, which was picked by the result"
        for name, how in picked.items()
    ]
    origin = f"{folder} (W&B, {len(records)} runs)"
    name = folder.resolve().name
    return Raw(name, origin, rows_of(records), hints=hints, notes=tuple(notes))


def _read(folder: Path) -> _Run:
    run = _Run()
    log = _log(folder)
    if log is not None:
        for record in _records(log):
            _take(run, record)
    run.id = run.id or folder.name.rpartition("-")[2]
    summary = folder / "files" / "wandb-summary.json"
    config = folder / "files" / "config.yaml"
    if not run.summary and summary.is_file():
        run.summary = _json(summary.read_text(encoding="utf-8"), summary)
        run.state = run.state if log else "finished"
    if not run.config and config.is_file():
        from ablations.yaml_files import load_yaml

        found = load_yaml(config).value
        run.config = {
            name: value["value"]
            for name, value in found.items()
            if isinstance(value, Mapping) and "value" in value
        }
    return run


def _json(text: str, place: Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        raise UserError(f"{place}: not valid JSON") from None
    return found if isinstance(found, dict) else {}


def _take(run: _Run, record: Mapping[int, list[Any]]) -> None:
    """What a record adds to a run."""
    for part in record.get(_RUN, []):
        fields = _message(part)
        run.id, run.name = _text(fields, 1) or run.id, _text(fields, 8) or run.name
        run.group = _text(fields, 6) or run.group
        for config in fields.get(4, []):
            _update(run.config, _message(config))
        for summary in fields.get(5, []):
            _update(run.summary, _message(summary))
        for stamp in fields.get(17, []):
            seconds = next((s for s in _message(stamp).get(1, []) if isinstance(s, int)), 0)
            run.started = datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else ""
    for part in record.get(_CONFIG, []):
        _update(run.config, _message(part))
    for part in record.get(_HISTORY, []):
        # The summary of a run whose client did not end holds less than its last step.
        _update(run.summary, _message(part))
    for part in record.get(_SUMMARY, []):
        _update(run.summary, _message(part))
    for part in record.get(_METRIC, []):
        fields = _message(part)
        for options in fields.get(7, []):
            chosen = {1: "minimum", 2: "maximum", 3: "mean", 4: "best"}
            for number, how in chosen.items():
                if _message(options).get(number):
                    run.best[_text(fields, 1)] = how
    for part in record.get(_EXIT, []):
        code = next((c for c in _message(part).get(1, []) if isinstance(c, int)), 0)
        run.state = "failed" if code else "finished"


def _update(tree: dict[str, Any], record: Mapping[int, list[Any]]) -> None:
    """Keys with JSON values, as `update` of config and summary and `item` of history have them."""
    for item in record.get(1, []):
        fields = _message(item)
        path = [_string(part) for part in fields.get(_ITEM_NESTED, [])]
        path = path or [_text(fields, _ITEM_KEY)]
        text = _text(fields, _ITEM_JSON)
        if not path[0] or not text:
            continue
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        place = tree
        for name in path[:-1]:
            inner = place.get(name)
            place[name] = inner = inner if isinstance(inner, dict) else {}
            place = inner
        # A number of a metric whose summary was picked comes as a map: {"max": 0.7}.
        place[path[-1]] = value


# -- LevelDB's log ------------------------------------------------------------------------------


def _records(path: Path) -> Iterator[Mapping[int, list[Any]]]:
    """The records of a log; one that was cut off in the middle ends it."""
    data = path.read_bytes()
    if data[:4] != _MAGIC:
        raise UserError(f"{path}: is not a log of W&B")
    place, parts = _HEADER, []
    while place + _HEADER <= len(data):
        if _BLOCK - place % _BLOCK < _HEADER:  # the rest of a block is filled with zeros
            place += _BLOCK - place % _BLOCK
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        body = data[place + _HEADER : place + _HEADER + length]
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or len(body) < length:
            return
        place += _HEADER + length
        if kind in (_FULL, _FIRST):
            parts = []
        parts.append(body)
        if kind in (_FULL, _LAST):
            yield _message(b"".join(parts))


def _message(data: Any) -> dict[int, list[Any]]:
    """Field → its values: numbers, or bytes of whatever it holds."""
    found: dict[int, list[Any]] = {}
    if not isinstance(data, bytes):
        return found
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        number, kind = tag >> 3, tag & 7
        value: Any
        if kind == 0:
            value, place = _varint(data, place)
        elif kind == 2:
            length, place = _varint(data, place)
            value, place = data[place : place + length], place + length
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, place = data[place : place + size], place + size
        else:
            break
        found.setdefault(number, []).append(value)
    return found


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not byte & 0x80:
            break
    return value, place


def _text(fields: Mapping[int, list[Any]], number: int) -> str:
    return next((_string(value) for value in fields.get(number, [])), "")


def _string(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else ""
