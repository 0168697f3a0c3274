"""Image encoders: what a vision transformer can be, and two of them side by side."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ablations.schema import Config, PresetConfig, assumed
from ablations.source_code import decides_no_result
from mm1_jax.config.bounds import LARGEST, Count, Layers, Side, check_heads
from mm1_jax.config.training import MeshConfig


def _vit(width: int, layers: int, heads: int, patch: int, **more: Any) -> dict[str, Any]:
    return {"width": width, "layers": layers, "heads": heads, "patch_size": patch, **more}


class VisionTransformerConfig(PresetConfig):
    """Vision transformer from pixels to one vector per patch (Dosovitskiy et al., 2021).

    The defaults are a small SigLIP tower. Public families differ in a few choices, each a field:
    CLIP has a class token, a norm on the embeddings, quick-GELU and gives its last block's output
    without a norm; AIM has sin-cos positions and no biases; AIMv2 RMSNorm and SwiGLU; DINOv2 layer
    scale and registers.
    """

    presets: ClassVar = {
        "vit_mini": _vit(64, 2, 4, 8, image_size=32),
        "vit_small_mini": _vit(96, 4, 6, 8, image_size=64),
        "vit_s16": _vit(384, 12, 6, 16, image_size=224),
        "vit_b32": _vit(768, 12, 12, 32, image_size=224),
        "vit_b16": _vit(768, 12, 12, 16, image_size=224),
        "vit_l16": _vit(1024, 24, 16, 16, image_size=224),
        "vit_l14": _vit(1024, 24, 16, 14, image_size=336),
        "vit_h14": _vit(1280, 32, 16, 14, image_size=378),
        "so400m_14": _vit(
            1152, 27, 16, 14, image_size=384, mlp_ratio=4304 / 1152, remainder="drop"
        ),
    }

    kind: Literal["vit"] = "vit"
    image_size: Side = Field(32, description="pixels per side of the square input")
    patch_size: Side = Field(8, description="pixels per side of a patch")
    remainder: Literal["error", "drop"] = Field(
        "error", description="pixels right and below that fill no patch"
    )
    width: Count = 64
    layers: Layers = 2
    heads: Count = 4
    mlp_ratio: float = Field(4.0, gt=0, le=1_000)
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "swiglu"] = "gelu_tanh"
    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    norm_eps: float = Field(1e-6, gt=0)
    bias: bool = Field(True, description="of the blocks' linear layers")
    patch_bias: bool = True
    class_token: bool = False
    registers: int = Field(
        0,
        ge=0,
        le=LARGEST,
        description="learned tokens between class token and patches (Darcet et al., 2024)",
    )
    positions: Literal["learned", "sincos", "none"] = "learned"
    antialias: bool = Field(
        False, description="when learned positions are brought to another grid (bicubic)"
    )
    embedding_norm: Literal["none", "patches", "tokens"] = Field(
        "none", description="patches: before positions (AIM); tokens: after them (CLIP)"
    )
    layer_scale: float | None = Field(None, gt=0, description="first value; null is none")
    output_layer: int = Field(
        -1, description="block whose output is used: 1 … layers, 0 the embeddings, -1 the last"
    )
    output_norm: bool = Field(True, description="a norm over all tokens of the output")
    pixels: Literal["half", "clip", "imagenet"] = Field(
        "half", description="mean and standard deviation that pixels are brought to"
    )

    @property
    def grid(self) -> int:
        """Patches per side."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """Patches per image."""
        return self.grid**2

    @property
    def extra_tokens(self) -> int:
        """Class token and registers."""
        return self.class_token + self.registers

    @property
    def mlp_width(self) -> int:
        """Hidden width of each block's MLP."""
        return round(self.width * self.mlp_ratio)

    @property
    def layers_run(self) -> int:
        """Blocks up to the one whose output is used."""
        return self.output_layer if self.output_layer >= 0 else self.layers + 1 + self.output_layer

    @property
    def tokens(self) -> int:
        """Patches and extra tokens, between which attention goes."""
        return self.patches + self.extra_tokens

    def check_mesh(self, mesh: MeshConfig) -> None:
        """Raise ValueError where a mesh would cut a dimension unevenly."""
        mesh.check("tensor", encoder_heads=self.heads, encoder_mlp_width=self.mlp_width)

    @decides_no_result
    def parameters(self) -> int:
        """Weights: patch embedding, extra tokens, positions, blocks, norms."""
        width, hidden = self.width, self.mlp_width
        norm = width * (2 if self.norm == "layer_norm" else 1)
        inner = 2 * hidden if self.activation == "swiglu" else hidden
        block = 4 * width * width + width * inner + hidden * width + 2 * norm
        if self.bias:
            block += 4 * width + inner + width
        if self.layer_scale is not None:
            block += 2 * width
        tables = self.extra_tokens * width
        if self.positions == "learned":
            tables += (self.patches + self.class_token) * width
        patch_embedding = 3 * self.patch_size**2 * width + (width if self.patch_bias else 0)
        norms = norm * ((self.embedding_norm != "none") + self.output_norm)
        return patch_embedding + tables + self.layers * block + norms

    @decides_no_result
    def patch_embedding_flops(self) -> float:
        """Forward FLOPs per image of the patch embedding, multiply-add = 2."""
        return 2.0 * self.patches * 3 * self.patch_size**2 * self.width

    @decides_no_result
    def block_flops(self) -> float:
        """Forward FLOPs per image of the blocks that are run, multiply-add = 2."""
        products = 3 if self.activation == "swiglu" else 2
        weights = 4 * self.width**2 + products * self.width * self.mlp_width
        attention = 4.0 * self.tokens**2 * self.width
        return self.layers_run * (2.0 * self.tokens * weights + attention)

    @decides_no_result
    def kept_values(self) -> int:
        """Numbers per image that the backward pass needs, roughly."""
        per_token = 12 * self.width + 2 * self.mlp_width + 2 * self.heads * self.tokens
        return self.tokens * self.layers_run * per_token

    @decides_no_result
    def block_inputs(self) -> int:
        """Numbers per image that go into the blocks that are run, all together."""
        return self.tokens * self.layers_run * self.width

    @decides_no_result
    def block_values(self) -> int:
        """Numbers per image that one block keeps for its backward pass, roughly."""
        return self.kept_values() // max(1, self.layers_run)

    @decides_no_result
    def scores(self) -> int:
        """Attention scores per image."""
        return self.layers_run * self.heads * self.tokens**2

    @model_validator(mode="after")
    def _possible(self) -> VisionTransformerConfig:
        if self.remainder == "error" and self.image_size % self.patch_size:
            nearest = max(1, round(self.image_size / self.patch_size)) * self.patch_size
            raise ValueError(
                f"image_size {self.image_size} is not divisible by patch_size {self.patch_size}; "
                f"nearest possible image_size: {nearest}"
            )
        if self.grid < 1:
            raise ValueError(
                f"image_size {self.image_size} is smaller than patch_size {self.patch_size}"
            )
        if not -self.layers - 1 <= self.output_layer <= self.layers:
            raise ValueError(
                f"output_layer {self.output_layer}: there are {self.layers} layers; "
                f"nearest: {self.layers if self.output_layer > 0 else -self.layers - 1}"
            )
        check_heads("encoder", self.width, self.heads)
        if self.positions == "sincos" and self.width % 4:
            raise ValueError(
                f"sincos positions need a width divisible by 4, not {self.width}; "
                f"nearest: {max(4, 4 * round(self.width / 4))}"
            )
        return self


class FusedEncoderConfig(Config):
    """Two towers over the same image, their features joined along the width (Prismatic, Cambrian).

    Both see the same pixels and must give the same grid of patches.
    """

    kind: Literal["fused"] = "fused"
    first: VisionTransformerConfig = VisionTransformerConfig()
    second: VisionTransformerConfig = VisionTransformerConfig()

    @property
    def image_size(self) -> int:
        """Pixels per side of the square input."""
        return self.first.image_size

    @property
    def patch_size(self) -> int:
        """Pixels per side of the first tower's patches."""
        return self.first.patch_size

    @property
    def grid(self) -> int:
        """Patches per side."""
        return self.first.grid

    @property
    def patches(self) -> int:
        """Patches per image."""
        return self.first.patches

    @property
    def width(self) -> int:
        """Of the joined features."""
        return self.first.width + self.second.width

    def check_mesh(self, mesh: MeshConfig) -> None:
        """As of each tower."""
        self.first.check_mesh(mesh)
        self.second.check_mesh(mesh)

    @decides_no_result
    def parameters(self) -> int:
        """Weights of both towers."""
        return self.first.parameters() + self.second.parameters()

    @decides_no_result
    def patch_embedding_flops(self) -> float:
        """Forward FLOPs per image of the patch embeddings, multiply-add = 2."""
        return self.first.patch_embedding_flops() + self.second.patch_embedding_flops()

    @decides_no_result
    def block_flops(self) -> float:
        """Forward FLOPs per image of all blocks, multiply-add = 2."""
        return self.first.block_flops() + self.second.block_flops()

    @decides_no_result
    def kept_values(self) -> int:
        """Numbers per image that the backward pass needs, roughly."""
        return self.first.kept_values() + self.second.kept_values()

    @decides_no_result
    def block_inputs(self) -> int:
        """Numbers per image that go into the blocks of both towers, all together."""
        return self.first.block_inputs() + self.second.block_inputs()

    @decides_no_result
    def block_values(self) -> int:
        """Numbers per image that the larger tower's block keeps for its backward pass."""
        return max(self.first.block_values(), self.second.block_values())

    @decides_no_result
    def scores(self) -> int:
        """Attention scores per image."""
        return self.first.scores() + self.second.scores()

    @model_validator(mode="after")
    def _possible(self) -> FusedEncoderConfig:
        if self.first.image_size != self.second.image_size:
            raise ValueError(
                f"second.image_size {self.second.image_size}: both towers see the same pixels; "
                f"nearest: {self.first.image_size}"
            )
        if self.first.grid != self.second.grid:
            raise ValueError(
                f"second.patch_size {self.second.patch_size} gives a grid of {self.second.grid}, "
                f"the first tower one of {self.first.grid}; nearest: {self.first.patch_size}"
            )
        return self


EncoderConfig = Annotated[
    VisionTransformerConfig | FusedEncoderConfig, Field(discriminator="kind"), assumed("vit")
]


def at_image_size(
    encoder: VisionTransformerConfig | FusedEncoderConfig, size: int | None
) -> VisionTransformerConfig | FusedEncoderConfig:
    """The same encoder for images of another size; null is its own. ValueError if impossible."""
    if size is None:
        return encoder
    if isinstance(encoder, FusedEncoderConfig):
        towers = {
            name: dict(getattr(encoder, name), image_size=size) for name in ("first", "second")
        }
        return FusedEncoderConfig.model_validate(towers)
    return VisionTransformerConfig.model_validate({**dict(encoder), "image_size": size})
