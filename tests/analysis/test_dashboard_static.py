"""The dashboard as files: every link leads to a file that is there, and nothing else is loaded."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from ablations.errors import UserError
from analysis.dashboard import static
from analysis.dashboard.static import export
from mm1.origin import ORIGIN
from sweeps.store import Store


class Read(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.targets: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.targets += [one or "" for name, one in attrs if name in ("href", "src")]


@pytest.fixture(scope="module")
def folder(full_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("static") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(static, "QUESTIONS", 4)
        export(full_store, "demo", place, ORIGIN)
    return place


def test_every_link_leads_to_a_file_that_is_there(folder: Path) -> None:
    pages = list(folder.glob("*.html"))
    assert {"index.html", "overview.html", "curves.html", "examples.html"} <= {
        page.name for page in pages
    }
    for page in pages:
        for target in Read(page.read_text(encoding="utf-8")).targets:
            if target != "data:,":
                assert (folder / unquote(target)).is_file(), f"{page.name}: {target}"


def test_pages_have_what_the_dashboard_shows(folder: Path) -> None:
    overview = (folder / "overview.html").read_text(encoding="utf-8")
    assert "What matters most for a small model" in overview
    assert "resolution-over-type" in overview
    claim = re.findall(r'href="(examples-\d+\.html)"', overview)[0]
    behind = (folder / claim).read_text(encoding="utf-8")
    assert "Every arm and seed" in behind
    assert len(list((folder / "files").glob("*.png"))) == 6  # each picture once
    assert list((folder / "files").glob("*.csv"))


def test_texts_are_texts(folder: Path) -> None:
    found = [Read(page.read_text(encoding="utf-8")).tags for page in folder.glob("*.html")]
    together = "".join(page.read_text(encoding="utf-8") for page in folder.glob("ex*.html"))
    assert "&lt;b&gt;triangle&lt;/b&gt;" in together  # a prediction of the fixture
    assert "<b>triangle" not in together
    assert all("iframe" not in tags and "form" not in tags for tags in found)


def test_a_place_that_is_there_is_left_alone(full_store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is there already"):
        export(full_store, "demo", tmp_path)
    with pytest.raises(UserError, match="no study 'nobody'"):
        export(full_store, "nobody", tmp_path / "out")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_browser_opens_it_from_the_disk(folder: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 420, "height": 900})
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: wrong.append(asked.url) if "://" in asked.url and not
                asked.url.startswith(("file:", "data:", "blob:")) else None)  # fmt: skip
        page.goto((folder / "index.html").as_uri())
        page.wait_for_url("**/overview.html")
        page.click("nav >> text=Curves")
        page.wait_for_selector(".main-svg")
        page.click("nav >> text=Examples")
        page.wait_for_selector(".sides")
        assert wrong == []
        browser.close()
