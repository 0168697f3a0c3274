"""Any arms of any studies beside each other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas
from dash import html

from ablations.few import few
from ablations.shown_text import in_html
from analysis import figures, words
from analysis.compare import ArmLine, ScoreLine
from analysis.dashboard import elements
from analysis.dashboard.address import link
from analysis.dashboard.elements import banner, drawing, empty, framed
from analysis.dashboard.page import Asked, Page, Shown
from analysis.dashboard.trial import differences
from analysis.dashboard.view import Failed, View
from analysis.effects import paired, summarize
from analysis.words import metric_name

MOST_STUDIES = 12
MOST_DRAWN = 40


@dataclass(frozen=True)
class Line:
    """An arm of a study."""

    view: View
    arm: ArmLine

    @property
    def study(self) -> str:
        """Its study's name."""
        return self.view.results.plan.study

    @property
    def key(self) -> str:
        """What it is called in the address."""
        return f"{self.study}/{self.arm.name}"

    def score(self, metric: str) -> ScoreLine | None:
        """Its score on a metric, by how readers know it."""
        return next(
            (
                s
                for s in self.arm.scores
                if metric_name(s.task, s.metric, s.shots, s.condition) == metric
            ),
            None,
        )


def show(asked: Asked) -> Shown:
    """The arms of the chosen studies."""
    state = asked.state
    studies = asked.views.store.studies()
    chosen = state.some_of("study", studies)
    search = state.text("q")
    controls: list[Any] = [
        elements.select_some("study", "Studies", [(s, s) for s in studies], chosen, "choose some"),
        elements.entry("q", "Arms", search, "part of a name"),
    ]
    if not chosen:
        told = "Choose studies, and their arms stand here side by side."
        return Shown([empty(told)], controls, "Across studies")
    lines, notices = lines_of(asked, chosen, search)
    body: list[Any] = [banner(line) for line in notices]
    if not lines:
        return Shown([*body, empty("No arm is like that, or none is read yet.")], controls)
    metrics = list(
        dict.fromkeys(
            metric_name(s.task, s.metric, s.shots, s.condition)
            for line in lines
            for s in line.arm.scores
        )
    )
    if not metrics:
        return Shown([*body, empty("Nothing has been scored yet.")], controls)
    metric = state.one_of("metric", metrics, metrics[0])
    names = {line.key: f"{line.study}: {line.arm.label}" for line in lines}
    base = state.one_of("base", names, lines[0].key)
    controls += [
        elements.select("metric", "Metric", [(m, m) for m in metrics], metric, metrics[0]),
        elements.select("base", "Compared with", names.items(), base, lines[0].key),
    ]
    against = next(line for line in lines if line.key == base)
    body += [_figure(asked, lines, metric), _grid(lines, metric, against)]
    return Shown(body, controls, "Across studies")


def lines_of(asked: Asked, studies: list[str], search: str) -> tuple[list[Line], list[str]]:
    """The arms of some studies whose names are like that, and what is missing of them."""
    lines, notices = [], []
    if len(studies) > MOST_STUDIES:
        notices.append(f"the first {MOST_STUDIES} of {len(studies)} chosen studies are shown")
    for study in studies[:MOST_STUDIES]:
        view = asked.views.of(study, wait=0.3)
        if isinstance(view, Failed):
            notices.append(f"{study}: {view}")
        elif not isinstance(view, View):
            notices.append(f"{study} is being read")
        else:
            lines += [
                Line(view, arm)
                for arm in view.comparison.arms
                if elements.is_like(f"{arm.label} {arm.name}", search)
            ]
    return lines, notices


def _figure(asked: Asked, lines: list[Line], metric: str) -> html.Figure:
    scored = [(line, s) for line in lines if (s := line.score(metric)) is not None]
    drawn = scored[:MOST_DRAWN]
    figure = drawing(f"across {metric}", max(160, 64 + 26 * len(drawn)))
    names = [f"{in_html(line.study)}: {in_html(line.arm.label)}" for line, _ in drawn]
    summaries = [summarize(s.by_seed) for _, s in drawn]
    figure.add_scatter(
        x=[s.mean for s in summaries],
        y=names,
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [s.ci_high - s.mean for s in summaries],
            "arrayminus": [s.mean - s.ci_low for s in summaries],
        },
        mode="markers",
        marker={"size": 9, "color": figures.BLUE},
        text=[f"{s.n} seeds" for s in summaries],
        hovertemplate="%{y}: %{x:.4g}, %{text}<extra></extra>",
        showlegend=False,
    )
    figure.update_yaxes(range=[len(drawn) - 0.5, -0.5], showgrid=False)
    figure.update_xaxes(title=in_html(metric))
    note = "Mean over seeds with its 95 % interval."
    if len(drawn) < len(scored):
        note += f" {len(drawn)} of {len(scored)} arms are drawn; the table and CSV have all."
    studies = list(dict.fromkeys(line.study for line in lines))
    return framed(
        asked,
        "across",
        "across",
        metric,
        figure,
        told=f"{len(drawn)} arms; " + ", ".join(f"{s.mean:.4g}" for s in summaries[:12]),
        note=note,
        code=CODE.format(studies=studies),
    )


CODE = """\
import mm1
import pandas

frames = {{name: mm1.results(name).evaluations for name in {studies!r}}}
found = pandas.concat(frames, names=["study"])
print(found.groupby(["study", "arm", "task", "metric"])["value"].mean())
"""


def _grid(lines: list[Line], metric: str, base: Line) -> html.Section:
    wide = {"flex": 1, "minWidth": 260}
    columns = [
        elements.column("study", "Study", pinned="left"),
        elements.links("arm", "Arm", minWidth=150),
        elements.numbers("score", metric),
        elements.numbers("change", "Difference, paired by seed"),
        elements.column("seeds", "Seeds"),
        elements.column("differs", "Config differs in", tooltipField="differs", **wide),
        elements.numbers("flops", "FLOPs per trial"),
        elements.numbers("seconds", "Time per trial"),
    ]
    rows = [_row(line, metric, base) for line in lines]
    note = (
        f"Compared with {base.study}: {base.arm.label}, over the seeds that both have. Arms of "
        "unlike studies may differ in more than a factor: the column of what differs says in what."
    )
    grid = elements.grid("across", columns, rows, height="60vh")
    return html.Section([html.H2("Arms"), html.P(note, className="faint"), grid])


def _row(line: Line, metric: str, base: Line) -> dict[str, Any]:
    mine, other = line.score(metric), base.score(metric)
    change = summarize(paired(mine.by_seed, other.by_seed)) if mine and other else None
    places = words.decimals([mine.sd], [mine.mean]) if mine else 1
    told = words.MISSING
    if line.key == base.key:
        told, change = "–", None
    elif change is not None and change.n:
        told = words.signed(change.mean, places)
        if math.isfinite(change.ci_low):
            told += f" [{words.interval(change.ci_low, change.ci_high, places)}]"
        told += f", {change.n} seeds"
    elif change is not None:
        told = "no seed in common"
    seconds = line.arm.seconds_per_trial
    return {
        "study": line.study,
        "arm": line.arm.label,
        "arm_": link("trial", line.study, arm=line.arm.name),
        "score": mine.mean if mine else None,
        "score_": words.mean_sd(mine.mean, mine.sd, places) if mine else words.MISSING,
        "change": change.mean if change is not None and change.n else None,
        "change_": told,
        "seeds": ", ".join(map(str, mine.by_seed)) if mine else "",
        "differs": _differs(line, base),
        "flops": line.arm.flops_per_trial,
        "flops_": words.count(line.arm.flops_per_trial),
        "seconds": seconds if math.isfinite(seconds) else None,
        "seconds_": words.duration(seconds),
    }


def _differs(line: Line, base: Line) -> str:
    if line.key == base.key:
        return ""
    plan, other = line.view.results.plan, base.view.results.plan
    found = differences(plan, line.arm.name, base.arm.name, other)
    told = [f"{path}: {theirs} → {own}" for path, theirs, own in found]
    return few(told, 4, "; ") if found else "nothing"


def numbers_of(asked: Asked) -> pandas.DataFrame:
    """A line for each arm, metric and seed of the chosen studies."""
    chosen = asked.state.some_of("study", asked.views.store.studies())
    lines, _ = lines_of(asked, chosen, asked.state.text("q"))
    return pandas.DataFrame(
        [
            (line.study, line.arm.name, s.task, s.metric, s.shots, s.condition, seed, value)
            for line in lines
            for s in line.arm.scores
            for seed, value in s.by_seed.items()
        ],
        columns=["study", "arm", "task", "metric", "shots", "condition", "seed", "value"],
    )


PAGE = Page("across", "Across studies", show, {"across": numbers_of}, of_study=False)
