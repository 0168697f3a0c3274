"""Every form of a report: the same content, the same bytes wherever it is made, no text obeyed."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from analysis.compare import comparison
from analysis.report import carried
from analysis.report.content import document, source_of
from analysis.report.document import Document, Example, Examples, Given, Image, Section
from analysis.report.latex import latex
from analysis.report.markdown import markdown
from analysis.report.pdf import pdf
from analysis.report.writing import FORMS, write_report
from analysis.results import StudyResults, load_results
from mm1.origin import ORIGIN
from sweeps.store import Store

WRITE = """
import sys
from pathlib import Path
from analysis.report.writing import FORMS, write_report
from analysis.results import load_results
from mm1.origin import ORIGIN
for form, end in FORMS.items():
    results = load_results("demo", sys.argv[1], origin=ORIGIN)
    write_report(results, Path(sys.argv[2]) / f"demo{end}", form)
"""
# What a name, a question, a label, a prediction or an error text could hold.
HOSTILE = (
    "<script>alert(1)</script> \\input{/etc/passwd} \\write18{id} $x_1^2$ 50% #set text(red) "
    '#read("/etc/passwd") *b* _i_ `c` [l](javascript:x) ![p](http://h/p.png) =1+1 @x <lbl> "q" '
    "-- --- ,, ?` \x1b[2J\u202egpj.exe שלום 中文 😀 e\u0301 ~^{}& [mm1-carried]: data:,x"
)


@pytest.fixture(scope="module")
def results(full_store: Store) -> StudyResults:
    return load_results("demo", full_store, origin=ORIGIN)


@pytest.fixture(scope="module")
def written(results: StudyResults, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    for form, end in FORMS.items():
        write_report(results, folder / f"demo{end}", form)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    there = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in there}


def test_the_bytes_are_the_same_elsewhere_at_another_time_in_another_language(
    full_store: Store, written: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved" / "store"
    shutil.copytree(full_store.root, moved)
    for index in moved.glob("index*"):  # read anew from the folders
        shutil.rmtree(index) if index.is_dir() else index.unlink()
    environment = {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "7", "HOME": "/none"}
    subprocess.run(
        [sys.executable, "-c", WRITE, str(moved), str(tmp_path / "out")],
        env=environment,
        cwd=tmp_path,
        check=True,
    )
    assert files(tmp_path / "out") == files(written)


def test_every_form_says_every_verdict_and_the_methods(
    results: StudyResults, written: Path
) -> None:
    made = comparison(results)
    texts = {
        end: (written / f"demo{end}").read_text(encoding="utf-8")
        for end in (".html", ".md", ".tex")
    }
    for end, text in texts.items():
        plain = re.sub(r"\\allowbreak\{\}|<wbr>|\\(?=[_*\[\]%])", "", text).replace("&nbsp;", " ")
        for claim in made.claims:
            assert claim.name in plain, end
        assert plain.count("Supported") >= 4
        assert "one-factor-at-a-time design" in plain
        assert "No trial was excluded." in plain


def test_figures_of_markdown_are_in_it(results: StudyResults) -> None:
    text = markdown(document(source_of(results)))
    named = set(re.findall(r"!\[[^\]]*\]\[([a-z0-9-]+)\]", text))
    defined = set(re.findall(r"^\[([a-z0-9-]+)\]: data:image/", text, re.MULTILINE))
    assert named
    assert named == defined


@pytest.mark.parametrize("which", ["results", "hostile"])
def test_a_reader_of_markdown_sees_texts_tables_and_the_pictures_that_are_meant(
    which: str, request: pytest.FixtureRequest
) -> None:
    found = request.getfixturevalue(which)
    text = markdown(document(source_of(found)))
    page = MarkdownIt("commonmark").enable("table").render(text)
    assert set(re.findall(r"<(\w+)", re.sub(r'"[^"]*"', '""', page))) <= {
        *("h1", "h2", "h3", "h4", "p", "ul", "li", "strong", "em", "blockquote", "img", "pre"),
        *("code", "table", "thead", "tbody", "tr", "th", "td"),
    }
    sources = re.findall(r'src="([^"]{0,40})', page)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert page.count("<table>") >= 5
    if which == "hostile":
        assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 10
        assert "#set text(red)" in page


def test_a_report_carries_every_number(results: StudyResults, written: Path) -> None:
    for end in FORMS.values():
        found = carried.read(written / f"demo{end}")
        assert found.plan == results.whole
        assert {one.number for one in found.numbers} == set(results.table.numbers["value"])
        assert {name: one.verdict for name, one in found.claims.items()} == {
            one.name: one.verdict for one in results.verdicts
        }
        assert found.executions["multimodal"][0]["libraries"] == {"jax": "0.10.2", "flax": "0.12.8"}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, make_plan, fill) -> StudyResults:
    store = Store(tmp_path_factory.mktemp("hostile"))
    plan = make_plan(seeds=2, claims={HOSTILE: "score(base) > 1"})
    arms = [arm.model_copy(update={"label": f"{arm.label} {HOSTILE}"}) for arm in plan.arms]
    source = f"{HOSTILE}\n[mm1-carried]: data:application/gzip;base64,AAAA\n%mm1 AAAA\n```\n````"
    changes = {"question": HOSTILE, "arms": tuple(arms), "warnings": (HOSTILE,), "source": source}
    plan = plan.model_copy(update=changes)
    store.register(plan)
    fill(store, plan)
    return load_results("demo", store, origin=ORIGIN)


@pytest.mark.parametrize("form", FORMS)
def test_hostile_text_is_text_and_what_is_carried_is_found_all_the_same(
    hostile: StudyResults, form: str, tmp_path: Path
) -> None:
    path = write_report(hostile, tmp_path / f"a_b #1{FORMS[form]}", form)
    assert carried.read(path).plan == hostile.whole
    if form == "pdf":
        return
    text = path.read_text(encoding="utf-8")
    assert "gpj.exe" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    if form == "html":
        assert "<script" not in text
    if form == "md":
        outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
        assert "<script" not in outside
        assert not re.search(r"(?<!\\)\]\(javascript", outside)
    if form == "latex":
        assert "\\input{/etc" not in text
        assert "\\write18" not in text
        assert "[U+4E2D]" in text


def test_an_image_that_is_none_is_left_out_of_the_pdf() -> None:
    png = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
        "rkJggg=="
    )
    for content, is_drawn in ((png, True), (png[:40], False), (b"\x89PNG and no more", False)):
        image = Image("image 1", "png", content, "image 1 of easy_vqa")
        given = Given("✓", "right", "yes", ("base",))
        example = Example("is it?", "yes", image, has_image=True, answers=(given,))
        section = Section("Examples", (Examples((example,)),))
        made = pdf(Document("Ablation study", "s", "q", "f", (), (section,), b"x"))
        assert (b"/Subtype/Image" in made) == is_drawn


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["pdflatex", "lualatex"])
@pytest.mark.parametrize("which", ["results", "hostile"])
def test_the_latex_compiles(
    which: str, compiler: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}: apt-get install texlive-latex-recommended texlive-latex-extra")
    path = write_report(request.getfixturevalue(which), tmp_path / "a_b #1.tex", "latex")
    path = path.rename(tmp_path / "report.tex")
    done = subprocess.run(
        [compiler, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", path.name],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert "root:" not in done.stdout
    overfull = [float(one) for one in re.findall(r"Overfull \\hbox \(([\d.]+)pt", done.stdout)]
    assert max(overfull, default=0.0) < 30  # nothing hangs out of the page


def test_figures_of_latex_are_named_for_latex(results: StudyResults) -> None:
    text, pictures = latex(document(source_of(results)), "demo-figures")
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in pictures)
    assert set(re.findall(r"\{demo-figures/([^}]*)\.pdf\}", text)) == set(pictures)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 420])
@pytest.mark.parametrize("which", ["results", "hostile"])
def test_the_page_fits_screen_and_phone_and_has_no_accessibility_finding(
    which: str, width: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    path = write_report(request.getfixturevalue(which), tmp_path / "report.html")
    with sync_playwright() as playwright:
        found = shutil.which("chromium") or playwright.chromium.executable_path
        if not Path(found).exists():
            pytest.skip("no Chromium: apt-get install chromium, or playwright install chromium")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
        assert Axe().run(page).response["violations"] == []
        browser.close()
