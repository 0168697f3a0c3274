"""`mm1 evaluate` on small untrained models: what it prints, keeps, resumes and refuses."""

from __future__ import annotations

import json
import os
import shutil

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from colour_folders import write_arc_easy, write_vqav2
from public_folders import llama_tokenizer, make_folder, make_llava

from ablations.errors import UserError
from ablations.workload import Asked
from mm1 import api, run_folder
from mm1.evaluate_command import evaluate, evaluation_of, questions
from mm1.find_model import find_model
from mm1.generate_command import generate
from mm1.run_folder import stage_at
from mm1_jax.config.recipe import Recipe
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data import tokenizer
from mm1_jax.evaluation.evaluated_model import EvaluatedModel
from mm1_jax.evaluation.official.image_record import digest, facts_of, write_images
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.multimodal import MultimodalModel
from mm1_jax.training.checkpoints import save_part
from mm1_jax.weights.weights_folder import content_of, is_checkpoint
from mm1_jax.workload import load_recipe
from sweeps import leases
from sweeps.store import Store
from sweeps.worker import StageContext

RECIPE = """
encoder: {image_size: 16, patch_size: 8, width: 16, layers: 1, heads: 2}
connector: {kind: average_pooling, tokens: 1}
language_model: {width: 16, layers: 1, heads: 2, kv_heads: 1, mlp_width: 32}
data: {text_tokens: 32, images: 2}
training: {steps: 6}
optimizer: {warmup_steps: 2}
"""
WORDS = tokenizer.train([f"Question: Which number follows {n} in?" for n in range(99)], 300)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder with `ours`, `llama`, `llava`, `vqav2` and `arc_easy`."""
    folder = tmp_path_factory.mktemp("places")
    config = Recipe.model_validate(yaml.safe_load(RECIPE)).train_config()
    save_part(folder / "ours", config, initialise(MultimodalModel(config), 0))
    make_folder(folder / "llama", "llama", vocab_size=300, eos_token_id=1)
    WORDS.save(folder / "llama")
    make_llava(folder / "llava")
    write_vqav2(folder / "vqav2")
    write_arc_easy(folder / "arc_easy")
    return folder


@pytest.fixture
def run(places, data_root, tmp_path, monkeypatch):
    """`run(model, *words)` → what is printed with --json; outputs go to `tmp_path / "out"`."""
    monkeypatch.chdir(tmp_path)

    def call(model, *words):
        asked = [str(places / model), "--data", str(data_root), "--out", "out", "--json"]
        asked += map(str, words)
        result = CliRunner().invoke(evaluate, asked, standalone_mode=False)
        if result.exception is not None:
            raise result.exception
        return json.loads(result.stdout) if result.return_value == 0 else result.return_value

    return call


@pytest.fixture
def saying_red(monkeypatch):
    monkeypatch.setattr(
        EvaluatedModel, "answers", lambda model, batch, *_: ["red"] * len(batch["tokens"])
    )


def test_an_official_task_is_asked_in_every_variant_and_its_scores_are_kept(
    run, places, tmp_path, saying_red
):
    words = ("--task", "vqav2", "--folder", places / "vqav2", "--items", 6)
    rows = run("ours", *words, "--shots", 0, "--shots", 1, "--condition", "no_image")
    scores = {row["shots"]: row for row in rows if row["metric"] == "accuracy"}
    assert set(scores) == {0, 1}
    for shots, row in scores.items():
        assert (row["condition"], row["n_items"], row["step"]) == ("no_image", 6, 6)
        kept = tmp_path / "out" / "evaluations" / f"vqav2-{shots}-no_image"
        assert [p.name for p in kept.iterdir()] == ["examples.parquet"]
        stage = stage_at(kept)
        assert stage is not None
        assert stage.store == tmp_path / "out"
        table = Store("out").rows([stage.stage])
        assert row["value"] in set(table["value"][table["metric"] == "accuracy"])


def test_a_recipe_names_the_tasks_and_what_is_averaged(run, places, tmp_path, saying_red):
    recipe = {
        "evaluation": {
            "easy_vqa": {"items": 40},
            "official": {
                "vqav2": {"folder": str(places / "vqav2")},
                "arc_easy": {"folder": str(places / "arc_easy")},
            },
            "average": ["easy_vqa", "vqav2"],
        }
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    rows = {(row["task"], row["metric"]): row for row in run("ours", "--recipe", "recipe.yaml")}
    one, other = rows["easy_vqa", "accuracy"], rows["vqav2", "accuracy"]
    average = rows["average", "0_shot"]
    assert other["value"] == pytest.approx(100 * 4 / 12)
    assert average["value"] == (one["value"] + other["value"]) / 2
    errors = one["standard_error"], other["standard_error"]
    assert average["standard_error"] == pytest.approx((errors[0] ** 2 + errors[1] ** 2) ** 0.5 / 2)
    assert average["n_items"] == 40 + 12
    assert rows["arc_easy", "accuracy"]["n_items"] == 6


def test_anybodys_language_model_is_asked_in_words(run, places, tmp_path):
    asked = ("--task", "arc_easy", "--folder", places / "arc_easy", "--shots", 2)
    rows = {row["metric"]: row for row in run("llama", *asked)}
    assert rows["accuracy"]["n_items"] == 6
    assert rows["accuracy"]["step"] == 0
    with pytest.raises(UserError, match=r"--task easy_vqa: .*llama holds no multimodal"):
        run("llama", "--task", "easy_vqa")
    vqav2 = ("--task", "vqav2", "--folder", places / "vqav2", "--items", 4)
    with pytest.raises(UserError, match="vqav2 asks about images"):
        run("llama", *vqav2)
    assert {row["n_items"] for row in run("llama", *vqav2, "--condition", "no_image")} == {4}


def test_anybodys_llava_is_asked_about_images_in_its_own_words(run, places, tmp_path):
    asked = ("--task", "vqav2", "--folder", places / "vqav2", "--items", 3, "--prompt", "{prompt}")
    rows = {row["shots"]: row for row in run("llava", *asked, "--shots", 0, "--shots", 1)}
    assert {rows[shots]["n_items"] for shots in (0, 1)} == {3}
    assert rows[0]["step"] == 0
    one, two = (
        pq.read_table(
            tmp_path / f"out/evaluations/vqav2-{shots}-intact/examples.parquet"
        ).to_pylist()
        for shots in (0, 1)
    )
    words = "\nAnswer the question using a single word or phrase. ASSISTANT:"
    for own, example in zip(one, two, strict=True):
        start, _, question = own["prompt"].partition("USER: <image>\n")
        assert start.startswith("A chat between a curious user and an artificial intelligence")
        assert question.endswith(words)
        assert example["prompt"].startswith(f"{start}USER: <image>\n")
        assert example["prompt"].endswith(f"<|end|>USER: <image>\n{question}")
    # `mm1 generate` says the same of the same image.
    question = one[0]["prompt"].partition("<image>\n")[2].removesuffix(" ASSISTANT:")
    image = next((places / "vqav2/images").rglob(one[0]["image_file"]))
    words = [str(places / "llava"), "--image", str(image), "--prompt", question]
    said = CliRunner().invoke(generate, [*words, "--max-tokens", "20", "--stop", "\n"])
    assert said.stdout.strip() == one[0]["prediction"] != ""


def test_what_a_llava_cannot_be_asked_is_told_in_one_line(run, places, tmp_path):
    with pytest.raises(UserError, match=r"easy_vqa: it is asked in .* was trained elsewhere"):
        run("llava", "--task", "easy_vqa")
    with pytest.raises(UserError, match="llava was trained elsewhere: say --task and --folder"):
        run("llava")
    asked = ("--task", "vqav2", "--folder", places / "vqav2", "--items", 3)
    other = make_llava(tmp_path / "other")
    content = json.loads(llama_tokenizer().to_str())
    content["added_tokens"] = [one for one in content["added_tokens"] if one["id"] < 320]
    (other / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match="has no token 320, which marks an image"):
        run(other, *asked)
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(
        json.dumps({**config, "projector_hidden_act": "relu"}), encoding="utf-8"
    )
    with pytest.raises(UserError, match="projector_hidden_act 'relu' is not known; valid: 'gelu'"):
        run(other, *asked)


def test_a_tokenizer_of_another_model_is_refused(run, places, tmp_path):
    asked = ("--task", "arc_easy", "--folder", places / "arc_easy")
    small = make_folder(tmp_path / "small", "llama")
    with pytest.raises(UserError, match=r"small has no tokenizer\.json"):
        run(small, *asked)
    WORDS.save(small)
    with pytest.raises(UserError, match="has 300 tokens and the model 40"):
        run(small, *asked)


def test_an_interrupted_evaluation_goes_on(run, places, tmp_path, monkeypatch):
    asked = ("--task", "vqav2", "--folder", places / "vqav2", "--batch-size", 4)
    with monkeypatch.context() as patch:
        patch.setattr(StageContext, "stop_requested", lambda context: True)
        assert run("ours", *asked) == 130
    assert list((tmp_path / "out" / "scratch").iterdir())
    batches = []
    answers = EvaluatedModel.answers

    def counted(model, *arguments):
        batches.append(1)
        return answers(model, *arguments)

    monkeypatch.setattr(EvaluatedModel, "answers", counted)
    assert {row["n_items"] for row in run("ours", *asked)} == {12}
    assert len(batches) == 2  # of three
    files = ["examples.parquet", "images.parquet"]
    kept = tmp_path / "out/evaluations/vqav2-0-intact"
    assert sorted(p.name for p in kept.iterdir()) == files
    assert not list((tmp_path / "out" / "scratch").iterdir())


def test_a_repeated_question_is_answered_from_the_store(run, places, tmp_path, monkeypatch):
    folder = shutil.copytree(places / "vqav2", tmp_path / "vqav2")
    asked = ("--task", "vqav2", "--folder", folder)
    whole, some = run("ours", *asked), run("ours", *asked, "--items", 6)
    monkeypatch.setattr(EvaluatedModel, "answers", lambda *_: pytest.fail("asked again"))
    assert (run("ours", *asked), run("ours", *asked, "--items", 6)) == (whole, some)
    assert [rows[0]["n_items"] for rows in (whole, some)] == [12, 6]
    image = next(folder.glob("images/val2014/*1.jpg"))
    image.write_bytes(image.read_bytes() + b"more")
    with pytest.raises(UserError, match="images are not those that a finished evaluation saw"):
        run("ours", *asked)


def test_what_another_process_asks_is_not_asked_twice(run, places, data_root, tmp_path):
    asked = ("--task", "vqav2", "--folder", places / "vqav2")
    evaluation = evaluation_of(["vqav2"], (0,), ("intact",), None, {"folder": str(asked[3])})
    found = find_model(str(places / "ours"), "nowhere", tmp_path / "out")
    (one,) = questions(found, evaluation, must=True)
    store = Store(tmp_path / "out")
    lease = leases.acquire(store.objects, store.lease_folder(one.stage.id))
    assert lease is not None
    with pytest.raises(UserError, match=rf"vqav2, 0-shot, intact: process {os.getpid()} on "):
        run("ours", *asked)
    lease.release()
    assert run("ours", *asked)


def test_what_fails_is_told_with_its_traceback_and_recorded(
    run, places, tmp_path, monkeypatch, capfd
):
    def broken(*_):
        raise ArithmeticError("no answer")

    monkeypatch.setattr(EvaluatedModel, "answers", broken)
    assert run("ours", "--task", "vqav2", "--folder", places / "vqav2") == 1
    (record,) = (tmp_path / "out").glob("stages/*/*/failures/*.json")
    failure = json.loads(record.read_text(encoding="utf-8"))
    assert failure["error"] == "ArithmeticError: no answer"
    assert "broken" in failure["traceback"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--task vqa2", "no such task; did you mean 'vqav2'"),
        ("--task vqav2", "vqav2 lies in a folder of yours: say --folder"),
        ("--folder {}/vqav2", "--folder goes with one official --task"),
        ("--task vqav2 --folder {}/arc_easy", "vqav2: expected .*annotations.json"),
        ("--task vqav2 --folder {}/vqav2 --shots 99", "shots: 99 of vqav2: the training split has"),
        (
            "--task vqav2 --folder {}/vqav2/test --images ../images --shots 4",
            "training split is not in the folder .*--train",
        ),
        (
            "--task vqav2 --folder {}/vqav2 --prompt {{nope}}",
            r"--prompt .*\{nope\}; valid: .*question",
        ),
        ("--task piqa --folder {}/arc_easy --condition shuffled", "piqa asks about no images"),
        ("--task vqav2 --folder {}/vqav2 --condition wrong_demonstrations", "one kind of answer"),
        (
            "--task emoji_glossary",
            r"no questions for .*: data\.embedded\.glossary_documents\.languages is",
        ),
        ("--recipe {}/recipe.yaml --shots 2", "--recipe says which tasks"),
        ("--mesh tensr=2", "--mesh: no axis 'tensr'; did you mean 'tensor'"),
        ("--task easy_vqa --mesh fsdp=2", "evaluation.mesh fsdp=2 takes 2 devices, there are 1"),
    ],
)
def test_mistakes_are_told_in_one_line(run, places, tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        run("ours", *words.format(places).split())
    assert list(tmp_path.iterdir()) == []  # a refusal leaves nothing


def test_a_refusal_leaves_what_was_there(run, places, tmp_path):
    kept = tmp_path / "out" / "note"
    kept.parent.mkdir()
    kept.touch()
    with pytest.raises(UserError, match="training split has"):
        run("ours", "--task", "vqav2", "--folder", places / "vqav2", "--shots", 99)
    assert list(tmp_path.rglob("*")) == [kept.parent, kept]


def test_a_folder_without_annotations_is_told_with_what_it_holds(run, tmp_path):
    folder = tmp_path / "tars"
    folder.mkdir()
    for name in ("0.tar", "1.tar", "README"):
        (folder / name).touch()
    with pytest.raises(UserError, match=r"expected files .*; found 2 \.tar, 1 without ending"):
        run("ours", "--task", "vqav2", "--folder", folder)


def test_a_finished_evaluation_of_other_images_is_told(places, tmp_path, write_study):
    folder = shutil.copytree(places / "vqav2", tmp_path / "vqav2")
    write_study(tmp_path)
    recipe = yaml.safe_load((tmp_path / "recipe.yaml").read_text(encoding="utf-8"))
    recipe["evaluation"]["official"] = {"vqav2": {"folder": str(folder)}}

    def stage_of(edition=None):
        recipe["evaluation"]["official"]["vqav2"]["edition"] = edition
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        stages = api.plan(tmp_path / "study.yaml", store=str(tmp_path / "store")).stages.values()
        return next(stage for stage in stages if stage.config.get("task") == "vqav2")

    stage, store = stage_of(), Store(tmp_path / "store")
    image = next(folder.glob("images/val2014/*1.jpg"))
    attempt = store.begin(stage)
    seen = {image.name: facts_of(image.read_bytes()), "not_here.jpg": facts_of(b"any")}
    write_images(seen, attempt.output)
    store.finish(attempt, [], {"seconds": 1.0, "images": digest(seen)}, "ok")
    api.check_images([stage], str(tmp_path / "store"))
    image.write_bytes(image.read_bytes() + b"more")
    message = r"vqav2: 1 images are not those .*1\.jpg \(then \d+ bytes, now .*vqav2\.edition"
    with pytest.raises(UserError, match=message):
        api.check_images([stage], str(tmp_path / "store"))
    assert stage_of("cropped").id != stage_of().id == stage.id


def test_a_study_reads_what_it_will_ask_before_it_trains(places, data_root, tmp_path, write_study):
    study = write_study(tmp_path)
    recipe = yaml.safe_load((tmp_path / "recipe.yaml").read_text(encoding="utf-8"))
    asked = {"folder": str(places / "vqav2"), "shots": [4, 11]}
    recipe["evaluation"]["official"] = {"vqav2": asked}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    with pytest.raises(UserError, match="shots: 11 of vqav2: the training split has 10 examples"):
        api.run(study, store=str(tmp_path / "store"), data=data_root)
    assert not (tmp_path / "store").exists()


def finished(store, stage, output, best=True):
    """Finish a stage as if it had trained what is in `output`."""
    attempt = store.begin(stage)
    shutil.copytree(output, attempt.output, dirs_exist_ok=True)
    if best:
        shutil.copytree(output, attempt.output / "best")
    store.finish(attempt, [], {"seconds": 1.0}, "ok")


def test_a_run_is_scored_by_what_trained_its_parts(places, tmp_path):
    recipe = Recipe.model_validate(yaml.safe_load(RECIPE))
    plan = run_folder.plan_of(recipe, "small", 7, RECIPE)
    run = tmp_path / "run"
    store = Store(run)
    store.register(plan)
    with pytest.raises(UserError, match="holds no trained model yet; mm1 train goes on"):
        find_model(str(run), "nowhere")
    main = plan.main(plan.trials[0])
    finished(store, plan.stages[main], places / "ours")
    run_folder.show_trained(store, plan)
    found = find_model(str(run), "nowhere")
    assert (found.stages, found.seed) == ({"multimodal": main}, 7)
    assert found.shown == run / "evaluations"
    best = find_model(str(run / "best"), "nowhere")
    assert best.model.folders == {"multimodal": run / "best"}
    assert (best.stages, best.seed, best.store) == ({}, 7, str(run))
    elsewhere = find_model(str(run), "nowhere", tmp_path / "other")
    assert (elsewhere.stages, elsewhere.store) == ({}, tmp_path / "other")
    # RUN is a checkpoint wherever the folder of one is taken, with the same content.
    assert is_checkpoint(run)
    assert content_of(run) == content_of(places / "ours")
    other = recipe.model_copy(update={"connector": recipe.connector.model_copy()})
    run_folder.check_same(run, plan, run_folder.plan_of(other, "small", 7, RECIPE))
    with pytest.raises(UserError, match=r"another run \(seed is 7 there and 8 here\)"):
        run_folder.check_same(run, plan, run_folder.plan_of(recipe, "small", 8, RECIPE))


def test_what_a_study_asks_is_the_same_stage_where_it_is_asked_alone(places, tmp_path, write_study):
    place = str(tmp_path / "store")
    made = api.plan(write_study(tmp_path), store=place)
    trial = made.trials[0]
    main = made.stages[made.main(trial)]
    attempt = Store(place).begin(main)
    config = TrainConfig.model_validate(main.config)
    save_part(attempt.output, config, initialise(MultimodalModel(config), 0))
    Store(place).finish(attempt, [], {"seconds": 1.0}, "ok")
    recipe = load_recipe(tmp_path / "recipe.yaml")
    (own,) = questions(find_model(main.id[:12], place), recipe.evaluation, must=True)
    assert own.stage.id == made.answers(trial)[Asked("easy_vqa")]
    assert own.stage.inputs == {"model": main.id}


def test_the_best_checkpoint_of_a_stage_is_scored(places, tmp_path, write_study):
    study = write_study(tmp_path)
    place = str(tmp_path / "store")
    made = api.plan(study, store=place)
    with_best, without = [made.stages[made.main(trial)] for trial in made.trials][:2]
    store = Store(place)
    for stage in (with_best, without):
        finished(store, stage, places / "ours", best=stage is with_best)
    found = find_model(f"{with_best.id[:12]}/best", place)
    assert found.model.folders == {"multimodal": store.stage_folder(with_best.id) / "best"}
    assert (found.stages, found.store, found.shown) == ({}, place, None)
    with pytest.raises(UserError, match=r"has no best/ .training.keep_best was false."):
        find_model(f"{without.id[:12]}/best", place)
    with pytest.raises(UserError, match="neither a folder of `mm1 train` nor one finished stage"):
        find_model(f"{without.id[:12]}/bests", place)


def test_a_folder_without_a_model_is_told(tmp_path):
    with pytest.raises(UserError, match="holds no trained model"):
        find_model(str(tmp_path), "nowhere")
