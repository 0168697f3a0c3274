"""Curves: any metric of training by step, FLOPs, tokens or time; mean and band, or single runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas
import plotly.graph_objects as go

from ablations.plan import Arm
from ablations.shown_text import in_html
from ablations.stages import Trial
from analysis import figures
from analysis.dashboard import elements
from analysis.dashboard.elements import drawing, empty, framed
from analysis.dashboard.page import Asked, Page, Shown
from analysis.dashboard.thinning import smoothed, thinned
from analysis.dashboard.view import View
from analysis.report.content import curve_name

FIRST_ARMS = 8  # shown where none are chosen
MOST_ARMS = 40  # in one figure
SMOOTHING = {"0": "none", "0.6": "light", "0.9": "strong", "0.97": "very strong"}
AXES = {
    "step": "training step",
    "tokens": "training tokens",
    "flops": "training FLOPs",
    "time": "training time (s)",
}
SHORT = {"step": "step", "tokens": "tokens", "flops": "FLOPs", "time": "time"}
RUNS = {"mean": "mean and band", "single": "single runs"}
SCALES = ("auto", "linear", "log")
COLUMNS = ["arm", "seed", "step", "value", "is_live"]


def show(asked: Asked) -> Shown:
    """The figure and its controls."""
    view, state = asked.of, asked.state
    plan = view.results.plan
    names = metrics(view)
    if not names:
        return Shown([empty("No curve yet: nothing of this study has reported a step so far.")])
    metric = state.one_of("metric", names, names[0])
    labels = {arm.name: arm.label for arm in plan.arms}
    picked = state.some_of("arm", labels) or list(labels)[:FIRST_ARMS]
    axes = axes_of(view)
    axis = state.one_of("x", axes, "step")
    runs = state.one_of("runs", RUNS, "mean")
    amount = state.one_of("smooth", SMOOTHING, "0")
    scale = state.one_of("scale", SCALES, "auto")
    few = f"the first {FIRST_ARMS} of {len(labels)}" if len(labels) > FIRST_ARMS else "all"
    controls = [
        elements.select("metric", "Metric", [(n, n) for n in names], metric, names[0]),
        elements.choose("x", "By", [(a, SHORT[a]) for a in axes], axis, "step"),
        elements.choose("runs", "Show", RUNS.items(), runs, "mean"),
        elements.select("smooth", "Smoothing", SMOOTHING.items(), amount, "0"),
        elements.choose("scale", "Scale", [(s, s) for s in SCALES], scale, "auto"),
        elements.select_some("arm", "Arms", labels.items(), state.some_of("arm", labels), few),
    ]
    figure, notes = curves_figure(
        view, metric, picked[:MOST_ARMS], axis, runs, float(amount), scale, _range(asked)
    )
    if len(picked) > MOST_ARMS:
        notes.append(f"{MOST_ARMS} of the {len(picked)} chosen arms are drawn")
    elif len(picked) < len(labels):
        notes.append(f"{len(picked)} of {len(labels)} arms are drawn")
    drawn = framed(
        asked,
        "curves",
        "curves",
        metric,
        figure,
        told=f"{metric} by {AXES[axis]} of {len(picked)} arms",
        note=". ".join(one[:1].upper() + one[1:] for one in notes) + ".",
        code=CODE.format(study=plan.study, metric=metric),
        zooms=True,
    )
    return Shown([drawn], controls, "Curves")


CODE = """\
import mm1
import plotly.express

curves = mm1.curves({study!r}, {metric!r})  # columns arm, seed, step, value
mean = curves.groupby(["arm", "step"], as_index=False)["value"].mean()
plotly.express.line(mean, "step", "value", color="arm").write_html("curves.html")
"""


def _range(asked: Asked) -> tuple[float, float] | None:
    """What of the horizontal axis is looked at; all of it where nothing is said."""
    if "from" not in asked.state.values or "to" not in asked.state.values:
        return None
    low = asked.state.number("from", -1e30, 1e30, 0.0)
    high = asked.state.number("to", -1e30, 1e30, 0.0)
    return (low, high) if low < high else None


# -- numbers -------------------------------------------------------------------------------------


def metrics(view: View) -> list[str]:
    """What was reported by step, the study's own curve first."""

    def read() -> list[str]:
        names = set(view.results.found.curve_metrics())
        for seeds in view.live.values():
            for reports in seeds.values():
                names |= {name for name in reports[-1] if name not in ("step", "time")}
        own = view.results.curve
        return sorted(names, key=lambda name: (name != own, name))

    return view.once("curve metrics", read)


def points(view: View, metric: str) -> pandas.DataFrame:
    """Columns `COLUMNS`: every point of a metric, those of what is under way included."""

    def read() -> pandas.DataFrame:
        done = view.results.curves(metric).assign(is_live=False)
        live = [
            (arm, seed, report["step"], report[metric], True)
            for arm, seeds in view.live.items()
            for seed, reports in seeds.items()
            for report in reports
            if metric in report
        ]
        if not live:
            return done[COLUMNS]
        return pandas.concat(
            [done[COLUMNS], pandas.DataFrame(live, columns=COLUMNS)], ignore_index=True
        )

    return view.kept(("points", metric), read)


def axes_of(view: View) -> list[str]:
    """What curves can be drawn by: the step always, the rest where it is known."""
    arms = view.results.plan.arms
    found = ["step"]
    if all(arm.figures.get("tokens_per_step") for arm in arms):
        found.append("tokens")
    rates = rates_of(view)
    found += [name for name in ("flops", "time") if any(name in one for one in rates.values())]
    return found


def rates_of(view: View) -> dict[tuple[str, int], dict[str, float]]:
    """(arm, seed) → FLOPs and seconds a step, where they are known.

    Of a stage as a whole, spread evenly over its steps.
    """

    def work_out() -> dict[tuple[str, int], dict[str, float]]:
        results = view.results
        stages = results.found.stages
        seconds = dict(zip(stages.index, stages["seconds"] - stages["once_seconds"], strict=True))
        last = points(view, results.curve).groupby(["arm", "seed"])["step"].max().to_dict()
        found: dict[tuple[str, int], dict[str, float]] = {}
        for trial in results.plan.trials:
            place = trial.arm, trial.seed
            steps = last.get(place)
            stage = results.curve_stage(trial)
            if not steps or stage not in results.done:
                continue
            one = {"flops": results.plan.stages[stage].flops, "time": seconds.get(stage)}
            found[place] = {
                name: float(value) / steps
                for name, value in one.items()
                if value is not None and math.isfinite(value) and value > 0
            }
        return found

    return view.once("rates", work_out)


def _factor(view: View, arm: Arm, seed: int, axis: str) -> float | None:
    """What a step comes to on an axis; None where nobody knows."""
    if axis == "step":
        return 1.0
    if axis == "tokens":
        return arm.figures.get("tokens_per_step")
    return rates_of(view).get((arm.name, seed), {}).get(axis)


# -- the figure ----------------------------------------------------------------------------------


def curves_figure(
    view: View,
    metric: str,
    arms: Sequence[str],
    axis: str = "step",
    runs: str = "mean",
    amount: float = 0.0,
    scale: str = "auto",
    span: tuple[float, float] | None = None,
) -> tuple[go.Figure, list[str]]:
    """The figure, and what to know of it, each a clause."""
    plan = view.results.plan
    number_of = {arm.name: number for number, arm in enumerate(plan.arms)}
    found = points(view, metric)
    found = found[found["arm"].isin(list(arms))]
    figure = drawing(f"{plan.study} {metric} {axis} {scale}", 520)
    drawn = Drawn(figure, span, amount)
    for name in arms:
        arm = plan.arm(name)
        mine = found[found["arm"] == name]
        style = _style(number_of[name])
        lines = {
            int(seed): (line, _factor(view, arm, int(seed), axis))
            for seed, line in mine.groupby("seed")
        }
        lost = [seed for seed, (_, factor) in lines.items() if factor is None]
        drawn.unknown += len(lost)
        known = {
            seed: (line["step"].to_numpy(float) * factor, line["value"].to_numpy(float))
            for seed, (line, factor) in lines.items()
            if factor is not None
        }
        live = set(mine.loc[mine["is_live"], "seed"].astype(int))
        apart = live | {seed for lost, seed in view.results.diverged if lost == name}
        done = {seed: line for seed, line in known.items() if seed not in apart}
        if runs == "mean" and len(done) > 1:
            drawn.mean(arm.label, list(done.values()), style)
            single = {seed: line for seed, line in known.items() if seed in apart}
            drawn.diverged += len(apart - live)
        else:
            single = known
        named = runs == "mean" and len(done) > 1
        for seed, line in sorted(single.items()):
            drawn.single(arm.label, seed, line, style, is_named=not named)
            named = True
    notes = drawn.notes(runs, bool(found["is_live"].any()), axis)
    values = [v for line in figure.data if line.y is not None for v in line.y]
    _scale(figure, view, metric, scale, [v for v in values if v is not None])
    figure.update_xaxes(title=AXES[axis], rangemode="tozero")
    if span is not None:
        figure.update_xaxes(range=list(span))
    return figure, notes


def _scale(figure: go.Figure, view: View, metric: str, scale: str, values: list[float]) -> None:
    known = [v for v in values if math.isfinite(v)]
    positive = bool(known) and min(known) > 0
    title, is_loss = curve_name(view.results)
    if metric != view.results.curve:
        title, is_loss = metric, "loss" in metric or "perplexity" in metric
    if positive and (scale == "log" or (scale == "auto" and is_loss)):
        figure.update_yaxes(type="log", tickvals=figures.log_ticks(min(known), max(known)))
    figure.update_yaxes(title=in_html(title))


def _style(number: int) -> dict[str, Any]:
    colour, dash = figures.line_style(number)
    return {"color": colour, "dash": dash.replace(" ", "px,") + "px" if dash else "solid"}


class Drawn:
    """Lines that are put into a figure, and what was done to them."""

    def __init__(self, figure: go.Figure, span: tuple[float, float] | None, amount: float):
        self.figure, self.span, self.amount = figure, span, amount
        self.points = self.shown = self.unknown = self.uneven = self.diverged = 0

    def mean(self, label: str, lines: list[tuple[np.ndarray, np.ndarray]], style: Any) -> None:
        """The mean over seeds at the places that all of them have, and from lowest to highest."""
        together = [pandas.Series(y, index=x) for x, y in lines]
        together = [line[~line.index.duplicated(keep="last")] for line in together]
        # Seeds that took unlike time for the same steps stand at their mean place.
        if any(len(line) != len(together[0]) for line in together):
            frame = pandas.concat(together, axis=1, join="inner").sort_index()
            self.uneven += 1
            x = frame.index.to_numpy(float)
            values = frame.to_numpy(float)
        else:
            x = np.mean([line.index.to_numpy(float) for line in together], axis=0)
            values = np.stack([line.to_numpy(float) for line in together], axis=1)
        if not len(x):
            return
        values = np.column_stack([smoothed(one, self.amount) for one in values.T])
        mean = values.mean(axis=1)
        low, high = values.min(axis=1), values.max(axis=1)
        kept = self._kept(x, mean)
        x, mean, low, high = (one[kept] for one in (x, mean, low, high))
        name, colour = in_html(label), style["color"]
        self.figure.add_scatter(
            x=[*x, *x[::-1]],
            y=[*high, *low[::-1]],
            fill="toself",
            fillcolor=_faint(colour),
            line={"width": 0},
            mode="lines",
            legendgroup=name,
            showlegend=False,
            hoverinfo="skip",
        )
        self.figure.add_scatter(
            x=x,
            y=mean,
            mode="lines",
            name=name,
            legendgroup=name,
            line={**style, "width": 2},
            hovertemplate=f"%{{fullData.name}}, mean of {len(lines)} seeds: "
            "%{y:.4g} at %{x:,.6g}<extra></extra>",
        )

    def single(
        self,
        label: str,
        seed: int,
        line: tuple[np.ndarray, np.ndarray],
        style: Any,
        *,
        is_named: bool,
    ) -> None:
        """One run."""
        x, y = line
        y = smoothed(y, self.amount)
        kept = self._kept(x, y)
        name = in_html(label)
        self.figure.add_scatter(
            x=x[kept],
            y=y[kept],
            mode="lines",
            name=name,
            legendgroup=name,
            showlegend=is_named,
            line={**style, "width": 1.2},
            # The name by reference: what looks like a field in it is none.
            hovertemplate=f"%{{fullData.name}} seed {seed}: "
            "%{y:.4g} at %{x:,.6g}<extra></extra>",
        )

    def _kept(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        kept = thinned(x, y, self.span)
        self.points += len(x)
        self.shown += len(kept)
        return kept

    def notes(self, runs: str, is_live: bool, axis: str) -> list[str]:
        """What a reader must know of the picture."""
        found = []
        if runs == "mean":
            found.append(
                "line: mean over the seeds that are done; band: from the lowest seed to the highest"
            )
            if is_live:
                found.append("seeds under way are drawn singly")
            if self.diverged:
                found.append(f"{self.diverged} runs that diverged are drawn singly, in no mean")
        if self.amount:
            found.append(f"smoothed: each point is an average that forgets, factor {self.amount:g}")
        if self.uneven:
            found.append("a mean stands only where all seeds of the arm have a number")
        if self.shown < self.points:
            found.append(
                f"{self.shown:,} of {self.points:,} points are drawn, the lowest and the highest "
                "of each stretch; zoom in for all, CSV has all"
            )
        if axis in ("flops", "time"):
            what = "planned FLOPs" if axis == "flops" else "measured time without compilation"
            found.append(f"the {what} of a training are spread evenly over its steps")
        if self.unknown:
            found.append(
                f"{self.unknown} runs are left out: what a step of them takes is not known yet"
            )
        return found or ["one line a run"]


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"


def one_run(view: View, metric: str, trial: Trial) -> go.Figure | None:
    """The curve of a trial, beside that of the base with the same seed; None where it has none."""
    base = view.results.plan.arms[0]
    found = points(view, metric)
    found = found[found["seed"] == trial.seed]
    figure = drawing(f"{trial.arm} {trial.seed} {metric}", 300)
    drawn = Drawn(figure, None, 0.0)
    names = dict.fromkeys([base.name, trial.arm])
    for number, name in enumerate(names):
        mine = found[found["arm"] == name]
        if mine.empty:
            if name == trial.arm:
                return None
            continue
        line = mine["step"].to_numpy(float), mine["value"].to_numpy(float)
        label = view.results.plan.arm(name).label
        drawn.single(label, trial.seed, line, _style(number), is_named=True)
    values = [v for line in figure.data for v in line.y]
    _scale(figure, view, metric, "auto", values)
    figure.update_xaxes(title=AXES["step"], rangemode="tozero")
    return figure


def numbers_of(asked: Asked) -> pandas.DataFrame:
    """Every point of the metric and the arms that the address names."""
    view, state = asked.of, asked.state
    names = metrics(view)
    if not names:
        return pandas.DataFrame(columns=COLUMNS)
    metric = state.one_of("metric", names, names[0])
    labels = [arm.name for arm in view.results.plan.arms]
    picked = state.some_of("arm", labels) or labels[:FIRST_ARMS]
    found = points(view, metric)
    return found[found["arm"].isin(picked)].assign(metric=metric)


PAGE = Page("curves", "Curves", show, {"curves": numbers_of})
