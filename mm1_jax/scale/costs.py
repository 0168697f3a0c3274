"""What a configuration costs, from formulas: parameters, FLOPs, memory, seconds. No JAX.

The connectors' formulas stand with their config classes. Tests hold every formula against the
real parameter tree and against XLA's cost analysis of the unrolled program.
"""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import BaseModel

from ablations.fingerprints import canonical
from ablations.sections import once_a_section
from mm1_jax.config.data import DataConfig
from mm1_jax.config.encoder import FusedEncoderConfig
from mm1_jax.config.encoder_pretraining import ContrastiveConfig, EncoderStageConfig
from mm1_jax.config.language_model import DenseConfig, MixtureOfExpertsConfig
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.config.training import OptimizerConfig, TrainingConfig
from mm1_jax.training.schedule import peak_lr

__all__ = [
    "compile_class",
    "encoder_stage_flops",
    "flops_per_step",
    "language_model_stage_flops",
    "memory_bytes",
    "memory_per_chip",
    "parameters",
    "peak_lr",
    "pretraining_compile_class",
    "pretraining_seconds_per_step",
    "query_flops",
    "seconds_per_step",
    "seconds_to_compile",
    "token_flops",
]

DECIDES_NO_RESULT = "what is planned and told; a rate that follows from it is in the config"

# Measured on one core of a two-core x86 machine.
SECONDS_PER_CALL = 1.7e-3
SECONDS_PER_FLOP = 1.5e-11
SECONDS_PER_SCORE = 1.07e-8
# Tracing and compiling with an empty cache, and what an evaluation costs beside its questions:
# reading checkpoint and data, writing answers.
SECONDS_TO_COMPILE = 1.0
SECONDS_TO_COMPILE_LAYER = 0.9
SECONDS_PER_EVALUATION = 0.7


def parameters(config: TrainConfig) -> dict[str, int]:
    """Weights by part, all experts counted; embedding and head are counted on their own."""
    return {
        "encoder": config.encoder.parameters(),
        "connector": config.connector.parameters(config.encoder, config.language_model.width),
        "language_model": config.language_model.all_parameters(),
        "embedding": config.language_model.head_parameters(config.data.vocabulary),
    }


def flops_per_step(config: TrainConfig) -> dict[str, float]:
    """FLOPs of one training step by part, multiply-add = 2: matrix products and convolutions.

    Backward costs twice forward: once for the weights, once for what is below. A frozen part
    saves the first, and the second too where nothing below it learns. Masked attention scores are
    computed and count. Of experts those that a token is sent to count. Rematerialisation
    (accelerators) is not included.
    """
    encoder, lm = config.encoder, config.language_model
    images = config.training.batch_size * config.image_slots
    frozen = set(config.training.freeze)
    encoder_learns, connector_learns, lm_learns = (
        part not in frozen for part in ("encoder", "connector", "language_model")
    )
    below_connector = encoder_learns
    below_lm = encoder_learns or connector_learns

    def passes(learns: bool, below: bool) -> int:
        """Forward, gradient for what is below, gradient for the weights."""
        return 1 + (learns or below) + learns

    sequence, sequences = config.sequence_length, config.training.batch_size
    queries = lm.heads * lm.head
    positions = sequence * sequences
    lm_linear = 2.0 * positions * lm.layers * lm.width * (lm.attention_width + queries)
    lm_linear += lm.feed_forward_flops(positions)
    lm_attention = 4.0 * lm.layers * sequence**2 * queries
    head = 2.0 * config.data.text_tokens * config.data.vocabulary * lm.width
    return {
        "encoder": images
        * (
            # Patches are data: their embedding has no gradient to hand down.
            encoder.patch_embedding_flops() * (1 + encoder_learns)
            + encoder.block_flops() * (1 + 2 * encoder_learns)
        ),
        "connector": images
        * config.connector.flops(encoder, lm.width)
        * passes(connector_learns, below_connector),
        "language_model": lm_linear * passes(lm_learns, below_lm),
        "attention": sequences * lm_attention * (1 + 2 * (lm_learns or below_lm)),
        "head": sequences * head * passes(lm_learns, below_lm),
    }


def memory_bytes(config: TrainConfig) -> int:
    """Peak bytes of training, roughly: weights, moments, gradients, kept activations."""
    counts = parameters(config)
    frozen = set(config.training.freeze)
    # Weight, gradient and AdamW's two moments; Adafactor's are rows and columns of the weights.
    learning = 16 if config.optimizer.kind == "adamw" else 8
    state = 0
    for part, count in counts.items():
        owner = "language_model" if part == "embedding" else part
        state += count * (4 if owner in frozen else learning)
    encoder, lm = config.encoder, config.language_model
    images = config.training.batch_size * config.image_slots
    sequence, sequences = config.sequence_length, config.training.batch_size
    number = 4 if config.training.compute_dtype == "float32" else 2
    token_values = 8 * lm.width + 2 * lm.attention_width + 2 * lm.heads * sequence
    activations = number * (
        images * encoder.kept_values()
        + sequences * sequence * lm.layers * token_values
        + lm.feed_forward_values(sequences * sequence)
    )
    logits = 2 * 4 * sequences * config.data.text_tokens * config.data.vocabulary
    pixels = 5 * images * 3 * encoder.image_size**2
    return state + activations + logits + pixels


def memory_per_chip(config: TrainConfig) -> dict[str, float]:
    """Bytes of training on each chip of `training.mesh`, roughly, by kind; scanned layers.

    state: weights, Adam's moments, gradients, and their sums over micro-batches, as far as they are
    cut. gathered: the weights of one layer while it is used, those of the next, and their gradient.
    kept: what the forward pass leaves for the backward pass. layer: what one layer needs while it
    is computed, and the scores of a chunk of tokens. batch: the chip's own part.
    Weights that fsdp cuts are taken to be gathered in bfloat16 if that is the compute dtype.
    """
    training, encoder, lm = config.training, config.encoder, config.language_model
    mesh, frozen = training.mesh, set(training.freeze)
    number = 4 if training.compute_dtype == "float32" else 2
    counts = parameters(config)
    expert_weights = 0
    if lm.kind == "moe":
        expert_weights = lm.expert_layers * lm.experts * 3 * lm.width * lm.mlp_width
    counts["language_model"] -= expert_weights
    cut, expert_cut = mesh.fsdp * mesh.tensor, mesh.fsdp * mesh.tensor * mesh.expert
    learning = 12 + number + (8 if training.micro_batches > 1 else 4)

    def state_of(part: str, count: float) -> float:
        owner = "language_model" if part == "embedding" else part
        return count * (4 if owner in frozen else learning)

    state = sum(state_of(part, count) for part, count in counts.items()) / cut
    state += state_of("language_model", expert_weights) / expert_cut

    # The embedding's table is the largest there is of the parts that are not stacked.
    per_layer = [
        counts["embedding"],
        lm.attention_parameters() + lm.feed_forward_parameters(),
    ]
    if lm.kind == "moe":
        per_layer.append(expert_weights / lm.expert_layers / mesh.expert)
    gathered = max(per_layer) / mesh.tensor * (2 * number + 4) if cut > mesh.tensor else 0.0

    sequences = max(1, training.batch_size // (training.micro_batches * mesh.batch_shards))
    images, sequence = sequences * config.image_slots, config.sequence_length
    positions = sequences * sequence
    token_values = 8 * lm.width + (2 * lm.attention_width + 4 * lm.mlp_width) / mesh.tensor
    kept = {
        "full": images * encoder.block_inputs() + positions * lm.layers * lm.width,
        "dots": (
            images * (encoder.block_inputs() + encoder.kept_values() / 2)
            + positions * lm.layers * token_values / 2
        ),
        "none": images * encoder.kept_values() + positions * lm.layers * token_values,
    }[training.remat]
    # The connector's blocks are not scanned: a dozen arrays of each stay.
    connector_blocks = getattr(config.connector, "depth", 1)
    kept += 12 * connector_blocks * images * encoder.patches * encoder.width
    scores = sequences * lm.heads / mesh.tensor * CHUNK * sequence * 3 * 4
    layer = number * max(1.5 * positions * token_values, images * encoder.block_values()) + scores
    if lm.kind == "moe":
        own = lm.feed_forward_values(positions) / lm.expert_layers
        layer = max(layer, number * (positions * 8 * lm.width + 1.5 * own) + scores)
    layer += sequences * CHUNK * config.data.vocabulary * 4 * 3
    pixels = training.batch_size // mesh.batch_shards * config.image_slots
    return {
        "state": state,
        "gathered": gathered,
        "kept": number * kept,
        "layer": layer,
        "batch": 3.0 * pixels * encoder.image_size**2,
    }


CHUNK = 512  # tokens whose scores are held at a time, about


def seconds_to_compile(*parts: Any) -> float:
    """Estimated seconds of tracing and compiling a step of these parts' configs on one CPU core.

    Layers are unrolled there, so each is compiled.
    """
    layers = 0
    for part in parts:
        towers = (part.first, part.second) if isinstance(part, FusedEncoderConfig) else (part,)
        layers += sum(tower.layers for tower in towers)
    return SECONDS_TO_COMPILE + SECONDS_TO_COMPILE_LAYER * layers


def compile_class(config: TrainConfig) -> str:
    """Equal where two trainings run the same compiled program.

    Everything that enters shapes or constants: not the number of steps, the learning rate's
    course, the mixture, or a seed.
    """
    parts = (config.encoder, config.connector, config.language_model)
    return _digest(
        *[_whole(part) for part in parts],
        _of_data(config.data),
        _of_training(config.training),
        _of_optimizer(config.optimizer),
    )


@once_a_section
def _whole(section: BaseModel) -> str:
    return canonical(section.model_dump(mode="json"))


@once_a_section
def _of_data(data: DataConfig) -> str:
    shapes = {"text_tokens", "images", "sub_images", "total_tokens", "vocabulary"}
    found = data.model_dump(mode="json", include=shapes)
    return canonical({**found, "sources": len(data.source_names)})


@once_a_section
def _of_training(training: TrainingConfig) -> str:
    compiled = {"batch_size", "freeze", "loss_mean", "z_loss", "compute_dtype", "layers"}
    compiled |= {"remat", "attention", "micro_batches", "mesh"}
    return canonical(training.model_dump(mode="json", include=compiled))


@once_a_section
def _of_optimizer(optimizer: OptimizerConfig) -> str:
    compiled = {"kind", "part_rates", "weight_decay", "clip_norm", "b1", "b2", "eps"}
    return canonical(optimizer.model_dump(mode="json", include=compiled))


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def seconds_per_step(config: TrainConfig) -> float:
    """Estimated seconds of one training step on one CPU core.

    A call's overhead, the matrix products, and what is spent on each attention score (exponential,
    mask, memory). Fitted to 13 models of 0.2 to 1 million parameters: within a fifth, but for
    C-Abstractors with several blocks, whose convolutions take up to twice as long.
    """
    encoder, lm = config.encoder, config.language_model
    sequences = config.training.batch_size
    scores = (
        sequences * config.image_slots * encoder.scores()
        + sequences * lm.layers * lm.heads * config.sequence_length**2
    )
    flops = sum(flops_per_step(config).values())
    return SECONDS_PER_CALL + flops * SECONDS_PER_FLOP + scores * SECONDS_PER_SCORE


# -- generation ----------------------------------------------------------------------------------


def query_flops(config: TrainConfig, images: int, positions: int) -> float:
    """FLOPs of reading one query with so many images and positions, and of its last scores."""
    encoder, lm = config.encoder, config.language_model
    per_image = encoder.patch_embedding_flops() + encoder.block_flops()
    per_image += config.connector.flops(encoder, lm.width)
    queries = lm.heads * lm.head
    linear = 2.0 * positions * lm.layers * lm.width * (lm.attention_width + queries)
    attention = 4.0 * lm.layers * positions**2 * queries
    return images * per_image + linear + _dropless_flops(lm, positions) + attention + _head(config)


def token_flops(config: TrainConfig, slots: int) -> float:
    """FLOPs of one token more, whose query looks at so many slots of the cache."""
    lm = config.language_model
    queries = lm.heads * lm.head
    linear = 2.0 * lm.layers * lm.width * (lm.attention_width + queries)
    return linear + _dropless_flops(lm, 1) + 4.0 * lm.layers * slots * queries + _head(config)


def _dropless_flops(lm: DenseConfig | MixtureOfExpertsConfig, tokens: int) -> float:
    # Outside training no expert has a capacity.
    if lm.kind == "moe":
        lm = lm.model_copy(update={"capacity_factor": None})
    return lm.feed_forward_flops(tokens)


def _head(config: TrainConfig) -> float:
    return 2.0 * config.data.vocabulary * config.language_model.width


# -- pre-training stages -------------------------------------------------------------------------


def encoder_stage_flops(config: EncoderStageConfig) -> float:
    """FLOPs of one step of an encoder's pre-training, forward and backward.

    One image per example, and one caption where there is a text tower. The head and the scores of
    all pairs are small beside them and not counted.
    """
    encoder = config.encoder
    per_image = 2 * encoder.patch_embedding_flops() + 3 * encoder.block_flops()
    if isinstance(config.objective, ContrastiveConfig):
        per_image += 3 * _decoder_flops(config.objective.text_tower, config.text_tokens)
    return config.training.batch_size * per_image


def language_model_stage_flops(config: LanguageModelStageConfig) -> float:
    """FLOPs of one step of a language model's pre-training, forward and backward."""
    lm, tokens = config.language_model, config.text_tokens
    head = 2.0 * tokens * config.vocabulary * lm.width
    return 3 * config.training.batch_size * (_decoder_flops(lm, tokens) + head)


def _decoder_flops(lm: DenseConfig | MixtureOfExpertsConfig, tokens: int) -> float:
    """FLOPs of one sequence's forward pass without the head: products, attention scores."""
    queries = lm.heads * lm.head
    projections = 2.0 * tokens * lm.layers * lm.width * (lm.attention_width + queries)
    scores = 4.0 * lm.layers * tokens**2 * queries
    return projections + lm.feed_forward_flops(tokens) + scores


def pretraining_seconds_per_step(config: EncoderStageConfig | LanguageModelStageConfig) -> float:
    """Estimated seconds of one step of a pre-training stage on one CPU core, as for training."""
    if isinstance(config, EncoderStageConfig):
        flops = encoder_stage_flops(config)
        scores = config.training.batch_size * config.encoder.scores()
        if isinstance(config.objective, ContrastiveConfig):
            tower = config.objective.text_tower
            per_caption = tower.layers * tower.heads * config.text_tokens**2
            scores += config.training.batch_size * per_caption
    else:
        flops = language_model_stage_flops(config)
        lm = config.language_model
        scores = config.training.batch_size * lm.layers * lm.heads * config.text_tokens**2
    return SECONDS_PER_CALL + flops * SECONDS_PER_FLOP + scores * SECONDS_PER_SCORE


def pretraining_compile_class(config: EncoderStageConfig | LanguageModelStageConfig) -> str:
    """Equal where two pre-trainings run the same compiled program."""
    part = "encoder" if isinstance(config, EncoderStageConfig) else "language_model"
    own = config.model_dump(mode="json", include={"text_tokens", "vocabulary", "objective"})
    return _digest(
        part,
        _whole(getattr(config, part)),
        canonical(own),
        _of_training(config.training),
        _of_optimizer(config.optimizer),
    )
