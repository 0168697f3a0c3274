"""Figures of findings, in a paper's style: each takes the DataFrames of `import mm1`.

    from mm1 import figures
    figures.effects(mm1.effects("demo"))

They are plotly figures: what one shows can be zoomed, and kept by `figure.write_html`, or as SVG by
the camera in its corner. Colours are those of `analysis/figures.py`, which colour-blind readers can
tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas

from mm1.own_packages import own_packages

with own_packages:
    from ablations.errors import UserError
    from ablations.shown_text import in_html
    from ablations.verdicts import t_interval
    from analysis.figures import BLUE, FAINT, FONT, GRID, INK, PALETTE, VERMILION
    from analysis.words import metric_name

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from analysis.statistics.learning_rate import LearningRateLaw
    from analysis.statistics.scaling import ScalingFit

WIDTH, ROW = 760, 34  # pixels: of a figure, and of a line of one with a line an arm
_DASHES = ("solid", "dash", "dot", "dashdot")


def _figure(x: str, y: str, height: int = 400, **layout: Any) -> Figure:
    """An empty figure: white, thin axes, no box, words in the colour of ink."""
    from plotly.graph_objects import Figure

    axis = {
        "showline": True,
        "linecolor": INK,
        "linewidth": 1,
        "ticks": "outside",
        "tickcolor": INK,
        "gridcolor": GRID,
        "zeroline": False,
    }
    figure = Figure()
    figure.update_layout(
        template="none",
        width=WIDTH,
        height=height,
        font={"family": FONT, "size": 13, "color": INK},
        paper_bgcolor="white",
        plot_bgcolor="white",
        margin={"l": 70, "r": 20, "t": 20, "b": 55},
        xaxis={**axis, "title": in_html(x), "automargin": True},
        yaxis={**axis, "title": in_html(y), "automargin": True},
        legend={"bgcolor": "rgba(255,255,255,0.8)"},
        **layout,
    )
    return figure


def _metric(frame: pandas.DataFrame) -> str:
    """What an axis is called that shows a metric: `easy_vqa.accuracy 4-shot (%)`."""
    if frame.empty:
        raise UserError("there is nothing to draw: the table has no rows")
    one = frame.iloc[0]
    shots = int(one["shots"]) if "shots" in frame and frame["shots"].nunique() == 1 else 0
    unit = f" ({one['unit']})" if one.get("unit") else ""
    return metric_name(one["task"], one["metric"], shots) + unit


def _rows(names: Sequence[str]) -> dict[str, Any]:
    """A vertical axis with a name a line, the first on top."""
    return {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [in_html(str(name)) for name in names],
        "range": [len(names) - 0.5, -0.5],
        "showgrid": False,
        "title": "",
    }


def _height(lines: int) -> int:
    return 95 + ROW * max(2, lines)


def scores(frame: pandas.DataFrame) -> Figure:
    """Each arm's score: a dot a seed, the mean and its 95 % t interval. Of `mm1.scores`.

    One metric as it was asked: `mm1.scores(study, "task.metric")`; other conditions are left out.
    """
    shown = frame[frame["condition"] == "intact"]
    if shown[["task", "metric"]].drop_duplicates().shape[0] > 1:
        first = shown.iloc[0]
        shown = shown[(shown["task"] == first["task"]) & (shown["metric"] == first["metric"])]
    shown = shown[shown["shots"] == shown["shots"].min()]
    arms = list(dict.fromkeys(shown["arm"]))
    figure = _figure(_metric(shown), "", _height(len(arms)), showlegend=False)
    figure.update_yaxes(**_rows(arms))
    for line, arm in enumerate(arms):
        values = shown.loc[shown["arm"] == arm, "score"].to_numpy(dtype=float)
        mean, low, high = t_interval(values[np.isfinite(values)], 0.95)
        figure.add_scatter(
            x=values,
            y=[line] * len(values),
            mode="markers",
            marker={"color": FAINT, "size": 6, "opacity": 0.6},
            hovertemplate="seed: %{x:.4g}<extra></extra>",
        )
        _interval(figure, line, mean, low, high, BLUE)
    return figure


def _interval(
    figure: Figure, line: float, mean: float, low: float, high: float, color: str, sure: bool = True
) -> None:
    """A mean with its interval, at a line; hollow where it is not sure."""
    known = math.isfinite(low) and math.isfinite(high)
    figure.add_scatter(
        x=[mean],
        y=[line],
        mode="markers",
        error_x={
            "type": "data",
            "array": [high - mean if known else 0],
            "arrayminus": [mean - low if known else 0],
            "color": color,
            "thickness": 2,
            "width": 5 if known else 0,
        },
        marker={
            "color": color if sure else "white",
            "size": 9,
            "line": {"color": color, "width": 2},
        },
        hovertemplate=f"%{{x:.4g}} [{low:.4g}, {high:.4g}]<extra></extra>",
    )


def effects(frame: pandas.DataFrame) -> Figure:
    """Effects with their intervals around zero; filled where the interval leaves zero out.

    Of `mm1.effects`, `mm1.equivalence` (with its margin) or, as differences of differences,
    `mm1.interactions`.
    """
    of = "interaction" if "interaction" in frame else "effect"
    label = "Interaction on" if of == "interaction" else "Effect on"
    names = [_change(row) for row in frame.to_dict("records")]
    figure = _figure(f"{label} {_metric(frame)}", "", _height(len(names)), showlegend=False)
    figure.update_yaxes(**_rows(names))
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    for sign in (-1, 1) if "margin" in frame else ():
        edge = sign * float(frame["margin"].iloc[0])
        figure.add_vline(x=edge, line={"color": VERMILION, "width": 1, "dash": "dash"})
    for line, row in enumerate(frame.to_dict("records")):
        low, high = row["ci_low"], row["ci_high"]
        sure = bool(row["within"]) if "margin" in row else low > 0 or high < 0
        _interval(figure, line, row[of], low, high, BLUE if sure else FAINT, sure)
    figure.update_xaxes(range=_span(frame[of], frame["ci_low"], frame["ci_high"]))
    return figure


def _change(row: dict[Any, Any]) -> str:
    change = f"{row['factor']}: {row['base_level']} → {row['level']}"
    return f"{change}, by {row['by']}: → {row['by_level']}" if "by" in row else change


def _span(means: pandas.Series, lows: pandas.Series, highs: pandas.Series) -> list[float] | None:
    """A range in which effects stay readable: with few seeds an interval can dwarf them all."""
    means = means[np.isfinite(means)]
    ends = [*means, 0.0]
    spread = max(ends) - min(ends) or 1.0
    inner = pandas.concat([lows, highs])
    inner = inner[np.isfinite(inner)]
    low = max(min([*ends, *inner]), min(ends) - 3 * spread)
    high = min(max([*ends, *inner]), max(ends) + 3 * spread)
    margin = 0.06 * (high - low)
    return [low - margin, high + margin]


def verdicts(frame: pandas.DataFrame) -> Figure:
    """Claims: the interval of each contrast against what it is compared with. Of `mm1.verdicts`.

    Contrasts of several metrics share the axis: it is in each one's own unit.
    """
    shown = frame[frame["effect"].notna()]
    if shown.empty:
        raise UserError("no claim has an effect yet: there is nothing to draw")
    names = [f"{row['name']}: {row['verdict']}" for row in shown.to_dict("records")]
    figure = _figure(
        "contrast minus what it is compared with", "", _height(len(names)), showlegend=False
    )
    figure.update_yaxes(**_rows(names))
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    numbers = shown[["effect", "ci_low", "ci_high"]].astype(float)
    numbers = numbers.sub(shown["boundary"].astype(float), axis=0)
    colors = {"supported": BLUE, "refuted": VERMILION}
    for line, (row, own) in enumerate(
        zip(shown.to_dict("records"), numbers.to_numpy(), strict=True)
    ):
        color = colors.get(row["verdict"], FAINT)
        _interval(figure, line, *own, color, row["verdict"] != "undecided")
    figure.update_xaxes(range=_span(numbers["effect"], numbers["ci_low"], numbers["ci_high"]))
    return figure


def curves(frame: pandas.DataFrame, *, log: bool = True) -> Figure:
    """Curves of training: each arm's mean over seeds, and the band from lowest to highest seed."""
    if frame.empty:
        raise UserError("no curve has been stored yet")
    figure = _figure("step", str(frame["metric"].iloc[0]), 430)
    for number, (arm, own) in enumerate(frame.groupby("arm", sort=False)):
        by_step = own.groupby("step")["value"].agg(["mean", "min", "max", "count"])
        whole = by_step[by_step["count"] == by_step["count"].max()]  # the steps of every seed
        color = PALETTE[number % len(PALETTE)]
        steps = whole.index.to_numpy()
        figure.add_scatter(
            x=[*steps, *steps[::-1]],
            y=[*whole["max"], *whole["min"][::-1]],
            fill="toself",
            fillcolor=_faint(color),
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            mode="lines",
        )
        figure.add_scatter(
            x=steps,
            y=whole["mean"],
            name=in_html(str(arm)),
            mode="lines",
            line={"color": color, "width": 2, "dash": _dash(number)},
        )
    if log and (frame["value"].dropna() > 0).all():
        figure.update_yaxes(type="log")
    return figure


def _dash(number: int) -> str:
    return _DASHES[number // len(PALETTE) % len(_DASHES)]


def _faint(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def over_shots(frame: pandas.DataFrame) -> Figure:
    """Scores by the number of demonstrations, an arm a line, with t intervals."""
    figure = _figure("demonstrations", _metric(frame), 430)
    for number, (arm, own) in enumerate(frame.groupby("arm", sort=False)):
        color = PALETTE[number % len(PALETTE)]
        figure.add_scatter(
            x=own["shots"],
            y=own["mean"],
            name=in_html(str(arm)),
            mode="lines+markers",
            line={"color": color, "width": 2, "dash": _dash(number)},
            error_y={
                "type": "data",
                "array": (own["ci_high"] - own["mean"]).fillna(0.0),
                "color": color,
                "thickness": 1,
            },
        )
    figure.update_xaxes(tickvals=sorted(frame["shots"].unique()))
    return figure


def levels(frame: pandas.DataFrame, factor: str) -> Figure:
    """Scores over the levels of one factor, the others at their first: a thin line a seed.

    Of `mm1.scores` of one metric. The thick line is the mean.
    """
    columns = list(frame.columns)
    factors = columns[columns.index("condition") + 1 :]
    if factor not in factors:
        raise UserError(f"the scores have no factor {factor!r}; there is: {', '.join(factors)}")
    shown = frame[frame["condition"] == "intact"]
    base = shown[shown["arm"] == "base"]
    for other in factors:
        if other != factor and len(base):
            shown = shown[shown[other] == base[other].iloc[0]]
    numbers = pandas.to_numeric(shown[factor], errors="coerce")
    shown = shown.assign(x=numbers if numbers.notna().all() else shown[factor]).sort_values("x")
    figure = _figure(factor, _metric(shown), 400, showlegend=False)
    for _, own in shown.groupby("seed"):
        figure.add_scatter(
            x=own["x"], y=own["score"], mode="lines+markers", line={"color": FAINT, "width": 1}
        )
    mean = shown.groupby("x", sort=False)["score"].mean()
    figure.add_scatter(x=mean.index, y=mean, mode="lines+markers", line={"color": BLUE, "width": 3})
    return figure


def pareto(frame: pandas.DataFrame, *, log: bool = True) -> Figure:
    """Score against cost; the line joins the front of means, hollow arms are beaten by others."""
    figure = _figure(str(frame["cost_name"].iloc[0]), _metric(frame), 430, showlegend=False)
    front = frame[frame["on_front"]]
    figure.add_scatter(
        x=front["cost"],
        y=front["score"],
        mode="lines",
        line={"color": GRID, "width": 2, "shape": "hv"},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=frame["cost"],
        y=frame["score"],
        mode="markers+text",
        text=[in_html(str(arm)) for arm in frame["arm"]],
        textposition="top center",
        textfont={"size": 11},
        error_y={"type": "data", "array": frame["score_sd"].fillna(0.0), "color": FAINT},
        error_x={"type": "data", "array": frame["cost_sd"].fillna(0.0), "color": FAINT},
        marker={
            "size": 10,
            "color": ["white" if beaten else BLUE for beaten in frame["is_beaten"]],
            "line": {"color": BLUE, "width": 2},
        },
    )
    if log and (frame["cost"] > 0).all():
        figure.update_xaxes(type="log")
    return figure


def scaling(fit: ScalingFit, *, beyond: float = 3.0) -> Figure:
    """Points and fits over size, on logarithmic axes, to `beyond` times the largest size."""
    low, high = float(fit.points["size"].min()), float(fit.points["size"].max())
    sizes = np.geomspace(low, high * beyond, 60).tolist()
    words = dict(fit.words)
    name = metric_name(str(words["task"]), str(words["metric"])) if words else "y"
    figure = _figure("size", f"{fit.ceiling:g} − {name}" if fit.ceiling is not None else name, 430)
    for number, (model, own) in enumerate(fit.predict(sizes).groupby("model", sort=False)):
        color = (BLUE, VERMILION)[number]
        chosen = bool(own["is_chosen"].iloc[0])
        if chosen and own["pi_low"].notna().all():
            figure.add_scatter(
                x=[*own["size"], *own["size"][::-1]],
                y=[*own["pi_high"], *own["pi_low"][::-1]],
                fill="toself",
                fillcolor=_faint(color),
                line={"width": 0},
                hoverinfo="skip",
                name="95 % for a new size",
                mode="lines",
            )
        figure.add_scatter(
            x=own["size"],
            y=own["y"],
            name=str(model),
            mode="lines",
            line={"color": color, "width": 2, "dash": "solid" if chosen else "dot"},
        )
    figure.add_scatter(
        x=fit.points["size"],
        y=fit.points["y"],
        mode="markers",
        name="measured",
        marker={"color": INK, "size": 7},
    )
    figure.update_xaxes(type="log")
    figure.update_yaxes(type="log")
    return figure


def learning_rate(law: LearningRateLaw, published: tuple[float, float] | None = None) -> Figure:
    """The best rate of each size and the line through them.

    `published` (A, β) is another law, A·size^-β, to be drawn beside it.
    """
    inside = law.optima[law.optima["rate"].notna()]
    sizes = np.geomspace(inside["size"].min(), inside["size"].max() * 3, 60)
    own = law.predict(sizes.tolist())
    figure = _figure("parameters", "best peak learning rate", 430)
    figure.add_scatter(
        x=[*own["size"], *own["size"][::-1]],
        y=[*own["ci_high"], *own["ci_low"][::-1]],
        fill="toself",
        fillcolor=_faint(BLUE),
        line={"width": 0},
        hoverinfo="skip",
        name="95 %",
        mode="lines",
    )
    figure.add_scatter(x=own["size"], y=own["y"], name="refit", mode="lines", line={"color": BLUE})
    if published is not None:
        a, beta = published
        figure.add_scatter(
            x=sizes,
            y=a * sizes**-beta,
            name="published",
            mode="lines",
            line={"color": VERMILION, "dash": "dash"},
        )
    figure.add_scatter(
        x=inside["size"],
        y=inside["rate"],
        mode="markers",
        name="best of the grid",
        marker={"color": INK, "size": 8},
    )
    figure.update_xaxes(type="log")
    figure.update_yaxes(type="log")
    return figure


def ranks(frame: pandas.DataFrame, first: str, second: str) -> Figure:
    """Means of arms in two metrics against each other, `task.metric` each. Of `mm1.scores`."""
    shown = frame[frame["condition"] == "intact"]
    names = [metric_name(*one) for one in zip(shown["task"], shown["metric"], strict=True)]
    named = shown.assign(name=names)
    means = named.pivot_table(index="arm", columns="name", values="score", sort=False)
    for name in (first, second):
        if name not in means:
            raise UserError(f"the scores have no {name}; there is: {', '.join(means.columns)}")
    both = means[[first, second]].dropna()
    figure = _figure(first, second, 430, showlegend=False)
    figure.add_scatter(
        x=both[first],
        y=both[second],
        mode="markers+text",
        text=[in_html(str(arm)) for arm in both.index],
        textposition="top center",
        textfont={"size": 11},
        marker={"color": BLUE, "size": 9},
    )
    return figure
