from __future__ import annotations

import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ablations.workload import Metric
from analysis.compare import comparison
from analysis.report.content import few_shot_lines
from analysis.report.writing import report, write_report
from analysis.results import StudyResults, load_results
from mm1.origin import ORIGIN
from sweeps.forecasts import Forecast, Part
from sweeps.store import Store

VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """Checks that tags close in order, and collects text and what would be loaded."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open
        text = " ".join(self.texts).replace(" <wbr> ", "").replace("\xa0", " ")
        self.text = " ".join(text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [
            v or "" for k, v in attrs if k in ("src", "href", "srcset", "data", "action")
        ]
        if tag == "wbr":
            self.texts.append("<wbr>")
        elif tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


@pytest.fixture(scope="module")
def results(full_store: Store) -> StudyResults:
    return load_results("demo", full_store, origin=ORIGIN)


@pytest.fixture(scope="module")
def html(results: StudyResults) -> str:
    return report(results)


def test_the_report_loads_nothing(html: str) -> None:
    page = Page(html)
    *images, carried = page.loads
    assert images  # of examples
    assert all(load.startswith("data:image/png;base64,") for load in images)
    assert carried.startswith("data:application/gzip;base64,")
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    style = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert "url(" not in "".join(style)
    assert "@import" not in "".join(style)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, which nobody fetches


def test_the_report_says_how_far_off_the_estimates_were(results: StudyResults) -> None:
    forecast = Forecast(
        run="r", began_at=0.0, workers=2, stages=40, measured_before=0, start_seconds=24.0,
        estimated_start_seconds=12.0, estimated_seconds=100.0, estimated_after_a_tenth=190.0,
        seconds=200.0, parts=(Part(what="<b>", stages=3, estimated_seconds=90, seconds=30),),
    )  # fmt: skip
    assert results.forecast is None
    judged = replace(results)
    judged.__dict__["forecast"] = forecast
    text = Page(report(judged)).text
    assert "The run of 1970-01-01 00:00 UTC (40 stages, 2 workers) took 3 min 20 s" in text
    assert "start-up 12 s 24 s 50 % too little" in text
    assert "<b> 3 1 min 30 s 30 s 3.0 times too much" in text


def test_the_report_says_every_verdict_in_words(html: str, results: StudyResults) -> None:
    text = Page(html).text
    for claim in comparison(results).claims:
        sentence = claim.sentence.partition(": ")[2]
        assert sentence[0].upper() + sentence[1:] in text
        assert claim.name in text
        assert claim.text in text
    for word in ("✓ Supported", "✗ Refuted", "? Undecided"):
        assert word in text


def test_the_report_has_every_part(html: str, results: StudyResults) -> None:
    text = Page(html).text
    assert results.plan.question in text
    assert results.completeness in text
    for title in (
        "What the evidence says",
        "Effects",
        "Learning curves",
        "All arms",
        "Controls",
        "Examples",
        "Cost",
        "Warnings",
        "How to reproduce this",
    ):
        assert f"<h2>{title}</h2>" in html
    assert html.count("<svg") == 4  # three metrics, one set of curves
    made = comparison(results)
    assert all(arm.label in text for arm in made.arms)
    assert "the base leads its own score with shuffled images" in text
    assert "the base leads the blind answerer" in text
    assert escape(results.plan.source) in html
    assert results.plan.hash in text
    assert f"git checkout {'6880732e' * 5}" in text
    assert "jax 0.10.2" in text
    assert results.plan.warnings[0] in text


def test_scores_by_the_number_of_examples_have_a_picture(
    tmp_path: Path, make_plan, fill, rows_of
) -> None:
    def asked_with_examples(arm, seed, task, condition):
        rows = rows_of(arm, seed, task, condition)
        if (task, condition) != ("easy_vqa", "intact"):
            return rows
        more = [replace(row, shots=shots) for row in rows for shots in (4, 8)]
        guess = [
            replace(row, metric="chance_accuracy", value=12.5)
            for row in [*rows, *more]
            if row.metric == "accuracy"
        ]
        captions = [
            replace(row, task="coco_caption", metric=metric)
            for row in [*rows, *more]
            if row.metric == "accuracy"
            for metric in ("bleu_4", "cider")
        ]
        return [*rows, *more, *guess, *captions]

    store, plan = Store(tmp_path), make_plan()
    known = plan.tasks["easy_vqa"]
    chance = Metric(name="chance_accuracy", role="baseline", of="accuracy", by="chance")
    task = known.model_copy(update={"metrics": (*known.metrics, chance)})
    plan = plan.model_copy(update={"tasks": {**plan.tasks, "easy_vqa": task}})
    store.register(plan)
    fill(store, plan, rows=asked_with_examples)
    draw_on = load_results("demo", store, origin=ORIGIN)
    labels = {arm.name: arm.label for arm in plan.arms}
    lines = few_shot_lines(draw_on.table, labels, "easy_vqa", "accuracy")
    assert [*lines] == [*labels.values(), "chance"]
    assert [shots for shots, _ in lines["C-Abstractor"][2]] == [0, 4, 8]
    assert lines["chance"] == {seed: [(0, 12.5), (4, 12.5), (8, 12.5)] for seed in (1, 2, 3)}
    page = report(draw_on)
    assert "<h2>Scores by the number of examples</h2>" in page
    shown = page.partition("Scores by the number of examples")[2].partition("<h2>")[0]
    pictures = re.findall(r'<svg[^>]*aria-label="([^"]*)"', shown)
    assert pictures == ["easy_vqa.accuracy", "coco_caption.cider"]
    made = comparison(draw_on)
    assert {line.shots for line in made.controls if line.control == "chance"} == {0, 4, 8}
    assert not [line for line in made.effects if line.metric.startswith("chance")]


def test_without_examples_there_is_no_such_picture(html: str) -> None:
    assert "by the number of examples" not in html


def test_numbers_in_the_report_are_those_of_compare(html: str, results: StudyResults) -> None:
    text = Page(html).text
    for effect in comparison(results).effects:
        if effect.metric == "accuracy":
            assert f"{effect.mean:+.1f}".replace("-", "−") in text
            span = f"[{effect.ci_low:+.1f} to {effect.ci_high:+.1f}]".replace("-", "−")
            assert span in text


def test_examples_show_image_right_and_wrong_of_every_arm(html: str, results: StudyResults) -> None:
    assert "Answered rightly by the base" in html
    assert "Answered wrongly by the base" in html
    card = re.findall(r'<figure class="example">.*?</figure>', html, re.DOTALL)[0]
    card = card.replace("<wbr>", "")
    assert "data:image/png;base64," in card
    for arm in results.plan.arms:
        assert arm.label in card
    assert "reference:" in card
    assert "&lt;image&gt;" not in html  # it is shown
    assert "(nothing)" in html
    captions = html.partition("<h3>emoji_caption</h3>")[2]
    assert "Drawn at random" in captions
    assert "Answered" not in captions
    assert ">3.2<" in captions  # a caption has a score, not right or wrong


def test_what_models_and_users_write_is_escaped(html: str, tmp_path: Path, make_plan, fill) -> None:
    assert "&lt;b&gt;triangle&lt;/b&gt;" in html
    assert "<b>triangle" not in html
    store, plan = Store(tmp_path), make_plan(seeds=2)
    plan = plan.model_copy(update={"question": "Is 1 < 2? <script>alert(1)</script>"})
    store.register(plan)
    fill(store, plan)
    assert "<script" not in report(load_results("demo", store, origin=ORIGIN))


def test_a_missing_image_folder_is_told(tmp_path: Path, make_plan, fill) -> None:
    store, plan = Store(tmp_path), make_plan(seeds=2)
    store.register(plan)
    fill(store, plan)
    text = Page(report(load_results("demo", store, origin=ORIGIN))).text
    assert "the prepared data is not on this machine" in text
    assert "no image" in text


def test_an_unfinished_study_gives_no_verdict(tmp_path: Path, make_plan, fill) -> None:
    store, plan = Store(tmp_path), make_plan()
    store.register(plan)
    text = Page(report(load_results("demo", store, origin=ORIGIN))).text
    assert "0 of 12 planned trials" in text
    fill(store, plan, skip={("base", 3)})
    text = Page(report(load_results("demo", store, origin=ORIGIN))).text
    assert "… Interim Not yet: 2 of 3 seeds are in" in text
    assert "Supported" not in text
    assert "base seed 3: not there yet" in text
    assert "2 of 3 seeds" in text


def test_a_changed_study_file_is_noted_at_the_top(
    full_store: Store, results: StudyResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "analysis.results.difference", lambda *_: "demo.yaml has changed since this was run"
    )
    found = load_results("demo", full_store, origin=ORIGIN)
    text = Page(report(found)).text
    assert text.index("has changed since this was run") < text.index("What the evidence says")


def test_a_report_is_written_at_once(results: StudyResults, tmp_path: Path) -> None:
    path = write_report(results, tmp_path / "deep" / "demo.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [p.name for p in path.parent.iterdir()] == ["demo.html"]
