"""TPU chips: memory, peak arithmetic, bandwidths, and the slices they come in. No JAX.

From Google Cloud's public pages "TPU v4", "TPU v5e", "TPU v5p" and "TPU v6e" (system architecture
and configurations); the v4's links from Jouppi et al., 2023, "TPU v4: An Optically Reconfigurable
Supercomputer". Nothing here was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ablations.errors import UserError, nearest
from ablations.resources import SLICES


@dataclass(frozen=True)
class Chip:
    """One kind of chip; bandwidths in bytes per second.

    ici_bandwidth is what a chip can send over all its links together: half of the "bidirectional"
    figure of the pages. slices are those of the pages, smallest first.
    """

    name: str
    hbm_bytes: int
    peak_flops: float  # per second, bfloat16
    hbm_bandwidth: float
    ici_bandwidth: float
    slices: tuple[str, ...]

    @property
    def topologies(self) -> tuple[str, ...]:
        """Its slices as `mm1 aot --topology` names them: v5e:4x4."""
        return tuple(f"{self.name}:{shape}" for shape in self.slices)


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", 16 * 2**30, 197e12, 819e9, 200e9, SLICES["v5e"]),
        Chip("v6e", 32 * 2**30, 918e12, 1638e9, 400e9, SLICES["v6e"]),
        Chip("v5p", 95 * 2**30, 459e12, 2765e9, 600e9, SLICES["v5p"]),
        Chip("v4", 32 * 2**30, 275e12, 1200e9, 300e9, SLICES["v4"]),
    )
}


def chip_of(topology: str) -> tuple[Chip, int]:
    """The chip of a topology, "v5e:16x16", and how many there are.

    Raises UserError where the chip is not known or the shape is none.
    """
    name, _, shape = topology.partition(":")
    if name not in CHIPS:
        raise UserError(f"topology {topology!r}: no chip {name!r}{nearest(name, CHIPS)}")
    chip = CHIPS[name]
    sizes = shape.split("x")
    axes = chip.slices[0].count("x") + 1
    if len(sizes) != axes or not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise UserError(
            f"topology {topology!r}: {name} slices have {axes} sizes{nearest(shape, chip.slices)}"
        )
    return chip, math.prod(map(int, sizes))
