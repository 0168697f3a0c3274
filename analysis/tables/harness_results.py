"""Result folders of lm-evaluation-harness and lmms-eval: `results_*.json`, a file an evaluation.

A row for each task, filter and metric. The harness itself says which way a metric is better
(`higher_is_better`). What was evaluated follows from the folder that a file is in, else from the
name of the model; its seeds are those of few-shot examples, and not of a training, so they are not
taken. Of a group of tasks that has a number of its own, those of its parts are left out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from ablations.errors import UserError
from ablations.few import few
from ablations.workload import Goal
from analysis.tables.raw import Hint, Raw, rows_of

FILES = ("results.json", "results_*.json", "*_results.json")


def is_harness(folder: Path) -> bool:
    """Whether result files of a harness are in a folder or below."""
    return any(_content(file) is not None for file in _files(folder)[:20])


def _files(folder: Path) -> list[Path]:
    return sorted({file for pattern in FILES for file in folder.rglob(pattern)})


def _content(file: Path) -> dict[str, Any] | None:
    """What a result file holds; None where it is of something else."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return None
    results = found.get("results") if isinstance(found, dict) else None
    if not isinstance(results, dict) or not results:
        return None
    return found if all(isinstance(one, Mapping) for one in results.values()) else None


def read_harness(folder: Path) -> Raw:
    """The scores of all result files of a folder. Raises `UserError`."""
    files = {file: made for file in _files(folder) if (made := _content(file)) is not None}
    if not files:
        raise UserError(f"{folder}: no result file of a harness (results_*.json) can be read")
    records: list[dict[str, Any]] = []
    goals: dict[str, Goal] = {}
    parts: dict[str, dict[str, None]] = {}  # group → its tasks whose number it has the mean of
    several_shots, models = _several_shots(files.values()), _models(files, folder)
    for file, made in files.items():
        higher = made.get("higher_is_better") or {}
        groups, who = _groups(made), _who(file, models[file], folder, made)
        for task, scores in made["results"].items():
            shots = (made.get("n-shot") or {}).get(task)
            group_of = {
                number: group for group in groups.get(task, ()) for number in _numbers(made, group)
            }
            for metric, filter_name, value, error in _scores(scores):
                if group := group_of.get((metric, filter_name)):
                    parts.setdefault(group, {})[task] = None
                    continue
                name = metric if filter_name in ("", "none") else f"{metric},{filter_name}"
                way = (higher.get(task) or {}).get(metric) if isinstance(higher, dict) else None
                if isinstance(way, bool):
                    goals[name] = "maximise" if way else "minimise"
                label = f"{task} {shots}-shot" if task in several_shots else task
                records.append(
                    {
                        **who,
                        "task": label,
                        "metric": name,
                        "value": value,
                        "value_stderr": error,
                        "date": made.get("date"),
                    }
                )
    hints: dict[str, Hint] = {
        "run": "run",
        "file": "ignored",
        "date": "time",
        "arm": "arm",
        "seed": "seed",
    }
    origin = f"{folder} (harness results, {len(files)} files)"
    notes = ["a harness knows no training seed: it is taken from the folders' or models' names"]
    for group, own in parts.items():
        notes.append(f"of the group {group} its own number is taken, not those of {few(own, 3)}")
    return Raw(folder.resolve().name, origin, rows_of(records), hints, goals, tuple(notes))


def _several_shots(files: Any) -> set[str]:
    """Tasks that were asked with several numbers of examples."""
    seen: dict[str, set[Any]] = {}
    for made in files:
        for task, shots in (made.get("n-shot") or {}).items():
            seen.setdefault(task, set()).add(shots)
    return {task for task, own in seen.items() if len(own) > 1}


def _groups(made: Mapping[str, Any]) -> dict[str, list[str]]:
    """Task → the groups that it is a part of."""
    found: dict[str, list[str]] = {}
    groups = made.get("group_subtasks")
    for group, parts in groups.items() if isinstance(groups, dict) else ():
        for part in parts if isinstance(parts, list) else ():
            found.setdefault(str(part), []).append(group)
    return found


def _numbers(made: Mapping[str, Any], task: str) -> set[tuple[str, str]]:
    """Metric and filter of all that a task has a number of."""
    return {(metric, name) for metric, name, *_ in _scores(made["results"].get(task, {}))}


def _scores(scores: Mapping[str, Any]) -> list[tuple[str, str, float | None, float | None]]:
    """Metric, filter, value and standard error of what a task scored."""
    found = []
    for key, value in scores.items():
        metric, _, filter_name = key.partition(",")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if "_stderr" in metric or metric in ("alias", "samples", "sample_len", "name"):
            continue  # lmms-eval has an error of several kinds: _stderr, _stderr_clt, …
        if not is_number:
            continue
        error = scores.get(f"{metric}_stderr,{filter_name}", scores.get(f"{metric}_stderr"))
        known = isinstance(error, int | float) and not isinstance(error, bool)
        found.append(
            (
                metric,
                filter_name,
                float(value),
                float(error) if known and math.isfinite(error) else None,
            )
        )
    return found


def _models(files: Iterable[Path], folder: Path) -> dict[Path, str]:
    """File → the model whose name its folder has, without what is the same of all of them.

    The harness puts a folder called by the model's path, `data__ckpt__wide-seed0`, below what it
    was told to write to.
    """
    inner = {file: file.parent.name if file.parent != folder else "" for file in files}
    paths = {file: name.split("__") for file, name in inner.items()}
    above = zip(*(path[:-1] for path in paths.values()), strict=False)
    shared = len(list(takewhile(lambda level: len(set(level)) == 1, above)))
    return {file: "__".join(path[shared:]) for file, path in paths.items()}


def _who(file: Path, name: str, folder: Path, made: Mapping[str, Any]) -> dict[str, Any]:
    """The arm and the seed of a result file, by its folder and the model that it names."""
    parts = [*file.relative_to(folder).parts[:-1]]
    config = made.get("config") if isinstance(made.get("config"), dict) else {}
    model = made.get("model_name") or (config or {}).get("model_args") or ""
    if len(parts) > 1 and "__" in parts[-1]:
        parts.pop()
    elif parts:
        parts[-1] = name
    where = "/".join(parts) or str(model)
    found = re.search(r"(?:^|[/_ .=-])seed[_=-]?(\d{1,9})(?=$|[/_ .,-])", where, re.IGNORECASE)
    named = {"run": where, "file": str(file.relative_to(folder))}
    if found is None:
        return named
    arm = (where[: found.start()] + where[found.end() :]).strip("/_ .-=")
    return {**named, "arm": arm or str(model), "seed": found[1]}
