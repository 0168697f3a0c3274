"""What the identity of a stage depends on, and what it does not."""

from __future__ import annotations

import sys

import pytest

from ablations import identity, source_facts
from ablations.errors import UserError
from ablations.fingerprints import canonical
from ablations.sections import affecting
from ablations.workload import Code
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.stage_kinds import KINDS

STAGE = {"kind": "k", "config": {"a": 1}, "seed": 0, "inputs": {}, "data": "d", "code": "c"}


def stage_id(*, seed, inputs, config, **decides):
    decided = identity.decides(config=canonical(config), **decides)
    return identity.stage_id(decided, seed, inputs)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"config": {"a": 2}},
        {"seed": 1},
        {"inputs": {"model": "x"}},
        {"data": "other"},
        {"code": "other"},
    ],
)
def test_everything_that_decides_the_result_counts(change):
    assert stage_id(**STAGE) != stage_id(**{**STAGE, **change})


def test_what_decides_is_the_fingerprint_of_it_all():
    decides = {name: STAGE[name] for name in ("kind", "config", "data", "code")}
    texts = {**decides, "config": canonical(STAGE["config"])}
    assert identity.decides(**texts) == identity.fingerprint(decides)


def test_order_of_keys_does_not_count():
    one = identity.fingerprint({"a": 1, "b": {"c": 2, "d": 3}})
    assert one == identity.fingerprint({"b": {"d": 3, "c": 2}, "a": 1})
    assert len(one) == 32


def test_marked_fields_are_left_out_at_every_depth():
    found = affecting(TrainConfig())
    assert "log_every" not in found["training"]
    assert "layers" not in found["training"]
    assert found["training"]["steps"] == 500
    assert found["encoder"]["layers"] == 2


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `trainers` of a user, and how to read its fingerprint afresh."""

    class Package:
        folder = tmp_path / "trainers"

        def forget(self):
            for cached in (
                identity.code_fingerprint,
                identity.code_parts,
                identity.source_file,
                identity._imports,
                identity._decides,
                identity.is_with,
                source_facts.source_facts,
                source_facts.parsed,
            ):
                cached.cache_clear()

        def write(self, **sources):
            self.folder.mkdir(exist_ok=True)
            (self.folder / "__init__.py").touch()
            for name, source in sources.items():
                (self.folder / f"{name}.py").write_text(source, encoding="utf-8")

        def fingerprint(self, module="main", function=""):
            self.forget()
            return identity.code_fingerprint(f"trainers.{module}", function)

        def closure(self):
            self.forget()
            return list(identity.closure("trainers.main"))

    monkeypatch.syspath_prepend(str(tmp_path))
    return Package()


def test_comments_docstrings_and_layout_do_not_count(package):
    package.write(main="def run(a, b):\n    return a + b\n")
    before = package.fingerprint()
    package.write(
        main='"""Adds."""\n\n# why\ndef run(a,\n  b):\n    """Add."""\n\n    return a + b  # sum\n'
    )
    assert package.fingerprint() == before
    package.write(main="def run(a, b):\n    return a - b\n")
    assert package.fingerprint() != before


def test_a_change_anywhere_in_what_is_imported_counts(package):
    package.write(
        main="def run():\n    from trainers import inner\n    return inner.f()\n",
        inner="from .deep import g as f\n",
        deep="def g():\n    return 1\n",
        other="x = 1\n",
    )
    assert package.closure() == ["trainers.deep", "trainers.inner", "trainers.main"]
    before = package.fingerprint()
    package.write(other="x = 2\n")
    assert package.fingerprint() == before
    package.write(deep="def g():\n    return 2\n")
    assert package.fingerprint() != before


def test_every_form_of_import_is_followed(package):
    package.write(
        main="import trainers.a\nfrom trainers.b import f\nfrom . import c\nfrom .d import g\n"
        "from trainers import VERSION\nimport json\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from trainers import e\nelse:\n    import trainers.h\n",
        a="",
        b="import mm1_jax.config.bounds\n",
        c="from ..trainers import d\n",
        d="",
        e="",
        h="",
    )
    assert package.closure() == [
        "mm1_jax.config.bounds",
        "trainers",  # VERSION is taken from the package itself
        "trainers.a",
        "trainers.b",
        "trainers.c",
        "trainers.d",
        "trainers.h",
        "trainers.main",
    ]


def test_a_trainer_of_several_files_in_one_folder_is_all_of_them(package):
    package.write(main="import network\nimport yaml\nfrom ablations import stage\n")
    (package.folder.parent / "network.py").write_text("from layers import mlp\n", encoding="utf-8")
    layers = package.folder.parent / "layers"
    layers.mkdir()  # a package without __init__.py
    (layers / "mlp.py").write_text("WIDTH = 8\n", encoding="utf-8")
    assert package.closure() == ["layers.mlp", "network", "trainers.main"]
    before = package.fingerprint()
    (layers / "mlp.py").write_text("WIDTH = 16\n", encoding="utf-8")
    assert package.fingerprint() != before


def test_what_is_installed_side_by_side_is_not_one_trainer():
    assert not identity.is_with("yaml", "numpy")
    assert not identity.is_with("json", "csv")
    assert not identity.is_with("ablations", "mm1_jax")


def test_what_says_that_it_decides_nothing_is_not_followed(package):
    package.write(
        main="from trainers import costs, model\n",
        costs='DECIDES_NO_RESULT = "planned alone"\nfrom trainers import prices\n',
        prices="x = 1\n",
        model="from ablations import errors\n",
    )
    assert package.closure() == ["trainers.main", "trainers.model"]
    package.write(costs="from trainers import prices\n")
    assert "trainers.prices" in package.closure()


def test_a_package_that_says_so_is_not_followed(package):
    (package.folder / "files").mkdir(parents=True)
    (package.folder / "files" / "__init__.py").write_text(
        'DECIDES_NO_RESULT = "moves bytes"\n', encoding="utf-8"
    )
    (package.folder / "files" / "urls.py").write_text("", encoding="utf-8")
    package.write(main="from trainers.files import urls\n")
    assert package.closure() == ["trainers.main"]


def test_ours_is_a_model_that_lies_beside_and_nothing_of_the_platform():
    assert identity.is_beside("mm1_jax")
    platform = ("ablations", "sweeps", "analysis", "mm1")
    for other in (*platform, "tests", "benchmarks", "docs", "numpy", "no_such_package"):
        assert not identity.is_beside(other)


def test_modules_that_are_found_by_name_count_beside(package):
    package.write(main="", tasks="x = 1\n")
    package.forget()
    alone = identity.code_fingerprint("trainers.main")
    code = Code(module="trainers.main", also=("trainers.tasks",))
    assert list(identity.parts_of(code)) == ["", "trainers.main", "trainers.tasks"]
    assert identity.fingerprint_of(code) != alone


def test_two_functions_of_a_module_are_two_runners(package):
    package.write(main="def one(): ...\ndef two(): ...\n")
    assert package.fingerprint(function="one") != package.fingerprint(function="two")


def test_nothing_is_imported_to_find_out(package):
    package.write(main="raise RuntimeError('imported')\n")
    package.fingerprint()
    assert "trainers" not in sys.modules


def test_a_module_that_is_not_there_is_a_users_mistake():
    with pytest.raises(UserError, match="cannot be found"):
        identity.code_fingerprint("no_such_package.trainer")


def test_trainings_code_leaves_out_evaluation_and_tasks():
    training = identity.closure(KINDS["multimodal"].code)
    evaluation = identity.closure(KINDS["evaluation"].code)
    assert "mm1_jax.model.multimodal" in training
    assert "mm1_jax.data.batches.pipeline" in training
    assert "mm1_jax.evaluation.multimodal_evaluation" not in training
    assert "mm1_jax.config.recipe" not in training
    assert not [module for module in training if module.startswith("mm1_jax.evaluation.")]
    assert "mm1_jax.evaluation.asking" in evaluation
    # A task is found by name: what it is asked and how it is scored is code of its own stages.
    assert not [module for module in evaluation if "metrics.captions" in module]
    assert "mm1_jax.evaluation.tasks.easy_vqa" not in evaluation
    # An official task's source is in its own stages' config, so that others stay as they are.
    assert not {
        "mm1_jax.evaluation.benchmarks.vqav2",
        "mm1_jax.evaluation.official.catalogue",
    } & set(evaluation)


class TestEquivalences:
    @pytest.fixture
    def write(self, tmp_path, monkeypatch):
        def write(text):
            path = tmp_path / "code_equivalences.yaml"
            path.write_text(text, encoding="utf-8")
            monkeypatch.setattr(identity, "EQUIVALENCES", path)
            identity._equivalences.cache_clear()

        yield write
        identity._equivalences.cache_clear()

    def test_new_code_keeps_the_identity_of_the_oldest(self, write):
        write(
            "equivalent:\n- {old: a, new: b, reason: renamed}\n- {old: b, new: c, reason: moved}\n"
        )
        assert [identity.original(code) for code in "abcd"] == ["a", "a", "a", "d"]

    def test_a_circle_is_refused(self, write):
        write("equivalent:\n- {old: a, new: b, reason: x}\n- {old: b, new: a, reason: y}\n")
        with pytest.raises(UserError, match="in a circle"):
            identity.original("a")

    def test_an_entry_needs_its_reason(self, write):
        write("equivalent:\n- {old: a, new: b}\n")
        with pytest.raises(UserError, match=":2: expected"):
            identity.original("b")

    def test_the_committed_file_can_be_read(self):
        assert identity.original("unknown") == "unknown"
