"""All studies of the store: how far each is, what it cost, what came of its claims."""

from __future__ import annotations

from typing import Any

import pandas
from dash import html

from analysis import words
from analysis.compare import SYMBOLS
from analysis.dashboard.address import link
from analysis.dashboard.elements import banner, column, empty, entry, grid, is_like, links, numbers
from analysis.dashboard.page import Asked, Page, Shown
from analysis.dashboard.summaries import Summary

STATES = ("done", "running", "waiting", "failed")


def show(asked: Asked) -> Shown:
    """Every study, newest first."""
    search = asked.state.text("q")
    found = asked.views.summaries.now()
    controls = [entry("q", "Search", search, "name, question, verdict or tag")] if found else []
    if not found:
        hint = "No study has run in this store yet. The first one: "
        start = html.Code("mm1 run ablations/studies/demo.yaml")
        return Shown([html.P([hint, start], className="empty")], title="Studies")
    damaged = [banner(f"{one.study}: {one.damage}", "bad") for one in found if one.damage]
    damaged += [banner(asked.views.store.damage, "bad")] if asked.views.store.damage else []
    shown = [one for one in found if _matches(one, search)]
    if not shown:
        return Shown([*damaged, empty("No study matches this search.")], controls, "Studies")
    columns = [
        links("name", "Study", pinned="left", minWidth=140),
        column("progress", "Progress", cellRenderer="Progress", minWidth=190, filter=False),
        column("verdicts", "Claims", minWidth=120),
        column("tags", "Tags"),
        numbers("seconds", "Work so far"),
        numbers("trials", "Trials"),
        column("shape", "Arms × seeds"),
        column("at", "Registered (UTC)"),
        column("question", "Question", flex=1, minWidth=280, tooltipField="question"),
    ]
    rows = [_row(one) for one in shown]
    return Shown([*damaged, grid("studies", columns, rows, height="72vh", row_id="name")], controls)


def _matches(one: Summary, search: str) -> bool:
    parts = [one.study, one.question, one.run, *(one.verdicts or ()), *one.tags]
    return is_like(" ".join(parts), search)


def _row(one: Summary) -> dict[str, Any]:
    states = one.states or {}
    counts = [states.get(state, 0) for state in STATES]
    told = [f"{n} {state}" for n, state in zip(counts, STATES, strict=True) if n]
    if one.run:
        told.append(one.run)
    if one.remaining is not None and one.run:
        told.append(f"about {words.duration(one.remaining)} left")
    return {
        "name": one.study,
        "name_": link("overview", one.study),
        "progress": ", ".join(told) if one.states is not None else "…",
        "progress_": [count / (one.trials or 1) for count in counts],
        "verdicts": _verdicts(one),
        "tags": ", ".join(one.tags),
        "seconds": one.seconds,
        "seconds_": "…" if one.seconds is None else words.duration(one.seconds),
        "trials": one.trials,
        "trials_": f"{one.trials:,}",
        "shape": f"{one.arms} × {one.seeds}" if one.arms else "",
        "at": words.minute(one.registered_at),
        "question": one.question,
    }


def _verdicts(one: Summary) -> str:
    if one.verdicts is None:
        return "…"
    if not one.verdicts:
        return "none"
    return "  ".join(
        f"{SYMBOLS[name]} {one.verdicts[name]}" for name in SYMBOLS if name in one.verdicts
    )


def numbers_of(asked: Asked) -> pandas.DataFrame:
    """A line a study."""
    return pandas.DataFrame(
        [
            {
                "study": one.study,
                "registered_at": one.registered_at,
                "arms": one.arms,
                "seeds": one.seeds,
                "trials": one.trials,
                **{state: (one.states or {}).get(state, 0) for state in STATES},
                "seconds": one.seconds,
                **{name: (one.verdicts or {}).get(name, 0) for name in SYMBOLS},
                "question": one.question,
            }
            for one in asked.views.summaries.now()
        ]
    )


PAGE = Page("studies", "Studies", show, {"studies": numbers_of}, of_study=False)
