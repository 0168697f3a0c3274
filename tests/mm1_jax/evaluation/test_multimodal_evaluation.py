from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from asked_model import EVALUATED as CONFIG

from ablations.errors import UserError
from mm1_jax import runner
from mm1_jax.data.sources.prepared_packages import open_prepared
from mm1_jax.evaluation import asking, multimodal_evaluation
from mm1_jax.evaluation.evaluated_model import EvaluatedModel
from mm1_jax.evaluation.metrics.captions import cider_d
from mm1_jax.evaluation.metrics.exact_match import exact_match
from mm1_jax.evaluation.tasks import easy_vqa, emoji_caption
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.multimodal import MultimodalModel
from mm1_jax.training.checkpoints import save_part


@dataclass
class FakeContext:
    scratch: Path
    output: Path
    data: Path
    gang = None

    def report(self, step, metrics):
        pass

    def record(self, facts):
        pass

    def stop_requested(self):
        return False


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_part(folder, CONFIG, initialise(MultimodalModel(CONFIG), seed=0))
    return folder


@pytest.fixture
def run(model_folder, data_root, tmp_path):
    def evaluate(**config):
        scratch = Path(tempfile.mkdtemp(dir=tmp_path))  # a stage's own
        context = FakeContext(scratch, tmp_path, data_root)
        rows = runner.evaluate({"batch_size": 16, **config}, 0, {"model": model_folder}, context)
        examples = pq.read_table(tmp_path / "examples.parquet").to_pylist()
        return {row.metric: row for row in rows}, examples

    return evaluate


@pytest.fixture
def answering(monkeypatch):
    """Replace the model's answers by fixed texts, one per item, in the order of the items."""

    def use(texts: list[str]) -> list[dict[str, np.ndarray]]:
        batches, order = [], []

        def groups(rows, batch_size, made=asking.groups):
            order[:] = made(rows, batch_size)
            return list(order)

        def answers(model, batch, longest, stops=()):
            batches.append(batch)
            asked = order.pop(0)
            said = [texts[item].strip() if texts else "" for item in asked.places]
            return said + ["filling"] * (len(batch["tokens"]) - len(asked.places))

        monkeypatch.setattr(asking, "groups", groups)
        monkeypatch.setattr(EvaluatedModel, "answers", answers)
        return batches

    return use


def test_every_example_is_stored_and_its_score_follows_from_it(run):
    rows, examples = run(task="easy_vqa", items=40)
    assert len(examples) == rows["accuracy"].n_items == 40
    assert rows["accuracy"].split == "test"
    for example in examples:
        matches = exact_match(example["prediction"], example["references"][0])
        assert example["score"] == 100 * matches
        assert example["prompt"].startswith("<image>")
    assert rows["accuracy"].value == pytest.approx(np.mean([e["score"] for e in examples]))
    assert rows["oracle_accuracy"].value >= rows["blind_accuracy"].value > 0


def test_right_answers_score_100_and_the_filling_of_the_last_batch_does_not_count(
    run, answering, data_root
):
    items = easy_vqa.items(open_prepared(CONFIG.data, data_root))
    chosen = multimodal_evaluation.prompts.subset(items, 20, 0, "easy_vqa")
    batches = answering([f" {item.references[0]}" for item in chosen])
    rows, examples = run(task="easy_vqa", items=20)
    assert rows["accuracy"].value == 100
    assert [example["item_id"] for example in examples] == [item.item_id for item in chosen]
    assert [len(batch["tokens"]) for batch in batches] == [16, 16]


def test_shuffled_shows_every_item_another_image(run, answering):
    intact_batches = answering([])
    _, intact = run(task="easy_vqa", items=40)
    shuffled_batches = answering([])
    rows, shuffled = run(task="easy_vqa", items=40, condition="shuffled")
    assert rows["accuracy"].condition == "shuffled"
    for ours, theirs in zip(shuffled, intact, strict=True):
        assert (ours["item_id"], ours["prompt"]) == (theirs["item_id"], theirs["prompt"])
        assert ours["image_id"] != theirs["image_id"]
    for ours, theirs in zip(shuffled_batches, intact_batches, strict=True):
        np.testing.assert_array_equal(ours["tokens"], theirs["tokens"])
        different = (ours["images"] != theirs["images"]).any(axis=(1, 2, 3, 4))
        assert different.all()


def test_without_images_the_words_alone_are_asked(run, answering):
    _, intact = run(task="easy_vqa", items=8, shots=1)
    batches = answering([])
    rows, blind = run(task="easy_vqa", items=8, shots=1, condition="no_image")
    assert rows["accuracy"].condition == "no_image"
    assert not any((batch["images"] != 0).any() for batch in batches)
    for ours, theirs in zip(blind, intact, strict=True):
        assert ours["image_id"] == -1
        assert ours["prompt"] == theirs["prompt"].replace("<image>", "")


def test_shots_put_demonstrations_before_the_question(run, answering):
    batches = answering([])
    _, zero = run(task="easy_vqa", items=8)
    rows, two = run(task="easy_vqa", items=8, shots=2)
    assert rows["accuracy"].shots == 2
    for ours, theirs in zip(two, zero, strict=True):
        assert ours["prompt"].count("<image>") == 3
        assert ours["prompt"].endswith("\n\n" + theirs["prompt"])
    assert batches[-1]["images"].shape[:2] == (8, 3)


def test_captions_are_scored_with_cider_on_the_whole_split(run, answering, data_root):
    items = emoji_caption.items(open_prepared(CONFIG.data, data_root))
    answering([f" {item.references[-1]}" for item in items])
    rows, examples = run(task="emoji_caption")
    references = [example["references"] for example in examples]
    expected = 100 * cider_d([example["prediction"] for example in examples], references)
    np.testing.assert_allclose([example["score"] for example in examples], expected)
    assert rows["cider"].value == pytest.approx(expected.mean())
    assert rows["cider"].value > 100
    assert [e["prediction"] for e in examples] == [item.references[-1] for item in items]


def test_perplexity_follows_from_the_examples_and_starts_near_the_vocabulary(run, data_root):
    rows, examples = run(task="held_out_text", items=30)
    nats = sum(example["score"] * example["weight"] for example in examples)
    tokens = sum(example["weight"] for example in examples)
    assert rows["perplexity"].value == pytest.approx(math.exp(nats / tokens))
    # First scores have a variance of about 1, which adds half a nat to a uniform guess.
    assert rows["perplexity"].value == pytest.approx(1024 * math.exp(0.5), rel=0.25)
    assert len(examples) == 30
    prepared = open_prepared(CONFIG.data, data_root)
    encoded = [len(prepared.tokenizer.encode(example["references"][0])) for example in examples]
    # Every token is predicted once, but the first of each piece of 64; the end is one more.
    pieces = [math.ceil((n + 1) / CONFIG.data.text_tokens) for n in encoded]
    assert [int(e["weight"]) for e in examples] == [
        n + 1 - p for n, p in zip(encoded, pieces, strict=True)
    ]
    text_bytes = sum(len(example["references"][0].encode()) for example in examples)
    lowest = nats / math.log(2) / text_bytes
    assert lowest < rows["bits_per_byte"].value < 1.1 * lowest


def test_mistakes_are_told_in_one_line(run):
    with pytest.raises(UserError, match="did you mean 'easy_vqa'"):
        run(task="easy_vqqa")
    with pytest.raises(UserError, match="no images to shuffle"):
        run(task="held_out_text", condition="shuffled")


@pytest.fixture(scope="module")
def in_context_folder(in_context_data, tmp_path_factory) -> Path:
    config = CONFIG.model_copy(update={"data": in_context_data[0]})
    folder = tmp_path_factory.mktemp("in_context")
    save_part(folder, config, initialise(MultimodalModel(config), seed=0))
    return folder


@pytest.mark.parametrize(
    ("task", "also_measured"),
    [
        pytest.param("emoji_languages", "kind_accuracy", marks=pytest.mark.slow),
        ("emoji_attributes", "kind_accuracy"),
        ("fast_binding", "kind_accuracy"),
        ("emoji_glossary", "colour_accuracy"),
    ],
)
def test_in_context_tasks_run_with_right_and_with_wrong_demonstrations(
    task, also_measured, in_context_folder, in_context_data, tmp_path
):
    asked = {}
    for condition in ("intact", "wrong_demonstrations"):
        context = FakeContext(tmp_path, tmp_path, in_context_data[1])
        stage = {"task": task, "shots": 2, "items": 6, "condition": condition, "batch_size": 6}
        rows = runner.evaluate(stage, 0, {"model": in_context_folder}, context)
        assert {row.metric for row in rows} >= {"accuracy", also_measured}
        assert {row.condition for row in rows} == {condition}
        asked[condition] = pq.read_table(tmp_path / "examples.parquet").to_pylist()
    for right, wrong in zip(asked["intact"], asked["wrong_demonstrations"], strict=True):
        assert right["prompt"].count("<image>") == 3
        assert (right["item_id"], right["image_id"]) == (wrong["item_id"], wrong["image_id"])
        assert right["prompt"] != wrong["prompt"]
        assert right["prompt"].rpartition("<image>")[2] == wrong["prompt"].rpartition("<image>")[2]
