"""The dashboard in a real browser: what is drawn, reached, announced and followed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard_client import TOKEN, served

from analysis.dashboard.app import PAGES
from sweeps.control import ask
from sweeps.live import read_live
from sweeps.store import Store

SLOW = """
study: slow
question: Does it stop when it is told to?
workload:
  command: sh train.sh {config} {output}
  code: [train.sh]
  metrics: {val.accuracy: {goal: maximize, worst: 0}}
base: base.yaml
design: {one_at_a_time: {rate: [1, 2]}}
seeds: 2
primary_metric: val.accuracy
"""
SCRIPT = """
sleep 60
echo '{"val.accuracy": 1}' > "$2/metrics.jsonl"
"""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
OWN = [page.name for page in PAGES if page.of_study]
WAIT = 60_000  # milliseconds; a loaded machine is slow, a broken page never comes


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Reader:
    """Somebody with a browser; what goes wrong in it is kept."""

    def __init__(self, browser: Any, address: str, width: int = 1400, theme: str = "light"):
        self.address, self.faults = address, []
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._heard)
        self.page.on("request", self._asked)

    def _heard(self, message: Any) -> None:
        if message.type == "error":
            self.faults.append(f"{message.text} {message.location.get('url', '')}")

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.faults.append(f"asked for {request.url}")

    def go(self, path: str, text: str = "") -> None:
        """Open a page and wait until it shows something, or some text."""
        self.page.goto(self.address + path)
        self.see(text)

    def see(self, text: str = "") -> None:
        """Wait for a text in the page."""
        self.page.wait_for_selector("#page > *")
        self.until("!document.querySelector('#page').textContent.startsWith('Working')")
        if text:
            self.page.locator("#page").get_by_text(text).first.wait_for(state="attached")

    def until(self, expression: str) -> None:
        """Wait until an expression is true; the page itself may evaluate none (its policy)."""
        end = time.monotonic() + WAIT / 1000
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, expression
            self.page.wait_for_timeout(100)

    def check(self) -> None:
        """Nothing went wrong, nothing is wider than the screen, and axe finds nothing serious."""
        from axe_playwright_python.sync_playwright import Axe

        self.until(
            "[...document.querySelectorAll('.dash-graph')].every(g => g.querySelector('svg'))"
        )
        wide = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"{self.page.url} is {wide} pixels too wide"
        found = Axe().run(self.page).response["violations"]
        serious = [
            (one["id"], [node["html"][:200] for node in one["nodes"][:3]])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert not serious, (self.page.url, serious)
        assert not self.faults, self.faults


@pytest.fixture
def read(browser: Any) -> Iterator[Callable[..., Reader]]:
    readers = []

    def open_for(address: str, *args: Any) -> Reader:
        readers.append(Reader(browser, address, *args))
        return readers[-1]

    yield open_for
    for reader in readers:
        reader.context.close()


def test_a_reader_goes_from_a_study_to_its_curves_and_back(full_store: Store, read: Any) -> None:
    with served(full_store) as address:
        reader = read(address)
        page = reader.page
        reader.go("/study/demo/overview", "Supported")
        reader.check()
        page.get_by_role("link", name="Curves").click()
        page.wait_for_url("**/study/demo/curves")
        page.locator("#controls").get_by_text("single runs").click()
        page.wait_for_url("**/curves?runs=single")
        reader.until("document.querySelector('.js-plotly-plot').data.length === 12")
        assert page.title().startswith("demo · Curves")
        page.go_back()
        page.wait_for_url("**/study/demo/curves")
        reader.until("document.querySelector('.js-plotly-plot').data.length === 8")
        assert page.get_by_label("mean and band").is_checked()
        page.go_back()
        page.wait_for_url("**/study/demo/overview")
        reader.see("Supported")
        assert not reader.faults, reader.faults


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 420])
def test_every_page_is_sound(full_store: Store, read: Any, width: int, theme: str) -> None:
    with served(full_store) as address:
        reader = read(address, width, theme)
        for path in ["/", "/across?study=demo", *(f"/study/demo/{name}" for name in OWN)]:
            reader.go(path)
            reader.check()
        reader.go("/study/demo/trial?arm=base&seed=1", "Config")
        reader.check()


@pytest.mark.slow
def test_a_study_that_runs_is_followed(tmp_path: Path, make_plan, fill, read: Any) -> None:
    store, plan = Store(tmp_path), make_plan(seeds=2)
    with served(store) as address:
        reader = read(address)
        reader.go("/", "No study has run")
        reader.check()
        store.register(plan)
        reader.see("8 waiting")
        fill(store, plan, skip={(trial.arm, trial.seed) for trial in plan.trials if trial.seed > 1})
        reader.see("4 done")
        reader.go("/study/demo/overview", "1 of 2 seeds")
        fill(store, plan)
        reader.see("exactly once")
        reader.check()


@pytest.mark.slow
def test_what_a_reader_did_to_a_page_stays_when_it_is_drawn_anew(
    tmp_path: Path, make_plan, fill, read: Any
) -> None:
    store, plan = Store(tmp_path), make_plan(seeds=6)
    store.register(plan)

    def finish(seed: int) -> None:
        later = {(trial.arm, trial.seed) for trial in plan.trials if trial.seed > seed}
        fill(store, plan, skip=later)

    def another_seed(seed: int) -> None:
        """With which all of the page is drawn anew."""
        page.evaluate("document.querySelector('#page > *').isOld = true")
        finish(seed)
        reader.until("!document.querySelector('#page > *').isOld")

    finish(1)
    with served(store, token=TOKEN, actions=True) as address:
        reader = read(address, 420)
        page = reader.page
        reader.go(f"/study/demo/notes?token={TOKEN}", "Add the note")
        note = page.get_by_placeholder("A note, as plain text")
        note.press_sequentially("half a no")
        page.locator(".wide").last.evaluate("one => one.scrollTo(30, 0)")
        another_seed(2)
        page.keyboard.type("te")  # where the reader was
        assert page.locator(".wide").last.evaluate("one => one.scrollLeft") == 30
        assert note.input_value() == "half a note"
        page.get_by_role("button", name="Add the note").click()
        reader.see("half a note")
        reader.until("document.querySelector('#note-text').value === ''")
        reader.go("/study/demo/curves")
        page.get_by_text("Show the code").click()
        another_seed(3)
        assert page.locator(".code").get_attribute("open") is not None
        page.get_by_text("Show the code").click()
        another_seed(4)
        assert page.locator(".code").get_attribute("open") is None
        reader.go("/study/demo/trial")
        for _ in range(2):  # the highest first
            page.locator(".ag-header-cell[col-id=seed]").click()
        page.locator(".ag-header-cell[col-id=label] .ag-header-cell-filter-button").click()
        page.get_by_label("Filter Value").first.fill("abstractor")
        seeds = (
            "[...document.querySelectorAll('.ag-row [col-id=seed]')]"
            ".map(cell => cell.textContent).join(' ')"
        )
        reader.until(f"{seeds} === '6 5 4 3 2 1'")
        another_seed(5)
        reader.until(f"{seeds} === '6 5 4 3 2 1'")
        assert not reader.faults, reader.faults


@pytest.mark.slow
def test_a_run_is_paused_resumed_and_cancelled_from_its_page(tmp_path: Path, read: Any) -> None:
    for name, text in (("study.yaml", SLOW), ("base.yaml", "rate: 1\n"), ("train.sh", SCRIPT)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    store = Store(tmp_path / ".mm1")

    def until_the_run_is(state: str) -> None:
        end = time.monotonic() + WAIT / 1000
        while (live := read_live(store.objects, "slow")) is None or live.state != state:
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < end, live
            time.sleep(0.1)

    command = [sys.executable, "-m", "mm1", "run", "study.yaml", "--mlflow", "off"]
    run = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )
    try:
        until_the_run_is("running")
        with served(store, token=TOKEN, actions=True) as address:
            stranger, reader = read(address), read(address)
            reader.go(f"/study/slow/overview?token={TOKEN}", "A run is running")
            stranger.go("/study/slow/overview", "A run is running")
            reader.check()
            assert stranger.page.locator("#run-pause").count() == 0
            reader.page.get_by_role("button", name="Pause").click()
            until_the_run_is("paused")
            stranger.see("A run is paused")
            reader.page.get_by_role("button", name="Resume").click()
            until_the_run_is("running")
            stranger.see("A run is running")
            reader.page.get_by_text("Cancel…").click()
            ask(store.objects, "slow", "pause")  # by somebody else, as the page is drawn anew
            reader.see("A run is paused")
            reader.page.get_by_role("button", name="Save what runs and end the run").click()
            told = "".join(run.communicate(timeout=WAIT / 1000))
            assert run.returncode == 130, told
            assert "slow was cancelled by" in told
            stranger.until("!document.querySelector('#page').textContent.includes('A run is')")
            assert not reader.faults + stranger.faults
    finally:
        run.kill()
        run.wait()


@pytest.mark.slow
def test_broken_stores_and_addresses_are_told(full_store: Store, tmp_path: Path, read: Any) -> None:
    shutil.copytree(full_store.root, tmp_path / "store")
    for place in (tmp_path / "store").glob("studies/demo/*/plan.json"):
        place.write_text("{", encoding="utf-8")
    with served(Store(tmp_path / "store")) as address:
        reader = read(address)
        reader.go("/", "damaged")
        reader.go("/study/demo/overview", "damaged")
        reader.check()
        reader.go("/study/nosuch/overview", "no study")
        reader.go("/nosuch", "no such page")
        reader.check()


@pytest.mark.slow
def test_hostile_names_do_nothing(tmp_path: Path, make_plan, fill, add_images, read: Any) -> None:
    hostile = '<img src=x onerror="window.hit=1"> {{7*7}} javascript:window.hit=1 \u202e'
    store, plan = Store(tmp_path), make_plan(seeds=2, claims={hostile: "score(base) > 1"})
    arms = [arm.model_copy(update={"label": f"{arm.label} {hostile}"}) for arm in plan.arms]
    plan = plan.model_copy(
        update={"question": hostile, "arms": tuple(arms), "warnings": (hostile,)}
    )
    store.register(plan)
    fill(store, plan)
    add_images(store)
    with served(store) as address:
        reader = read(address)
        for path in ["/", "/across?study=demo", *(f"/study/demo/{name}" for name in OWN)]:
            reader.go(path)
            assert reader.page.evaluate("window.hit") is None, path
            assert reader.page.locator("#page img[src=x]").count() == 0
            assert not reader.faults, reader.faults


@pytest.mark.slow
def test_figures_are_saved_and_views_kept(full_store: Store, read: Any) -> None:
    with served(full_store) as address:
        reader = read(address)
        page = reader.page
        reader.go("/study/demo/curves?runs=single")
        page.wait_for_selector(".js-plotly-plot svg")
        for kind, first in (("SVG", b"<svg"), ("PNG", b"\x89PNG")):
            with page.expect_download() as saved:
                page.get_by_role("button", name=kind).click()
            assert Path(saved.value.path()).read_bytes().startswith(first)
        with page.expect_download() as saved:
            page.get_by_role("link", name="CSV").click()
        assert Path(saved.value.path()).read_bytes().startswith(b"arm,seed,step,value")
        page.get_by_text("Views", exact=True).click()
        page.get_by_label("Save this view as").fill("my curves")
        page.get_by_role("button", name="Save", exact=True).click()
        reader.go("/")
        page.get_by_text("Views", exact=True).click()
        page.get_by_role("link", name="my curves").click()
        page.wait_for_url("**/study/demo/curves?runs=single")
        page.keyboard.press("Escape")
        assert not reader.faults, reader.faults


@pytest.mark.slow
def test_pages_are_reached_by_keyboard(full_store: Store, read: Any) -> None:
    with served(full_store) as address:
        reader = read(address)
        page = reader.page
        reader.go("/study/demo/overview", "Supported")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.keyboard.press("Enter")
        reader.until("document.activeElement.id === 'main'")
        link = page.get_by_role("link", name="Factors")
        link.focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/study/demo/factors")
        current = "document.querySelector('nav a[aria-current=page]')"
        reader.until(f"{current} && {current}.innerText === 'Factors'")
