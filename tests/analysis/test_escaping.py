"""Other people's text is text in every form."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from dashboard_client import figures_of, page_of

from ablations.shown_text import in_html, in_terminal
from analysis.compare import render
from analysis.dashboard.app import PAGES as DASHBOARD
from analysis.escaping import in_latex, in_markdown, in_pdf
from analysis.report.writing import report
from analysis.results import load_results
from sweeps.store import Store

PAGES = [f"/study/demo/{page.name}" for page in DASHBOARD if page.of_study]
HOSTILE = "<script>alert(1)</script> \x1b[2J\u202egpj.exe [red]x[/red] |`*_`| https://a:b@h/?sig=c"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
        ("a|b *c* [d](e) `f` ~~g~~", r"a\|b \*c\* \[d\](e) \`f\` \~\~g\~\~"),
        ("easy_vqa.accuracy _x_", r"easy_vqa.accuracy \_x\_"),
        ("# not a heading", r"\# not a heading"),
        ("- no list\nstill the line", r"\- no list still the line"),
        ("1. no list", r"1\. no list"),
        ("−15.2 and +3.4", "−15.2 and +3.4"),
        ("\x1b[31m\u202e", r"\\x1b\[31m\\u202e"),
    ],
)
def test_markdown_is_shown_as_written(text: str, shown: str) -> None:
    assert in_markdown(text) == shown


def test_one_function_for_each_form() -> None:
    assert in_html("<b>\x1b\u202e\"'") == "&lt;b&gt;\\x1b\\u202e&quot;&#x27;"
    assert in_latex("50% \x1b\n\\input{x}") == (
        r"50\% \textbackslash{}x1b \textbackslash{}input\{x\}"
    )
    assert in_latex("-- `a' [b] *c* α≤1 中e\u0301") == (
        r"-{}- \textasciigrave{}a' {[}b] {*}c{*} \ensuremath{\alpha}\ensuremath{\leq}1 {[U+4E2D]}é"
    )
    assert in_pdf("#x $y$ 中\x1b e\u0301") == r"#x $y$ [U+4E2D]\x1b é"
    assert in_terminal("[red]\x1b[0m").plain == r"[red]\x1b[0m"


@pytest.fixture
def hostile(tmp_path: Path, make_plan, fill) -> Store:
    store, plan = Store(tmp_path), make_plan(seeds=2, claims={HOSTILE: "score(base) > 1"})
    arms = [arm.model_copy(update={"label": f"{arm.label} {HOSTILE}"}) for arm in plan.arms]
    changes = {"question": HOSTILE, "arms": tuple(arms), "warnings": (HOSTILE,), "source": HOSTILE}
    plan = plan.model_copy(update=changes)
    store.register(plan)
    fill(store, plan, skip={("base", 2)})
    missing = next(trial for trial in plan.trials if (trial.arm, trial.seed) == ("base", 2))
    store.record_failure(
        missing.stages["multimodal"], "one", {"error": HOSTILE, "traceback": HOSTILE}
    )
    return store


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "json", "html", "dashboard"])
def test_nothing_of_a_hostile_study_is_obeyed(hostile: Store, form: str) -> None:
    results = load_results("demo", hostile)
    if form == "html":
        told = report(results)
    elif form == "dashboard":
        shown = [page_of(hostile, path) for path in ("/", *PAGES)]
        told = json.dumps(shown, ensure_ascii=False)
    else:
        told = render(results, form)
    assert "gpj.exe" in told
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", told)
    assert "a:b@" not in told
    assert "sig=c" not in told
    if form in ("markdown", "html"):
        assert "<script" not in told
    if form == "dashboard":  # Plotly reads some tags in texts
        figures = [one for page in shown for one in figures_of(page)]
        assert len(figures) > 1
        assert "<script" not in json.dumps(figures)
