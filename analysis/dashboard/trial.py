"""One trial: what it was asked to do, how far it is, what it measured, printed and failed at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pandas
from dash import dcc, html

from ablations.command.placeholders import leaves
from ablations.errors import UserError
from ablations.plan import Plan
from ablations.stages import Trial
from analysis import words
from analysis.dashboard import elements
from analysis.dashboard.address import link
from analysis.dashboard.curves import metrics, one_run
from analysis.dashboard.elements import empty, framed, section, table
from analysis.dashboard.page import Asked, Page, Shown
from analysis.dashboard.view import View
from sweeps import worker_output

MOST_LISTED = 2_000  # trials in the list
LINES = 200  # of what a stage printed
STATES = ("failed", "running", "waiting", "done")


def show(asked: Asked) -> Shown:
    """The list of trials, or the one that the address names."""
    plan = asked.of.results.plan
    labels = {arm.name: arm.label for arm in plan.arms}
    arm = asked.state.one_of("arm", labels)
    return _list(asked) if not arm else _one(asked, arm, labels)


# -- all of them ---------------------------------------------------------------------------------


def _list(asked: Asked) -> Shown:
    view, state = asked.of, asked.state
    search = state.text("q")
    wanted = state.one_of("state", ["all", *STATES], "all")
    controls = [
        elements.entry("q", "Search", search, "arm or seed"),
        elements.choose("state", "State", [(s, s) for s in ("all", *STATES)], wanted, "all"),
    ]
    frame = _trials(view)
    if wanted != "all":
        frame = frame[frame["state"] == wanted]
    for word in search.casefold().split():
        told = frame["label"].str.casefold() + " seed " + frame["seed"].astype(str)
        frame = frame[told.str.contains(word, regex=False)]
    if frame.empty:
        return Shown([empty("No trial is like that.")], controls, "Trials")
    listed = frame.head(MOST_LISTED)
    note = f"{len(frame):,} trials"
    if len(listed) < len(frame):
        note = f"the first {len(listed):,} of {len(frame):,} trials; search for the others"
    primary = words.metric_name(*view.results.primary)
    columns = [
        elements.links("label", "Arm", pinned="left", minWidth=150, maxWidth=420),
        elements.column("seed", "Seed", type="numericColumn"),
        elements.column("state", "State", cellRenderer="Mark"),
        elements.numbers("score", primary),
        elements.numbers("seconds", "Work"),
        elements.column("problem", "What is missing", flex=1, minWidth=260, tooltipField="problem"),
    ]
    study = view.results.plan.study
    grid = elements.grid("trials", columns, _rows(view, listed), height="70vh", study=study)
    return Shown([html.P(note, className="faint"), grid], controls, "Trials")


def _trials(view: View) -> pandas.DataFrame:
    """A line a trial: arm, label, seed, state, score, seconds, problem; failed ones first."""

    def read() -> pandas.DataFrame:
        results = view.results
        labels = {arm.name: arm.label for arm in results.plan.arms}
        costs = results.costs.groupby(["arm", "seed"])["seconds"].sum().to_dict()
        scores = {arm: results.score(arm, *results.primary) for arm in labels}
        frame = pandas.DataFrame(
            [
                (
                    trial.arm,
                    labels[trial.arm],
                    trial.seed,
                    view.states[trial.arm, trial.seed],
                    scores[trial.arm].get(trial.seed),
                    costs.get((trial.arm, trial.seed)),
                    results.problems.get((trial.arm, trial.seed), ""),
                )
                for trial in results.plan.trials
            ],
            columns=["arm", "label", "seed", "state", "score", "seconds", "problem"],
        )
        order = {state: number for number, state in enumerate(STATES)}
        return frame.sort_values("state", key=lambda column: column.map(order), kind="stable")

    return view.once("trials", read)


def _rows(view: View, frame: pandas.DataFrame) -> list[dict[str, Any]]:
    study = view.results.plan.study
    places = words.decimals([], frame["score"].dropna().tolist())
    return [
        {
            "label": row["label"],
            "label_": link("trial", study, arm=row["arm"], seed=str(row["seed"])),
            "seed": row["seed"],
            "state": row["state"],
            "score": row["score"],
            "score_": words.number(row["score"], places),
            "seconds": row["seconds"],
            "seconds_": words.duration(row["seconds"]) if row["seconds"] else words.MISSING,
            "problem": row["problem"],
        }
        for row in frame.to_dict("records")
    ]


def trials_numbers(asked: Asked) -> pandas.DataFrame:
    """A line a trial."""
    return _trials(asked.of)


# -- one -----------------------------------------------------------------------------------------


def _one(asked: Asked, arm: str, labels: dict[str, str]) -> Shown:
    view, state = asked.of, asked.state
    results, plan = view.results, view.results.plan
    seeds = [str(trial.seed) for trial in plan.trials if trial.arm == arm]
    if not seeds:
        return Shown([empty("No trial of this arm is planned.")])
    seed = state.one_of("seed", seeds, seeds[0])
    trial = results.trial(arm, int(seed))
    controls = [
        elements.select("arm", "Arm", labels.items(), arm),
        elements.choose("seed", "Seed", [(s, s) for s in seeds], seed, seeds[0])
        if len(seeds) <= 8
        else elements.select("seed", "Seed", [(s, s) for s in seeds], seed, seeds[0]),
    ]
    where = trial.arm, trial.seed
    told = results.problems.get(where, "")
    head = [
        html.P([dcc.Link("All trials", href=link("trial", plan.study))], className="faint"),
        html.H1(f"{labels[arm]}, seed {seed}"),
        html.P([html.Span(view.states[where], className="strong"), f" – {told}" if told else ""]),
    ]
    curve = _curve(asked, trial, controls)
    body = [
        *head,
        _stages(asked, trial),
        *([curve] if curve is not None else []),
        html.Div([_scores(view, trial), _config(plan, trial)], className="columns"),
        *_faults(view, trial),
        *_printed(view, trial),
        *_system(view, trial),
    ]
    return Shown(body, controls, f"{labels[arm]} seed {seed}")


def mark(asked: Asked) -> Any:
    """What a trial has printed and failed at so far: it may go on while no other record changes."""
    view = asked.of
    arm, seed = asked.state.text("arm"), asked.state.text("seed")
    for trial in view.results.plan.trials:
        if trial.arm == arm and str(trial.seed) == (seed or str(trial.seed)):
            missing = [one for one in trial.stages.values() if one not in view.results.done]
            store = view.results.store
            return [
                (len(worker_output.printed(store.scratch(one))), len(store.failures(one)))
                for one in missing
                if one in view.results.found.begun
            ]
    return None


def _stages(asked: Asked, trial: Trial) -> html.Section:
    view = asked.of
    results = view.results
    rows = []
    for role, stage in trial.stages.items():
        planned = results.plan.stages[stage]
        ran = results.executions.get(stage, {}) if stage in results.done else {}
        is_begun = stage in results.found.begun
        attempts = len(results.store.failures(stage)) if is_begun else ran.get("failed_before", 0)
        state = "done" if stage in results.done else "damaged" if stage in results.damaged else ""
        state = state or ("failed" if attempts else "begun" if is_begun else "waiting")
        rows.append(
            (
                role,
                state,
                words.duration(ran["seconds"]) if "seconds" in ran else words.MISSING,
                words.duration(planned.seconds) if planned.seconds else words.MISSING,
                str(ran.get("host", words.MISSING)),
                str(ran.get("device_kind", words.MISSING)),
                str(attempts or 0),
                stage[:12],
            )
        )
    header = ("stage", "state", "took", "planned", "host", "device", "failed attempts", "identity")
    return section("Stages", table(header, rows, text=(0, 1, 4, 5, 7)))


def _curve(asked: Asked, trial: Trial, controls: list[Any]) -> html.Figure | None:
    view = asked.of
    names = metrics(view)
    if not names:
        return None
    metric = asked.state.one_of("metric", names, names[0])
    controls.append(elements.select("metric", "Curve", [(n, n) for n in names], metric, names[0]))
    figure = one_run(view, metric, trial)
    if figure is None:
        return None
    base = view.results.plan.arms[0].label
    return framed(
        asked,
        "trial",
        "curve",
        metric,
        figure,
        told=f"{metric} by step of this trial beside {base}",
        note=f"Beside it {base} with the same seed, where there is a curve of it.",
        code=CODE.format(
            study=view.results.plan.study, arm=trial.arm, seed=trial.seed, metric=metric
        ),
    )


CODE = """\
import mm1

curves = mm1.curves({study!r}, {metric!r})
print(curves[(curves["arm"] == {arm!r}) & (curves["seed"] == {seed})])
"""


def _scores(view: View, trial: Trial) -> html.Section:
    frame = scores_of(view, trial)
    if frame.empty:
        return section("Scores", empty("Nothing has been scored yet."))
    rows = []
    for row in frame.to_dict("records"):
        spread = row["standard_error"]
        places = words.decimals([spread], [row["value"]])
        name = words.metric_name(row["task"], row["metric"], row["shots"], row["condition"])
        error = f" ± {words.number(spread, places)}" if spread > 0 else ""
        rows.append((name, words.number(row["value"], places) + error, str(row["n_items"] or "")))
    note = "± the standard error if other items had been asked"
    return section("Scores", table(("metric", "value", "items"), rows), note=note)


def scores_of(view: View, trial: Trial) -> pandas.DataFrame:
    """The rows that a trial's evaluations measured."""
    rows = view.results.evaluations
    return rows[(rows["arm"] == trial.arm) & (rows["seed"] == trial.seed)]


def differences(
    plan: Plan, arm: str, base: str, base_plan: Plan | None = None
) -> list[tuple[str, str, str]]:
    """Path, the base's value and the arm's, where two configs differ."""
    own = dict(leaves(plan.arm(arm).config))
    other = dict(leaves((base_plan or plan).arm(base).config))
    return [
        (path, _told(other.get(path, _ABSENT)), _told(own.get(path, _ABSENT)))
        for path in dict.fromkeys([*other, *own])
        if own.get(path, _ABSENT) != other.get(path, _ABSENT)
    ]


_ABSENT = object()


def _told(value: Any) -> str:
    if value is _ABSENT:
        return words.MISSING
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _config(plan: Plan, trial: Trial) -> html.Section:
    base = plan.arms[0]
    rows = differences(plan, trial.arm, base.name)
    parts: list[Any] = []
    if trial.arm == base.name:
        parts.append(empty("This is the base: the other arms are compared with it."))
    elif rows:
        parts.append(table(("field", base.label, plan.arm(trial.arm).label), rows, text=(0, 1, 2)))
    else:
        parts.append(empty("The config is that of the base."))
    whole = json.dumps(plan.arm(trial.arm).config, indent=2, default=str)
    parts.append(html.Details([html.Summary("The whole config"), html.Pre(whole, tabIndex=0)]))
    return section("Config, where it differs from the base", *parts)


def _faults(view: View, trial: Trial) -> Iterator[html.Section]:
    store = view.results.store
    parts = []
    for role, stage in trial.stages.items():
        if stage in view.results.damaged:
            parts.append(elements.banner(f"{role}: {view.results.damaged[stage]}", "bad"))
        for number, failure in enumerate(store.failures(stage), start=1):
            at, host = failure.get("failed_at", ""), failure.get("host", "")
            told = " ".join(str(failure.get("error", "unknown")).split())
            when = f", {_when(at)}" if at else ""
            where = f" on {host}" if host else ""
            head = html.Summary(f"{role}, attempt {number}{where}{when}: {told[:300]}")
            trace = str(failure.get("traceback") or told)[-20_000:]
            parts.append(html.Details([head, html.Pre(trace, tabIndex=0)]))
    if parts:
        yield section("Faults", *parts)


def _when(at: Any) -> str:
    if isinstance(at, str):
        return f"{words.minute(at)} UTC"
    return pandas.Timestamp(float(at), unit="s").strftime("%Y-%m-%d %H:%M UTC")


def _printed(view: View, trial: Trial) -> Iterator[html.Section]:
    """The end of what its stages printed; of one that runs, as far as this machine knows."""
    results = view.results
    parts = []
    for role, stage in trial.stages.items():
        try:
            if stage in results.done:
                text = results.store.printed(stage)
            else:
                text = worker_output.printed(results.store.scratch(stage))
        except UserError as error:
            parts.append(elements.banner(f"{role}: {error}", "bad"))
            continue
        lines = text.rstrip().split("\n")
        if text.strip():
            cut = f", the last {LINES} of {len(lines):,} lines" if len(lines) > LINES else ""
            log = html.Pre("\n".join(lines[-LINES:]), tabIndex=0, className="log")
            parts.append(html.Details([html.Summary(f"{role}{cut}"), log], open=not parts))
    if parts:
        yield section("What it printed", *parts)


def _system(view: View, trial: Trial) -> Iterator[html.Section]:
    """How its stages ran: devices, versions, threads, memory."""
    parts = []
    for role, stage in trial.stages.items():
        ran = view.results.executions.get(stage) if stage in view.results.done else None
        if ran:
            rows = [(name.replace("_", " "), _told(value)) for name, value in sorted(ran.items())]
            parts.append(html.Details([html.Summary(role), elements.pairs(rows)]))
    if parts:
        yield section("System", *parts)


def curve_numbers(asked: Asked) -> pandas.DataFrame:
    """The points of the trial's curve."""
    from analysis.dashboard.curves import points

    view = asked.of
    names = metrics(view)
    if not names:
        return pandas.DataFrame()
    found = points(view, asked.state.one_of("metric", names, names[0]))
    arm, seed = asked.state.text("arm"), asked.state.text("seed")
    found = found[found["arm"] == arm]
    return found[found["seed"].astype(str) == seed] if seed else found


PAGE = Page("trial", "Trials", show, {"trials": trials_numbers, "curve": curve_numbers}, mark=mark)
