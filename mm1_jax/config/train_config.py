"""What a training run is: encoder → connector → language model, the data, and the optimisation.

Plain frozen pydantic models that import no JAX, so that planning is instant. What follows from
other values (patch grid, sequence length) is a property and is never written down twice.
Impossible combinations fail here, with the nearest possible value in the message.
"""

from __future__ import annotations

from pydantic import model_validator

from ablations.schema import NOT_IDENTITY, Config
from mm1_jax.config.bounds import check_heads
from mm1_jax.config.connector import (
    AnyEncoder,
    AttentionPoolingConfig,
    AveragePoolingConfig,
    CAbstractorConfig,
    ConnectorConfig,
    LinearConfig,
    MlpConfig,
    PerceiverResamplerConfig,
    PixelUnshuffleConfig,
)
from mm1_jax.config.data import (
    DataConfig,
    KindsConfig,
    MixtureChange,
    MixtureConfig,
    SourceConfig,
)
from mm1_jax.config.encoder import EncoderConfig, FusedEncoderConfig, VisionTransformerConfig
from mm1_jax.config.language_model import (
    DecoderConfig,
    DenseConfig,
    LanguageModelConfig,
    MixtureOfExpertsConfig,
)
from mm1_jax.config.training import (
    DivergencePolicy,
    MeshConfig,
    OptimizerConfig,
    PartRates,
    SeedsConfig,
    TrainingConfig,
    check_warmup,
)

__all__ = [
    "NOT_IDENTITY",
    "AnyEncoder",
    "AttentionPoolingConfig",
    "AveragePoolingConfig",
    "CAbstractorConfig",
    "ConnectorConfig",
    "DataConfig",
    "DecoderConfig",
    "DenseConfig",
    "DivergencePolicy",
    "EncoderConfig",
    "FusedEncoderConfig",
    "KindsConfig",
    "LanguageModelConfig",
    "LinearConfig",
    "MeshConfig",
    "MixtureChange",
    "MixtureConfig",
    "MixtureOfExpertsConfig",
    "MlpConfig",
    "OptimizerConfig",
    "PartRates",
    "PerceiverResamplerConfig",
    "PixelUnshuffleConfig",
    "SeedsConfig",
    "SourceConfig",
    "TrainConfig",
    "TrainingConfig",
    "VisionTransformerConfig",
]


class TrainConfig(Config):
    """Everything that decides a trained checkpoint, but the seed."""

    encoder: EncoderConfig = VisionTransformerConfig()
    connector: ConnectorConfig = AveragePoolingConfig()
    language_model: LanguageModelConfig = DenseConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    seeds: SeedsConfig = SeedsConfig()

    @property
    def view_tokens(self) -> int:
        """Tokens of one view of an image: of all of it, or of a crop."""
        tokens = self.connector.tokens
        return self.encoder.patches if tokens is None else tokens

    @property
    def image_tokens(self) -> int:
        """Tokens of one image in the language model's sequence, at most."""
        return self.data.sub_images.views * self.view_tokens

    @property
    def image_slots(self) -> int:
        """Images that the encoder sees of one packed sequence: the views of each."""
        return self.data.images * self.data.sub_images.views

    @property
    def sequence_length(self) -> int:
        """Text tokens plus image tokens of one packed sequence."""
        if self.data.total_tokens is not None:
            return self.data.total_tokens
        return self.data.text_tokens + self.data.images * self.image_tokens

    @model_validator(mode="after")
    def _possible(self) -> TrainConfig:
        reachable = self.connector.reachable_tokens(self.encoder.patches)
        if reachable is not None and self.view_tokens not in reachable:
            best = min(reachable, key=lambda n: (abs(n - self.view_tokens), n))
            raise ValueError(
                f"connector {self.connector.kind} cannot give {self.view_tokens} tokens "
                f"from {self.encoder.patches} patches ({self.encoder.image_size} px, "
                f"patch {self.encoder.patch_size}); nearest reachable: {best}"
            )
        if isinstance(self.connector, AttentionPoolingConfig):
            check_heads("connector", self.encoder.width, self.connector.heads)
        self.encoder.check_mesh(self.training.mesh)
        self.language_model.check_mesh(self.training.mesh, self.data.vocabulary)
        check_warmup(self.optimizer, self.training)
        return self
