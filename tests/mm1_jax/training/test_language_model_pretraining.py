"""The stage `language_model` on prepared texts, its weights in the whole model, its score."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import own_data
import pyarrow.parquet as pq
import pytest
from flax import nnx
from pydantic import ValidationError

from ablations.errors import UserError
from ablations.stage import StageStopped
from mm1_jax import runner
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.config.recipe import Recipe
from mm1_jax.data.batches.packing import SOURCES, Budget, cut
from mm1_jax.data.batches.pipeline import text_batches
from mm1_jax.data.sources.fingerprint import data_fingerprint
from mm1_jax.data.sources.prepared_packages import open_prepared
from mm1_jax.data.tokenizer import load
from mm1_jax.evaluation.evaluation_stage import EXAMPLES_FILE
from mm1_jax.evaluation.ngrams import KneserNey, count
from mm1_jax.evaluation.tasks import pretrained_text
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.language_model import LanguageModel, load_language_model
from mm1_jax.model.multimodal import MultimodalModel
from mm1_jax.training.checkpoints import load_subtree
from mm1_jax.weights.part_weights import part_config

MODEL = {"width": 16, "layers": 2, "heads": 4, "kv_heads": 2, "mlp_width": 24}
EXPERTS = {**MODEL, "kind": "moe", "experts": 4, "every": 2}


def stage(steps: int = 4, model: dict = MODEL, **training) -> dict:
    return {
        "language_model": model,
        "text_tokens": 64,
        "training": {"steps": steps, "batch_size": 8, "log_every": 1, **training},
        "optimizer": {"peak_lr": 0.02, "warmup_steps": 2},
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_root):
    """Output folder of a short pre-training with seed 5."""
    folder = tmp_path_factory.mktemp("language_model")
    context = SimpleNamespace(
 gang=None,
        scratch=folder, output=folder, data=data_root,
        report=lambda step, metrics: None, stop_requested=lambda: False,
        record=lambda facts: None,
    )  # fmt: skip
    runner.pretrain_language_model(stage(), 5, {}, context)
    return folder


def equal(a, b) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.mark.parametrize("model", [{**MODEL, "dropout": 0.1}, EXPERTS])
def test_it_learns(model, context_of):
    rows = runner.pretrain_language_model(stage(40, model), 0, {}, context_of("learns"))
    curves = {
        name: [r.value for r in rows if r.metric == name] for name in {r.metric for r in rows}
    }
    losses = curves["text_loss" if model is EXPERTS else "loss"]
    assert len(losses) == 40
    assert losses[0] == pytest.approx(math.log(1024), abs=1.0)
    assert np.mean(losses[-5:]) < losses[0] - 1.0
    if model is EXPERTS:  # their losses are added, and logged
        balance, router = (np.array(curves[name]) for name in ("balance_loss", "router_z_loss"))
        sums = np.array(losses) + 0.01 * balance + 0.001 * router
        np.testing.assert_allclose(curves["loss"], sums, rtol=1e-5)


def test_stopped_and_resumed_it_gives_the_same_bits(context_of, trained):
    first = context_of("resumed", stop_at_question=3)
    with pytest.raises(StageStopped):
        runner.pretrain_language_model(stage(), 5, {}, first)
    runner.pretrain_language_model(stage(), 5, {}, context_of("resumed"))
    ours, theirs = (load_subtree(f, "language_model")[1] for f in (first.output, trained))
    assert equal(ours, theirs)


def test_it_learns_from_ones_own_texts_among_others_and_goes_on_within_an_epoch(
    context_of, own_texts
):
    mine = {"folder": str(own_texts), "kind": "text"}
    config = {**stage(7), "sources": {"mine": mine}, "mixture": {"mine": 1, "text": 1}}
    rows = runner.pretrain_language_model(config, 5, {}, context_of("whole"))
    epochs = {r.metric: r.value for r in rows if r.metric.startswith("epochs.")}
    assert epochs["epochs.mine"] > 0.5 > 0.05 > epochs["epochs.text"] > 0
    with pytest.raises(StageStopped):
        runner.pretrain_language_model(config, 5, {}, context_of("parts", stop_at_question=4))
    assert runner.pretrain_language_model(config, 5, {}, context_of("parts")) == rows
    ours, theirs = (
        load_subtree(context_of(f).output, "language_model")[1] for f in ("whole", "parts")
    )
    assert equal(ours, theirs)


def test_batches_of_ones_own_texts_hold_them_and_hosts_read_their_rows(data_root, own_texts):
    mine = {"folder": str(own_texts), "kind": "text"}
    asked = {**stage(), "sources": {"mine": mine}, "mixture": {"mine": 1}}
    config = LanguageModelStageConfig.model_validate(asked)
    batch, tokenizer = next(text_batches(config, data_root, 0)), load(own_texts)
    passages = {own_data.passage(number) for number in range(60)}
    first = batch["tokens"][0][batch["segments"][0] == 1]
    assert any(tokenizer.decode(first) in passage for passage in passages)
    for host in (0, 1):
        rows = range(4 * host, 4 * host + 4)
        part = next(text_batches(config, data_root, 0, rows=rows))
        np.testing.assert_array_equal(part["tokens"], batch["tokens"][4 * host : 4 * host + 4])


def test_it_has_the_tokens_of_the_whole_models_data(tmp_path):
    data = {"special_tokens": ["<|im_start|>"], "vocabulary": 1030, "workers": 2}
    recipe = Recipe.model_validate({"data": data, "language_model_pretraining": {}})
    stage_config = recipe.language_model_stage()
    assert stage_config is not None
    assert data_fingerprint(stage_config.data) == data_fingerprint(recipe.data)


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ({"tales": 1}, "pretraining.mixture.tales: no such source; did you mean 'tale'"),
        ({"mine": 1}, "kind captions, and the language model reads text alone; valid: text, tale"),
        ({"interleaved": 1}, "of the embedded sources the language model reads one; valid: text"),
    ],
)
def test_a_source_that_is_no_text_is_told_with_those_that_are(mixture, message):
    sources = {
        "mine": {"folder": "a", "kind": "captions"},
        "tale": {"folder": "b", "kind": "text"},
    }
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(
            {"data": {"sources": sources}, "language_model_pretraining": {"mixture": mixture}}
        )


def test_batches_are_texts_packed_without_images(data_root):
    config = LanguageModelStageConfig.model_validate(stage())
    batch = next(text_batches(config, data_root, 0))
    shapes = {name: (array.shape, str(array.dtype)) for name, array in batch.items()}
    assert shapes == {
        "tokens": ((8, 64), "int32"),
        "segments": ((8, 64), "int32"),
        "positions": ((8, 64), "int32"),
        "loss_weights": ((8, 64), "float32"),
    }
    assert (batch["segments"] > 0).mean() > 0.9
    # Every token but the first of its document is predicted.
    first = batch["positions"] == 0
    np.testing.assert_array_equal(batch["loss_weights"], (batch["segments"] > 0) & ~first)


def test_it_is_the_multimodal_models_loss_where_there_are_no_images(tiny, data_root, loss_of):
    training = {"loss_mean": "sequences", "z_loss": 0.01}
    config = LanguageModelStageConfig.model_validate(stage(**training))
    whole = tiny(
        language_model=MODEL, data={"text_tokens": 64, "images": 1, "vocabulary": 1024},
        training=training,
    )  # fmt: skip
    alone, among = initialise(LanguageModel(config), 3), initialise(MultimodalModel(whole), 3)
    batch = next(text_batches(config, data_root, 0))
    places = np.arange(64)
    # The image slot is empty: four places of padding follow the text.
    padded = {name: np.pad(batch[name], ((0, 0), (0, 4))) for name in ("segments", "positions")}
    gather = np.pad(np.broadcast_to(places, (8, 64)), ((0, 0), (0, 4))).astype(np.int32)
    batch_among = {
        **batch,
        **padded,
        "gather": gather,
        "predictors": np.broadcast_to(np.maximum(places - 1, 0), (8, 64)).astype(np.int32),
        "images": np.zeros((8, 1, 16, 16, 3), np.uint8),
        "sources": np.full(8, SOURCES.index("text"), np.int32),
    }
    (ours, metrics), (theirs, _) = loss_of(alone, batch), loss_of(among, batch_among)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)
    # What parts of a batch count among each other: every sequence of the eight alike.
    assert float(alone.weight(batch)) == pytest.approx(8)
    assert set(metrics) == {"text_loss", "z_loss"}


def multimodal(tiny, **language_model):
    return tiny(
        language_model={**MODEL, **language_model},
        data={"vocabulary": 1024, "text_tokens": 32, "images": 1},
        training={"steps": 1, "freeze": ["language_model"]},
        optimizer={"warmup_steps": 0},
    )


def test_the_multimodal_stage_starts_from_its_weights(trained, context_of, tiny):
    context = context_of("multimodal")
    config = multimodal(tiny).model_dump(mode="json")
    runner.train(config, 5, {"language_model": trained}, context)
    ours, theirs = (load_subtree(f, "language_model")[1] for f in (context.output, trained))
    assert equal(ours, theirs)


def test_experts_start_as_copies_of_a_dense_model_that_was_trained(trained, context_of, tiny):
    context = context_of("multimodal")
    config = multimodal(tiny, kind="moe", experts=4, every=2, from_dense=True)
    runner.train(config.model_dump(mode="json"), 5, {"language_model": trained}, context)
    ours, theirs = (load_subtree(f, "language_model")[1] for f in (context.output, trained))
    np.testing.assert_array_equal(ours["embedding"], theirs["embedding"])
    np.testing.assert_array_equal(
        ours["blocks"]["down"]["kernel"][0], theirs["blocks"]["down"]["kernel"][0]
    )
    experts = ours["expert_blocks"]["experts"]["down"]
    assert experts.shape == (1, 4, 24, 16)
    for expert in experts[0]:
        np.testing.assert_array_equal(expert, theirs["blocks"]["down"]["kernel"][1])

    other = multimodal(tiny, kind="moe", experts=4, every=2)
    with pytest.raises(UserError, match=r"kind is 'dense' there and 'moe' in the recipe"):
        runner.train(other.model_dump(mode="json"), 5, {"language_model": trained}, context)


def test_a_dense_model_of_another_vocabulary_is_told_by_its_parameter(trained, context_of, tiny):
    config = tiny(language_model={**EXPERTS, "from_dense": True})
    expected = r"language_model/embedding is \[1024, 16\] in .* and \[300, 16\] in the recipe"
    with pytest.raises(UserError, match=expected):
        runner.train(
            config.model_dump(mode="json"), 5, {"language_model": trained}, context_of("other")
        )


def test_experts_from_a_dense_model_need_one():
    model = {**EXPERTS, "from_dense": True}
    with pytest.raises(ValidationError, match="give language_model_pretraining or initial_weights"):
        Recipe.model_validate({"language_model": model})
    for origin in (
        {"language_model_pretraining": {"training": {"steps": 60}}},
        {"initial_weights": {"language_model": "somewhere"}},
    ):
        Recipe.model_validate({"language_model": model, **origin})


def test_a_part_of_the_optimisation_that_is_written_keeps_the_other_defaults():
    whole = Recipe.model_validate({"language_model_pretraining": {}}).language_model_pretraining
    some = Recipe.model_validate(
        {"language_model_pretraining": {"optimizer": {"warmup_steps": 5}}}
    ).language_model_pretraining
    assert whole is not None
    assert some is not None
    assert some.optimizer.peak_lr == whole.optimizer.peak_lr
    with pytest.raises(ValidationError, match="warmup_steps 50 exceed the 9 training steps"):
        Recipe.model_validate({"language_model_pretraining": {"training": {"steps": 9}}})


@pytest.mark.parametrize("vocabulary", [1024, 200])
def test_the_vocabulary_of_a_checkpoint_is_its_own(trained, tmp_path, vocabulary):
    stated = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    stated["config"]["vocabulary"] = vocabulary  # a public model's may be smaller than ours
    (tmp_path / "config.json").write_text(json.dumps(stated), encoding="utf-8")
    (tmp_path / "checkpoint").mkdir()
    config, found = part_config(tmp_path, "language_model")
    assert (config.width, found) == (16, vocabulary)


@pytest.fixture(scope="module")
def scored(trained, tmp_path_factory, data_root):
    """Rows by metric and examples of 20 held-out texts."""
    folder = tmp_path_factory.mktemp("scored")
    context = SimpleNamespace(
        gang=None, scratch=folder, output=folder, data=data_root, record=lambda facts: None
    )
    config = {"task": "pretrained_text", "items": 20, "batch_size": 4}
    rows = runner.evaluate_language_model(config, 5, {"model": trained}, context)
    examples = pq.read_table(folder / EXAMPLES_FILE).to_pylist()
    return {row.metric: row for row in rows}, examples


def held_out_pieces(scored, data_root):
    """The scored texts in pieces of 64 tokens, and the bytes of what is predicted of them."""
    prepared = open_prepared(LanguageModelStageConfig().data, data_root)
    table = prepared.documents("text", "test")
    pieces = cut(table, Budget(64, 0))
    names = {example["item_id"] for example in scored[1]}
    chosen = [
        table.tokens[start:end]
        for document, start, end in zip(
            pieces.document, pieces.text_start, pieces.text_end, strict=True
        )
        if table.names[document] in names
    ]
    bytes_of = prepared.tokenizer.bytes_of_tokens()
    return chosen, sum(bytes_of[piece[1:]].sum() for piece in chosen)


def test_perplexity_and_bits_equal_a_plain_computation(scored, trained, data_root):
    pieces, text_bytes = held_out_pieces(scored, data_root)
    lengths = np.array([len(piece) for piece in pieces])
    rows = np.stack([np.pad(piece, (0, 64 - len(piece))) for piece in pieces])

    @nnx.jit
    def log_shares(model, tokens):
        """Of every token after the first, each piece standing alone."""
        decoder, place = model.language_model, jnp.broadcast_to(jnp.arange(64), tokens.shape)
        x = decoder.embed(tokens, jnp.dtype("float32"))
        states, _ = decoder(x, place, jnp.ones_like(place), model.form)
        shares = jax.nn.log_softmax(decoder.logits(states)[:, :-1])
        return jnp.take_along_axis(shares, tokens[:, 1:, None], axis=-1)[..., 0]

    found = np.asarray(log_shares(load_language_model(trained)[1], rows), np.float64)
    predicted = np.arange(1, 64) < lengths[:, None]
    nats, tokens = -found[predicted].sum(), predicted.sum()
    rows, examples = scored
    assert sum(example["weight"] for example in examples) == tokens
    assert rows["perplexity"].value == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    expected = nats / text_bytes / math.log(2)
    assert rows["bits_per_byte"].value == pytest.approx(expected, rel=1e-4)
    assert rows["perplexity"].n_items == len(examples) == 20
    assert rows["perplexity"].step == 4


def test_the_ngram_reads_the_same_training_texts_and_predicts_the_same_tokens(scored, data_root):
    pieces, text_bytes = held_out_pieces(scored, data_root)
    prepared = open_prepared(LanguageModelStageConfig().data, data_root)
    ngrams = pretrained_text.training_ngrams(prepared.folder, 64)
    nats = np.concatenate([own[1:] for own in ngrams.nats(pieces)])
    rows, _ = scored
    assert rows["ngram_perplexity"].value == pytest.approx(math.exp(nats.mean()))
    expected = nats.sum() / text_bytes / math.log(2)
    assert rows["ngram_bits_per_byte"].value == pytest.approx(expected)
    # Counting alone beats a model that has seen four batches, and single tokens.
    table = prepared.documents("text", "train")
    singles = KneserNey(count([table.tokens], 1, 1024), 1, 1024)
    alone = np.concatenate([own[1:] for own in singles.nats(pieces)])
    assert nats.mean() < alone.mean() - 1
    assert rows["ngram_perplexity"].value < rows["perplexity"].value


def test_an_unknown_task_form_or_checkpoint_is_told(trained, context_of, tiny, tmp_path):
    def score(folder, task="pretrained_text", **config):
        context = context_of("score")
        return runner.evaluate_language_model(
            {"task": task, **config}, 5, {"model": folder}, context
        )

    with pytest.raises(UserError, match="did you mean 'pretrained_text'"):
        score(trained, "pretrained_txt")
    with pytest.raises(UserError, match="no images to shuffle"):
        score(trained, condition="shuffled")
    with pytest.raises(UserError, match="items: 400 of pretrained_text: the test split has 311"):
        score(trained, items=400)
    runner.train(multimodal(tiny).model_dump(mode="json"), 0, {}, context_of("whole"))
    with pytest.raises(UserError, match="of kind multimodal, not language_model"):
        score(tmp_path / "whole" / "output")


def test_the_decoder_starts_as_it_would_without_pretraining(tiny):
    config = LanguageModelStageConfig.model_validate(stage())
    alone = nnx.to_pure_dict(nnx.state(initialise(LanguageModel(config), 3)))
    among = nnx.to_pure_dict(nnx.state(initialise(MultimodalModel(multimodal(tiny)), 3)))
    assert equal(alone["language_model"], among["language_model"])
