"""Connectors: from patch features to image tokens; fields, reachable token counts, formulas."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from ablations.schema import FOLLOWS, Config
from ablations.source_code import decides_no_result
from mm1_jax.config.bounds import Count, Layers
from mm1_jax.config.encoder import FusedEncoderConfig, VisionTransformerConfig

# What a connector's formulas read of an encoder: width, grid, patches.
AnyEncoder = VisionTransformerConfig | FusedEncoderConfig


AS_MANY_AS_PATCHES = Field(
    None, json_schema_extra=FOLLOWS, description="null: as many as the encoder has patches"
)


def _squares_up_to(patches: int) -> list[int]:
    return [side * side for side in range(1, math.isqrt(patches) + 1)]


class AveragePoolingConfig(Config):
    """Adaptive average pooling to a √tokens × √tokens grid, then a linear projection (MM1 §3.2)."""

    kind: Literal["average_pooling"] = "average_pooling"
    tokens: Count = Field(4, description="image tokens given to the language model")

    def reachable_tokens(self, patches: int) -> list[int] | None:
        """Token counts this type can produce from `patches` patches; None means any."""
        return _squares_up_to(patches)

    @decides_no_result
    def parameters(self, encoder: AnyEncoder, outputs: int) -> int:
        """Weights of the module; `outputs` is the language model's width."""
        return encoder.width * outputs + outputs

    @decides_no_result
    def flops(self, encoder: AnyEncoder, outputs: int) -> float:
        """Forward FLOPs per image, multiply-add = 2; pooling is one matrix product."""
        pooling = 2.0 * self.tokens * encoder.patches * encoder.width
        return pooling + 2.0 * self.tokens * encoder.width * outputs


class AttentionPoolingConfig(Config):
    """`tokens` learned queries attend to the patches, then a linear projection (MM1 §3.2)."""

    kind: Literal["attention_pooling"] = "attention_pooling"
    tokens: Count = Field(4, description="image tokens given to the language model")
    heads: Count = 4

    def reachable_tokens(self, patches: int) -> list[int] | None:
        """Token counts this type can produce from `patches` patches; None means any."""
        return None

    @decides_no_result
    def parameters(self, encoder: AnyEncoder, outputs: int) -> int:
        """Weights of the module; `outputs` is the language model's width."""
        width = encoder.width
        attention = 4 * (width * width + width)
        return self.tokens * width + 4 * width + attention + width * outputs + outputs

    @decides_no_result
    def flops(self, encoder: AnyEncoder, outputs: int) -> float:
        """Forward FLOPs per image, multiply-add = 2; the queries are projected once per batch."""
        width, patches = encoder.width, encoder.patches
        projections = 4.0 * patches * width**2 + 2.0 * self.tokens * width**2
        return (
            projections + 4.0 * self.tokens * patches * width + 2.0 * self.tokens * width * outputs
        )


class LinearConfig(Config):
    """One linear layer from each patch to a token (LLaVA)."""

    kind: Literal["linear"] = "linear"
    tokens: Count | None = AS_MANY_AS_PATCHES

    def reachable_tokens(self, patches: int) -> list[int] | None:
        """Token counts this type can produce from `patches` patches; None means any."""
        return [patches]

    @decides_no_result
    def parameters(self, encoder: AnyEncoder, outputs: int) -> int:
        """Weights of the module; `outputs` is the language model's width."""
        return encoder.width * outputs + outputs

    @decides_no_result
    def flops(self, encoder: AnyEncoder, outputs: int) -> float:
        """Forward FLOPs per image, multiply-add = 2."""
        return 2.0 * encoder.patches * encoder.width * outputs


class MlpConfig(Config):
    """Linear, GELU, linear from each patch to a token (LLaVA-1.5's mlp2x_gelu)."""

    kind: Literal["mlp"] = "mlp"
    tokens: Count | None = AS_MANY_AS_PATCHES

    def reachable_tokens(self, patches: int) -> list[int] | None:
        """Token counts this type can produce from `patches` patches; None means any."""
        return [patches]

    @decides_no_result
    def parameters(self, encoder: AnyEncoder, outputs: int) -> int:
        """Weights of the module; `outputs` is the language model's width."""
        return encoder.width * outputs + outputs + outputs**2 + outputs

    @decides_no_result
    def flops(self, encoder: AnyEncoder, outputs: int) -> float:
        """Forward FLOPs per image, multiply-add = 2; the activation is left out."""
        return 2.0 * encoder.patches * (encoder.width * outputs + outputs**2)


class PixelUnshuffleConfig(Config):
    """Each square of neighbouring patches becomes one token, then norm and MLP (InternVL)."""

    kind: Literal["pixel_unshuffle"] = "pixel_unshuffle"
    tokens: Count = Field(4, description="image tokens given to the language model")

    def reachable_tokens(self, patches: int) -> list[int] | None:
        """Token counts this type can produce from `patches` patches; None means any."""
        grid = math.isqrt(patches)
        return [side * side for side in range(1, grid + 1) if grid % side == 0]

    def joined(self, encoder: AnyEncoder) -> int:
        """Width of the patches that become one token, side by side."""
        return encoder.patches // self.tokens * encoder.width

    @decides_no_result
    def parameters(self, encoder: AnyEncoder, outputs: int) -> int:
        """Weights of the module; `outputs` is the language model's width."""
        joined = self.joined(encoder)
        return 2 * joined + joined * outputs + outputs + outputs**2 + outputs

    @decides_no_result
    def flops(self, encoder: AnyEncoder, outputs: int) -> float:
        """Forward FLOPs per image, multiply-add = 2; norm and activation are left out."""
        return 2.0 * self.tokens * (self.joined(encoder) * outputs + outputs**2)


class PerceiverResamplerConfig(Config):
    """`tokens` learned latents attend to the patches and to themselves, layer after layer.

    Flamingo's (Alayrac et al., 2022) at the encoder's width, then a linear projection.
    """

    kind: Literal["perceiver_resampler"] = "perceiver_resampler"
    tokens: Count = Field(4, description="image tokens given to the language model")
    depth: Layers = Field(2, description="layers of attention and MLP; Flamingo: 6")
    heads: Count = Field(4, description="Flamingo: 8")
    head_width: Count = Field(16, description="Flamingo: 64")

    def reachable_tokens(self, patches: int) -> list[int] | None:
        """Token counts this type can produce from `patches` patches; None means any."""
        return None

    @decides_no_result
    def parameters(self, encoder: AnyEncoder, outputs: int) -> int:
        """Weights of the module; `outputs` is the language model's width."""
        width, inner = encoder.width, self.heads * self.head_width
        layer = 4 * width * inner + 8 * width**2 + 6 * width
        final = 2 * width + width * outputs + outputs
        return self.tokens * width + self.depth * layer + final

    @decides_no_result
    def flops(self, encoder: AnyEncoder, outputs: int) -> float:
        """Forward FLOPs per image, multiply-add = 2; norms and activations are left out."""
        width, inner = encoder.width, self.heads * self.head_width
        seen = encoder.patches + self.tokens
        attention = 4.0 * (self.tokens + seen) * width * inner + 4.0 * self.tokens * seen * inner
        layer = attention + 16.0 * self.tokens * width**2
        return self.depth * layer + 2.0 * self.tokens * width * outputs


class CAbstractorConfig(Config):
    """ResNet blocks, adaptive average pooling, ResNet blocks, MLP (Honeybee, Cha et al., 2024)."""

    kind: Literal["c_abstractor"] = "c_abstractor"
    tokens: Count = Field(4, description="image tokens given to the language model")
    width: Count = 64
    depth: Layers = Field(1, description="blocks before and after the pooling")

    def reachable_tokens(self, patches: int) -> list[int] | None:
        """Token counts this type can produce from `patches` patches; None means any."""
        return _squares_up_to(patches)

    @decides_no_result
    def _blocks(self, encoder: AnyEncoder) -> list[tuple[int, int]]:
        """(input width, positions) of every block."""
        before = [(encoder.width, encoder.patches)]
        before += [(self.width, encoder.patches)] * (self.depth - 1)
        return before + [(self.width, self.tokens)] * self.depth

    @decides_no_result
    def parameters(self, encoder: AnyEncoder, outputs: int) -> int:
        """Weights of the module; `outputs` is the language model's width."""
        total = encoder.patches * encoder.width  # positions
        for inputs, _ in self._blocks(encoder):
            squeezed = max(1, round(inputs / 4))
            total += inputs * self.width + 9 * self.width + self.width**2 + 6 * self.width
            total += 2 * self.width * squeezed + self.width + squeezed
            if inputs != self.width:
                total += inputs * self.width + 2 * self.width
        return total + self.width * outputs + outputs + outputs**2 + outputs

    @decides_no_result
    def flops(self, encoder: AnyEncoder, outputs: int) -> float:
        """Forward FLOPs per image, multiply-add = 2; activations and norms are left out."""
        total = 2.0 * self.tokens * encoder.patches * self.width  # pooling
        for inputs, positions in self._blocks(encoder):
            shortcut = inputs * self.width if inputs != self.width else 0
            per_position = inputs * self.width + 9 * self.width + self.width**2 + shortcut
            total += 2.0 * positions * per_position
            total += 4.0 * self.width * max(1, round(inputs / 4))
        return total + 2.0 * self.tokens * (self.width * outputs + outputs**2)


ConnectorConfig = Annotated[
    AveragePoolingConfig
    | AttentionPoolingConfig
    | LinearConfig
    | MlpConfig
    | PixelUnshuffleConfig
    | PerceiverResamplerConfig
    | CAbstractorConfig,
    Field(discriminator="kind"),
]
