"""Language models: dense decoders and mixtures of experts."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ablations.schema import Config, PresetConfig, assumed
from ablations.source_code import decides_no_result
from mm1_jax.config.bounds import Count, Layers, check_heads, nearest_divisor
from mm1_jax.config.training import MeshConfig


def _decoder(
    width: int, layers: int, heads: int, kv_heads: int, mlp_width: int, **more: Any
) -> dict[str, Any]:
    return {
        "width": width,
        "layers": layers,
        "heads": heads,
        "kv_heads": kv_heads,
        "mlp_width": mlp_width,
        **more,
    }


# MM1 gives sizes and no shapes: these are ours, named by their non-embedding parameters. For the
# two that become mixtures of experts see `MixtureOfExpertsConfig`.
SHAPES = {
    "mini": _decoder(64, 2, 4, 2, 192),
    "9m": _decoder(256, 12, 4, 4, 688),
    "85m": _decoder(768, 12, 12, 12, 2048),
    "302m": _decoder(1024, 24, 16, 16, 2736),
    "1.2b": _decoder(2048, 24, 16, 16, 5632),
    "2.9b": _decoder(2560, 36, 20, 20, 6912),
    "6.4b": _decoder(4096, 28, 32, 8, 15360),
    "30b": _decoder(6144, 60, 48, 8, 22528),
}


class RopeScaling(Config):
    """How rotary frequencies are stretched for contexts longer than trained for.

    linear: all divided by `factor`. llama3: only the slow ones, blended between the two bounds
    (Llama 3.1).
    """

    kind: Literal["linear", "llama3"] = "linear"
    factor: float = Field(1.0, gt=0)
    low_freq_factor: float = Field(1.0, gt=0)
    high_freq_factor: float = Field(4.0, gt=0)
    original_length: Count = 8192


class DecoderConfig(PresetConfig):
    """Decoder-only transformer: RMSNorm, RoPE, SwiGLU, grouped-query attention.

    The vocabulary is the data's.
    """

    width: Count = 64
    layers: Layers = 2
    heads: Count = 4
    kv_heads: Count = 2
    head_width: Count | None = Field(None, description="null: width / heads")
    mlp_width: Count = 192
    rope_theta: float = Field(10_000.0, gt=0)
    rope_scaling: RopeScaling | None = None
    norm_eps: float = Field(1e-6, gt=0)
    qk_norm: bool = Field(False, description="RMSNorm over each query's and key's head (Qwen3)")
    qkv_bias: bool = Field(False, description="biases of queries, keys and values (Qwen2)")
    tied_embeddings: bool = Field(True, description="the head uses the embedding's table")
    scaled_embeddings: bool = Field(True, description="embeddings times √width at the input")
    dropout: float = Field(0.0, ge=0, lt=1, description="of what attention and MLP add")

    @property
    def head(self) -> int:
        """Width of one head."""
        return self.head_width or self.width // self.heads

    @property
    def attention_width(self) -> int:
        """Columns of queries, keys and values together."""
        return self.head * (self.heads + 2 * self.kv_heads)

    def attention_parameters(self) -> int:
        """Weights of one layer's attention, with its norms."""
        weights = self.width * self.attention_width + self.heads * self.head * self.width
        biases = self.attention_width if self.qkv_bias else 0
        return weights + biases + (2 * self.head if self.qk_norm else 0) + self.width

    def feed_forward_parameters(self) -> int:
        """Weights of one layer's dense MLP, with its norm."""
        return 3 * self.width * self.mlp_width + self.width

    @decides_no_result
    def head_parameters(self, vocabulary: int) -> int:
        """Weights of embedding and head."""
        return vocabulary * self.width * (1 if self.tied_embeddings else 2)

    def check_mesh(self, mesh: MeshConfig, vocabulary: int) -> None:
        """Raise ValueError where a mesh would cut a dimension unevenly."""
        mesh.check(
            "tensor",
            kv_heads=self.kv_heads,
            mlp_width=self.mlp_width,
            vocabulary=vocabulary,
        )
        if mesh.expert > 1:
            mesh.check("expert", experts=getattr(self, "experts", 1))

    @model_validator(mode="after")
    def _possible_heads(self) -> DecoderConfig:
        if self.head_width is None:
            check_heads("language model", self.width, self.heads)
        if self.head % 2:
            raise ValueError(f"head width {self.head} is odd; rotary positions need an even one")
        if self.heads % self.kv_heads:
            best = nearest_divisor(self.heads, self.kv_heads)
            raise ValueError(
                f"{self.heads} heads cannot share {self.kv_heads} kv_heads; nearest: {best}"
            )
        return self


class DenseConfig(DecoderConfig):
    """A decoder in which every token goes through every weight."""

    presets: ClassVar = SHAPES

    kind: Literal["dense"] = "dense"

    def parameters(self) -> int:
        """Weights without embedding and head: the N of the learning-rate law."""
        layer = self.attention_parameters() + self.feed_forward_parameters()
        return self.layers * layer + self.width

    @decides_no_result
    def all_parameters(self) -> int:
        """The same: every token meets all of them."""
        return self.parameters()

    @decides_no_result
    def feed_forward_flops(self, tokens: int) -> float:
        """Of all layers' MLPs, forward, for so many tokens."""
        return 2.0 * self.layers * 3 * self.width * self.mlp_width * tokens

    @decides_no_result
    def feed_forward_values(self, tokens: int) -> int:
        """Numbers that all layers' MLPs keep for the backward pass, for so many tokens."""
        return self.layers * tokens * 4 * self.mlp_width


class MixtureOfExpertsConfig(DecoderConfig):
    """A decoder whose every `every`-th MLP is a choice among experts (GShard, ST-MoE; MM1 §3.4).

    The router sends each token to its `top_k` most probable experts and adds their outputs by
    probability. `capacity_factor: null` is dropless; otherwise an expert takes at most
    capacity_factor · top_k · tokens / experts tokens of a group and the others pass it by, in
    training; evaluation and generation are always dropless.

    The presets' shapes follow from MM1's totals. With a share s of a dense model's weights N in
    its MLPs, E experts in every m-th layer give N · (1 + s · (E - 1) / m) weights. So 2.9B → 64B
    with 64 experts in every 2nd layer needs s = 67 %, and 6.4B → 47B with 32 in every 4th 82 %:
    the first is the share of the usual MLP (8/3 of the width, four full attention matrices), the
    second takes a wider MLP and shared key heads. Ours have 66.9 % and 81.8 %, and 63.1B and 47.4B
    in all.
    """

    presets: ClassVar = {
        "mini_moe": _decoder(64, 2, 4, 2, 192, experts=4, every=2),
        "3b_moe": {**SHAPES["2.9b"], "experts": 64, "every": 2},
        "7b_moe": {**SHAPES["6.4b"], "experts": 32, "every": 4},
    }

    kind: Literal["moe"] = "moe"
    experts: Count = 8
    every: Count = Field(2, description="each `every`-th layer has experts, the last first")
    top_k: Count = 2
    capacity_factor: float | None = Field(None, gt=0, le=1_000, description="null: dropless")
    group_tokens: Count = Field(
        512, description="tokens among which places are given out; capacity only"
    )
    balance_loss: float = Field(0.01, ge=0, description="weight of the load-balance loss")
    router_z_loss: float = Field(0.001, ge=0)
    from_dense: bool = Field(
        False, description="experts start as copies of a pre-trained dense model's MLP"
    )

    @property
    def expert_layers(self) -> int:
        """Layers that have experts."""
        return self.layers // self.every

    def dense(self) -> DenseConfig:
        """The same decoder with ordinary MLPs."""
        fields = {name: getattr(self, name) for name in DecoderConfig.model_fields}
        return DenseConfig(**fields)

    def parameters(self) -> int:
        """Weights that a token meets, but for embedding and head: the N of the law is the dense
        model's, whose training settings the mixture shares."""
        return self.dense().parameters()

    @decides_no_result
    def all_parameters(self) -> int:
        """Weights without embedding and head, all experts and routers counted."""
        expert = 3 * self.width * self.mlp_width
        more = (self.experts - 1) * expert + self.width * self.experts
        return self.parameters() + self.expert_layers * more

    @decides_no_result
    def feed_forward_flops(self, tokens: int) -> float:
        """Of all layers' routers, chosen experts and dense MLPs, forward, for so many tokens.

        With a capacity, the products that bring tokens to their places and back count too, and
        places count whether taken or not.
        """
        mlp = 2.0 * 3 * self.width * self.mlp_width
        router = 2.0 * self.width * self.experts * tokens
        rows, tables = self._rows_and_tables(tokens)
        # A row is moved to its place and back; two tables say who stands where.
        expert = rows * mlp + 2 * 2.0 * tables * (self.width + self.top_k) + router
        return self.expert_layers * expert + (self.layers - self.expert_layers) * tokens * mlp

    @decides_no_result
    def feed_forward_values(self, tokens: int) -> int:
        """Numbers that all layers' MLPs keep for the backward pass, for so many tokens."""
        rows, tables = self._rows_and_tables(tokens)
        expert = rows * (2 * self.width + 4 * self.mlp_width) + 2 * tables
        dense = tokens * 4 * self.mlp_width
        return self.expert_layers * expert + (self.layers - self.expert_layers) * dense

    @decides_no_result
    def _rows_and_tables(self, tokens: int) -> tuple[int, int]:
        """Rows that one layer's experts multiply, and entries of the table (token, place)."""
        if self.capacity_factor is None:
            return tokens * self.top_k, 0
        group = min(self.group_tokens, tokens)
        rows = math.ceil(tokens / group) * self.experts * self.places(group)
        return rows, rows * group

    def places(self, group: int) -> int:
        """Of one expert in a group of tokens; at a capacity factor of 1 even choices just fit.

        Raises ValueError where the model is dropless.
        """
        if self.capacity_factor is None:
            raise ValueError("a dropless mixture of experts has no places")
        return min(group, math.ceil(self.capacity_factor * self.top_k * group / self.experts))

    @model_validator(mode="after")
    def _possible_experts(self) -> MixtureOfExpertsConfig:
        if self.layers % self.every:
            best = nearest_divisor(self.layers, self.every)
            raise ValueError(
                f"every {self.every} does not divide {self.layers} layers; nearest: {best}"
            )
        if self.top_k > self.experts:
            raise ValueError(
                f"top_k {self.top_k} of {self.experts} experts; nearest: {self.experts}"
            )
        return self


LanguageModelConfig = Annotated[
    DenseConfig | MixtureOfExpertsConfig, Field(discriminator="kind"), assumed("dense")
]
