"""Where a patch is: fixed sin-cos positions, and learned ones brought to another grid."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mm1_jax.config.connector import AnyEncoder
from mm1_jax.config.encoder import FusedEncoderConfig, VisionTransformerConfig

Grid = tuple[int, int]  # rows, columns


def sincos_positions(grid: Grid, width: int) -> np.ndarray:
    """Fixed 2-D positions, float32 [rows * columns, width], as AIM's (El-Nouby et al., 2024).

    The first half of the channels tells the column, the second the row; within a half all sines,
    then all cosines, of frequencies from 1 down to 1/10,000.
    """
    rows, columns = np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij")
    frequencies = 10_000.0 ** (-np.arange(width // 4) / (width / 4))
    angles = [place.reshape(-1, 1) * frequencies for place in (columns, rows)]
    halves = [part for angle in angles for part in (np.sin(angle), np.cos(angle))]
    return np.concatenate(halves, axis=1).astype(np.float32)


def interpolate_positions(
    table: jax.Array, old: Grid, new: Grid, *, first: int = 0, antialias: bool = False
) -> jax.Array:
    """Learned positions of one grid of patches for another, bicubic: [first + n, width] → the same.

    The `first` rows (the class token's) are untouched. What lies between is a cubic convolution
    with a = -0.75 and no antialiasing, which is what CLIP, SigLIP and DINOv2 are used with
    elsewhere; with antialiasing the kernel is Keys's, a = -0.5, stretched when the grid shrinks.
    Both as PyTorch's bicubic `interpolate` with `align_corners=False`.
    """
    if old == new:
        return table
    down, across = (
        jnp.asarray(bicubic_weights(before, after, antialias), table.dtype)
        for before, after in zip(old, new, strict=True)
    )
    patches = table[first:].reshape(*old, -1)
    moved = jnp.einsum("yr,rcw,xc->yxw", down, patches, across, precision="highest")
    return jnp.concatenate([table[:first], moved.reshape(-1, table.shape[-1])])


def at_resolution(tree: dict[Any, Any], there: AnyEncoder, here: AnyEncoder) -> dict[Any, Any]:
    """An encoder's weights for images of another size: learned positions are interpolated."""
    if isinstance(there, FusedEncoderConfig) and isinstance(here, FusedEncoderConfig):
        return {
            "first": at_resolution(tree["first"], there.first, here.first),
            "second": at_resolution(tree["second"], there.second, here.second),
        }
    if not isinstance(there, VisionTransformerConfig) or not isinstance(
        here, VisionTransformerConfig
    ):
        return tree
    if there.grid == here.grid or "positions" not in tree:
        return tree
    positions = interpolate_positions(
        jnp.asarray(tree["positions"], jnp.float32),
        (there.grid, there.grid),
        (here.grid, here.grid),
        first=int(there.class_token),
        antialias=here.antialias,
    )
    return {**tree, "positions": positions}


def connector_at_resolution(
    tree: dict[Any, Any], there: AnyEncoder, here: AnyEncoder
) -> dict[Any, Any]:
    """A connector's weights for images of another size, as `at_resolution`.

    Only a C-Abstractor has learned positions: one for each patch.
    """
    if there.grid == here.grid or "positions" not in tree:
        return tree
    table = jnp.asarray(tree["positions"], jnp.float32)
    grids = (there.grid, there.grid), (here.grid, here.grid)
    return {**tree, "positions": interpolate_positions(table, *grids)}


@functools.cache
def bicubic_weights(old: int, new: int, antialias: bool = False) -> np.ndarray:
    """Each new sample as a weighted mean of the old ones: float64 [new, old], rows add up to 1."""
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale - 0.5
    if antialias:
        stretch = max(scale, 1.0)
        distances = (np.arange(old) - centres[:, None]) / stretch
        # Samples beyond the border are left out.
        weights = _cubic(distances, a=-0.5)
        return weights / weights.sum(1, keepdims=True)
    weights = np.zeros((new, old))
    for tap in range(-1, 3):
        place = np.floor(centres).astype(int) + tap
        # Samples beyond the border are those on it.
        np.add.at(
            weights,
            (np.arange(new), np.clip(place, 0, old - 1)),
            _cubic(centres - place, a=-0.75),
        )
    return weights


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """The cubic convolution kernel (Keys, 1981)."""
    x = np.abs(distance)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
