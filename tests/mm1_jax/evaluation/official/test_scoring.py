"""Official tasks on a small untrained model: what is asked, what is stored, what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from asked_model import EVALUATED as CONFIG
from colour_folders import COLOURS, write_arc_easy, write_vqav2
from official_folders import picture, write_parquet
from official_folders import scienceqa as scienceqa_folder
from PIL import Image

from ablations.errors import UserError
from ablations.stage import StageStopped
from mm1_jax import runner
from mm1_jax.config.data import GridConfig
from mm1_jax.config.official import OfficialSettings, OfficialStage
from mm1_jax.data.batches.images import image_views
from mm1_jax.evaluation.asking import Encoded, packed
from mm1_jax.evaluation.benchmarks import scienceqa
from mm1_jax.evaluation.evaluated_model import EvaluatedModel
from mm1_jax.evaluation.official.catalogue import OFFICIAL, module_of
from mm1_jax.evaluation.official.few_shot_prompts import concluded, few_shot_prompt, questions_of
from mm1_jax.evaluation.official.scoring import Pictures
from mm1_jax.evaluation.official.task_folder import open_official
from mm1_jax.evaluation.tasks.prompts import as_text
from mm1_jax.images.sub_images import ImageViews
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.multimodal import MultimodalModel
from mm1_jax.training.checkpoints import save_part


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_part(folder, CONFIG, initialise(MultimodalModel(CONFIG), seed=0))
    return folder


@pytest.fixture(scope="module")
def vqav2(tmp_path_factory) -> Path:
    return write_vqav2(tmp_path_factory.mktemp("vqav2"))


@pytest.fixture(scope="module")
def arc_easy(tmp_path_factory) -> Path:
    return write_arc_easy(tmp_path_factory.mktemp("arc_easy"))


@pytest.fixture
def run(model_folder, context_of):
    """`run(task, folder, settings={…}, **stage)` → rows by metric, examples."""
    number = iter(range(100))

    def evaluate(task, folder, settings=None, *, context=None, **stage):
        context = context or context_of(f"stage {next(number)}")
        official = {"folder": str(folder), "longest_answer": 4, **(settings or {})}
        content = open_official(task, OfficialSettings.model_validate(official)).content
        official = {"prompt": OFFICIAL[task].prompt, "content": content} | official
        official["module"] = module_of(task)
        config = {"task": task, "batch_size": 4, **stage, "official": official}
        rows = runner.evaluate(config, 0, {"model": model_folder}, context)
        examples = pq.read_table(context.output / "examples.parquet").to_pylist()
        return {row.metric: row for row in rows}, examples

    return evaluate


@pytest.fixture
def saying(monkeypatch):
    """The model says what `use(says)` makes of the pixels and the prompt of a row."""

    def use(says):
        def answers(model, batch, longest, stops=()):
            texts = [model.words.decode(row) for row in batch["tokens"]]
            return [says(*pair) for pair in zip(batch["images"], texts, strict=True)]

        monkeypatch.setattr(EvaluatedModel, "answers", answers)

    return use


def colour_of(images: np.ndarray, text: str) -> str:
    """Names the colour of the last image that is shown."""
    known = {"red": (254, 0, 0), "green": (0, 128, 1), "blue": (0, 0, 254), "black": (0, 0, 0)}
    mean = images[-1].mean(axis=(0, 1))
    return min(known, key=lambda name: np.abs(mean - known[name]).sum())


def test_one_who_looks_is_right_and_the_paper_says_how_it_is_asked(run, vqav2, saying):
    saying(colour_of)
    rows, examples = run("vqav2", vqav2)
    assert rows["accuracy"].value == 100
    assert rows["accuracy/answer_type:other"].value == 100
    assert rows["accuracy"].n_items == len(examples) == 12
    assert examples[0]["prompt"] == "<image>Question: What colour is it? Short answer:"
    assert examples[0]["image_file"] == "COCO_val2014_000000000001.jpg"
    assert [e["score"] for e in examples] == [100.0] * 12


@pytest.mark.parametrize("condition", ["shuffled", "no_image"])
def test_one_who_looks_is_lost_where_the_images_are_not_the_questions_own(
    run, vqav2, saying, condition
):
    saying(colour_of)
    rows, examples = run("vqav2", vqav2, condition=condition)
    assert rows["accuracy"].value < 50
    assert rows["accuracy"].condition == condition
    own = [f"COCO_val2014_{1 + n // 2:012d}.jpg" for n in range(12)]
    assert all(e["image_file"] != file for e, file in zip(examples, own, strict=True))
    assert all(("<image>" in e["prompt"]) == (condition == "shuffled") for e in examples)


def test_the_blind_answerer_says_what_was_said_most_in_training(run, vqav2, saying):
    saying(lambda images, text: "nothing")
    rows, _ = run("vqav2", vqav2)
    assert rows["accuracy"].value == 0
    # Of ten training questions (five images), red is the answer to two of five of either kind.
    assert rows["blind_accuracy"].value == pytest.approx(100 * 4 / 12)
    assert rows["blind_accuracy"].standard_error is None


def test_the_standard_error_counts_questions_about_one_image_once(run, vqav2, saying):
    saying(lambda images, text: colour_of(images, text) if images[-1].mean() > 50 else "no")
    rows, examples = run("vqav2", vqav2)
    by_image = np.array([e["score"] for e in examples]).reshape(6, 2).mean(1)
    assert 0 < by_image.mean() < 100
    expected = by_image.std(ddof=1) / np.sqrt(6)
    assert rows["accuracy"].standard_error == pytest.approx(expected)


def test_demonstrations_come_from_training_by_question_and_seed(run, vqav2, saying):
    shown = {}
    saying(colour_of)
    for shots, seed in ((2, 0), (3, 0), (2, 1)):
        rows, examples = run("vqav2", vqav2, shots=shots, seed=seed)
        assert rows["accuracy"].value == 100
        shown[shots, seed] = {e["item_id"]: e["prompt"].split("\n\n") for e in examples}
    for item, parts in shown[3, 0].items():
        assert len(parts) == 4
        assert shown[2, 0][item] == [*parts[:2], parts[-1]]
        for part in parts[:-1]:
            assert part.startswith("<image>Question: ")
            assert part.rpartition(" Short answer: ")[2] in COLOURS  # what most people said
    assert shown[2, 1] != shown[2, 0]
    assert len({tuple(parts[:2]) for parts in shown[2, 0].values()}) > 3


def test_a_question_is_never_its_own_demonstration(run, vqav2, saying):
    saying(colour_of)
    _, examples = run("vqav2", vqav2, {"train": "test"}, shots=11)
    whole = {e["prompt"].split("\n\n")[-1] + e["image_file"] for e in examples}
    assert len(whole) == 12
    assert all(e["prompt"].count("<image>") == 12 for e in examples)
    with pytest.raises(UserError, match="shots: 12 of vqav2: the training split has 11 examples"):
        run("vqav2", vqav2, {"train": "test"}, shots=12)


def test_images_in_the_cells_of_a_table_are_those_of_their_own_split(run, tmp_path, saying):
    for split, colours in (("test", ["red", "blue"]), ("train", ["green", "black", "green"])):
        rows = [
            {"question": "Which?", "options": ["red", "blue"], "answer": "0", "image": picture(c)}
            for c in colours
        ]
        write_parquet(tmp_path / "ai2d" / split / f"{split}-00000-of-00001.parquet", rows)
    (tmp_path / "ai2d/train/train-00000-of-00001.parquet").rename(
        tmp_path / "ai2d/train/test-00000-of-00001.parquet"
    )
    shown = []
    saying(lambda images, text: shown.append([colour_of(i[None], text) for i in images]) or "A")
    train = {"train": "train/test-00000-of-00001.parquet"}
    rows, examples = run("ai2d", tmp_path / "ai2d", train, shots=1)
    assert rows["accuracy"].value == 100
    assert [own[-1] for own in shown[:2]] == ["red", "blue"]
    assert {own[0] for own in shown[:2]} <= {"green", "black"}
    assert examples[0]["prompt"].count("Answer with the option's letter") == 2


def test_questions_without_words_of_their_own_may_be_demonstrated(run, tmp_path):
    rows = [
        {"sentence": f"{n} saw _ there.", "option1": "Ann", "option2": "Bob", "answer": "2"}
        for n in ("Who", "She")
    ]
    table = write_parquet(tmp_path / "validation-0.parquet", rows)
    _, examples = run("winogrande", tmp_path, {"train": table.name}, shots=1)
    assert all(example["prompt"].count("\n\n") == 1 for example in examples)


def test_words_of_the_prompt_and_stop_strings_are_the_users(run, vqav2):
    settings = {"prompt": "Q: {question} A:", "separator": " ; ", "stop": ["e"]}
    _, examples = run("vqav2", vqav2, settings, shots=1, items=4)
    assert examples[0]["prompt"].startswith("<image>Q: ")
    assert " ; <image>Q: " in examples[0]["prompt"]
    assert all("e" not in e["prediction"] for e in examples)


def test_an_interrupted_evaluation_ends_with_the_same_examples_file(run, vqav2, context_of, saying):
    saying(colour_of)
    whole, stopped = context_of("whole"), context_of("stopped", stop_at_question=2)
    run("vqav2", vqav2, shots=1, context=whole)
    with pytest.raises(StageStopped):
        run("vqav2", vqav2, shots=1, context=stopped)
    again = context_of("stopped")
    run("vqav2", vqav2, shots=1, context=again)
    assert len(again.reports) == 1  # of three batches
    first, second = (c.output / "examples.parquet" for c in (whole, again))
    assert first.read_bytes() == second.read_bytes()


def test_the_record_has_the_bytes_of_all_images_that_were_shown(run, vqav2, context_of, saying):
    saying(colour_of)
    shown = {}
    for shots in (0, 2):
        context = context_of(f"{shots} shots")
        run("vqav2", vqav2, shots=shots, context=context)
        rows = read_images(context)
        for row in rows:
            content = next((vqav2 / "images").glob(f"*/{row['name']}")).read_bytes()
            assert row["bytes"] == len(content)
            assert row["sha256"] == hashlib.sha256(content).hexdigest()
        shown[shots] = {row["name"] for row in rows}, context.facts["images"]
    asked = {f"COCO_val2014_{number:012d}.jpg" for number in range(1, 7)}
    assert shown[0][0] == asked
    assert shown[2][0] > asked  # and those of demonstrations
    assert shown[0][1] != shown[2][1]
    blind = context_of("blind")
    run("vqav2", vqav2, condition="no_image", context=blind)
    assert "images" not in blind.facts  # times stand beside it
    assert not (blind.output / "images.parquet").exists()


def test_what_was_answered_about_other_images_is_asked_again(
    run, vqav2, context_of, saying, tmp_path, caplog
):
    folder = shutil.copytree(vqav2, tmp_path / "vqav2")
    saying(colour_of)
    with pytest.raises(StageStopped):
        run("vqav2", folder, context=context_of("stopped", stop_at_question=2))
    first = folder / "images/val2014/COCO_val2014_000000000001.jpg"
    Image.new("RGB", (20, 14), "blue").save(first)
    again = context_of("stopped")
    _, examples = run("vqav2", folder, context=again)
    assert len(again.reports) == 2  # of three batches of four: one was answered about this image
    assert "4 items are asked again: their images have changed" in caplog.text
    assert {e["prediction"] for e in examples if e["image_file"] == first.name} == {"blue"}
    record = {row["name"]: row for row in read_images(again)}
    assert record[first.name]["sha256"] == hashlib.sha256(first.read_bytes()).hexdigest()
    assert len(record) == 6


def read_images(context) -> list[dict]:
    return pq.read_table(context.output / "images.parquet").to_pylist()


def test_an_image_that_changes_while_it_is_asked_about_is_told(vqav2, tmp_path):
    folder = shutil.copytree(vqav2, tmp_path / "vqav2")
    pictures = Pictures(open_official("vqav2", OfficialSettings(folder=str(folder))))
    name = "COCO_val2014_000000000001.jpg"
    number, seen = np.array([pictures.number(name)]), ImageViews(16)
    pictures.views(number, np.zeros(1, int), seen)
    Image.new("RGB", (20, 14), "blue").save(folder / "images/val2014" / name)
    with pytest.raises(UserError, match=f"image {name} was changed while it was asked about"):
        pictures.views(number, np.zeros(1, int), ImageViews(8))


def test_images_are_upright_and_on_the_background_of_the_model(vqav2, tmp_path):
    folder = shutil.copytree(vqav2, tmp_path / "vqav2")
    name, exif = "COCO_val2014_000000000001.jpg", Image.Exif()
    exif[0x0112] = 6
    drawing = Image.new("RGBA", (16, 8))
    drawing.paste((255, 0, 0, 255), (0, 0, 8, 8))  # lies left, stands on top
    drawing.save(folder / "images/val2014" / name, "PNG", exif=exif)
    pictures = Pictures(open_official("vqav2", OfficialSettings(folder=str(folder))))
    number, seen = np.array([pictures.number(name)]), ImageViews(16, background=(0, 0, 255))
    (pixels,) = pictures.views(number, np.zeros(1, int), seen)
    assert (pixels[:6] == (255, 0, 0)).all()
    assert (pixels[10:] == (0, 0, 255)).all()


def test_choices_are_ranked_by_likelihood(run, arc_easy):
    rows, examples = run("arc_easy", arc_easy, shots=1)
    assert {"accuracy", "accuracy_norm", "accuracy_bytes"} <= set(rows)
    assert not any(name.startswith("blind") for name in rows)
    assert len(examples) == 6
    for number, example in enumerate(examples):
        demonstration, asked = example["prompt"].split("\n\n")
        assert "in the train?\nAnswer: number" in demonstration
        assert asked == f"Question: Which number follows {number} in the test?\nAnswer:"
        nats = [value for value, _ in json.loads(example["prediction"])]
        assert len(nats) == 4
        assert example["score"] == 100.0 * (int(np.argmax(nats)) == number % 4)


def test_mistakes_are_told_in_one_line(run, vqav2, arc_easy, tmp_path, saying):
    saying(colour_of)
    with pytest.raises(UserError, match="shots: 11 of vqav2: the training split has 10 examples"):
        run("vqav2", vqav2, shots=11)
    with pytest.raises(UserError, match="training split is not in the folder"):
        run("vqav2", vqav2 / "test", {"images": "../images"}, shots=1)
    with pytest.raises(UserError, match=r"about no images: condition shuffled"):
        run("arc_easy", arc_easy, condition="shuffled")
    with pytest.raises(UserError, match=r"expected .*annotations.json in .*ARC-Easy-Test.jsonl"):
        run("vqav2", arc_easy)
    with pytest.raises(UserError, match=r"no 'tset' in .*; did you mean 'test'"):
        run("vqav2", vqav2, {"annotations": "tset"})
    with pytest.raises(UserError, match="vqav2: no folder"):
        run("vqav2", tmp_path / "nowhere")
    copied = shutil.copytree(vqav2, tmp_path / "copied")
    (copied / "images/val2014/COCO_val2014_000000000003.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"COCO_val2014_000000000003.jpg cannot be read"):
        run("vqav2", copied)
    (copied / "images/val2014/COCO_val2014_000000000003.jpg").unlink()
    with pytest.raises(UserError, match=r"no image COCO_val2014_000000000003.jpg in "):
        run("vqav2", copied)


def test_a_model_of_sub_images_is_shown_all_views_of_an_official_image(vqav2):
    pictures = Pictures(open_official("vqav2", OfficialSettings(folder=str(vqav2))))
    seen = ImageViews(16, sub_images=GridConfig(side=2))
    ids = [pictures.number(f"COCO_val2014_{n:012d}.jpg") for n in (1, 2)]
    row = packed([Encoded([5, 6], ids, [0, 1])], 16, 2)[0]
    both = pictures.in_views(row, seen, 10)
    assert both.image_ids.tolist() == [0] * 5 + [1] * 5
    last = pictures.in_views(row, seen, 6, sharp=1)
    assert last.image_ids.tolist() == [0] + [1] * 5
    pixels = pictures.views(*(array[0] for array in image_views([last])), seen)
    assert pixels.shape == (6, 16, 16, 3)
    named = [colour_of(view[None], "") for view in pixels]
    assert named == ["red", *["green"] * 5]


def test_demonstrations_may_say_why_and_the_conclusion_is_what_counts(tmp_path, vqav2):
    scienceqa_folder(tmp_path)
    asked, training = scienceqa.read(tmp_path), scienceqa.read_training(tmp_path)
    settings = OfficialStage(folder="x", prompt="{question}", module="", content="", reasoning=True)
    prompt = few_shot_prompt(
        "scienceqa", settings, asked[0], (), training, number=lambda name, training=False: 0
    )
    assert as_text(prompt) == (
        "<image>Is air a gas? It fills its room. The answer is C.\n\nIs ice solid?"
    )
    assert concluded("It is cold. The answer is B? No. The answer is A.") == "A"
    assert concluded("A.") == "A"
    other = questions_of(
        module_of("vqav2"), open_official("vqav2", OfficialSettings(folder=str(vqav2)))
    )[1]
    with pytest.raises(UserError, match=r"vqav2: reasoning: training example .* has no reasons"):
        few_shot_prompt("vqav2", settings, asked[0], (), other, number=lambda *a, **k: 0)


def test_a_model_of_conversations_is_asked_in_turns(vqav2):
    folder = open_official("vqav2", OfficialSettings(folder=str(vqav2)))
    asked, training = questions_of(module_of("vqav2"), folder)
    settings = OfficialStage(
        folder=str(vqav2), prompt="{question}", module="", content="", train=None
    )
    pictures = Pictures(folder)
    prompt = few_shot_prompt(
        *("vqav2", settings, asked[0], asked[0].images, training[:1]),
        number=pictures.number,
        template="vicuna",
    )
    text = as_text(prompt)
    assert text.count("<image>") == text.count("USER:") == text.count("ASSISTANT:") == 2
    assert "ASSISTANT: red" in text
    assert text.endswith("ASSISTANT:")
