"""One question, its image, and what every arm and seed answered: who is right, and what flips."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode
from weakref import WeakKeyDictionary

import numpy as np
import pandas
from dash import Dash, dcc, html
from flask import Response, abort, request

from ablations import workload
from ablations.command.examples import image_kind
from ablations.errors import MissingFileError, UserError
from ablations.shown_text import visible
from ablations.workload import INTACT
from analysis import words
from analysis.dashboard import elements
from analysis.dashboard.address import State, link
from analysis.dashboard.elements import banner, empty, section
from analysis.dashboard.page import Asked, Page, Shown
from analysis.dashboard.view import UNREADABLE, View, Views
from analysis.examples import (
    ORDERS,
    SHOWS,
    Alike,
    Given,
    Item,
    StudyExamples,
    askings,
    pairs_of,
    picture_of,
    study_examples,
)
from analysis.report.examples import IMAGE
from analysis.results import StudyResults

NAME = "examples"
WAIT_SECONDS = 0.8  # for examples that are being read; after that the page says how far that is
LISTED = 25  # questions at once
CELLS = 120  # answers of a question, at once
ANSWERS = 12  # unlike ones that are told apart
KEPT = 3  # forms of tasks that a process keeps
KEPT_PICTURES = 512
LONGEST = 160  # characters of an answer in a cell
WHERE = {
    "anywhere": "anywhere",
    "question": "in the question",
    "answer": "in an answer",
    "reference": "in the reference",
}


# -- reading -------------------------------------------------------------------------------------


@dataclass
class _Reading:
    """The examples of one form of a task, read beside those who wait for them."""

    results: StudyResults
    asked: workload.Asked
    read: int = 0  # stages
    of: int = 0
    found: StudyExamples | None = None
    wrong: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    def work(self) -> None:
        """Read; what is wrong is told on the page."""
        try:
            self.found = study_examples(self.results, self.asked, self._told)
        except UNREADABLE as error:
            self.wrong = str(error)
        except BaseException as error:
            self.wrong = f"{type(error).__name__}: {error}"
            raise
        finally:
            self.done.set()

    def _told(self, read: int, of: int) -> None:
        self.read, self.of = min(read, of), of


class _Readings:
    """Those of a process: some forms of tasks, and the pictures that were asked for lately."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Any, _Reading] = OrderedDict()
        self._pictures: OrderedDict[Any, bytes | None] = OrderedDict()

    def of(self, results: StudyResults, asked: workload.Asked) -> _Reading:
        """That of what a look found; begun if nobody has asked yet."""
        with self._lock:
            for key, one in self._kept.items():
                if one.results.found is results.found and one.asked == asked and not one.wrong:
                    self._kept.move_to_end(key)
                    return one
            made = _Reading(results, asked)
            self._kept[object()] = made
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        name = f"examples of {results.plan.study[:40]}"
        threading.Thread(target=made.work, daemon=True, name=name).start()
        return made

    def picture(self, results: StudyResults, found: StudyExamples, number: int) -> bytes | None:
        """The image of an item; None where there is none on this machine."""
        picture = found.picture(number)
        if picture is None:
            return None
        key = picture, found.ids[number]
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
                return self._pictures[key]
        made = picture_of(results, picture, found.ids[number])
        with self._lock:
            self._pictures[key] = made
            while len(self._pictures) > KEPT_PICTURES:
                self._pictures.popitem(last=False)
        return made


_readings: WeakKeyDictionary[Views, _Readings] = WeakKeyDictionary()


def readings_of(views: Views) -> _Readings:
    """Those of all who look at a store through the same views."""
    return _readings.setdefault(views, _Readings())


# -- what is asked for ---------------------------------------------------------------------------


def form_name(asked: workload.Asked) -> str:
    """A form of a task in an address: `easy_vqa`, `easy_vqa 4-shot shuffled`."""
    shots = f" {asked.shots}-shot" if asked.shots else ""
    return asked.task + shots + ("" if asked.condition == INTACT else f" {asked.condition}")


@dataclass(frozen=True)
class _Choice:
    """What the address says of a page of examples."""

    form: workload.Asked
    text: str
    where: Any
    show: Any
    order: Any
    a: str  # names of arms
    b: str
    seed: int | None
    item: str
    first: int  # of the listed questions
    arms: int  # first of the arms that are shown

    def picked(self, found: StudyExamples) -> np.ndarray:
        """The numbers of the questions that are meant."""
        return found.pick(
            text=self.text, where=self.where, show=self.show, order=self.order, a=self.a, b=self.b
        )

    def address(self, study: str, **changes: Any) -> str:
        """Of the same page with some of it changed."""
        state = {
            "task": form_name(self.form),
            "q": self.text,
            "in": "" if self.where == "anywhere" else self.where,
            "show": "" if self.show == "all" else self.show,
            "order": "" if self.order == "drawn" else self.order,
            "a": self.a,
            "b": self.b,
            "seed": "" if self.seed is None else str(self.seed),
            "item": self.item,
            "from": str(self.first or ""),
            "arms": str(self.arms or ""),
        }
        return link(NAME, study, **(state | changes))


def _choice(asked: Asked, forms: Sequence[workload.Asked]) -> _Choice:
    state, plan = asked.state, asked.of.results.plan
    named = {form_name(form): form for form in forms}
    first = next(iter(named), "")
    arms = [arm.name for arm in plan.arms]
    a = state.one_of("a", arms, plan.arms[0].name)
    b = state.one_of("b", ["", *arms], "")
    show = state.one_of("show", SHOWS, "all")
    if show in ("flips", "a-better", "b-better") and not b:
        b = next((arm for arm in arms if arm != a), "")
    seeds = [str(seed) for seed in plan.seeds]
    seed = state.one_of("seed", ["", *seeds], "")
    return _Choice(
        form=named[state.one_of("task", named, first)],
        text=state.text("q")[:200],
        where=state.one_of("in", WHERE, "anywhere"),
        show=show,
        order=state.one_of("order", ORDERS, "drawn"),
        a=a,
        b="" if b == a else b,
        seed=int(seed) if seed else None,
        item=state.text("item"),
        first=int(state.number("from", 0, 1e9, 0)),
        arms=int(state.number("arms", 0, 1e9, 0)),
    )


def claim_addresses(results: StudyResults) -> dict[str, str]:
    """Claim → the address of the examples behind it."""
    return {
        name: link(
            NAME,
            results.plan.study,
            task=form_name(pair.asked),
            a=pair.a,
            b=pair.b,
            show="flips" if pair.b else "",
        )
        for name, pair in pairs_of(results).items()
    }


# -- the page ------------------------------------------------------------------------------------


def show(asked: Asked) -> Shown:
    """Questions that are meant, one of them with all answers, and flips of two arms."""
    results = asked.of.results
    forms = _forms(asked.of)
    if not forms:
        return Shown([empty("This study asks nothing, so there are no examples.")])
    choice = _choice(asked, forms)
    controls = _controls(results, forms, choice)
    reading = readings_of(asked.views).of(results, choice.form)
    if not reading.done.wait(WAIT_SECONDS):
        told = f"Reading examples: {reading.read:,} of {reading.of:,} stages" if reading.of else ""
        return Shown([html.P(f"{told or 'Reading examples'} …", className="empty")], controls)
    found = reading.found
    if found is None:
        return Shown([banner(f"The examples cannot be read: {reading.wrong}", "bad")], controls)
    if not len(found):
        return Shown([*_notices(found), empty("No example of this has been stored yet.")], controls)
    if choice.seed is not None:
        if choice.seed not in found.seeds:
            told = f"Seed {choice.seed} has no examples yet."
            return Shown([*_notices(found), empty(told)], controls)
        found = found.only(choice.seed)
    missing = [one for one in (choice.a, choice.b) if one and one not in found.arms]
    if missing and choice.b:
        told = f"Arm {results.plan.arm(missing[0]).label} has no examples yet."
        return Shown([*_notices(found), empty(told)], controls)
    picked = choice.picked(found)
    body = [*_notices(found)]
    if choice.b:
        body.append(_flips(asked, found, choice))
    if not len(picked):
        body.append(empty("No question is like that."))
        return Shown(body, controls, "Examples")
    number = found.find(choice.item)
    if number is None:
        if choice.item:
            body.append(banner(f"No question {choice.item[:100]} is here; shown: the first."))
        number = int(picked[0])
    parts = [
        _listed(asked, found, choice, picked, number),
        _question(asked, found, choice, picked, number),
    ]
    return Shown([*body, html.Div(parts, className="examples")], controls, "Examples")


def mark(asked: Asked) -> Any:
    """How far reading is, while it is not done."""
    results = asked.of.results
    forms = _forms(asked.of)
    if not forms:
        return None
    choice = _choice(Asked(asked.views, State(asked.state.values), asked.view), forms)
    reading = readings_of(asked.views).of(results, choice.form)
    return None if reading.done.is_set() else (reading.read, reading.of)


def _forms(view: View) -> list[workload.Asked]:
    return view.once("askings", lambda: askings(view.results))


def _controls(results: StudyResults, forms: Sequence[workload.Asked], choice: _Choice) -> list[Any]:
    plan = results.plan
    arms = [(arm.name, arm.label) for arm in plan.arms]
    names = [form_name(form) for form in forms]
    seeds = [("", "all seeds"), *((str(seed), f"seed {seed}") for seed in plan.seeds)]
    return [
        elements.select("task", "Task", [(n, n) for n in names], form_name(choice.form), names[0]),
        elements.entry("q", "Search", choice.text, "a word of a question or an answer"),
        elements.select("in", "Where", WHERE.items(), choice.where, "anywhere"),
        elements.select("show", "Show", SHOWS.items(), choice.show, "all"),
        elements.select("a", "A", arms, choice.a, arms[0][0]),
        elements.select("b", "B", [("", "nothing"), *arms], choice.b, ""),
        elements.select(
            "seed", "Seeds", seeds, "" if choice.seed is None else str(choice.seed), ""
        ),
        elements.select("order", "Order", ORDERS.items(), choice.order, "drawn"),
    ]


def _notices(found: StudyExamples) -> list[Any]:
    parts: list[Any] = [banner(f"Left out: {line}", "bad") for line in found.damaged[:5]]
    if len(found.damaged) > 5:
        parts.append(banner(f"Left out: {len(found.damaged) - 5} more stages", "bad"))
    if found.missing:
        arm, seed = found.missing[0]
        more = f" and {len(found.missing) - 1} more" if len(found.missing) > 1 else ""
        parts.append(
            banner(f"Not here (not run yet, or it kept no examples): {arm} seed {seed}{more}.")
        )
    return parts


# -- two arms ------------------------------------------------------------------------------------


def _flips(asked: Asked, found: StudyExamples, choice: _Choice) -> Any:
    labels = dict(zip(found.arms, found.labels, strict=True))
    a, b = labels[choice.a], labels[choice.b]
    tests = found.mcnemar(choice.a, choice.b)
    if tests.empty:
        return section("A and B", empty("They share no seed in which both were asked the same."))
    better = ("only A right", "only B right") if found.is_exact else ("A better", "B better")
    header = ["seed", "questions", *better, "alike", "images for A : B", "p, exact"]
    rows = [
        (
            str(one["seed"]),
            f"{one['items']:,}",
            f"{one['first_better']:,}",
            f"{one['second_better']:,}",
            f"{one['alike']:,}",
            f"{one['images_first_better']:,} : {one['images_second_better']:,}",
            words.p_value(one["p_value"]),
        )
        for one in tests.to_dict("records")
    ]
    note = (
        f"A: {a}. B: {b}. McNemar's exact test asks of each seed alone whether its flips could as "
        "well have gone the other way; questions on one image count once. It says something of "
        "these checkpoints only: with other seeds other answers flip, and p is not corrected for "
        "looking at several."
    )
    csv = elements.csv("flips", choice.address(asked.study))
    return section("A and B, seed by seed", elements.table(header, rows), csv, note=note)


# -- questions -----------------------------------------------------------------------------------


def _listed(
    asked: Asked, found: StudyExamples, choice: _Choice, picked: np.ndarray, current: int
) -> Any:
    first = min(choice.first, max(0, (len(picked) - 1) // LISTED * LISTED))
    numbers = [int(one) for one in picked[first : first + LISTED]]
    lines = [
        html.Li(
            dcc.Link(
                [
                    _picture(asked, found, choice, number, "small"),
                    html.Span(_prompt(item.prompt) or item.item_id, className="asked"),
                    html.Span(_told(found, item), className="faint"),
                ],
                href=choice.address(asked.study, item=item.item_id),
                className="here" if number == current else "",
            )
        )
        for number, item in zip(numbers, found.items(numbers), strict=True)
    ]
    count = (
        f"{len(picked):,} of {len(found):,} questions"
        if len(picked) < len(found)
        else (f"{len(found):,} questions")
    )
    steps = _steps(
        len(picked), first, LISTED, lambda at: choice.address(asked.study, **{"from": at})
    )
    csv = elements.csv("questions", choice.address(asked.study))
    head = html.Div([html.H2(count), html.Div([csv], className="tools")], className="head")
    return html.Section([head, html.Ul(lines), *steps], className="listed")


def _steps(count: int, first: int, size: int, address: Any) -> list[Any]:
    """Links to the part before and the one after."""
    if count <= size:
        return []
    parts: list[Any] = []
    if first > 0:
        parts.append(dcc.Link("← before", href=address(str(max(0, first - size) or ""))))
    parts.append(html.Span(f"{first + 1:,}–{min(first + size, count):,} of {count:,}"))
    if first + size < count:
        parts.append(dcc.Link("after →", href=address(str(first + size))))
    return [html.P(parts, className="steps")]


def _told(found: StudyExamples, item: Item) -> str:
    """How an item was answered, in a line."""
    if not item.answers:
        return "no score"
    if found.is_exact:
        right = round(item.mean * item.answers / (found.full or 1))
        told = f"{right:,} of {item.answers:,} right"
        if len(found.arms) > 1:
            low, high = (100 * one / (found.full or 1) for one in (item.lowest, item.highest))
            told += f"; arms {low:.0f} to {high:.0f}\u00a0%"
        return told
    told = f"mean {words.figure(item.mean)} of {item.answers:,}"
    if len(found.arms) > 1:
        told += f"; arms {words.figure(item.lowest)} to {words.figure(item.highest)}"
    return told


def _prompt(prompt: str) -> str:
    """A prompt for a reader: without the sign of the one image that is beside it."""
    return (prompt.replace(IMAGE, "") if prompt.count(IMAGE) == 1 else prompt).strip()


def _picture(asked: Asked, found: StudyExamples, choice: _Choice, number: int, kind: str) -> Any:
    picture = found.picture(number)
    if picture is None:
        return html.Span(className=f"picture {kind}")
    asked_for = {
        "study": asked.study,
        "task": form_name(choice.form),
        "item": found.ids[number],
        "stage": picture.stage[:12],  # what is done anew may have another image of this name
    }
    source = f"/example-picture?{urlencode(asked_for)}"
    return html.Img(src=source, alt=f"image of {found.ids[number]}", className=f"picture {kind}")


# -- one question --------------------------------------------------------------------------------


def _question(
    asked: Asked, found: StudyExamples, choice: _Choice, picked: np.ndarray, number: int
) -> Any:
    (item,) = found.items([number])
    place = np.flatnonzero(picked == number)
    beside = []
    if len(place):
        for step, told in ((-1, "← previous"), (1, "next →")):
            at = int(place[0]) + step
            if 0 <= at < len(picked):
                changes = {"item": found.ids[int(picked[at])], "from": str(at // LISTED * LISTED)}
                beside.append(dcc.Link(told, href=choice.address(asked.study, **changes)))
    prompt = _prompt(item.prompt)
    head = html.Div([html.H2(item.item_id), html.Div(beside, className="steps")], className="head")
    facts: list[tuple[str, Any]] = [
        ("reference" if len(item.references) < 2 else "references", " / ".join(item.references)),
        ("answers", _told(found, item)),
    ]
    if item.prompts > 1:
        facts.append(("prompt", f"one of {item.prompts:,}: not every arm and seed was asked this"))
    return html.Section(
        [
            head,
            html.Div(
                [
                    _picture(asked, found, choice, number, "large"),
                    html.Div([html.P(prompt, className="asked"), elements.pairs(facts)]),
                ],
                className="question",
            ),
            _answers(found, number, len(found.lines(number))),
            *_side_by_side(asked, found, choice, number),
        ],
        className="one",
    )


def _answers(found: StudyExamples, number: int, answers: int) -> Any:
    """Unlike answers, the most frequent first."""
    alike = found.alike(number)
    if len(alike) < 2:
        return html.Div()
    rows = [
        (
            _answer(found, one.score, one.prediction),
            f"{one.times:,}",
            _arms(one),
        )
        for one in alike[:ANSWERS]
    ]
    rest = answers - sum(one.times for one in alike[:ANSWERS])
    more = [html.P(f"Others were given {rest:,} times.", className="faint")] if rest else []
    head = html.H3("Unlike answers")
    return html.Div([head, elements.table(("answer", "times", "by"), rows, (0, 2)), *more])


def _arms(one: Alike) -> str:
    """Whose answer it is; labels have commas of their own."""
    named, rest = " · ".join(one.labels), one.arms - len(one.labels)
    return named + (f" and {rest:,} more {'arm' if rest == 1 else 'arms'}" if rest else "")


def _side_by_side(asked: Asked, found: StudyExamples, choice: _Choice, number: int) -> list[Any]:
    """A table of arms and seeds; A and B come first where two are compared."""
    own = [one for one in (choice.a, choice.b) if one in found.arms] if choice.b else []
    others = [arm for arm in found.arms if arm not in own]
    size = max(5, CELLS // len(found.seeds))
    first = min(choice.arms, max(0, (len(others) - 1) // size * size))
    shown = [*own, *others[first : first + size]]
    given = {(one.arm, one.seed): one for one in found.given(number, shown)}
    labels = dict(zip(found.arms, found.labels, strict=True))
    header = ["arm", *(f"seed {seed}" for seed in found.seeds)]
    rows = []
    for arm in shown:
        sign = {choice.a: "A: ", choice.b: "B: "}.get(arm, "") if own else ""
        cells = [_cell(found, given.get((arm, seed))) for seed in found.seeds]
        rows.append((elements.breakable(f"{sign}{labels[arm]}"), *cells))
    table = elements.table(header, rows, range(len(header)))
    steps = _steps(len(others), first, size, lambda at: choice.address(asked.study, arms=at))
    csv = elements.csv("answers", choice.address(asked.study, item=found.ids[number]))
    head = html.Div(
        [html.H3("Every arm and seed"), html.Div([csv], className="tools")], className="head"
    )
    return [head, html.Div(table, className="sides"), *steps]


def _cell(found: StudyExamples, one: Given | None) -> html.Td:
    if one is None:
        return html.Td("–", className="text", title="not there")
    return _answer(found, one.score, one.prediction)


def _answer(found: StudyExamples, score: float, text: str) -> html.Td:
    """Right or wrong, by sign and word and colour, else the score; and what was answered.

    Of these a page has hundreds, and each further component in one would be felt: the sign and its
    word are the style sheet's.
    """
    whole: Any = {} if len(text) <= LONGEST else {"title": visible(text[:4_000])}
    cut = f"{text[:LONGEST]}…" if whole else text
    told: Any = cut if text.strip() else html.Span("(nothing)", className="faint")
    if found.is_exact and not math.isnan(score):
        return html.Td(told, className=f"text {'right' if score > 0 else 'wrong'}", **whole)
    mark = "no score" if math.isnan(score) else words.figure(score)
    return html.Td([html.Span(mark, className="score"), " ", told], className="text", **whole)


# -- tables and pictures -------------------------------------------------------------------------


def _ready(asked: Asked) -> tuple[StudyExamples, _Choice]:
    """All that is asked for, read to its end. Raises `UserError` where it cannot be."""
    results = asked.of.results
    forms = _forms(asked.of)
    if not forms:
        raise UserError("this study asks nothing")
    choice = _choice(asked, forms)
    reading = readings_of(asked.views).of(results, choice.form)
    reading.done.wait()
    if reading.found is None:
        raise UserError(reading.wrong)
    found = reading.found
    return (found if choice.seed is None else found.only(choice.seed)), choice


def questions_table(asked: Asked) -> pandas.DataFrame:
    """A line a question that is meant: item_id, question, references, answers, mean, lowest, …"""
    found, choice = _ready(asked)
    picked = choice.picked(found)
    items = found.items([int(one) for one in picked])
    frame = pandas.DataFrame(items, columns=list(Item._fields))
    frame["references"] = [" / ".join(one) for one in frame["references"]]
    return frame


def answers_table(asked: Asked) -> pandas.DataFrame:
    """A line an arm and seed, of the question that is shown: `analysis.examples.Given`."""
    found, choice = _ready(asked)
    number = found.find(choice.item)
    return pandas.DataFrame(
        [] if number is None else found.given(number), columns=list(Given._fields)
    )


def flips_table(asked: Asked) -> pandas.DataFrame:
    """A line a seed: McNemar's exact test of A and B (`analysis.statistics.items.mcnemar`)."""
    found, choice = _ready(asked)
    return found.mcnemar(choice.a, choice.b) if choice.b else pandas.DataFrame()


def begin(app: Dash, views: Views, _may_act: Callable[[], bool]) -> None:
    """Answer for the images of questions."""

    @app.server.get("/example-picture")
    def picture() -> Response:
        study = request.args.get("study", "")
        view = views.of(study, anew=False, wait=WAIT_SECONDS)
        if not isinstance(view, View):
            abort(404)
        results = view.results
        named = {form_name(form): form for form in _forms(view)}
        form = named.get(request.args.get("task", ""))
        if form is None:
            abort(404)
        reading = readings_of(views).of(results, form)
        reading.done.wait(WAIT_SECONDS)
        found = reading.found
        number = None if found is None else found.find(request.args.get("item", ""))
        if found is None or number is None:
            abort(404)
        try:
            content = readings_of(views).picture(results, found, number)
        except MissingFileError as error:
            abort(404, f"the prepared data is not on this machine at {visible(error.message)}")
        except UNREADABLE:
            abort(404)
        kind = image_kind(content)
        if content is None or kind is None:
            abort(404)
        return Response(
            content, mimetype=f"image/{kind}", headers={"Cache-Control": "private, max-age=3600"}
        )


PAGE = Page(
    NAME,
    "Examples",
    show,
    {"questions": questions_table, "answers": answers_table, "flips": flips_table},
    mark=mark,
    begin=begin,
)
