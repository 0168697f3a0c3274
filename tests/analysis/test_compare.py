from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from ablations.errors import UserError
from analysis.compare import Comparison, comparison, render, tables
from analysis.escaping import in_latex
from analysis.results import StudyResults, load_results
from sweeps.store import Store

CLAIM_FIELDS = {
    "name", "verdict", "effect", "ci_low", "ci_high", "ci_level", "p_value", "p_adjusted", "n",
    "scope", "reason",
}  # fmt: skip


@pytest.fixture(scope="module")
def results(full_store: Store) -> StudyResults:
    return load_results("demo", full_store)


@pytest.fixture(scope="module")
def made(results: StudyResults) -> Comparison:
    return comparison(results)


def test_json_has_the_promised_fields(results: StudyResults) -> None:
    found = json.loads(render(results, "json"))
    assert found["schema_version"] == 1
    assert set(found["claims"][0]) >= CLAIM_FIELDS
    assert {c["verdict"] for c in found["claims"]} == {"supported", "refuted", "undecided"}
    assert set(found) >= {
        "arms",
        "effects",
        "controls",
        "completeness",
        "noise_floor",
        "notices",
        "warnings",
    }
    assert found["completeness"]["there"] == found["completeness"]["planned"] == 12


def test_json_is_strict_even_where_numbers_are_missing(tmp_path: Path, make_plan, fill) -> None:
    store, plan = Store(tmp_path), make_plan()
    store.register(plan)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    empty = render(load_results("demo", store), "json")
    assert json.loads(empty, parse_constant=refuse)["claims"][0]["effect"] is None
    others = {(t.arm, t.seed) for t in plan.trials} - {("base", 1)}
    fill(store, plan, skip=others, diverged={("base", 1)})
    one = json.loads(render(load_results("demo", store), "json"), parse_constant=refuse)
    assert one["interim"] is True


def test_claims_agree_with_scipy(made: Comparison, results: StudyResults) -> None:
    claims = {claim.name: claim for claim in made.claims}
    seeing = results.score("base", "easy_vqa", "accuracy")
    shuffled = results.score("base", "easy_vqa", "accuracy", condition="shuffled")
    difference = [seeing[seed] - shuffled[seed] for seed in (1, 2, 3)]
    sees = claims["sees"]
    test = scipy.stats.ttest_1samp(difference, 0, alternative="greater")
    assert sees.p_value == pytest.approx(test.pvalue)
    assert sees.effect == pytest.approx(np.mean(difference))
    own = scipy.stats.ttest_1samp(difference, 0).confidence_interval(sees.ci_level)
    assert (sees.ci_low, sees.ci_high) == pytest.approx(tuple(own))


def test_an_interval_never_contradicts_its_verdict(made: Comparison) -> None:
    for claim in made.claims:
        assert claim.ci_low is not None
        assert claim.ci_high is not None
        inside = claim.ci_low <= claim.boundary <= claim.ci_high
        assert inside == (claim.verdict == "undecided"), claim


def test_every_form_prints_the_same_numbers(results: StudyResults, made: Comparison) -> None:
    forms = {form: render(results, form) for form in ("text", "markdown", "latex")}
    forms["latex"] = (
        forms["latex"].replace(r"\ensuremath{-}", "−").replace(r"\ensuremath{\pm}", "±")
    )
    forms = {name: " ".join(text.replace("\\", "").split()) for name, text in forms.items()}
    cells = [cell for table in tables(made) for row in table.rows for cell in row]
    numbers = {cell for cell in cells if re.fullmatch(r"[−+]?\d[\d.]*( (to|±) [−+]?[\d.]+)?", cell)}
    assert len(numbers) > 40
    for name, text in forms.items():
        missing = {number for number in numbers if number not in text}
        assert not missing, name


def test_printed_numbers_are_those_of_the_json(
    results: StudyResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")  # lines of a table break in a narrower terminal
    found = json.loads(render(results, "json"))
    text = render(results, "text")
    for effect in found["effects"]:
        if effect["metric"] != "perplexity":
            assert f"{effect['mean']:+.1f}".replace("-", "−") in text
    for claim in found["claims"]:
        line = next(line for line in text.splitlines() if line.startswith(claim["name"] + " "))
        assert f"{claim['effect']:+.1f}".replace("-", "−") in line
        assert claim["verdict"] in line
    for arm in found["arms"]:
        score = next(s for s in arm["scores"] if s["metric"] == "accuracy")
        assert f"{score['mean']:.1f} ± {score['sd']:.1f}" in text


def test_controls_stand_beside_the_score(made: Comparison, results: StudyResults) -> None:
    base = {c.control: c for c in made.controls if c.arm == "base"}
    assert set(base) == {"shuffled images", "blind", "oracle"}
    assert base["blind"].mean == 65.4
    assert base["oracle"].mean == 67.0
    score = results.score("base", "easy_vqa", "accuracy")
    assert base["blind"].lead == pytest.approx(np.mean(list(score.values())) - 65.4)
    assert base["shuffled images"].lead_low > 0
    others = {c.control for c in made.controls if c.arm != "base"}
    assert others == {"shuffled images"}


def test_no_verdict_before_all_registered_seeds_are_in(tmp_path: Path, make_plan, fill) -> None:
    store, plan = Store(tmp_path), make_plan()
    store.register(plan)
    fill(store, plan, skip={("base", 3)})
    results = load_results("demo", store)
    made = comparison(results)
    assert made.interim
    assert {claim.verdict for claim in made.claims} == {"undecided"}
    assert all(claim.interim and claim.n == 2 for claim in made.claims)
    assert all("2 of 3 seeds" in claim.reason for claim in made.claims)
    for form in ("text", "markdown", "latex"):
        shown = render(results, form)
        assert "interim" in shown
        assert "2/3" in shown
        assert "supported" not in shown
        assert "base seed 3: not there yet" in " ".join(shown.split())


def test_a_claim_of_complete_arms_is_decided_while_others_wait(
    tmp_path: Path, make_plan, fill
) -> None:
    store, plan = Store(tmp_path), make_plan()
    store.register(plan)
    fill(store, plan, skip={("connector.kind=c_abstractor", 3)})
    claims = {claim.name: claim for claim in comparison(load_results("demo", store)).claims}
    assert claims["sees"].verdict == "supported"
    assert claims["type-better"].interim


def test_a_claim_without_a_worst_value_names_the_diverged_trial(
    tmp_path: Path, make_plan, fill
) -> None:
    claim = "score(encoder.image_size=16, task=held_out_text, metric=perplexity) < 50"
    store, plan = Store(tmp_path), make_plan(claims={"reads": claim})
    store.register(plan)
    fill(store, plan, diverged={("encoder.image_size=16", 2)})
    results = load_results("demo", store)
    made = comparison(results)
    (line,) = made.claims
    assert line.verdict == "undecided"
    assert not line.interim  # it will never be in
    assert "encoder.image_size=16 seed 2 diverged" in line.sentence
    arm = next(arm for arm in made.arms if arm.name == "encoder.image_size=16")
    assert arm.diverged_seeds == (2,)
    assert "3/3, 1 diverged" in render(results, "text")
    assert "encoder.image_size=16 seed 2 diverged" in made.warnings


def test_a_study_without_claims_has_effects(tmp_path: Path, make_plan, fill) -> None:
    store, plan = Store(tmp_path), make_plan(seeds=2, claims={})
    store.register(plan)
    fill(store, plan)
    shown = render(load_results("demo", store), "text")
    assert "Claims" not in shown
    assert "Effects on easy_vqa.accuracy" in shown


def test_latex_sets_every_character_as_it_stands() -> None:
    assert in_latex(r"a_b & 50% of {x}^2 ~ $3 #1 \n") == (
        r"a\_b \& 50\% of \{x\}\textasciicircum{}2 \textasciitilde{} \$3 \#1 \textbackslash{}n"
    )


def test_latex_tables_are_balanced_and_have_no_bare_special_characters(
    results: StudyResults,
) -> None:
    latex = render(results, "latex")
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 8
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert latex.count(rule) == 8
    tabulars = re.findall(r"\\begin{tabular}{@{}(\w+)@{}}(.*?)\\end{tabular}", latex, re.DOTALL)
    for columns, body in tabulars:
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        for row in rows:
            assert len(re.findall(r"(?<!\\)&", row)) == len(columns) - 1
            assert not re.search(r"(?<!\\)[_%#$]", row)
    assert latex.isascii()


def test_markdown_tables_keep_their_columns(tmp_path: Path, make_plan, fill) -> None:
    store, plan = Store(tmp_path), make_plan(seeds=2)
    arms = [arm.model_copy(update={"label": f"a|b {arm.label}"}) for arm in plan.arms]
    plan = plan.model_copy(update={"arms": tuple(arms)})
    store.register(plan)
    fill(store, plan)
    for block in re.findall(
        r"(?:^\|.*\n?)+", render(load_results("demo", store), "markdown"), re.M
    ):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1


def test_plain_text_has_no_escape_codes_and_colour_has(results: StudyResults) -> None:
    assert "\x1b" not in render(results, "text")
    assert "\x1b[" in render(results, "text", color=True)


def test_an_unknown_form_names_the_nearest(results: StudyResults) -> None:
    with pytest.raises(UserError, match=r"'latec'; did you mean 'latex'"):
        render(results, "latec")


def test_time_counts_shared_stages_once(made: Comparison) -> None:
    assert made.seconds == pytest.approx(12 * (48.5 + 4 * 3.1))
    assert math.isclose(made.arms[0].seconds_per_trial, 48.5 + 4 * 3.1)


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_a_claim_that_was_known_before_is_called_exploratory(
    tmp_path: Path, make_plan, fill, form: str
) -> None:
    store, plan = Store(tmp_path), make_plan()
    fill(store, plan)
    store.register(plan)  # after the results
    printed = " ".join(render(load_results("demo", store), form).split())
    assert printed.count("exploratory: its results were known before") == len(plan.claims)


def test_many_scores_have_a_row_each(made: Comparison, monkeypatch) -> None:
    wide = next(table for table in tables(made) if table.title.startswith("Scores"))
    monkeypatch.setattr("analysis.compare.WIDEST", 2)
    long = next(table for table in tables(made) if table.title.startswith("Scores"))
    assert long.header == ("arm", *(row[0] for row in wide.rows))
    assert tuple(zip(long.header, *long.rows, strict=True)) == (wide.header, *wide.rows)


@pytest.mark.parametrize("columns", ["40", "80"])
def test_no_name_and_no_number_is_cut_in_a_narrow_terminal(full_store, monkeypatch, columns):
    """Cut names become equal, and a column of names was left out altogether."""
    monkeypatch.setenv("COLUMNS", columns)
    text = render(load_results("demo", full_store), "text")
    assert "~" not in text
    assert "…" not in text
    for table in text.split("\n\n"):
        lines = table.split("\n")
        if lines[0] == "Cost":
            assert lines[2].startswith("arm ")
            assert lines[3].startswith("base ")
