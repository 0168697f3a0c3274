"""What the model saw: which data each arm read, in which shares, and some of its pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pandas
from dash import html

from ablations.command.placeholders import leaves
from ablations.errors import MissingFileError, UserError
from ablations.shown_text import in_html
from ablations.stages import Stage
from analysis import figures
from analysis.dashboard import elements
from analysis.dashboard.elements import drawing, empty, framed, section, table
from analysis.dashboard.page import Asked, Page, Shown
from analysis.dashboard.view import View

PICTURES = 24
MOST_ARMS = 40
MOST_FIELDS = 60


def show(asked: Asked) -> Shown:
    """Data of the whole study, then of one arm."""
    view, state = asked.of, asked.state
    plan = view.results.plan
    labels = {arm.name: arm.label for arm in plan.arms}
    arm = state.one_of("arm", labels, plan.arms[0].name)
    first = int(state.number("first", 0, 1e9, 0))
    controls = [
        elements.select("arm", "Arm", labels.items(), arm, plan.arms[0].name),
        elements.entry("first", "Pictures from number", str(first) if first else "", "0"),
    ]
    trial = next((one for one in plan.trials if one.arm == arm), None)
    if trial is None:
        return Shown([empty("No trial of this arm is planned.")], controls, "Data")
    stages = {role: plan.stages[one] for role, one in plan.trainings(trial).items()}
    shares = _shares(asked)
    body = [
        *([shares] if shares is not None else []),
        _sources(view, stages),
        _settings(stages),
        _pictures(view, stages, first),
    ]
    return Shown(body, controls, "Data")


def mixtures(view: View) -> pandas.DataFrame:
    """Columns arm, label, mixture, source, share: 0 to 1, of what is drawn."""
    plan = view.results.plan
    rows = []
    for arm in plan.arms:
        for path in plan.mixtures:
            found: Any = arm.config
            for part in path.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
            if not isinstance(found, Mapping):
                continue
            shares = {k: float(v) for k, v in found.items() if isinstance(v, int | float)}
            total = sum(shares.values())
            rows += [
                (arm.name, arm.label, path, source, share / total)
                for source, share in shares.items()
                if total > 0
            ]
    return pandas.DataFrame(rows, columns=["arm", "label", "mixture", "source", "share"])


def _shares(asked: Asked) -> html.Figure | None:
    found = mixtures(asked.of)
    if found.empty:
        return None
    first = found["mixture"].iloc[0]
    mine = found[found["mixture"] == first]
    arms = list(dict.fromkeys(mine["label"]))[:MOST_ARMS]
    figure = drawing("mixture", max(150, 80 + 24 * len(arms)))
    for number, source in enumerate(dict.fromkeys(mine["source"])):
        rows = mine[(mine["source"] == source) & mine["label"].isin(arms)]
        colour = figures.PALETTE[(number + 1) % len(figures.PALETTE)]
        figure.add_bar(
            y=[in_html(label) for label in rows["label"]],
            x=(100 * rows["share"]).tolist(),
            orientation="h",
            name=in_html(source),
            marker={"color": colour},
            hovertemplate="%{y}: %{x:.1f} % %{fullData.name}<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.3, legend={"y": -0.25})
    figure.update_xaxes(title="share of what is drawn (%)", range=[0, 100])
    figure.update_yaxes(autorange="reversed")
    count = mine["label"].nunique()
    more = f" {len(arms)} of {count} arms are drawn." if len(arms) < count else ""
    return framed(
        asked,
        "data",
        "mixture",
        f"Mixture of each arm ({first})",
        figure,
        told=f"Shares of {mine['source'].nunique()} sources in {count} arms",
        note="As planned: the chance that the next document is of a source." + more,
        code=CODE.format(study=asked.study, path=first),
    )


CODE = """\
import mm1

for arm in mm1.results({study!r}).plan.arms:
    found = arm.config
    for part in {path!r}.split("."):
        found = found[part]
    print(arm.label, found)
"""


def _sources(view: View, stages: Mapping[str, Stage]) -> html.Section:
    results = view.results
    rows = []
    for role, stage in stages.items():
        alike = [
            one
            for one in results.plan.stages.values()
            if one.kind == stage.kind and one.data_fingerprint == stage.data_fingerprint
        ]
        kinds = [one for one in results.plan.stages.values() if one.kind == stage.kind]
        rows.append(
            (
                role,
                stage.data_fingerprint[:16] or "none",
                "all trainings of this kind"
                if len(alike) == len(kinds)
                else f"{len(alike)} of {len(kinds)} trainings of this kind",
            )
        )
    note = "Trainings with the same fingerprint read the same data, to the byte."
    header = ("stage", "fingerprint of its data", "read by")
    return section("Data", table(header, rows, text=(0, 1, 2)), note=note)


def _settings(stages: Mapping[str, Stage]) -> html.Section:
    """What the configs say of data."""
    parts = []
    for role, stage in stages.items():
        found = stage.config.get("data")
        rows = list(leaves(found))[:MOST_FIELDS] if isinstance(found, Mapping) else []
        if rows:
            told = [(path, str(value)) for path, value in rows]
            parts.append(html.Details([html.Summary(role), elements.pairs(told)], open=not parts))
    if not parts:
        parts = [empty("The configs of this arm say nothing of data.")]
    return section("Settings", *parts)


def _pictures(view: View, stages: Mapping[str, Stage], first: int) -> html.Section:
    origin, results = view.results.origin, view.results
    title = "Pictures it was trained on"
    if origin is None or results.plan.is_own:
        told = "Only trainings of mm1's own model say which pictures they read."
        return section(title, empty(told))
    shown, missing = [], ""
    for stage in list(stages.values())[-1:]:
        for number in range(first, first + PICTURES):
            try:
                png = origin.picture(stage, results.data_root, number)
            except (MissingFileError, UserError) as error:
                missing = str(error)
                break
            except (ValueError, IndexError, KeyError, OSError):
                break  # there are no more of them
            source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
            shown.append(html.Img(src=source, alt=f"picture {number}", title=f"picture {number}"))
    if not shown:
        told = missing or "There are no pictures of these numbers."
        return section(title, empty(told))
    note = f"numbers {first} to {first + len(shown) - 1} of the prepared data, not in reading order"
    return section(title, html.Div(shown, className="pictures"), note=note)


def numbers_of(asked: Asked) -> pandas.DataFrame:
    """Each arm's shares."""
    return mixtures(asked.of)


PAGE = Page("data", "Data", show, {"mixture": numbers_of})
