"""A model small enough to compile in a second or two, and batches in the pipeline's form."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data.batches.packing import Packed, lay_out

TINY = {
    "encoder": {"image_size": 16, "patch_size": 4, "width": 16, "layers": 2, "heads": 2},
    "connector": {"kind": "average_pooling", "tokens": 4},
    "language_model": {"width": 16, "layers": 2, "heads": 4, "kv_heads": 2, "mlp_width": 24},
    "data": {"text_tokens": 12, "images": 2, "vocabulary": 300},
    "training": {"batch_size": 2, "steps": 6, "log_every": 2, "checkpoint_every": 2},
    "optimizer": {"peak_lr": 0.01, "warmup_steps": 2},
}


@pytest.fixture(scope="session")
def tiny():
    """`tiny(section={field: value})`: the tiny config with some fields replaced."""

    def build(**sections) -> TrainConfig:
        merged = {name: {**TINY.get(name, {}), **new} for name, new in sections.items()}
        return TrainConfig.model_validate({**TINY, **merged})

    return build


@pytest.fixture(scope="session")
def loss_of():
    """`loss_of(model, batch)`: its loss and metrics in training, as one program."""
    from flax import nnx

    return nnx.jit(lambda model, batch: model.loss(batch, None))


def build_batch(config: TrainConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Two documents of an image and text in each sequence, then padding."""
    draws = np.random.default_rng(seed)
    text, images = config.data.text_tokens, config.data.images
    half = text // 2
    segments = np.repeat([1, 2], half).astype(np.int32)
    segments[-1] = 0
    rows = [
        Packed(
            tokens=np.where(segments, draws.integers(2, 300, text), 0).astype(np.int32),
            segments=segments,
            image_ids=np.array([0, 1] + [-1] * (images - 2), np.int32),
            image_at=np.array([0, half] + [0] * (images - 2), np.int32),
            image_segments=np.array([1, 2] + [0] * (images - 2), np.int32),
            source="text",
        )
        for _ in range(config.training.batch_size)
    ]
    size = config.encoder.image_size
    batch = lay_out(rows, config.connector.tokens, config.sequence_length)
    shape = (config.training.batch_size, images, size, size, 3)
    batch["images"] = draws.integers(0, 256, shape).astype(np.uint8)
    return batch


@pytest.fixture(scope="session")
def synthetic_batch():
    """`synthetic_batch(config, seed)`: see `build_batch`."""
    return build_batch


@pytest.fixture
def context_of(recording_context, data_root):
    """`recording_context`, over prepared data."""

    def build(name: str, stop_at_question: int | None = None) -> RecordingContext:
        context = recording_context(name, stop_at_question)
        context.data = data_root
        return context

    return build


@pytest.fixture
def synthetic_batches(monkeypatch, synthetic_batch):
    """Training reads batch n = `synthetic_batch(config, seed + n)` instead of prepared data."""
    from mm1_jax.training import multimodal_training

    def batches(config, data_root, seed, start_step, stream, rows):
        step = start_step
        while True:
            yield synthetic_batch(config, 1000 * seed + step)
            step += 1

    endless = SimpleNamespace(steps=None, measured=None, keep=None)
    monkeypatch.setattr(multimodal_training, "stream_of", lambda *arguments, beside: endless)
    monkeypatch.setattr(multimodal_training, "batches", batches)


@dataclass
class RecordingContext:
    """A stage's context that stops at a given question and keeps what is reported."""

    folder: Path
    stop_at_question: int | None = None
    questions: int = 0
    reports: list[tuple[int, dict]] = field(default_factory=list)
    facts: dict = field(default_factory=dict)
    gang = None

    def __post_init__(self):
        self.scratch, self.output = self.folder / "scratch", self.folder / "output"
        self.data = self.folder / "data"
        for folder in (self.scratch, self.output, self.data):
            folder.mkdir(parents=True, exist_ok=True)

    def report(self, step, metrics):
        self.reports.append((step, dict(metrics)))

    def record(self, facts):
        self.facts |= facts

    def stop_requested(self) -> bool:
        self.questions += 1
        return self.questions == self.stop_at_question


@pytest.fixture
def recording_context(tmp_path):
    """`recording_context(name, stop_at_question=None)`; the same name is the same folders."""

    def build(name: str = "stage", stop_at_question: int | None = None) -> RecordingContext:
        return RecordingContext(tmp_path / name, stop_at_question)

    return build
