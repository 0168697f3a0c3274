"""Factors: what each does, what two do together, all arms at once, and score against cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas

from ablations.errors import UserError
from ablations.shown_text import in_html
from ablations.workload import with_goal
from analysis import figures, words
from analysis.dashboard import elements
from analysis.dashboard.elements import drawing, empty, framed, section
from analysis.dashboard.page import Asked, Page, Shown
from analysis.dashboard.view import View
from analysis.score_table import Form
from analysis.statistics.importance import LOCAL, importance
from analysis.statistics.interactions import interactions
from analysis.statistics.paired_effects import paired_effects
from analysis.statistics.pareto import pareto

MOST_INTERACTIONS = 30  # drawn; the strongest
MOST_SEPARATED = 60  # arms between which it is tested which is beaten: pairs grow with the square
SHADES = ("#3b4cc0", "#6f92f3", "#9fb6d9", "#c9c0b0", "#e8a077", "#d65244", "#a01c2c")
# What this page calls a cost → what `mm1.pareto` does.
COSTS = {"FLOPs per trial": "flops", "training seconds": "training_seconds"}
FRONT, BEATEN, BETWEEN = "on the front", "beaten beyond noise", "not told apart from it"


def show(asked: Asked) -> Shown:
    """Everything on one metric."""
    view, state = asked.of, asked.state
    forms = _forms(view)
    if not forms:
        return Shown([empty("Nothing has been scored yet.")], title="Factors")
    if not any(len(levels) > 1 for levels in view.results.table.design.factors.values()):
        return Shown([empty("No factor is varied in this study.")], title="Factors")
    first = next(iter(forms))
    name = state.one_of("metric", forms, first)
    costs = _costs(view)
    cost = state.one_of("cost", costs, next(iter(costs), ""))
    controls = [elements.select("metric", "Metric", [(f, f) for f in forms], name, first)]
    if costs:
        options = [(c, c) for c in costs]
        controls.append(elements.select("cost", "Cost", options, cost, next(iter(costs))))
    form = forms[name]
    shown = with_goal(name, view.results.table.record(*form[:2]).goal)
    body = [
        _importance(asked, form, shown),
        _main(asked, form, shown),
        _interactions(asked, form, shown),
        _parallel(asked, form, shown),
    ]
    if costs:
        body.append(_pareto(asked, form, shown, cost))
    return Shown(body, controls, "Factors")


def _forms(view: View) -> dict[str, Form]:
    """Name → form of every score, the primary metric first."""
    return {words.metric_name(*form): form for form in view.results.table.scored}


def _form(asked: Asked) -> Form:
    forms = _forms(asked.of)
    name = asked.state.one_of("metric", forms, next(iter(forms), ""))
    if not name:
        raise UserError("nothing has been scored yet")
    return forms[name]


def _found(view: View, what: str, form: Form, make: Callable[[], pandas.DataFrame]) -> Any:
    """A table of statistics of this version, or why there is none."""

    def work_out() -> pandas.DataFrame | str:
        try:
            return make()
        except UserError as error:
            return str(error)

    return view.kept((what, form), work_out)


def _code(asked: Asked, function: str, form: Form, cost: str = "") -> str:
    """A call of the public function that makes a figure's numbers."""
    task, metric, shots, _ = form
    given = [repr(asked.study), *([cost] if cost else []), repr(f"{task}.{metric}")]
    call = f"mm1.{function}({', '.join(given)}, shots={shots})"
    return f"import mm1\n\nprint({call})\n"


# -- importance ----------------------------------------------------------------------------------


def _importance(asked: Asked, form: Form, shown: str) -> Any:
    found = importance_table(asked.of, form)
    if isinstance(found, str):
        return section("Importance", empty(found))
    is_local = bool((found["kind"] == LOCAL).any())
    values = found["importance"] if is_local else 100 * found["importance"]
    figure = drawing(f"importance {form}", max(150, 70 + 26 * len(found)))
    figure.add_bar(
        x=values.tolist()[::-1],
        y=[in_html(term) for term in found["term"]][::-1],
        orientation="h",
        marker={"color": figures.BLUE},
        hovertemplate="%{y}: %{x:.3g}<extra></extra>",
    )
    figure.update_xaxes(title="size of the effect" if is_local else "share of variance (%)")
    figure.update_layout(bargap=0.35, showlegend=False)
    notes = dict.fromkeys(one for one in found["note"] if one)
    kind = (
        "One factor was varied at a time: sizes are those at the base, no shares of anything, and "
        "say nothing of interactions"
        if is_local
        else "Shares of the variance between arms; a × names what two factors do together only"
    )
    return framed(
        asked,
        "factors",
        "importance",
        f"How much each factor matters for {shown}",
        figure,
        told=", ".join(f"{t} {v:.3g}" for t, v in zip(found["term"], values, strict=True)),
        note=". ".join([kind, *notes]) + ".",
        code=_code(asked, "importance", form),
    )


def importance_table(view: View, form: Form) -> Any:
    """`statistics.importance`, or why there is none."""
    return _found(view, "importance", form, lambda: importance(view.results.table, form))


# -- main effects --------------------------------------------------------------------------------


def _main(asked: Asked, form: Form, shown: str) -> Any:
    found = main_table(asked.of, form)
    if isinstance(found, str) or found.empty:
        return section("Main effects", empty(found if isinstance(found, str) else "None yet."))
    factors = list(dict.fromkeys(found["factor"]))
    figure = drawing(f"main {form}", 330)
    place, ticks, names = 0.0, [], []
    for number, factor in enumerate(factors):
        mine = found[found["factor"] == factor]
        colour, _ = figures.line_style(number + 1)
        x = [place + n for n in range(len(mine) + 1)]
        low = [0.0, *(mine["effect"] - mine["ci_low"]).fillna(0.0)]
        high = [0.0, *(mine["ci_high"] - mine["effect"]).fillna(0.0)]
        levels = [mine["base_level"].iloc[0], *mine["level"]]
        figure.add_scatter(
            x=x,
            y=[0.0, *mine["effect"]],
            error_y={"type": "data", "symmetric": False, "array": high, "arrayminus": low},
            mode="lines+markers",
            marker={"size": 8, "color": colour},
            line={"width": 1.2, "color": colour},
            name=in_html(factor),
            text=[in_html(level) for level in levels],
            hovertemplate="%{fullData.name} = %{text}: %{y:+.4g}<extra></extra>",
        )
        ticks += x
        names += [in_html(level) for level in levels]
        place += len(mine) + 1.6
    figure.add_hline(y=0, line={"color": figures.INK, "width": 1})
    figure.update_xaxes(tickvals=ticks, ticktext=names, showgrid=False)
    figure.update_yaxes(title=f"change of {in_html(shown)}")
    figure.update_layout(legend={"y": -0.25})
    told = "; ".join(
        "{factor} {base_level} to {level} {effect:+.3g}".format(**row)
        for row in found.head(12).to_dict("records")
    )
    return framed(
        asked,
        "factors",
        "main-effects",
        f"Main effects on {shown}",
        figure,
        told=told,
        note="Each level against the factor's base level, mean over all pairs of arms that differ "
        "in it alone, paired by seed; bars are 95 % intervals, not adjusted.",
        code=_code(asked, "effects", form),
    )


def main_table(view: View, form: Form) -> Any:
    """`statistics.paired_effects`, or why there is none."""
    return _found(view, "main", form, lambda: paired_effects(view.results.table, form))


# -- interactions --------------------------------------------------------------------------------


def _interactions(asked: Asked, form: Form, shown: str) -> Any:
    found = interactions_table(asked.of, form)
    if isinstance(found, str):
        return section("Interactions", empty(found[:1].upper() + found[1:] + "."))
    strength = (found["interaction"] / found["sd"].replace(0, np.nan)).abs()
    drawn = found.loc[strength.sort_values(ascending=False, na_position="last").index]
    drawn = drawn.head(MOST_INTERACTIONS)
    names = [_interaction(r) for r in drawn.to_dict("records")]
    figure = drawing(f"interactions {form}", max(200, 64 + 38 * len(drawn)))
    figure.add_scatter(
        x=drawn["interaction"].tolist(),
        y=names,
        mode="markers",
        marker={"size": 9, "color": figures.BLUE},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": (drawn["ci_high"] - drawn["interaction"]).tolist(),
            "arrayminus": (drawn["interaction"] - drawn["ci_low"]).tolist(),
        },
        hovertemplate="%{x:+.4g}<extra></extra>",
        showlegend=False,
    )
    figure.add_vline(x=0, line={"color": figures.INK, "width": 1})
    figure.update_xaxes(title=f"change of an effect on {in_html(shown)}")
    figure.update_yaxes(range=[len(drawn) - 0.5, -0.5], showgrid=False)
    note = "How much the effect of one factor differs with another's level; 95 % intervals."
    if len(found) > 1:
        note += f" The largest of {len(found)} looks larger than it is, by selection."
    if len(drawn) < len(found):
        note += f" The {len(drawn)} that stand out most are drawn; CSV has all."
    return framed(
        asked,
        "factors",
        "interactions",
        f"Interactions on {shown}",
        figure,
        told=f"{len(drawn)} interactions with their intervals",
        note=note,
        code=_code(asked, "interactions", form),
    )


def _interaction(row: Mapping[str, Any]) -> str:
    told = {name: in_html(str(value)) for name, value in row.items()}
    return "{factor} {base_level} → {level}<br>by {by} {by_base_level} → {by_level}".format(**told)


def interactions_table(view: View, form: Form) -> Any:
    """`statistics.interactions`, or why there is none."""
    return _found(view, "interactions", form, lambda: interactions(view.results.table, form))


# -- all arms at once ----------------------------------------------------------------------------


def _means(view: View, form: Form) -> dict[str, float]:
    """Arm → mean over seeds, of the arms of the design that have a number."""
    table = view.results.table
    scores = {arm: table.score(arm, *form) for arm in table.design.arms}
    means = {arm: math.fsum(own.values()) / len(own) for arm, own in scores.items() if own}
    return {arm: mean for arm, mean in means.items() if math.isfinite(mean)}


def _parallel(asked: Asked, form: Form, shown: str) -> Any:
    view = asked.of
    table, means = view.results.table, _means(view, form)
    factors = {name: levels for name, levels in table.design.factors.items() if len(levels) > 1}
    if len(means) < 2:
        return section("All arms", empty("Too few arms have a score yet."))
    low, high = min(means.values()), max(means.values())
    spread = high - low or 1.0
    figure = drawing(f"parallel {form}", 380)
    lines: dict[int, tuple[list[Any], list[Any], list[Any]]] = {}
    labels = {arm.name: arm.label for arm in view.results.plan.arms}
    for arm, mean in sorted(means.items(), key=lambda pair: pair[1]):
        shade = min(len(SHADES) - 1, int((mean - low) / spread * len(SHADES)))
        xs, ys, texts = lines.setdefault(shade, ([], [], []))
        own = table.design.arms[arm]
        nudge = 0.10 * ((mean - low) / spread - 0.5)  # arms of one level do not hide each other
        for number, (factor, levels) in enumerate(factors.items()):
            xs.append(number)
            ys.append((levels.index(own[factor]) + 0.5) / len(levels) + nudge)
        xs += [len(factors), None]
        ys += [(mean - low) / spread, None]
        told = f"{in_html(labels[arm])}: {mean:.4g}"
        texts += [told] * (len(factors) + 1) + [""]
    for shade in sorted(lines):
        xs, ys, texts = lines[shade]
        figure.add_scatter(
            x=xs,
            y=ys,
            mode="lines",
            line={"color": SHADES[shade], "width": 1.4},
            opacity=0.75,
            text=texts,
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
    for number, levels in enumerate(factors.values()):
        for place, level in enumerate(levels):
            figure.add_annotation(
                x=number,
                y=(place + 0.5) / len(levels),
                text=in_html(level),
                showarrow=False,
                xanchor="left",
                xshift=4,
                font={"size": 11},
            )
    for value, at in ((low, 0), (high, 1)):
        figure.add_annotation(
            x=len(factors), y=at, text=f"{value:.4g}", showarrow=False, xanchor="left", xshift=4
        )
    names = [in_html(name) for name in factors]
    figure.update_xaxes(
        tickvals=list(range(len(factors) + 1)),
        ticktext=[*names, in_html(shown)],
        range=[-0.1, len(factors) + 0.35],
    )
    figure.update_yaxes(visible=False, range=[-0.08, 1.08])
    return framed(
        asked,
        "factors",
        "all-arms",
        "All arms at once",
        figure,
        told=f"{len(means)} arms across {len(factors)} factors; best {high:.4g}, worst {low:.4g}",
        note=f"A line an arm, from its levels to its mean {shown}: blue is low, red is high.",
        code=_code(asked, "effects", form),
    )


def arms_numbers(asked: Asked) -> pandas.DataFrame:
    """A line an arm: its levels and its mean."""
    view, form = asked.of, _form(asked)
    design = view.results.table.design
    return pandas.DataFrame(
        [{"arm": arm, **design.arms[arm], "mean": mean} for arm, mean in _means(view, form).items()]
    )


# -- score against cost --------------------------------------------------------------------------


def _costs(view: View) -> dict[str, dict[str, float]]:
    """What arms cost: name → arm → number, of what is known of every arm and differs."""
    arms = [arm for arm in view.comparison.arms if arm.name in view.results.table.design.arms]
    found = {
        "FLOPs per trial": {arm.name: arm.flops_per_trial for arm in arms},
        "parameters": {arm.name: float(arm.parameters or math.nan) for arm in arms},
        "training seconds": {arm.name: arm.training_seconds_per_trial for arm in arms},
    }
    for name in dict.fromkeys(name for arm in arms for name in arm.figures):
        found[name.replace("_", " ")] = {arm.name: arm.figures.get(name) for arm in arms}
    known = {
        name: {arm: float(v) for arm, v in own.items() if v is not None and math.isfinite(v)}
        for name, own in found.items()
    }
    return {name: own for name, own in known.items() if len(own) > 1 and len(set(own.values())) > 1}


def _pareto(asked: Asked, form: Form, shown: str, cost: str) -> Any:
    found = pareto_table(asked.of, form, cost)
    if isinstance(found, str) or found.empty:
        told = found if isinstance(found, str) else "No arm has a score yet."
        return section("Score against cost", empty(told))
    tested = len(found) <= MOST_SEPARATED
    labels = {arm.name: arm.label for arm in asked.of.results.plan.arms}
    figure = drawing(f"pareto {form} {cost}", 420)
    front = found[found["on_front"]].sort_values("cost")
    figure.add_scatter(
        x=front["cost"],
        y=front["score"],
        mode="lines",
        line={"color": figures.FAINT, "width": 1, "dash": "dot", "shape": "hv"},
        hoverinfo="skip",
        showlegend=False,
    )
    kinds = {
        FRONT: (found["on_front"], figures.BLUE, "circle"),
        BETWEEN: (~found["on_front"] & ~found["is_beaten"], figures.FAINT, "circle-open"),
        BEATEN: (~found["on_front"] & found["is_beaten"], figures.VERMILION, "x-thin-open"),
    }
    for name, (rows, colour, symbol) in kinds.items():
        mine = found[rows]
        if mine.empty:
            continue
        figure.add_scatter(
            x=mine["cost"],
            y=mine["score"],
            error_y={"type": "data", "array": mine["score_sd"].fillna(0.0), "thickness": 1},
            mode="markers",
            marker={"size": 9, "color": colour, "symbol": symbol, "line": {"width": 2}},
            name=name if tested else {FRONT: name, BETWEEN: "other arms"}.get(name, name),
            text=[in_html(labels[arm]) for arm in mine["arm"]],
            hovertemplate="%{text}: %{y:.4g} at %{x:.4g}<extra></extra>",
        )
    figure.update_xaxes(title=in_html(cost))
    figure.update_yaxes(title=in_html(shown))
    note = "Means with their SD over seeds. The front of means is drawn by luck as well: an arm "
    note += "that is not on it is only beaten where the marks say so."
    if not tested:
        note += f" With more than {MOST_SEPARATED} arms it is not tested which are beaten."
    return framed(
        asked,
        "factors",
        "pareto",
        f"{shown} against {cost}",
        figure,
        told=f"{len(front)} of {len(found)} arms are on the front",
        note=note,
        code=_code(asked, "pareto", form, repr(COSTS.get(cost, cost.replace(" ", "_")))),
    )


def pareto_table(view: View, form: Form, cost: str) -> Any:
    """`statistics.pareto`; of many arms without which of them are beaten beyond noise."""

    def work_out() -> pandas.DataFrame:
        table, costs = view.results.table, _costs(view)[cost]
        if len(costs) <= MOST_SEPARATED:
            return pareto(table, costs, cost, form)
        lower = table.record(*form[:2]).goal == "minimise"
        means = _means(view, form)
        frame = pandas.DataFrame(
            [(arm, means[arm], own) for arm, own in costs.items() if arm in means],
            columns=["arm", "score", "cost"],
        ).sort_values(["cost", "score"], ascending=[True, lower], kind="stable")
        signed = -frame["score"] if lower else frame["score"]
        best = signed.cummax().shift(fill_value=-math.inf)
        return frame.assign(on_front=signed > best, is_beaten=False, score_sd=math.nan)

    return _found(view, f"pareto {cost}", form, work_out)


def _table(make: Callable[[View, Form], Any]) -> Callable[[Asked], pandas.DataFrame]:
    def numbers(asked: Asked) -> pandas.DataFrame:
        found = make(asked.of, _form(asked))
        if isinstance(found, str):
            raise UserError(found)
        return found

    return numbers


def pareto_numbers(asked: Asked) -> pandas.DataFrame:
    """Each arm's score and cost."""
    costs = _costs(asked.of)
    cost = asked.state.one_of("cost", costs, next(iter(costs), ""))
    if not cost:
        raise UserError("no cost is known that differs between arms")
    found = pareto_table(asked.of, _form(asked), cost)
    if isinstance(found, str):
        raise UserError(found)
    return found


PAGE = Page(
    "factors",
    "Factors",
    show,
    {
        "importance": _table(importance_table),
        "main-effects": _table(main_table),
        "interactions": _table(interactions_table),
        "all-arms": arms_numbers,
        "pareto": pareto_numbers,
    },
)
