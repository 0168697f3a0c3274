"""docs/studies.md and docs/api.md say what the schema, the parser and the package have."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_args

import pytest

import mm1
from ablations import claim_grammar
from ablations.designs import DesignConfig
from ablations.plan import make_plan
from ablations.study import Claim, StudyFile
from mm1.studies import load_study
from mm1_jax.config.questions import Condition
from mm1_jax.stage_kinds import KINDS

STUDIES = Path("docs/studies.md").read_text(encoding="utf-8")
API = Path("docs/api.md").read_text(encoding="utf-8")


def block(language):
    return re.findall(rf"```{language}\n(.*?)```", STUDIES, re.DOTALL)[0]


EXAMPLES = [line.split("#")[0].strip() for line in block("claims").splitlines()]


@pytest.fixture
def page(tmp_path):
    """The page's study, with these claims beside its own."""

    def made(more=()):
        base = Path("ablations/recipes/mini.yaml").absolute()
        text = block("yaml").replace("../recipes/mini.yaml", str(base))
        lines = "".join(f"  example {n}: {claim!r}\n" for n, claim in enumerate(more))
        path = tmp_path / "study.yaml"
        path.write_text(text.replace("alpha:", f"{lines}alpha:"), encoding="utf-8")
        return make_plan(load_study(path))

    return made


def test_every_key_of_a_study_has_its_row():
    named = {name for row in re.findall(r"^\| `(\w+)` \|", STUDIES, re.MULTILINE) for name in [row]}
    keys = {*StudyFile.model_fields, *DesignConfig.model_fields, *Claim.model_fields} - {"text"}
    assert named == keys


def test_every_kind_of_stage_is_named():
    assert [kind for kind in KINDS if f"`{kind}`" not in STUDIES] == []


def test_the_pages_study_uses_every_key_but_three_with_pages_of_their_own(page):
    plan = page()
    written = re.findall(r"^(\w+):", block("yaml"), re.MULTILINE)
    assert set(written) == set(StudyFile.model_fields) - {"runners", "workload", "exclude"}
    assert [arm.label for arm in plan.arms][:1] == ["as it is"]


def test_every_example_is_a_claim_of_the_pages_study(page):
    assert len(page(EXAMPLES).claims) == len(EXAMPLES) + 2


def parts(value):
    """Every node of a claim that was read."""
    yield value
    if is_dataclass(value):
        for one in fields(value):
            yield from parts(getattr(value, one.name))


def test_every_form_of_the_grammar_has_an_example():
    read = [claim_grammar.parse(text) for text in EXAMPLES]
    nodes = [node for statements in read for one in statements for node in parts(one)]
    forms = {type(node) for node in nodes if is_dataclass(node)}
    assert forms == {*get_args(claim_grammar.Statement), *get_args(claim_grammar.Term)}
    compared = [node for node in nodes if isinstance(node, claim_grammar.Comparison)]
    assert {node.operator for node in compared} == set(claim_grammar._OPERATORS)
    assert any(node.by for node in compared)
    assert any(node.within for node in compared)
    assert any(node.at for node in nodes if isinstance(node, claim_grammar.Effect))
    options = [node.options for node in nodes if hasattr(node, "options")]
    assert {name for one in options for name in one} == set(claim_grammar.OPTIONS)
    assert any(" and " in text for text in EXAMPLES)
    assert any('"' in text for text in EXAMPLES)
    assert any(
        len(statements) == 2 and " and " not in text
        for statements, text in zip(read, EXAMPLES, strict=True)
    )
    assert [condition for condition in get_args(Condition) if f"`{condition}`" not in STUDIES] == []


def test_the_api_page_has_every_function_with_its_arguments():
    rows = dict(re.findall(r"^\| `mm1\.(\w+)(\(.*?\))` \|", API, re.MULTILINE))
    assert set(rows) == set(mm1.__all__)
    for name, arguments in rows.items():
        found = inspect.signature(getattr(mm1, name))
        plain = [
            one.replace(annotation=inspect.Parameter.empty) for one in found.parameters.values()
        ]
        assert arguments.replace('"', "'") == str(inspect.Signature(plain)).replace('"', "'")


def test_what_the_api_page_names_of_results_and_plans_is_there():
    from ablations.plan import Plan
    from analysis.results import StudyResults

    assert {"arms", "trials", "stages", "claims", "warnings"} <= set(Plan.model_fields)
    for name in ("scores", "verdicts", "completeness", "rows"):
        assert hasattr(StudyResults, name)
