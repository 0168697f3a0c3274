"""The examples page: what it shows for an address, its pictures and tables, in a browser too."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas
import pytest
from dash import no_update
from dashboard_client import client_page, served, texts, told

from analysis.dashboard import make_app
from analysis.dashboard.app import shown as page_shown
from analysis.dashboard.examples import claim_addresses
from analysis.dashboard.view import Views
from analysis.results import load_results
from mm1.origin import ORIGIN
from sweeps.store import Store

PAGE = "/study/demo/examples"
SMALL = "encoder.image_size=16"
HOSTILE = "<img src=x onerror=\"document.title='stolen'\">\x1b[31m\u202e=cmd|' /C calc'!A0"


def ready(text: str) -> bool:
    return "Reading examples" not in text


@pytest.fixture(scope="module")
def client(full_store: Store) -> Any:
    return make_app(full_store, origin=ORIGIN).server.test_client()


def shown(client: Any, search: str = "") -> str:
    return told(client_page(client, PAGE, search, ready)["page"])


def attributes(part: Any, name: str) -> list[str]:
    """Every value that a page's components have under a name."""
    found = []
    if isinstance(part, dict):
        found += [part[name]] if isinstance(part.get(name), str) else []
        part = list(part.values())
    for one in part if isinstance(part, list) else []:
        found += attributes(one, name)
    return found


def test_a_question_is_shown_with_every_arm_and_seed(client: Any, full_store: Store) -> None:
    text = shown(client, "?item=easy_vqa/7")
    assert "36 questions" in text
    assert "is there a red shape?" in text
    results = load_results("demo", full_store)
    for arm in results.plan.arms:
        assert arm.label in text.replace("\u200b", "")
    right = sum(
        float(table.set_index("item_id").loc["easy_vqa/7", "score"]) > 0
        for arm in results.plan.arms
        for seed in (1, 2, 3)
        for table in [results.examples(arm.name, seed, "easy_vqa")]
        if table is not None
    )
    page = client_page(client, PAGE, "?item=easy_vqa/7", ready)["page"]
    marks = [kind for kind in attributes(page, "className") if kind.startswith("text ")]
    assert f"{right} of 12 right" in text
    assert marks.count("text right") >= right


def test_the_address_says_what_is_shown(client: Any) -> None:
    assert "6 of 36 questions" in shown(client, "?q=teal&in=reference")
    assert "No question is like that" in shown(client, "?q=nothing+like+this")
    flips = shown(client, f"?b={quote(SMALL)}&show=flips")
    assert "A and B, seed by seed" in flips
    assert "these checkpoints only" in flips
    assert "12 answers" not in shown(client, "?seed=2")
    assert "of 4 right" in shown(client, "?seed=2")
    assert "mean" in shown(client, "?task=emoji_caption")


@pytest.mark.parametrize(
    ("search", "text"),
    [
        ("?item=nobody", "No question nobody is here"),
        ("?task=easy_vpa", "task=easy_vpa is not there; did you mean 'easy_vqa'?"),
        ("?b=encoder.image_size%3D61", "b=encoder.image_size=61 is not there"),
        ("?seed=77", "seed=77 is not there"),
        ("?from=-4&arms=many", "is no number"),
    ],
)
def test_what_is_not_there_is_told(client: Any, search: str, text: str) -> None:
    assert text in shown(client, search)


def test_pictures_are_sent_as_pictures_and_nothing_else(client: Any) -> None:
    page = client_page(client, PAGE, "?item=easy_vqa/3", ready)["page"]
    sources = [one for one in attributes(page, "src") if "picture" in one]
    assert len(sources) == 26
    sent = client.get(sources[0])
    assert (sent.status_code, sent.mimetype) == (200, "image/png")
    assert sent.data.startswith(b"\x89PNG")
    for wrong in ("", "?study=demo", "?study=nobody&task=easy_vqa&item=easy_vqa/1",
                  "?study=demo&task=easy_vqa&item=../../etc/passwd"):  # fmt: skip
        assert client.get(f"/example-picture{wrong}").status_code == 404


def rows(client: Any, name: str, search: str) -> list[dict[str, str]]:
    answer = client.get(f"/csv/{name}{PAGE}{search}")
    assert answer.status_code == 200, answer.data
    return list(csv.DictReader(io.StringIO(answer.text)))


def test_tables_have_what_the_page_shows(client: Any) -> None:
    assert len(rows(client, "answers", "?item=easy_vqa/7")) == 12
    found = rows(client, "questions", "?q=teal&in=reference")
    assert {line["references"] for line in found} == {"teal"}
    assert len(found) == 6
    tests = rows(client, "flips", f"?b={quote(SMALL)}")
    assert [line["seed"] for line in tests] == ["1", "2", "3"]
    assert {line["scope"] for line in tests} == {"these checkpoints only"}


def test_hostile_text_is_shown_as_text(tmp_path: Path, make_plan: Any, fill: Callable) -> None:
    store, plan = Store(tmp_path), make_plan()
    store.register(plan)
    stages = [*plan.answers(plan.trials[0]).values()][:1]
    attempt = store.begin(plan.stages[stages[0]])
    table = pandas.DataFrame(
        {
            "item_id": [HOSTILE, "b"],
            "image_id": [-1, 4],
            "prompt": [HOSTILE, "b"],
            "prediction": [HOSTILE, ""],
            "references": [[HOSTILE], []],
            "score": [1.0, 0.0],
        }
    )
    table.to_parquet(attempt.output / "examples.parquet")
    store.finish(attempt, [], {"seconds": 1.0})
    client = make_app(store, origin=ORIGIN).server.test_client()
    page = client_page(client, PAGE, f"?item={quote(HOSTILE)}", ready)["page"]
    assert not any("\x1b" in one or "\u202e" in one for one in texts(page))
    assert "Not here (not run yet" in told(page)
    assert "DangerouslySetInnerHTML" not in str(page)
    lines = rows(client, "answers", f"?item={quote(HOSTILE)}")
    assert lines[0]["prediction"].startswith("<img")  # as it stands, and no formula
    assert client.get("/example-picture?study=demo&task=easy_vqa&item=b").status_code == 404


def test_a_claim_leads_to_its_examples(client: Any, full_store: Store) -> None:
    results = load_results("demo", full_store)
    address = claim_addresses(results).get("small-is-better")
    assert address is not None
    assert address.startswith(PAGE)
    search = address.removeprefix(PAGE)
    assert re.search(r"of 36 questions|36 questions", shown(client, search))
    overview = client_page(client, "/study/demo/overview")["page"]
    assert address in attributes(overview, "href")


def controls_of(part: Any) -> dict[str, list[str]]:
    """What controls show, as a browser tells it."""
    if isinstance(part, dict) and isinstance(part.get("id"), dict) and "key" in part["id"]:
        value = part.get("value")
        return {part["id"]["key"]: value if isinstance(value, list) else [value] if value else []}
    found = {}
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else []
    for one in inner:
        found |= controls_of(one)
    return found


def test_controls_are_drawn_anew_where_they_show_something_else(full_store: Store) -> None:
    views = Views(full_store, ORIGIN)

    def drawn(search: str, seen: Any, chosen: Any) -> tuple[Any, Any]:
        while True:
            answer = page_shown(views, PAGE, search, seen, chosen, anew=False)
            if answer[3]["version"] and ready(told(answer[2])):
                return answer[1], answer[3]

    controls, seen = drawn("", None, None)
    shows = controls_of(controls)
    assert shows["show"] == ["all"]
    assert shows["b"] == []
    assert drawn("?q=red", seen, shows | {"q": ["red"]})[0] is no_update
    # Nobody has chosen the second arm that flips need.
    flips = controls_of(drawn("?show=flips", seen, shows | {"show": ["flips"]})[0])
    assert flips["show"] == ["flips"]
    assert flips["b"] != []
    # An address that was followed, such as the one before.
    assert controls_of(drawn("?q=red", seen, shows)[0])["q"] == ["red"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 420])
def test_a_browser_walks_through_questions(full_store: Store, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import expect, sync_playwright

    with served(full_store) as address, sync_playwright() as browsers:
        browser = browsers.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto(f"{address}{PAGE}?b={quote(SMALL)}&show=flips")
        page.wait_for_selector(".sides", timeout=60_000)
        heading = page.locator(".one h2").first
        first = heading.inner_text()
        page.get_by_text("next →").first.click()
        expect(heading).not_to_have_text(first, timeout=60_000)
        assert "item=" in page.url  # the address is the state
        page.go_back()
        expect(heading).to_have_text(first, timeout=60_000)
        # What the reader chose stays as it is in the control; what an address says is put there.
        text, count = page.get_by_placeholder("a word of"), page.locator(".listed h2")
        all_of_them = count.inner_text()
        for written in ("zebra", ""):
            text.fill(written)
            text.press("Enter")
            expect(page).to_have_url(re.compile("q=zebra" if written else "flips$"))
            expect(count).to_have_count(0 if written else 1, timeout=60_000)
        page.go_back()
        expect(text).to_have_value("zebra", timeout=60_000)
        page.go_back()
        expect(text).to_have_value("", timeout=60_000)
        expect(count).to_have_text(all_of_them, timeout=60_000)
        picture = page.locator("img.large")
        expect(picture).to_have_js_property("naturalWidth", 64, timeout=60_000)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(page).response["violations"]
        serious = [
            (one["id"], [node["html"][:300] for node in one["nodes"]])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == []
        browser.close()
