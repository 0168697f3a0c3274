"""Trials of an Optuna study: a row a trial, with its parameters, attributes and values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablations.errors import UserError, nearest, shown
from ablations.shown_text import shown_url
from ablations.workload import Goal
from analysis.tables.raw import Hint, Raw, plain, rows_of


def is_journal(path: Path) -> bool:
    """Whether a file is a journal of Optuna."""
    with path.open("rb") as file:
        return b'"op_code"' in file.read(300)


def read_optuna(storage: str, part: str = "", *, journal: bool = False) -> Raw:
    """The trials of a study; which one has to be said where there are several.

    Raises `UserError` where Optuna is not installed, or the study not there.
    """
    try:
        import optuna
    except ImportError:
        raise UserError(
            f"{shown_url(storage)}: reading it needs Optuna: pip install 'mm1[optuna]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        place: Any = storage
        if journal:
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend

            place = JournalStorage(JournalFileBackend(storage))
        names = optuna.get_all_study_names(place)
        if part and part not in names:
            raise UserError(f"{shown_url(storage)}: no study {shown(part)}{nearest(part, names)}")
        if not part and len(names) != 1:
            if not names:
                raise UserError(f"{shown_url(storage)}: there are no studies")
            raise UserError(
                f"{shown_url(storage)}: several studies; say --study{nearest('', names)}"
            )
        study = optuna.load_study(study_name=part or names[0], storage=place)
    except UserError:
        raise
    except Exception as error:  # of whichever database library it calls
        told = " ".join(str(error).split())
        raise UserError(f"{shown_url(storage)}: Optuna says {told}") from None
    names_of_values = list(study.metric_names or ())
    if not names_of_values:
        several = len(study.directions) > 1
        names_of_values = (
            [f"value_{n}" for n in range(len(study.directions))] if several else ["value"]
        )
    records = []
    for trial in study.get_trials(deepcopy=False):
        record: dict[str, Any] = {
            "number": trial.number,
            "state": trial.state.name,
            "datetime_start": trial.datetime_start,
        }
        record |= {f"params.{key}": plain(value) for key, value in trial.params.items()}
        record |= {f"user_attrs.{key}": plain(value) for key, value in trial.user_attrs.items()}
        values = trial.values or [None] * len(names_of_values)
        record |= {
            f"metrics.{name}": value for name, value in zip(names_of_values, values, strict=True)
        }
        records.append(record)
    goals: dict[str, Goal] = {
        name: "minimise" if way.name == "MINIMIZE" else "maximise"
        for name, way in zip(names_of_values, study.directions, strict=True)
        if way.name in ("MINIMIZE", "MAXIMIZE")
    }
    hints: dict[str, Hint] = {"number": "run", "state": "state", "datetime_start": "time"}
    origin = f"{shown_url(storage)} (Optuna study {study.study_name!r}, {len(records)} trials)"
    notes = (
        "an optimiser chose where to sample by earlier results: its trials are no design, and "
        "where two of one setting share a seed they are one run",
    )
    if not records:
        raise UserError(f"{shown_url(storage)}: study {study.study_name!r} has no trials")
    return Raw(study.study_name, origin, rows_of(records), hints=hints, goals=goals, notes=notes)
