"""The dashboard in a real browser: what is drawn, reached, announced and followed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard_client import served

from analysis.dashboard.app import PAGES
from sweeps.store import Store

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
