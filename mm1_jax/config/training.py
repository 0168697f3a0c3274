"""How weights are moved: optimiser, schedule, seeds, the form of the program and its mesh."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from ablations.schema import NOT_IDENTITY, Config
from mm1_jax.config.bounds import Count, nearest_divisor

Part = Literal["encoder", "connector", "language_model"]


class PartRates(Config):
    """What each part's learning rate is multiplied with (MM1's connector has a peak of its own)."""

    encoder: float = Field(1.0, ge=0)
    connector: float = Field(1.0, ge=0)
    language_model: float = Field(1.0, ge=0)


class OptimizerConfig(Config):
    """AdamW or Adafactor with linear warm-up, decay and clipping (MM1 §3, appendix).

    `peak_lr: null` takes the paper's law, exp(-0.4214 ln N - 0.5535), with N the language model's
    non-embedding parameters. `weight_decay` λ: each step multiplies decayed weights by 1 - λ·lr.
    `b1`, `b2` and `eps` are AdamW's; Adafactor has none of them (`optimizer.scale_by_adafactor`).
    """

    kind: Literal["adamw", "adafactor"] = "adamw"
    schedule: Literal["cosine", "linear", "wsd", "constant"] = Field(
        "cosine", description="after the warm-up; wsd: constant, then linear in the last part"
    )
    decay_share: float = Field(0.2, gt=0, le=1, description="last share of the steps; wsd only")
    peak_lr: float | None = Field(None, gt=0)
    part_rates: PartRates = PartRates()
    warmup_steps: int = Field(50, ge=0)
    final_lr_share: float = Field(0.1, ge=0, le=1, description="last rate as a share of the peak")
    weight_decay: float = Field(0.1, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    b1: float = Field(0.9, ge=0, lt=1)
    b2: float = Field(0.95, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)


class MeshConfig(Config):
    """Devices along each axis; their product is the number of devices.

    data: copies of the weights; fsdp: weights and moments cut up, gathered when used; tensor:
    heads and MLPs cut up; expert: experts cut up. The batch is cut along data, fsdp and expert.
    """

    data: Count = 1
    fsdp: Count = 1
    tensor: Count = 1
    expert: Count = 1

    @property
    def devices(self) -> int:
        """How many devices it takes."""
        return self.data * self.fsdp * self.tensor * self.expert

    @property
    def batch_shards(self) -> int:
        """Into how many parts the batch is cut."""
        return self.data * self.fsdp * self.expert

    @property
    def written(self) -> str:
        """As the command line takes it: fsdp=16,expert=8."""
        return ",".join(f"{axis}={size}" for axis, size in self if size > 1) or "fsdp=1"

    def check(self, axis: Literal["tensor", "expert"], **dimensions: int) -> None:
        """Raise ValueError, with the nearest possible size, unless `axis` divides all of these."""
        size = getattr(self, axis)
        for name, dimension in dimensions.items():
            if dimension % size:
                raise ValueError(
                    f"mesh.{axis} {size} does not divide {name.replace('_', ' ')} {dimension}; "
                    f"nearest: {nearest_divisor(math.gcd(*dimensions.values()), size)}"
                )


class DivergencePolicy(Config):
    """What happens when a step's loss is not finite, or a spike.

    stop: the training ends there, with the row `diverged`. skip: the step's update is left out.
    roll_back: weights and moments of the last checkpoint, and on with the batches that follow. A
    loss is a spike if it exceeds `spike_factor` times the mean of the last 50 (null: none is).
    Skipped and rolled-back steps are counted in the results; more than `most` of them stop.
    """

    policy: Literal["stop", "skip", "roll_back"] = "stop"
    spike_factor: float | None = Field(None, gt=1)
    most: PositiveInt = 10


class TrainingConfig(Config):
    """How long, how much at once, and on what form of the program."""

    steps: int = Field(500, gt=0, le=10**9)
    batch_size: Count = Field(8, description="packed sequences per step")
    freeze: tuple[Part, ...] = Field((), description="parts that keep their first weights")
    loss_mean: Literal["tokens", "sequences"] = Field(
        "tokens",
        description="tokens: every text token counts alike; sequences: every packed sequence does, "
        "so that a source's share of the loss is its share of the mixture",
    )
    z_loss: float = Field(0.0, ge=0, description="weight of (logsumexp of the scores)²")
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    divergence: DivergencePolicy = DivergencePolicy()
    log_every: PositiveInt = Field(25, json_schema_extra=NOT_IDENTITY)
    checkpoint_every: PositiveInt = Field(250, json_schema_extra=NOT_IDENTITY)
    keep_last: PositiveInt = Field(
        1, json_schema_extra=NOT_IDENTITY, description="checkpoints to go on from"
    )
    keep_best: bool = Field(
        False,
        json_schema_extra=NOT_IDENTITY,
        description="also keep the checkpoint with the lowest loss, as `best/` beside the last",
    )
    peak_tflops: float | None = Field(
        None,
        gt=0,
        json_schema_extra=NOT_IDENTITY,
        description="of one device, which utilisation (MFU) is reported against",
    )
    layers: Literal["auto", "unrolled", "scanned"] = Field(
        "auto",
        json_schema_extra=NOT_IDENTITY,
        description="auto: unrolled on CPU, scanned on accelerators",
    )
    remat: Literal["none", "dots", "full"] = Field(
        "full",
        json_schema_extra=NOT_IDENTITY,
        description="what scanned layers recompute in the backward pass; dots: all but products",
    )
    attention: Literal["auto", "plain", "chunked", "fused"] = Field(
        "auto",
        json_schema_extra=NOT_IDENTITY,
        description="auto: plain on CPU, chunked (some queries at a time) on accelerators; "
        "fused: the GPU's kernel",
    )
    micro_batches: Count = Field(
        1, json_schema_extra=NOT_IDENTITY, description="parts whose gradients are added up"
    )
    mesh: MeshConfig = Field(MeshConfig(), json_schema_extra=NOT_IDENTITY)

    def told(self, *, on_cpu: bool) -> TrainingConfig:
        """The same, with what `auto` means: unrolled and plain on CPU, else scanned and chunked."""
        layers, attention = ("unrolled", "plain") if on_cpu else ("scanned", "chunked")
        return self.model_copy(
            update={
                "layers": layers if self.layers == "auto" else self.layers,
                "attention": attention if self.attention == "auto" else self.attention,
            }
        )

    @field_validator("freeze")
    @classmethod
    def _sorted(cls, parts: tuple[Part, ...]) -> tuple[Part, ...]:
        return tuple(sorted(set(parts)))

    @model_validator(mode="after")
    def _cut_evenly(self) -> TrainingConfig:
        if self.batch_size % self.micro_batches:
            raise ValueError(
                f"micro_batches {self.micro_batches} does not divide batch_size {self.batch_size}; "
                f"nearest: {nearest_divisor(self.batch_size, self.micro_batches)}"
            )
        rows, shards = self.batch_size // self.micro_batches, self.mesh.batch_shards
        if rows % shards:
            best = max(1, round(rows / shards)) * shards * self.micro_batches
            raise ValueError(
                f"mesh: data · fsdp · expert = {shards} does not divide the {rows} rows of a "
                f"{'micro-batch' if self.micro_batches > 1 else 'batch'}; "
                f"nearest batch_size: {best}, nearest product: {nearest_divisor(rows, shards)}"
            )
        return self


class SeedsConfig(Config):
    """Where each kind of randomness comes from; null is the trial's seed.

    `initialisation_salt` gives null (A/A) arms other first weights on the same data order.
    """

    initialisation: NonNegativeInt | None = None
    data_order: NonNegativeInt | None = None
    initialisation_salt: NonNegativeInt = 0

    def for_initialisation(self, trial: int) -> int:
        """The seed of the first weights in a trial with this seed."""
        return trial if self.initialisation is None else self.initialisation

    def for_data_order(self, trial: int) -> int:
        """The seed of the order of the data in a trial with this seed."""
        return trial if self.data_order is None else self.data_order


def check_warmup(optimizer: OptimizerConfig, training: TrainingConfig) -> None:
    """ValueError where a training ends before its warm-up does."""
    if optimizer.warmup_steps > training.steps:
        raise ValueError(
            f"warmup_steps {optimizer.warmup_steps} exceed the {training.steps} "
            f"training steps; nearest possible: {training.steps}"
        )
