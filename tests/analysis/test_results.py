from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest

from ablations import plan as planning
from ablations.errors import UserError
from ablations.stage import ResultRow
from analysis.results import load_results
from mm1.origin import ORIGIN
from mm1.studies import load_study
from sweeps import leases
from sweeps.records import Done, read_record, sealed
from sweeps.store import Store


def test_rows_are_joined_to_arm_and_seed(full_store: Store) -> None:
    results = load_results("demo", full_store)
    losses = results.curves()
    assert len(losses) == 12 * 20
    assert set(losses["arm"]) == {arm.name for arm in results.plan.arms}
    assert set(results.score("base", "easy_vqa", "accuracy")) == {1, 2, 3}
    shuffled = results.score("base", "easy_vqa", "accuracy", condition="shuffled")
    assert max(shuffled.values()) < 60 < min(results.score("base", "easy_vqa", "accuracy").values())


def test_a_whole_study_is_said_to_be_there_exactly_once(full_store: Store) -> None:
    results = load_results("demo", full_store)
    assert results.completeness == (
        "All 12 planned trials (4 arms × 3 seeds) are there exactly once."
    )
    assert not results.interim
    assert results.seeds_in == (1, 2, 3)


def test_each_missing_trial_is_named_with_its_reason(tmp_path: Path, make_plan, fill) -> None:
    store, plan = Store(tmp_path), make_plan()
    store.register(plan)
    fill(store, plan, skip={("base", 3), ("encoder.image_size=16", 2)})
    failed = next(t for t in plan.trials if (t.arm, t.seed) == ("base", 3))
    store.fail(
        store.begin(plan.stages[failed.stages["multimodal"]]), {"error": "ValueError: no\nluck"}
    )
    results = load_results("demo", store)
    assert set(results.problems) == {("base", 3), ("encoder.image_size=16", 2)}
    assert "base seed 3: training failed (ValueError: no luck)" in results.completeness
    assert "encoder.image_size=16 seed 2: not there yet" in results.completeness
    assert results.completeness.startswith("10 of 12 planned trials")
    assert results.seeds_in == (1,)
    assert results.states["base", 3] == "failed"
    assert results.states["encoder.image_size=16", 2] == "waiting"
    lease = leases.acquire(store.objects, store.lease_folder(failed.stages["multimodal"]))
    assert lease is not None
    try:
        assert load_results("demo", store).states["base", 3] == "running"
    finally:
        lease.release()


def test_a_trial_with_one_evaluation_missing_says_which(tmp_path: Path, make_plan, fill) -> None:
    store, plan = Store(tmp_path), make_plan(seeds=1)
    store.register(plan)
    fill(store, plan)
    shuffled = plan.trials[0].stages["easy_vqa shuffled"]
    (tmp_path / "stages" / shuffled[:2] / shuffled / "done.json").unlink()
    found = load_results("demo", store).problems
    assert found == {("base", 1): "easy_vqa shuffled not there yet"}


def test_a_number_that_is_there_twice_is_no_complete_trial(
    tmp_path: Path, make_plan, fill, rows_of
) -> None:
    store, plan = Store(tmp_path), make_plan(seeds=1)
    store.register(plan)

    def doubled(arm, seed, task, condition) -> list[ResultRow]:
        rows = rows_of(arm, seed, task, condition)
        return rows * 2 if (arm.name, task) == ("base", "emoji_caption") else rows

    fill(store, plan, rows=doubled)
    results = load_results("demo", store)
    several = "several numbers of emoji_caption.cider"
    assert results.problems == {("base", 1): f"emoji_caption is there more than once; {several}"}


def test_of_two_splits_nobody_has_said_which_is_meant(
    tmp_path: Path, make_plan, fill, rows_of
) -> None:
    store, plan = Store(tmp_path), make_plan()
    store.register(plan)

    def of_two_splits(arm, seed, task, condition) -> list[ResultRow]:
        rows = rows_of(arm, seed, task, condition)
        if (arm.name, task, condition) != ("base", "easy_vqa", "intact"):
            return rows
        return [*rows, ResultRow("easy_vqa", "accuracy", 99.0, "val")]

    fill(store, plan, rows=of_two_splits)
    results = load_results("demo", store)
    assert "base seed 3: several numbers of easy_vqa.accuracy" in results.completeness
    assert all(math.isnan(x) for x in results.score("base", "easy_vqa", "accuracy").values())
    assert len(results.score("base", "easy_vqa", "blind_accuracy")) == 3
    verdicts = {verdict.name: verdict for verdict in results.verdicts}
    assert verdicts["small-is-better"].verdict == "undecided"
    assert verdicts["small-is-better"].reason.endswith("easy_vqa.accuracy is nan")


def test_a_diverged_trial_has_the_worst_value_and_is_listed(
    tmp_path: Path, make_plan, fill
) -> None:
    store, plan = Store(tmp_path), make_plan()
    store.register(plan)
    fill(store, plan, diverged={("encoder.image_size=16", 2)})
    results = load_results("demo", store)
    assert results.diverged == (("encoder.image_size=16", 2),)
    assert results.score("encoder.image_size=16", "easy_vqa", "accuracy")[2] == 0.0
    assert math.isnan(results.score("encoder.image_size=16", "held_out_text", "perplexity")[2])
    assert not results.problems


def test_a_trial_whose_last_step_diverged_is_listed_too(tmp_path: Path, make_plan, fill) -> None:
    store, plan = Store(tmp_path), make_plan()
    store.register(plan)
    (form, stage), *_ = plan.answers(plan.trials[0]).items()
    attempt = store.begin(plan.stages[stage])
    lost = [ResultRow(form.task, "accuracy", math.nan, split="test")]
    store.finish(attempt, lost, {"seconds": 1.0}, "diverged")
    fill(store, plan)
    results = load_results("demo", store)
    assert results.diverged == ((plan.trials[0].arm, plan.trials[0].seed),)


def test_what_was_known_before_registration_decides_a_claims_standing(
    tmp_path: Path, make_plan, fill
) -> None:
    store, plan = Store(tmp_path), make_plan()
    others = {(t.arm, t.seed) for t in plan.trials} - {("base", s) for s in plan.seeds}
    fill(store, plan, skip=others)
    store.register(plan)
    fill(store, plan)
    results = load_results("demo", store)
    assert results.standing("sees") == "exploratory"  # base alone, all of it known
    assert results.standing("type-better") == "partly known"

    more = make_plan(seeds=4)
    store.register(more)
    raised = load_results("demo", store)
    assert raised.standing("sees") == "exploratory"
    assert raised.standing("type-better") == "exploratory"  # looked at, then seeds were added


def test_a_fresh_study_is_registered(full_store: Store) -> None:
    results = load_results("demo", full_store)
    assert {results.standing(claim) for claim in results.plan.claims} == {"registered"}


RECIPE = "training: {steps: 20}\noptimizer: {warmup_steps: 5}\n"
STUDY = """\
study: little
question: Does resolution matter?
base: base.yaml
design:
  one_at_a_time:
    encoder.image_size: [32, 16]
seeds: 2
primary_metric: easy_vqa.accuracy
"""


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(RECIPE, encoding="utf-8")
    path = tmp_path / "little.yaml"
    path.write_text(STUDY, encoding="utf-8")
    return path


def test_a_study_file_that_changed_since_is_noted(tmp_path: Path, study_file: Path) -> None:
    store = Store(tmp_path / "store")
    store.register(planning.make_plan(load_study(study_file)))
    assert load_results(study_file, store, origin=ORIGIN).changed is None
    study_file.write_text("# a comment means nothing\n" + STUDY, encoding="utf-8")
    assert load_results("little", store, origin=ORIGIN).changed is None
    study_file.write_text(STUDY.replace("seeds: 2", "seeds: 3"), encoding="utf-8")
    for study in (study_file, "little"):
        changed = load_results(study, store, origin=ORIGIN).changed
        assert changed is not None
        assert "has changed since this was run" in changed
    assert load_results("little", store, origin=ORIGIN).plan.seeds == (
        0,
        1,
    )
    (tmp_path / "base.yaml").write_text("training: {stepz: 20}\n", encoding="utf-8")
    changed = load_results("little", store, origin=ORIGIN).changed
    assert changed is not None
    assert "no longer a valid study" in changed
    study_file.unlink()
    assert load_results("little", store, origin=ORIGIN).changed is None


def test_code_that_changed_since_is_noted(
    tmp_path: Path, study_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    plan = planning.make_plan(load_study(study_file))
    store.register(plan)
    some_stage = plan.stages[plan.trials[0].stages["multimodal"]]
    now = plan.model_copy(update={"stages": {**plan.stages, "of-new-code": some_stage}})
    monkeypatch.setattr("analysis.results.make_plan", lambda study, **how: now)
    changed = load_results("little", store, origin=ORIGIN).changed
    assert changed is not None
    assert f"1 of {len(now.stages)} stages would run anew" in changed


def test_a_study_that_has_not_run_is_a_users_mistake(full_store: Store, study_file: Path) -> None:
    with pytest.raises(UserError, match=r"no study 'dem'.*did you mean 'demo'"):
        load_results("dem", full_store)
    with pytest.raises(UserError, match="no study 'little'"):
        load_results(study_file, full_store)


def test_costs_list_planned_and_measured_seconds(full_store: Store) -> None:
    costs = load_results("demo", full_store).costs
    assert len(costs) == 12 * 5
    train = costs[costs["kind"] == "multimodal"]
    assert set(train["planned_seconds"]) == {50.0}
    assert set(train["seconds"]) == {48.5}


def test_unlike_libraries_are_warned_of(tmp_path: Path, make_plan, fill) -> None:
    store, plan = Store(tmp_path), make_plan(seeds=1)
    store.register(plan)
    fill(store, plan, skip={("base", 1)}, libraries={"jax": "0.10.2"})
    assert load_results("demo", store).mixed_executions() == []
    fill(store, plan, libraries={"jax": "0.11.0"})
    (warning,) = load_results("demo", store).mixed_executions()
    assert "unlike libraries" in warning


def test_flags_of_xla_that_some_stages_had_are_warned_of(tmp_path: Path, make_plan, fill) -> None:
    store, plan = Store(tmp_path), make_plan(seeds=1)
    store.register(plan)
    fill(store, plan, skip={("base", 1)}, xla_flags="none")
    assert load_results("demo", store).mixed_executions() == []
    fill(store, plan, xla_flags="--xla_backend_optimization_level=0")
    (warning,) = load_results("demo", store).mixed_executions()
    assert "unlike xla flags" in warning


def test_stages_of_another_kind_may_have_another_mesh(tmp_path: Path, make_plan, fill) -> None:
    store, plan = Store(tmp_path), make_plan(seeds=2)
    store.register(plan)

    def by_kind(stage):
        return {"data": 8} if stage.kind == "multimodal" else {"fsdp": 8}

    fill(store, plan, skip={("base", 2)}, mesh=by_kind)
    assert load_results("demo", store).mixed_executions() == []
    fill(store, plan, mesh=lambda stage: {"data": 4})
    found = load_results("demo", store)
    assert "unlike mesh" in " ".join(found.mixed_executions())
    others = {
        one for t in plan.trials if (t.arm, t.seed) != ("base", 2) for one in t.stages.values()
    }
    assert found.mixed_executions(others) == []


def test_arms_that_saw_different_images_are_warned_of(tmp_path: Path, make_plan, fill) -> None:
    store, plan = Store(tmp_path), make_plan(seeds=1)
    store.register(plan)
    fill(store, plan, skip={("base", 1)}, images="a" * 32)
    assert load_results("demo", store).unlike_images() == []
    fill(store, plan, images="b" * 32)
    found = load_results("demo", store)
    evaluations = plan.answers(plan.trials[0])
    assert len(found.unlike_images()) == len(evaluations)
    assert "easy_vqa (0-shot, shuffled) saw different images" in " ".join(found.unlike_images())
    assert found.mixed_executions() == []


def test_the_average_is_of_the_tasks_that_the_recipe_names(tmp_path: Path, make_plan, fill) -> None:
    plan = make_plan().model_copy(update={"average": ("easy_vqa", "emoji_caption")})

    def rows(arm, seed, task, condition):
        if (arm.name, seed, task) == ("base", 2, "emoji_caption"):
            return []
        metric = {"easy_vqa": "accuracy", "emoji_caption": "cider"}.get(task, "perplexity")
        value = {"easy_vqa": 80.0, "emoji_caption": 30.0}.get(task, 9.0) + seed
        error = {"easy_vqa": 3.0, "emoji_caption": 4.0}.get(task)
        part = ResultRow(task, f"{metric}/type:number", 1.0, "test", 0, condition, 500, 3)
        return [part, ResultRow(task, metric, value, "test", 0, condition, 500, 9, error)]

    store = Store(tmp_path)
    store.register(plan)
    fill(store, plan, rows=rows)
    results = load_results("demo", store)
    assert results.score("base", "average", "0_shot") == {1: 56.0, 3: 58.0}
    assert ("average", "0_shot", 0, "intact") in results.table.metrics
    assert not any("/" in metric for _, metric, _, _ in results.table.metrics)
    assert results.table.item_error("base", "easy_vqa", "accuracy") == 3.0
    assert results.table.item_error("base", "average", "0_shot") == 2.5
    assert results.table.item_error("base", "held_out_text", "perplexity") is None


def test_results_of_before_there_were_standard_errors_are_read(
    tmp_path: Path, make_plan, fill
) -> None:
    import pyarrow.parquet

    store, plan = Store(tmp_path), make_plan(seeds=1)
    store.register(plan)
    fill(store, plan)
    before = len(load_results("demo", store).rows)
    for stage in plan.answers(plan.trials[0]).values():
        folder = tmp_path / "stages" / stage[:2] / stage
        (file,) = folder.glob("*/results.parquet")
        table = pyarrow.parquet.read_table(file).drop_columns(["standard_error"])
        pyarrow.parquet.write_table(table, file)
        checksum = hashlib.sha256(file.read_bytes()).hexdigest()
        record = read_record(store.objects, f"stages/{stage[:2]}/{stage}/done.json", Done)
        files = {**record.files, "results.parquet": checksum}
        (folder / "done.json").write_bytes(sealed(record.model_copy(update={"files": files})))
    results = load_results("demo", Store(tmp_path))
    base = results.rows[results.rows["arm"] == "base"]
    assert base["standard_error"].isna().all()
    assert len(results.rows) == before
    assert store.rows([stage])["standard_error"].isna().all()


def test_results_and_plans_are_short_where_they_are_shown(full_store: Store) -> None:
    results = load_results("demo", full_store)
    assert repr(results) == (
        "<StudyResults demo: 4 arms × 3 seeds, 12 of 12 trials there, "
        f"{len(results.plan.claims)} claims, primary metric easy_vqa.accuracy>"
    )
    assert "<Plan demo: 4 arms × 3 seeds = 12 trials" in repr(results.plan) == str(results.plan)
    shown = results._repr_html_()
    assert len(shown) < 2_000
    assert "easy_vqa.accuracy, mean ± SD" in shown
    assert shown.count("<td>3</td>") == 4


def test_every_form_of_output_is_the_same_with_and_without_the_index(
    tmp_path: Path, make_plan, fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    from analysis.compare import render
    from mm1.status_text import summaries
    from sweeps import index

    store, plan = Store(tmp_path), make_plan()
    store.register(plan)
    fill(store, plan, diverged={("base", 2)}, skip={("encoder.image_size=16", 3)})

    def everything() -> list[object]:
        results = load_results("demo", Store(tmp_path))
        frames = [results.rows, results.costs, results.curves(), results.evaluations]
        forms = [render(results, form) for form in ("text", "json", "markdown", "latex")]
        shown = [frame.to_csv(index=False) for frame in frames]
        return [*shown, *forms, results.executions, summaries(None, str(tmp_path))]

    with_folders = everything()
    assert not list(tmp_path.glob("index/*.stages"))
    monkeypatch.setattr(index, "SAVED_FROM", 1)
    assert everything() == with_folders
    assert list(tmp_path.glob("index/*.stages"))
    monkeypatch.setattr(index, "read_results", lambda objects, records: {})
    assert everything() == with_folders


OWN = """\
study: own
question: Does it?
workload:
  steps:
    prepare:
      command: python3 train.py {output}
    train:
      command: python3 train.py {config} {seed} {output} {input:prepare}
      metrics: {val.loss: {goal: minimize, key: val.nll}, accuracy: {goal: maximize}}
  code: [train.py]
base: base.yaml
design: {one_at_a_time: {lr: [0.1, 0.2]}}
seeds: 2
primary_metric: PRIMARY
"""


@pytest.mark.parametrize(("primary", "value"), [("val.loss", 2.0), ("train.accuracy", 40.0)])
def test_of_ones_own_training_the_primary_metric_is_the_curve_and_steps_may_measure_nothing(
    tmp_path: Path, primary, value
) -> None:
    (tmp_path / "base.yaml").write_text("lr: 0.1\n", encoding="utf-8")
    (tmp_path / "train.py").touch()
    study = tmp_path / "study.yaml"
    study.write_text(OWN.replace("PRIMARY", primary), encoding="utf-8")
    store, plan = Store(tmp_path / "store"), planning.make_plan(load_study(study))
    store.register(plan)
    for stage in plan.stages.values():
        rows = [
            ResultRow("training", "val.nll", 2.0, step=1),
            ResultRow("training", "accuracy", 40.0, step=1),
            ResultRow("val", "loss", 2.0, split="test"),
            ResultRow("train", "accuracy", 40.0, split="test"),
        ]
        attempt = store.begin(stage)
        store.finish(attempt, rows if stage.kind == "train" else [], {"seconds": 1.0})
    results = load_results("own", store)
    assert "All 4 planned trials" in results.completeness
    curves = results.curves()
    assert list(zip(curves["arm"], curves["seed"], strict=True)) == [
        ("base", 0),
        ("base", 1),
        ("lr=0.2", 0),
        ("lr=0.2", 1),
    ]
    assert set(curves["value"]) == {value}
