"""Edits of the real source: which stages are others after them, and which stay what they are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from ablations import identity, source_facts
from ablations.workload import Code
from mm1_jax.config import connector, encoder, language_model
from mm1_jax.config.recipe import Recipe
from mm1_jax.evaluation.official.catalogue import OFFICIAL
from mm1_jax.evaluation.task_records import TASKS
from mm1_jax.stage_kinds import KINDS
from mm1_jax.training import multimodal_training
from mm1_jax.training.multimodal_training import train
from mm1_jax.workload import (
    EVALUATIONS,
    RECIPE,
    code_fingerprints,
    evaluations,
    modules_for,
    part_of,
    trainings,
)

ROOT = Path(__file__).parents[2]
TRAININGS = {"encoder", "language_model", "multimodal", "sft"}
OWN_TASKS = set(TASKS) - set(OFFICIAL)
OFFICIAL_TASKS = {"vqav2", "docvqa", "hellaswag"}
EVERYTHING = TRAININGS | OWN_TASKS | OFFICIAL_TASKS | {"weights"}


def codes() -> dict[str, Code]:
    """Kind of training, or task → what its code is."""
    found = {name: Code(module=kind.code) for name, kind in KINDS.items()}
    for task in OWN_TASKS | OFFICIAL_TASKS:
        module = KINDS[EVALUATIONS[part_of(task)]].code
        found[task] = Code(module=module, also=modules_for(task))
    return {name: found[name] for name in EVERYTHING}


def fingerprints() -> dict[str, str]:
    return {name: identity.fingerprint_of(code) for name, code in codes().items()}


@pytest.fixture(scope="module")
def before():
    return fingerprints()


@pytest.fixture
def changed(before, edit_source):
    """Edit a file in memory → names of what is another stage then."""

    def edit(file: str, old: str, new: str) -> set[str]:
        edit_source(file, old, new)
        after = fingerprints()
        return {name for name in EVERYTHING if after[name] != before[name]}

    return edit


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        # messages of errors
        ("mm1_jax/training/loop.py", "after step {step} of", "it was step {step} of"),
        ("mm1_jax/config/encoder.py", "is not divisible by patch_size", "does not divide by"),
        ("mm1_jax/images/pictures.py", "pixels are {kind}", "pixels are {kind} or so"),
        ("mm1_jax/data/own/suitability.py", "is not what", "is other than"),
        ("mm1_jax/data/own/own_source.py", "cannot be decoded", "cannot be read as an image"),
        ("ablations/errors.py", "; did you mean", "; is it"),
        # what is logged
        ("mm1_jax/evaluation/asking.py", "items are asked again", "items are asked anew"),
        ("mm1_jax/scale/sharding.py", "it is not cut there", "there it is whole"),
        # docstrings, comments, descriptions
        ("mm1_jax/model/layers.py", '"""', '"""Also: '),
        ("mm1_jax/training/loop.py", "# A step that went wrong", "# Whatever went wrong, it"),
        ("mm1_jax/config/encoder.py", "pixels per side of the square", "sides of the square"),
        # what is planned
        ("mm1_jax/scale/costs.py", "SECONDS_PER_FLOP = 1.5e-11", "SECONDS_PER_FLOP = 2e-11"),
        ("mm1_jax/config/connector.py", "4.0 * patches * width**2", "8.0 * patches * width**2"),
        ("mm1_jax/config/encoder.py", "4.0 * self.tokens**2", "2.0 * self.tokens**2"),
        ("mm1_jax/config/language_model.py", "2.0 * self.layers * 3", "1.0 * self.layers * 3"),
        ("mm1_jax/evaluation/task_records.py", "9_673", "9_674"),
        # reading from elsewhere, and what is told meanwhile
        ("mm1_jax/data/files/urls.py", "TRIES = 5", "TRIES = 7"),
        ("mm1_jax/data/files/folder.py", "_OPEN_FILES = 1024", "_OPEN_FILES = 512"),
        ("mm1_jax/training/speed.py", '"tokens_per_second"', '"tokens_a_second"'),
        ("sweeps/worker.py", "import", "import os, "),
    ],
)
def test_what_changes_no_result_makes_no_stage_another(changed, file, old, new):
    assert changed(file, old, new) == set()


READ_BY = {  # what decides → what is another stage after an edit
    ("mm1_jax/model/decoder.py", "import"): EVERYTHING,
    ("mm1_jax/model/layers.py", "return"): EVERYTHING,
    ("mm1_jax/data/batches/packing.py", "return"): EVERYTHING - {"weights"},
    ("mm1_jax/training/loop.py", "return"): TRAININGS | {"emoji_probe", "emoji_retrieval"},
    ("mm1_jax/training/schedule.py", "return"): TRAININGS | {"emoji_probe", "emoji_retrieval"},
    ("mm1_jax/training/contrastive.py", "return"): {"encoder", "emoji_probe", "emoji_retrieval"},
    ("mm1_jax/data/batches/pipeline.py", "return"): {"language_model", "multimodal", "sft"},
    ("mm1_jax/training/instruction_tuning.py", "return"): {"sft"},
    ("mm1_jax/evaluation/metrics/captions.py", "return"): {"emoji_caption"},
    ("mm1_jax/evaluation/metrics/exact_match.py", "return"): {
        *("easy_vqa", "emoji_questions", "emoji_glossary")
    },
    ("mm1_jax/evaluation/metrics/likelihood.py", "return"): {
        *("held_out_text", "pretrained_text", *OFFICIAL_TASKS)
    },
    ("mm1_jax/evaluation/tasks/easy_vqa.py", "return"): {"easy_vqa"},
    ("mm1_jax/evaluation/tasks/emoji_probe.py", "return"): {"emoji_probe"},
    ("mm1_jax/evaluation/ngrams.py", "return"): {"pretrained_text"},
    ("mm1_jax/evaluation/official/scoring.py", "return"): OFFICIAL_TASKS,
    ("mm1_jax/evaluation/benchmarks/docvqa.py", "return"): {"docvqa"},
    ("mm1_jax/evaluation/metrics/anls.py", "return"): {"docvqa"},
}


@pytest.mark.parametrize(("file", "word"), READ_BY)
def test_what_decides_makes_others_of_exactly_the_stages_that_use_it(changed, file, word):
    edited = "import antigravity; import" if word == "import" else "return 0 or"
    assert changed(file, f"{word} ", f"{edited} ") == READ_BY[file, word]


def test_what_is_planned_is_what_was_edited():
    """The code of the works that a recipe comes to is what the other tests look at."""
    recipe = Recipe.model_validate(
        {"encoder_pretraining": {}, "language_model_pretraining": {}, "sft": {}}
    )
    works = trainings(recipe, {})
    assert {kind: work.code for kind, work in works.items()} == {
        kind: Code(module=KINDS[kind].code) for kind in TRAININGS
    }
    for _, asked, work in evaluations(recipe, works, {}, RECIPE.asked(recipe)):
        assert work.code == codes()[asked.task]


def test_make_code_prints_what_is_planned(before):
    printed = code_fingerprints()
    assert {name: printed[name] for name in EVERYTHING} == before
    assert set(printed) - set(TASKS) == TRAININGS | {"weights"}


def test_what_says_that_it_decides_nothing_is_known():
    marked = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "mm1_jax").rglob("*.py")
        if not source_facts.source_facts(file).decides
    }
    assert marked == {
        "mm1_jax/data/files/__init__.py",
        "mm1_jax/data/own/suitability.py",
        "mm1_jax/scale/costs.py",
        "mm1_jax/training/speed.py",
    }


def marked_functions() -> list[tuple[type, str]]:
    """Class and name of each function of a config that says that it decides nothing."""
    return [
        (getattr(module, kind.name), function.name)
        for module in (connector, encoder, language_model)
        for kind in source_facts.parsed(Path(module.__file__)).body
        if isinstance(kind, ast.ClassDef)
        for function in kind.body
        if isinstance(function, ast.FunctionDef) and is_marked(function)
    ]


def is_marked(function: ast.FunctionDef) -> bool:
    return any(ast.unparse(one) == "decides_no_result" for one in function.decorator_list)


def unmarked(node: ast.AST) -> Iterator[ast.AST]:
    """All that is in a module but for functions that say that they decide nothing."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.FunctionDef) and is_marked(child)):
            yield child
            yield from unmarked(child)


# The same words mean something else where they are asked: N of the learning-rate law, a head's.
OTHERS = {
    ("parameters", "mm1_jax.config.language_model"),
    ("parameters", "mm1_jax.training.schedule"),
    ("scores", "mm1_jax.training.contrastive"),
}


def test_no_code_of_a_stage_asks_what_says_that_it_decides_nothing():
    names = {name for _, name in marked_functions()}
    files = {name: file for code in codes().values() for name, file in closure(code).items()}
    asked, taken = set(), set()
    for module, file in files.items():
        for node in unmarked(source_facts.parsed(file)):
            if isinstance(node, ast.Attribute) and node.attr in names:
                asked.add((node.attr, module))
            if isinstance(node, ast.ImportFrom) and node.module == "mm1_jax.scale.costs":
                taken |= {alias.name for alias in node.names}
    assert asked == OTHERS
    # What these give is told beside the rows, and is no row (`training.speed`).
    assert taken == {"encoder_stage_flops", "flops_per_step", "language_model_stage_flops"}


def closure(code: Code) -> dict[str, Path]:
    roots = (code.module, *code.also)
    return {name: file for root in roots for name, file in identity.closure(root).items()}


@pytest.mark.usefixtures("synthetic_batches")
def test_no_training_asks_what_says_that_it_decides_nothing(tiny, recording_context, monkeypatch):
    def ask(*whatever):
        raise AssertionError("a formula of costs was asked")

    formulas = marked_functions()
    assert len(formulas) > 30
    for kind, name in formulas:
        monkeypatch.setattr(kind, name, ask)
    monkeypatch.setattr(multimodal_training, "flops_per_step", lambda config: {})
    config = tiny(
        language_model={"kind": "moe", "experts": 2, "every": 2, "capacity_factor": 1.0},
        training={"steps": 2},
    )
    with pytest.raises(AssertionError, match="was asked"):
        config.encoder.parameters()
    assert train(config, 0, Path(), {}, recording_context())
