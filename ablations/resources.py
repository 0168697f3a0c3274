"""What a stage needs, and what a worker holds that runs it: cores, accelerators, memory, processes.

    Resources(devices=8)                           a mesh of eight devices, whatever they are
    Resources(cpu=4, gpu=1)                        a GPU of its own
    Resources(gpu=0.25)                            four of these on one GPU
    Resources(tpu=Slice.of("v5e-16"))              a slice of 16 chips

A study, or a recipe's mesh, says what a stage needs (`Resources`); together with the machine that
it runs on this comes to what a worker holds (`Shape`). None of it decides a result, so it is no
part of a stage's identity: the same stage on another machine is the same stage.
"""

from __future__ import annotations

import math
import re

from pydantic import Field, model_validator

from ablations.errors import UserError, nearest, shown
from ablations.schema import Config

# Slices of each TPU version as Google Cloud's pages have them, smallest first.
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")
SLICES = {"v5e": _FLAT, "v6e": _FLAT, "v5p": _CUBES, "v4": _CUBES}
# What stands after the dash of v5p-256 counts cores, of which these have two a chip; v5e-16 chips.
CORES_A_CHIP = {"v4": 2, "v5p": 2}
# Other names of the same: Google Cloud's API, its commands.
_VERSIONS = {"v5litepod": "v5e", "v5lite": "v5e"}
_SLICE = re.compile(r"(?P<version>v\w+?)(?:-(?P<count>\d+)|:(?P<topology>\d+(?:x\d+)+))")


class Slice(Config):
    """TPU chips of one version, joined to one shape."""

    version: str  # v5e
    topology: str  # 4x4

    @classmethod
    def of(cls, text: str) -> Slice:
        """The slice of `v5e-16`, as clouds call it, or of `v5e:4x4`. Raises `UserError`."""
        found = _SLICE.fullmatch(text)
        if found is None:
            raise UserError(f"{shown(text)} is no TPU slice such as v5e-16 or v5e:4x4")
        version = _VERSIONS.get(found["version"], found["version"])
        if version not in SLICES:
            raise UserError(f"{shown(text)}: no TPU version {version!r}{nearest(version, SLICES)}")
        if found["topology"]:
            axes = SLICES[version][0].count("x")
            if found["topology"].count("x") != axes:
                raise UserError(f"{shown(text)}: {version} slices have {axes + 1} sizes")
            return cls(version=version, topology=found["topology"])
        sizes = {
            chips_of(topology) * CORES_A_CHIP.get(version, 1): topology
            for topology in SLICES[version]
        }
        count = int(found["count"])
        if count not in sizes:
            near = min(sizes, key=lambda size: abs(size - count))
            raise UserError(f"{shown(text)} is no slice; nearest: {version}-{near}")
        return cls(version=version, topology=sizes[count])

    @property
    def chips(self) -> int:
        """How many there are, on all hosts together."""
        return chips_of(self.topology)

    @property
    def chips_per_host(self) -> int:
        """As Google Cloud has them: slices of one host have up to 8 chips, larger ones 4 a host."""
        return self.chips if self.chips <= (8 if self.version in ("v5e", "v6e") else 4) else 4

    def __str__(self) -> str:
        return f"{self.version}:{self.topology}"


def chips_of(topology: str) -> int:
    """How many chips a shape `4x4` has."""
    return math.prod(map(int, topology.split("x")))


class Resources(Config):
    """What a stage needs while it runs; None where nothing is said, which a machine may fill.

    All but `devices` and `tpu` is of each of its processes.
    """

    cpu: float | None = Field(None, gt=0)  # cores, and threads of its pools
    gpu: float | None = Field(None, ge=0)  # whole ones, or a share of one; 0: it wants none
    memory_bytes: int = Field(0, ge=0)  # of the machine, not of its accelerators; 0: not said
    hosts: int = Field(1, ge=1)  # processes that run it together, each on its own node
    devices: int = Field(1, ge=1)  # its mesh's, on all hosts together; 1: as many as it holds
    tpu: Slice | None = None  # that all hosts hold together

    @model_validator(mode="after")
    def _possible(self) -> Resources:
        gpu = self.gpu or 0.0
        if gpu > 1 and gpu != int(gpu):
            raise ValueError(f"gpu {gpu:g}: whole ones, or a share of one")
        if gpu and self.tpu:
            raise ValueError("gpu and tpu: a process has one kind of device")
        if self.tpu is not None and self.tpu.chips % self.hosts:
            raise ValueError(f"{self.hosts} hosts cannot share {self.tpu.chips} chips evenly")
        if self.devices > 1 and self.devices % self.hosts:
            raise ValueError(f"{self.hosts} hosts cannot share {self.devices} devices evenly")
        has = self.tpu.chips if self.tpu else self.hosts * math.ceil(gpu)
        if has and self.devices not in (1, has):
            raise ValueError(f"{self.devices} devices are not the {has} that it holds")
        return self


class Shape(Config):
    """What a worker holds, so that it runs the stages that need that much and no others.

    `hosts` processes, each on its own node, run each stage together; all but `tpu` is of each.
    """

    cpu: float = Field(1.0, gt=0)
    gpu: float = Field(0.0, ge=0)
    memory_bytes: int = Field(0, ge=0)
    hosts: int = Field(1, ge=1)
    simulated_devices: int = Field(1, ge=1)  # that JAX makes of a process's cores
    tpu: Slice | None = None

    @property
    def devices(self) -> int:
        """That a program sees on all hosts together; a share of one is one."""
        if self.tpu is not None:
            return self.tpu.chips
        return self.hosts * max(1, math.ceil(self.gpu), self.simulated_devices)

    def covers(self, need: Shape) -> bool:
        """Whether a worker that holds this may run a stage that needs that, with what it needs.

        A program that spans several devices wants exactly these, and one that wants no accelerator
        is not to keep one from others.
        """
        return (
            self.cpu >= need.cpu
            and self.gpu >= need.gpu
            and bool(self.gpu) == bool(need.gpu)
            and self.memory_bytes >= need.memory_bytes
            and self.hosts == need.hosts
            and need.devices in (1, self.devices)
            and bool(self.tpu) == bool(need.tpu)
            and (self.tpu is None or need.tpu is None or self.tpu.version == need.tpu.version)
        )

    def __str__(self) -> str:
        """In words: `2 hosts with 8 GPUs and 12 cores each`."""
        parts = [f"{self.gpu:g} {'GPU' if self.gpu <= 1 else 'GPUs'}"] if self.gpu else []
        parts += [f"{self.simulated_devices} simulated devices"] * (self.simulated_devices > 1)
        parts += [f"{self.cpu:g} {'core' if self.cpu == 1 else 'cores'}"]
        parts += [in_bytes(self.memory_bytes)] if self.memory_bytes else []
        said = ", ".join(parts)
        if self.hosts > 1:
            said = f"{self.hosts} hosts with {said} each"
        return f"TPU slice {self.tpu} ({said})" if self.tpu is not None else said


def in_bytes(size: float) -> str:
    """`16 GB`, to three digits."""
    for unit, bytes_ in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= bytes_:
            return f"{size / bytes_:.3g} {unit}"
    return f"{size:.0f} B"
